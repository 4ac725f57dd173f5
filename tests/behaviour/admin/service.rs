//! The admin service tells what is, and what happens, and changes what it is asked to.

use crate::common::{
    PATIENCE,
    client::{Member, Transport, Windows},
    metrics::Scrape,
    server::Server,
    until, within,
};
use chatroom::wire::admin::{
    AnnounceRequest, Api, Connection, ConnectionFilter, ConnectionOrder, GetConnectionRequest,
    GetServerInfoRequest, KickConnectionsRequest, ListConnectionsRequest, ListRoomsRequest,
    SetLogFilterRequest, SetLogFilterResponse, WatchConnectionsRequest, WatchConnectionsResponse,
    admin_service_client::AdminServiceClient, watch_connections_response::Event,
};
use std::collections::HashMap;
use tonic::{Code, Streaming, transport::Channel};

type Admin = AdminServiceClient<Channel>;

async fn admin(server: &Server) -> Admin {
    AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await.unwrap()
}

async fn list(admin: &mut Admin, filter: ConnectionFilter, order: ConnectionOrder) -> Vec<Connection> {
    let order = order.into();
    let request = ListConnectionsRequest { filter: Some(filter), order, ..Default::default() };
    let page = admin.list_connections(request).await.unwrap().into_inner();
    assert_eq!(page.total_size, page.connections.len() as u64);
    page.connections
}

fn names(connections: &[Connection]) -> Vec<&str> {
    connections.iter().map(|connection| connection.name.as_str()).collect()
}

fn any() -> ConnectionFilter {
    ConnectionFilter::default()
}

fn in_room(room: &str) -> ConnectionFilter {
    ConnectionFilter { room: room.to_owned(), ..any() }
}

/// One who gives no window, and so lags as soon as the server's own buffer for it is full.
async fn joins_deaf(server: &Server, room: &str, name: &str) -> Member {
    let windows = Windows { stream: 0, ..Windows::DEFAULT };
    Transport::connect_with(server.addr, windows).await.join(room, name).await
}

/// Far more than a stream's send buffer on the server holds.
async fn publishes_a_megabyte(member: &mut Member) {
    let text = "x".repeat(10_000);
    for _ in 0..100 {
        member.publish(&text).await;
        member.receives(&text).await;
    }
}

#[tokio::test]
async fn get_connection_shows_identity_and_counts() {
    let server = Server::start(&[]);
    let mut admin = admin(&server).await;
    let mut ann = server.join_as("blue", "ann").await;
    let mut bob = server.join_as("blue", "bob").await;
    for text in ["one", "two", "three"] {
        ann.publish(text).await;
        ann.receives(text).await;
        bob.receives(text).await;
    }
    let id = server.id_of("ann").await;
    let got = admin.get_connection(GetConnectionRequest { id: id.clone() }).await;
    let shown = got.unwrap().into_inner().connection.unwrap();
    assert_eq!((&*shown.id, &*shown.room, &*shown.name, shown.api()), (&*id, "blue", "ann", Api::Hello));
    assert!(shown.peer.starts_with("127.0.0.1:") && shown.transport_id > 0 && shown.ending.is_empty());
    assert_eq!((shown.messages_in, shown.messages_out), (3, 3));
    assert!(shown.bytes_in > 11 && shown.bytes_in == shown.bytes_out, "{shown:?}");
    assert_eq!((shown.lag_messages, shown.lag_bytes), (0, 0));
    let offset = shown.position.split_once(':').unwrap().1;
    assert_eq!(offset, "3", "{shown:?}");
    let (since, active) = (shown.since.unwrap(), shown.last_activity.unwrap());
    assert!((active.seconds, active.nanos) >= (since.seconds, since.nanos), "{since:?} {active:?}");
    let listed = list(&mut admin, any(), ConnectionOrder::Age).await;
    let bob = listed.iter().find(|connection| connection.name == "bob").unwrap();
    assert_eq!((bob.messages_in, bob.messages_out), (0, 3));
    assert_ne!((&bob.id, bob.transport_id), (&shown.id, shown.transport_id));
}

#[tokio::test]
async fn member_is_listed_right_after_join() {
    let server = Server::start(&[]);
    let mut admin = admin(&server).await;
    let transport = Transport::connect(server.addr).await;
    let mut members = Vec::new();
    for n in 0..200 {
        let name = format!("comer {n}");
        members.push(transport.join("blue", &name).await);
        let filter = ConnectionFilter { name: name.clone(), ..any() };
        assert_eq!(names(&list(&mut admin, filter, ConnectionOrder::Age).await), [name]);
    }
}

