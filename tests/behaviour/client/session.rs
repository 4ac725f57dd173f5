//! The client library against the real server, over bad networks, restarts and drains.

use crate::common::{
    PATIENCE,
    proxy::{Plan, Proxy},
    server::Server,
    within,
};
use chatroom::client::{
    BackoffPolicy, Body, Client, Disconnected, Error, Event, Gap, HistoryItem, Incoming, Join, Options,
    Position, Publisher, Reason, Receiver, Start,
};
use std::time::{Duration, Instant};

/// Long enough for a thousand reconnects on a busy machine.
const LONG: Duration = Duration::from_secs(300);

/// Options that reconnect without a delay.
fn hasty() -> Options {
    let backoff =
        BackoffPolicy { first: Duration::from_millis(1), max: Duration::from_millis(1), give_up_after: None };
    Options { backoff, ..Options::default() }
}

async fn connect(addr: std::net::SocketAddr) -> Client {
    Client::connect(&addr.to_string()).await.unwrap()
}

/// Joins although the network is bad.
async fn join_at_last(proxy: &Proxy, join: &Join) -> (Publisher, Receiver) {
    let joining = async {
        loop {
            let Ok(client) = Client::connect_with(&proxy.addr.to_string(), hasty()).await else { continue };
            match client.join(join.clone()).await {
                Ok(session) => return session.split(),
                Err(Error::Lost(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    within(PATIENCE, "a first call", joining).await
}

/// Where the random numbers begin: another one for each run, unless it is to be run again.
fn seed() -> u64 {
    let given = std::env::var("CHATROOM_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(rand::random);
    println!("CHATROOM_TEST_SEED={seed}");
    seed
}

/// Says texts one after the other, as fast as they are taken; returns their positions.
async fn publishes(publisher: &Publisher, texts: impl IntoIterator<Item = String>) -> Vec<Position> {
    let mut receipts = Vec::new();
    for text in texts {
        receipts.push(publisher.submit("chat", text).await.unwrap());
    }
    let mut positions = Vec::new();
    for receipt in receipts {
        positions.push(receipt.await.unwrap().position);
    }
    positions
}

/// Fills a room; somebody who stays keeps it.
async fn fill(client: &Client, room: &str, texts: Vec<String>) -> (Publisher, Vec<Position>) {
    let (publisher, receiver) = client.join(Join::room(room)).await.unwrap().split();
    drop(receiver);
    let positions = within(LONG, "a full room", publishes(&publisher, texts)).await;
    (publisher, positions)
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("message {n}")).collect()
}

/// The next that is not about the call.
async fn receives(receiver: &mut Receiver) -> Incoming {
    loop {
        match within(PATIENCE, "something to hear", receiver.receive()).await.unwrap() {
            Some(Incoming::Disconnected(_) | Incoming::Reconnected(_) | Incoming::Goodbye(_)) => {}
            Some(other) => return other,
            None => panic!("the session has ended"),
        }
    }
}

async fn receives_event(receiver: &mut Receiver) -> Event {
    match receives(receiver).await {
        Incoming::Event(event) => event,
        other => panic!("{other:?} instead of an event"),
    }
}

async fn receives_gap(receiver: &mut Receiver) -> Gap {
    match receives(receiver).await {
        Incoming::Gap(gap) => gap,
        other => panic!("{other:?} instead of a gap"),
    }
}

/// The next loss of the call.
async fn is_cut(receiver: &mut Receiver) -> Disconnected {
    loop {
        match within(PATIENCE, "a loss", receiver.receive()).await.unwrap() {
            Some(Incoming::Disconnected(told)) => return told,
            Some(_) => {}
            None => panic!("the session has ended"),
        }
    }
}

#[tokio::test]
async fn acked_position_is_delivered_position() {
    let server = Server::start(&[]);
    let client = connect(server.addr).await;
    let join = Join { display_name: "ann".into(), ..Join::room("blue") };
    let (ann, mut ears) = client.join(join).await.unwrap().split();
    let bodies = [
        Body::from("hi"),
        Body::from(vec![0, 255]),
        Body::Any(prost_types::Any { type_url: "t/m".into(), value: vec![8, 1] }),
    ];
    for body in bodies {
        let ack = within(PATIENCE, "an ack", ann.publish("move", body.clone())).await.unwrap();
        let event = receives_event(&mut ears).await;
        assert_eq!((event.position, event.body), (ack.position.clone(), Some(body)));
        assert_eq!((event.kind.as_str(), ack.repeated), ("move", false));
        let sender = event.sender.unwrap();
        assert_eq!(sender.display_name, "ann");
        assert_eq!(sender.connection_id, ears.welcome().connection_id);
    }
    let ack = client.publish("blue", "bob", "", "from outside").await.unwrap();
    let event = receives_event(&mut ears).await;
    assert_eq!((&event.position, event.text()), (&ack.position, Some("from outside")));
    assert_eq!(event.kind, "chat");

    let last_two = client.list_events("blue", &Start::Last(2), &[]).all().await.unwrap();
    assert!(
        matches!(&last_two[..], [HistoryItem::Event(_), HistoryItem::Event(last)] if *last == event),
        "{last_two:?}"
    );
    let members = client.list_members("blue").all().await.unwrap();
    assert!(members.len() == 1 && members[0].display_name == "ann", "{members:?}");
    let rooms = client.list_rooms().all().await.unwrap();
    assert!(rooms.iter().any(|room| room.name == "blue" && room.last_position == ack.position), "{rooms:?}");

    drop(ann);
    let end = within(PATIENCE, "the end", async {
        while let Some(incoming) = ears.receive().await.unwrap() {
            assert!(matches!(&incoming, Incoming::Goodbye(bye) if bye.reason == "left"), "{incoming:?}");
        }
    });
    end.await;
}

#[tokio::test]
async fn replay_over_cuts_is_exact() {
    const MESSAGES: usize = 20_000;
    const CUTS: usize = 1000;
    let server = Server::start_quiet(&["--retention-bytes", "256MiB"]);
    let text = |n: usize| format!("{n} {}", "x".repeat(1000));
    let texts = (0..MESSAGES).map(text).collect();
    let (_keeper, positions) = fill(&connect(server.addr).await, "r", texts).await;
    let proxy = Proxy::start(server.addr, Plan::new(seed(), CUTS, 6..18)).await;
    let (_publisher, mut receiver) =
        join_at_last(&proxy, &Join { start: Start::Earliest, ..Join::room("r") }).await;
    let (mut got, mut heard_before_the_cut, mut cuts_between) = (0, 0, 0);
    let replay = async {
        while got < MESSAGES {
            match receiver.receive().await.unwrap().unwrap() {
                Incoming::Event(event) => {
                    assert_eq!((event.text(), &event.position), (Some(&*text(got)), &positions[got]));
                    got += 1;
                }
                Incoming::Disconnected(_) => {
                    cuts_between += usize::from(got > heard_before_the_cut);
                    heard_before_the_cut = got;
                }
                Incoming::Reconnected(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    within(LONG, "the whole replay", replay).await;
    assert_eq!(proxy.cuts(), CUTS, "the replay was over before the cuts");
    assert!(cuts_between > CUTS / 10, "only {cuts_between} cuts between two messages");
}

#[tokio::test]
async fn publish_over_cuts_is_exactly_once() {
    const MESSAGES: usize = 4000;
    const CUTS: usize = 100;
    let server = Server::start_quiet(&[]);
    let mut witness = connect(server.addr).await.subscribe(Join::room("r")).await.unwrap();
    let proxy = Proxy::start(server.addr, Plan::new(seed(), CUTS, 6..16).both_ways()).await;
    let (publisher, mut receiver) = join_at_last(&proxy, &Join::room("r")).await;
    // The publisher goes when it has said all, and the session ends when it has heard itself.
    let publication = tokio::spawn(async move { publishes(&publisher, texts(MESSAGES)).await });
    let hearing = tokio::spawn(async move {
        let mut got = Vec::new();
        while let Some(incoming) = receiver.receive().await.unwrap() {
            match incoming {
                Incoming::Event(event) => got.push(event),
                Incoming::Gap(gap) => panic!("{gap:?}"),
                _ => {}
            }
        }
        got
    });
    let positions = within(LONG, "all acknowledgements", publication).await.unwrap();
    let got = within(LONG, "the end of the session", hearing).await.unwrap();
    let mut witnessed = Vec::new();
    while witnessed.len() < MESSAGES {
        witnessed.push(receives_event(&mut witness).await);
    }
    assert!(proxy.cuts() > CUTS / 2, "only {} cuts", proxy.cuts());
    for (n, event) in witnessed.iter().enumerate() {
        assert_eq!((event.text(), &event.position), (Some(format!("message {n}").as_str()), &positions[n]));
    }
    assert!(got == witnessed, "the speaker heard {} messages, or others", got.len());
    assert_eq!(positions.last().unwrap().offset, MESSAGES as u64, "something was said twice");
}

#[tokio::test]
async fn outage_beyond_retention_is_exact_gap() {
    let server = Server::start(&["--retention-messages", "100"]);
    let direct = connect(server.addr).await;
    let (keeper, _) = fill(&direct, "r", vec![]).await;
    let proxy = Proxy::start(server.addr, Plan::quiet()).await;
    let (_publisher, mut receiver) = join_at_last(&proxy, &Join::room("r")).await;
    publishes(&keeper, texts(10)).await;
    for _ in 0..10 {
        receives_event(&mut receiver).await;
    }
    proxy.closes();
    proxy.cuts_all();
    is_cut(&mut receiver).await;
    publishes(&keeper, texts(3000)).await;
    proxy.leads_to(server.addr);
    let gap = receives_gap(&mut receiver).await;
    assert_eq!((gap.reason, gap.from.offset), (Reason::Retention, 11));
    assert_eq!(gap.count, gap.to.offset - 10);
    for offset in gap.to.offset + 1..=3010 {
        assert_eq!(receives_event(&mut receiver).await.position.offset, offset);
    }
}

#[tokio::test]
async fn strict_session_ends_instead_of_gap() {
    let server = Server::start(&["--retention-messages", "100"]);
    let direct = connect(server.addr).await;
    let (keeper, _) = fill(&direct, "r", texts(1)).await;
    let proxy = Proxy::start(server.addr, Plan::quiet()).await;
    let join = Join { start: Start::Earliest, strict: true, ..Join::room("r") };
    let (publisher, mut receiver) = join_at_last(&proxy, &join).await;
    receives_event(&mut receiver).await;
    proxy.closes();
    proxy.cuts_all();
    is_cut(&mut receiver).await;
    publishes(&keeper, texts(3000)).await;
    proxy.leads_to(server.addr);
    let ends = async {
        loop {
            match receiver.receive().await {
                Ok(Some(Incoming::Disconnected(_))) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => return error,
            }
        }
    };
    let error = within(PATIENCE, "the end", ends).await;
    assert_eq!(error.status().map(tonic::Status::code), Some(tonic::Code::OutOfRange), "{error}");
    assert!(matches!(publisher.publish("chat", "hi").await, Err(Error::Refused(_))));
}

#[tokio::test]
async fn server_restart_is_epoch_gap() {
    let first = Server::start(&[]);
    let (_keeper, _) = fill(&connect(first.addr).await, "r", texts(5)).await;
    let proxy = Proxy::start(first.addr, Plan::quiet()).await;
    let join = Join { start: Start::Earliest, ..Join::room("r") };
    let (publisher, mut receiver) = join_at_last(&proxy, &join).await;
    for _ in 0..5 {
        receives_event(&mut receiver).await;
    }
    let old = receiver.welcome().position.epoch.clone();
    // SIGKILL: nobody says goodbye.
    proxy.closes();
    drop(first);
    let second = Server::start(&[]);
    let (_keeper, positions) = fill(&connect(second.addr).await, "r", texts(3)).await;
    proxy.leads_to(second.addr);
    let gap = receives_gap(&mut receiver).await;
    assert_eq!((gap.reason, gap.count, gap.to.offset), (Reason::Epoch, 0, 0), "{gap:?}");
    assert!(gap.to.epoch != old && gap.to.epoch == positions[0].epoch);
    for position in positions {
        assert_eq!(receives_event(&mut receiver).await.position, position);
    }
    let ack = within(PATIENCE, "an ack", publisher.publish("chat", "and on")).await.unwrap();
    assert_eq!(receives_event(&mut receiver).await.position, ack.position);
}

/// A listener that takes nothing while 6 MB are said, and how many messages that are.
async fn sleeps(server: &Server) -> (Receiver, u64) {
    const MESSAGES: usize = 6_000;
    let options = Options { events_ahead: 16, ..hasty() };
    let client = Client::connect_with(&server.addr.to_string(), options).await.unwrap();
    let join = Join { display_name: "sleeper".into(), ..Join::room("r") };
    let receiver = client.subscribe(join).await.unwrap();
    let texts = (0..MESSAGES).map(|n| format!("{n} {}", "x".repeat(1000))).collect();
    fill(&connect(server.addr).await, "r", texts).await;
    (receiver, MESSAGES as u64)
}

/// Waits until the server has ended the sleeper's connection.
async fn is_ended(server: &Server) {
    let departure = server.departure_of("sleeper");
    assert_eq!(within(PATIENCE, "an end", departure).await, "slow_consumer");
}

/// Hears everything up to this offset; returns why the call was lost meanwhile, with how long it took to come back.
async fn receives_all(receiver: &mut Receiver, last: u64) -> Vec<(Disconnected, Duration)> {
    let (mut got, mut losses, mut away) = (0, Vec::new(), Vec::new());
    while got < last {
        match within(PATIENCE, "something", receiver.receive()).await.unwrap().unwrap() {
            Incoming::Event(event) => {
                got += 1;
                assert_eq!(event.position.offset, got);
            }
            Incoming::Disconnected(told) => away.push((told, Instant::now())),
            Incoming::Reconnected(_) => {
                losses.extend(away.drain(..).map(|(told, since)| (told, since.elapsed())));
            }
            Incoming::Goodbye(bye) => assert_eq!(bye.reason, "slow_consumer"),
            other => panic!("{other:?}"),
        }
    }
    losses
}

#[tokio::test]
async fn slow_consumer_reconnects_without_loss() {
    let server = Server::start(&["--retention-bytes", "64MiB"]);
    let (mut receiver, messages) = sleeps(&server).await;
    is_ended(&server).await;
    let losses = receives_all(&mut receiver, messages).await;
    let (told, away) = &losses[0];
    assert_eq!(told.why.code(), tonic::Code::ResourceExhausted, "{told:?}");
    assert!(told.retry_in >= Duration::from_secs(1), "{told:?}");
    // It is heard of a moment after the wait began, since the caller takes what is before it first.
    assert!(*away + Duration::from_millis(500) >= told.retry_in, "{told:?} {away:?}");
}

#[tokio::test]
async fn reset_after_long_stall_loses_nothing() {
    let server = Server::start(&["--retention-bytes", "64MiB"]);
    let (mut receiver, messages) = sleeps(&server).await;
    assert_eq!(server.departure_of("sleeper").await, "slow_consumer");
    assert!(!receives_all(&mut receiver, messages).await.is_empty());
}

#[tokio::test]
async fn skip_policy_gap_reaches_caller() {
    let server = Server::start(&["--slow-policy", "skip", "--retention-bytes", "4MiB"]);
    let (mut receiver, messages) = sleeps(&server).await;
    let (mut next, mut missed) = (1, 0);
    while next <= messages {
        match within(PATIENCE, "something", receiver.receive()).await.unwrap().unwrap() {
            Incoming::Event(event) => {
                assert_eq!(event.position.offset, next);
                next += 1;
            }
            Incoming::Gap(gap) => {
                assert_eq!((gap.from.offset, gap.count), (next, gap.to.offset + 1 - next), "{gap:?}");
                assert_eq!(gap.reason, Reason::Slow);
                missed += gap.count;
                next = gap.to.offset + 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(missed > 0);
}

#[tokio::test]
async fn drain_moves_session_to_next_server() {
    let first = Server::start(&[]);
    let proxy = Proxy::start(first.addr, Plan::quiet()).await;
    let (publisher, mut receiver) = join_at_last(&proxy, &Join::room("r")).await;
    publisher.publish("chat", "before").await.unwrap();
    assert_eq!(receives_event(&mut receiver).await.text(), Some("before"));
    let second = Server::start(&[]);
    proxy.leads_to(second.addr);
    let stopped = first.stop();
    let (mut bye, mut told, mut away) = (None, None, Instant::now());
    let goes_over = async {
        loop {
            match receiver.receive().await.unwrap().unwrap() {
                Incoming::Goodbye(goodbye) => {
                    away = Instant::now();
                    bye = Some(goodbye);
                }
                Incoming::Disconnected(disconnected) => told = Some(disconnected),
                Incoming::Reconnected(_) => return,
                other => panic!("{other:?}"),
            }
        }
    };
    let (stopped, ()) = tokio::join!(stopped, within(PATIENCE, "another server", goes_over));
    assert!(stopped.status.success());
    let (bye, told) = (bye.unwrap(), told.unwrap());
    let retry_after = bye.retry_after.unwrap();
    assert_eq!(bye.reason, "shutdown");
    assert!(told.retry_in >= retry_after && away.elapsed() >= retry_after, "{bye:?} {told:?}");
    assert_eq!(receives_gap(&mut receiver).await.reason, Reason::Epoch);
    let ack = within(PATIENCE, "an ack", publisher.publish("chat", "after")).await.unwrap();
    assert_eq!(receives_event(&mut receiver).await.position, ack.position);
}

#[tokio::test]
async fn kind_filter_and_echo_apply() {
    let server = Server::start(&[]);
    let client = connect(server.addr).await;
    let join = Join { kinds: vec!["move".into()], suppress_echo: true, ..Join::room("r") };
    let (ann, mut ears) = client.join(join).await.unwrap().split();
    for (kind, text) in [("chat", "no"), ("move", "yes")] {
        ann.publish(kind, "own").await.unwrap();
        client.publish("r", "bob", kind, text).await.unwrap();
    }
    assert_eq!(receives_event(&mut ears).await.text(), Some("yes"));
}

#[tokio::test]
async fn presence_is_reported_on_request() {
    let server = Server::start(&[]);
    let client = connect(server.addr).await;
    let mut ears = client.subscribe(Join { presence: true, ..Join::room("r") }).await.unwrap();
    let guest = Join { display_name: "guest".into(), ..Join::room("r") };
    let guest = client.subscribe(guest).await.unwrap();
    let id = guest.welcome().connection_id.clone();
    let (mut guest, mut came, mut went) = (Some(guest), false, false);
    while !went {
        match receives(&mut ears).await {
            Incoming::Presence(presence) => {
                came |= presence.joined.iter().any(|member| member.connection_id == id);
                went |= presence.left.iter().any(|member| member.connection_id == id);
            }
            other => panic!("{other:?}"),
        }
        if came {
            guest.take();
        }
    }
}

#[tokio::test]
async fn invalid_options_fail_at_once() {
    let server = Server::start(&[]);
    let client = connect(server.addr).await;
    let refused = |result: Result<_, Error>| match result.map(|_: chatroom::client::Session| ()) {
        Err(Error::Refused(status)) => status.code(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(client.join(Join::room("a b")).await), tonic::Code::InvalidArgument);
    let epoch = client.join(Join::room("r")).await.unwrap().welcome().position.epoch.clone();
    let start = Start::After(Position { epoch, offset: 1000 });
    let beyond = Join { start, ..Join::room("r") };
    assert_eq!(refused(client.join(beyond).await), tonic::Code::OutOfRange);
    let admin = connect(server.admin_addr).await;
    assert_eq!(refused(admin.join(Join::room("r")).await), tonic::Code::Unimplemented);
    let members = client.list_members("nowhere").all().await;
    assert!(matches!(members, Err(Error::Refused(status)) if status.code() == tonic::Code::NotFound));
    assert!(matches!(Client::connect("127.0.0.1:1").await, Err(Error::Connect { .. })));
    assert!(matches!(Client::connect("no address").await, Err(Error::Address(_))));

    let (publisher, mut receiver) = client.join(Join::room("r")).await.unwrap().split();
    let max = receiver.welcome().max_message_bytes;
    assert!(matches!(publisher.publish("chat", "x".repeat(70_000)).await, Err(Error::TooLarge { .. })));
    let overhead = match publisher.publish("chat", "x".repeat(max as usize)).await {
        Err(Error::TooLarge { bytes, .. }) => bytes - max,
        other => panic!("{other:?}"),
    };
    // What is just not too large here is not too large there.
    publisher.publish("chat", "x".repeat((max - overhead) as usize)).await.unwrap();
    receives_event(&mut receiver).await;
}