#[tokio::test]
async fn list_filters_and_orders() {
    let server = Server::start(&["--lag-limit-bytes", "8MiB"]);
    let mut admin = admin(&server).await;
    let mut ann = server.join_as("blue", "ann").await;
    let _deaf = joins_deaf(&server, "blue", "deaf").await;
    let shared = Transport::connect(server.addr).await;
    let _cleo = shared.join("red", "cleo").await;
    let _dora = shared.join("red", "dora").await;
    publishes_a_megabyte(&mut ann).await;

    let by_age = list(&mut admin, any(), ConnectionOrder::Unspecified).await;
    assert_eq!(names(&by_age), ["ann", "deaf", "cleo", "dora"]);
    assert_eq!(by_age[2].transport_id, by_age[3].transport_id);
    let by_lag = list(&mut admin, any(), ConnectionOrder::Lag).await;
    assert_eq!(by_lag[0].name, "deaf");
    assert!(by_lag[0].lag_messages > 10 && by_lag[0].lag_bytes > 100_000, "{:?}", by_lag[0]);
    let waited = by_lag[0].lag_time.unwrap();
    assert!((waited.seconds, waited.nanos) > (0, 0) && by_lag[1].lag_messages == 0);
    let by_bytes = list(&mut admin, any(), ConnectionOrder::Bytes).await;
    assert_eq!(names(&by_bytes), ["ann", "deaf", "cleo", "dora"]);
    assert!(by_bytes[0].bytes_out > by_bytes[1].bytes_out, "{by_bytes:?}");

    let of_peer = |peer: &str| ConnectionFilter { peer: peer.to_owned(), ..any() };
    let of_name = |name: &str| ConnectionFilter { name: name.to_owned(), ..any() };
    let lagging = |min_lag_messages| ConnectionFilter { min_lag_messages, ..any() };
    let hello = ConnectionFilter { api: Api::Hello.into(), ..in_room("red") };
    for (filter, expected) in [
        (in_room("blue"), vec!["ann", "deaf"]),
        (in_room("green"), vec![]),
        (of_peer(&by_age[0].peer), vec!["ann"]),
        (of_peer(&by_age[2].peer), vec!["cleo", "dora"]),
        (of_peer("127.0.0.1"), vec!["ann", "deaf", "cleo", "dora"]),
        (of_peer("127.0.0.2"), vec![]),
        (of_name("cleo"), vec!["cleo"]),
        (of_name("cle"), vec![]),
        (lagging(1), vec!["deaf"]),
        (lagging(1_000_000), vec![]),
        (hello, vec!["cleo", "dora"]),
        (ConnectionFilter { room: "red".to_owned(), ..of_name("ann") }, vec![]),
    ] {
        let words = format!("{filter:?}");
        let found = list(&mut admin, filter, ConnectionOrder::Age).await;
        assert_eq!(names(&found), expected, "{words}");
    }
}

#[tokio::test]
async fn rooms_are_paged_by_name_and_counted() {
    let server = Server::start(&["--room-idle", "1s"]);
    let mut admin = admin(&server).await;
    let transport = Transport::connect(server.addr).await;
    let mut members = Vec::new();
    for n in (0..25).rev() {
        for _ in 0..=n % 3 {
            members.push(transport.join(&format!("room-{n:02}"), "someone").await);
        }
    }
    members[0].publish("hi").await;
    members[0].receives("hi").await;
    let (mut rooms, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page =
            admin.list_rooms(ListRoomsRequest { page_size: 10, page_token }).await.unwrap().into_inner();
        assert_eq!(page.total_size, 25);
        rooms.extend(page.rooms);
        page_token = page.next_page_token;
        pages += 1;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, 3);
    let shown: Vec<_> = rooms.iter().map(|room| (room.name.clone(), room.members)).collect();
    let expected: Vec<_> = (0..25).map(|n| (format!("room-{n:02}"), n % 3 + 1)).collect();
    assert_eq!(shown, expected);
    let spoken = &rooms[24];
    assert_eq!((spoken.messages, spoken.retained_messages), (1, 1));
    assert!(spoken.bytes > 0 && spoken.last_position.ends_with(":1") && spoken.since.is_some(), "{spoken:?}");
    drop(members);
    until("the end of the idle rooms", async || {
        admin.list_rooms(ListRoomsRequest::default()).await.unwrap().into_inner().total_size == 0
    })
    .await;
}

async fn watched(events: &mut Streaming<WatchConnectionsResponse>) -> Event {
    let event = within(PATIENCE, "an event", events.message()).await;
    let told = event.unwrap().unwrap();
    assert!(told.time.is_some());
    told.event.unwrap()
}

#[tokio::test]
async fn watch_reports_join_lag_kick_and_leave() {
    let server = Server::start(&["--lag-limit-bytes", "1MiB"]);
    let mut admin = admin(&server).await;
    let watch = WatchConnectionsRequest { room: "blue".to_owned() };
    let mut events = admin.watch_connections(watch).await.unwrap().into_inner();
    let name = |connection: Option<Connection>| connection.unwrap().name;

    let mut ann = server.join_as("blue", "ann").await;
    let Event::Joined(joined) = watched(&mut events).await else { panic!("no one joined") };
    assert_eq!(name(joined.connection), "ann");
    let _other_room = server.join_as("red", "unseen").await;
    let _deaf = joins_deaf(&server, "blue", "deaf").await;
    let Event::Joined(joined) = watched(&mut events).await else { panic!("no one joined") };
    assert_eq!(name(joined.connection), "deaf");

    publishes_a_megabyte(&mut ann).await;
    let Event::Lagging(lagging) = watched(&mut events).await else { panic!("no one lags") };
    assert_eq!(name(lagging.connection), "deaf");
    let kick = KickConnectionsRequest {
        filter: Some(ConnectionFilter { name: "deaf".to_owned(), ..any() }),
        reason: "too deaf".to_owned(),
        ..Default::default()
    };
    admin.kick_connections(kick).await.unwrap();
    let Event::Kicked(kicked) = watched(&mut events).await else { panic!("no one was kicked") };
    assert_eq!((&*kicked.reason, &*name(kicked.connection)), ("too deaf", "deaf"));
    let Event::Left(left) = watched(&mut events).await else { panic!("no one left") };
    assert_eq!((&*left.reason, &*name(left.connection)), ("kicked", "deaf"));
    ann.half_close();
    ann.ends_with(Code::Ok).await;
    let Event::Left(left) = watched(&mut events).await else { panic!("no one left") };
    assert_eq!((&*left.reason, &*name(left.connection)), ("left", "ann"));
}

#[tokio::test]
async fn slow_watcher_gets_count_of_missed_events() {
    const COMERS: u64 = 20_000;
    let server = Server::start_quiet(&[]);
    let mut admin = admin(&server).await;
    let request = WatchConnectionsRequest { room: "blue".to_owned() };
    let mut events = admin.watch_connections(request).await.unwrap().into_inner();
    for _ in 0..COMERS / 100 {
        // A transport may have some hundred resets at once.
        let transport = Transport::connect(server.addr).await;
        let comers = (0..100).map(|_| transport.join("blue", "comer"));
        futures_util::future::join_all(comers).await.into_iter().for_each(Member::reset);
    }
    let nobody = async || Scrape::of(server.metrics_addr).await.sum("chatroom_connections") == 0.0;
    until("the leave of all", nobody).await;
    let mut last = server.join_as("blue", "last").await;
    last.half_close();
    let (mut told, mut missed) = (0, 0);
    loop {
        match watched(&mut events).await {
            Event::Missed(event) => missed += event.count,
            Event::Left(left) if left.connection.as_ref().unwrap().name == "last" => break,
            _ => told += 1,
        }
    }
    println!("told of {told} events, missed {missed}");
    // Each came and went; of the last one only the end is not counted.
    assert!(missed > 0 && told + missed == 2 * COMERS + 1, "{told} and {missed}");
}

#[tokio::test]
async fn announcement_reaches_its_room_only() {
    let server = Server::start(&[]);
    let mut admin = admin(&server).await;
    let (mut ann, mut bob) = (server.join_as("blue", "ann").await, server.join_as("red", "bob").await);
    let announcement =
        |room: &str, text: &str| AnnounceRequest { room: room.to_owned(), text: text.to_owned() };
    assert_eq!(admin.announce(announcement("blue", "to blue")).await.unwrap().into_inner().rooms, 1);
    assert_eq!(admin.announce(announcement("", "to all")).await.unwrap().into_inner().rooms, 2);
    let unknown = admin.announce(announcement("green", "to nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    ann.receives("to blue").await;
    ann.receives("to all").await;
    bob.receives("to all").await;
    // It takes a place in the order like any message.
    ann.publish("thanks").await;
    ann.receives("thanks").await;
    for (whom, result) in [("blue", "announced in 1"), ("all rooms", "announced in 2"), ("green", "NotFound")]
    {
        let fits = |line: &serde_json::Value| line["action"] == "announce" && line["whom"] == whom;
        let line = server.logs("audit", fits).await;
        assert!(line["result"].as_str().unwrap().starts_with(result), "{line}");
        assert!(line["who"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
}

#[tokio::test]
async fn server_info_has_limits_listeners_and_counts() {
    let server = Server::start(&["--max-rooms", "77"]);
    let mut admin = admin(&server).await;
    let mut ann = server.join_as("blue", "ann").await;
    let _bob = server.join_as("blue", "bob").await;
    ann.publish("hi").await;
    ann.receives("hi").await;
    server.join_as("red", "gone").await.reset();
    server.departure_of("gone").await;
    let info = admin.get_server_info(GetServerInfoRequest {}).await.unwrap().into_inner();
    let listeners: HashMap<_, _> = info.listeners.into_iter().map(|l| (l.name, l.address)).collect();
    for (name, addr) in
        [("chat", server.addr), ("admin", server.admin_addr), ("metrics", server.metrics_addr)]
    {
        assert_eq!(listeners[name], addr.to_string());
    }
    assert_eq!((&*info.limits["max-rooms"], &*info.limits["max-message-bytes"]), ("77", "65536"));
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert!(info.started.is_some() && info.uptime.is_some() && info.workers == 2);
    assert_eq!((info.connections, info.rooms, info.connections_opened), (2, 2, 3));
    assert_eq!((info.connections_closed["cancelled"], info.connections_closed["kicked"]), (1, 0));
    assert_eq!(info.messages_published, 1);
    assert!(info.bytes_published > 0 && info.messages_delivered >= 1 && info.transports >= 2);
}

async fn set_log_filter(admin: &mut Admin, filter: &str, seconds: Option<i64>) -> SetLogFilterResponse {
    let expiry = seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let request = SetLogFilterRequest { filter: filter.to_owned(), expiry };
    admin.set_log_filter(request).await.unwrap().into_inner()
}

/// Comes and goes on a transport of its own: the end of that is a line at debug level.
async fn comes_and_goes(server: &Server, name: &str) {
    let mut member = server.join_as("blue", name).await;
    member.half_close();
    member.ends_with(Code::Ok).await;
    drop(member);
    assert_eq!(server.departure_of(name).await, "left");
}

async fn transports_are_gone(admin: &mut Admin) {
    until("the end of all transports", async || {
        admin.get_server_info(GetServerInfoRequest {}).await.unwrap().into_inner().transports == 0
    })
    .await;
}

fn debug_lines(server: &Server) -> usize {
    server.log().iter().filter(|line| line.contains("\"level\":\"DEBUG\"")).count()
}

#[tokio::test]
async fn log_filter_applies_until_expiry_or_reset() {
    let server = Server::start(&[]);
    let mut admin = admin(&server).await;
    comes_and_goes(&server, "before").await;
    transports_are_gone(&mut admin).await;
    assert_eq!(debug_lines(&server), 0);

    let set = set_log_filter(&mut admin, "info,chatroom=debug", None).await;
    assert_eq!((&*set.previous_filter, &*set.filter, set.expires), ("info", "info,chatroom=debug", None));
    comes_and_goes(&server, "during").await;
    server.logs("transport closed", |line| line["level"] == "DEBUG").await;
    transports_are_gone(&mut admin).await;
    let reset = set_log_filter(&mut admin, "", None).await;
    assert_eq!((&*reset.previous_filter, &*reset.filter), ("info,chatroom=debug", "info"));

    let lines = debug_lines(&server);
    comes_and_goes(&server, "after the reset").await;
    transports_are_gone(&mut admin).await;
    assert_eq!(debug_lines(&server), lines);

    let set = set_log_filter(&mut admin, "debug", Some(1)).await;
    assert!(set.expires.is_some());
    server.logs("log filter expired", |_| true).await;
    let lines = debug_lines(&server);
    comes_and_goes(&server, "after the expiry").await;
    transports_are_gone(&mut admin).await;
    assert_eq!(debug_lines(&server), lines);
    assert_eq!(set_log_filter(&mut admin, "warn", None).await.previous_filter, "info");
    let line = server.logs("audit", |line| line["action"] == "set log filter").await;
    assert!(line["who"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert_eq!(line["whom"], "info,chatroom=debug");
    assert_eq!(line["result"], "in force: info,chatroom=debug");
}
