//! The metrics add up, return to zero, and grow by nothing that a client chooses.

use crate::common::{
    PATIENCE,
    client::{Transport, Windows, call, chat},
    crowd::Crowd,
    frames,
    history::History,
    metrics::{Scrape, get},
    server::Server,
    within,
};
use bytes::Bytes;
use chatroom::wire::admin::{
    ListConnectionsRequest, WatchConnectionsRequest, WatchConnectionsResponse,
    admin_service_client::AdminServiceClient, watch_connections_response::Event,
};
use h2::Reason;
use http::Method;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tonic::{Code, Streaming};

const ROOM: &str = "square";

/// The contract with the dashboards: each metric and its type.
const CONTRACT: &str = "
    chatroom_connections gauge
    chatroom_transports gauge
    chatroom_rooms gauge
    chatroom_connections_opened_total counter
    chatroom_connections_closed_total counter
    chatroom_transports_refused_total counter
    chatroom_messages_published_total counter
    chatroom_messages_delivered_total counter
    chatroom_published_bytes_total counter
    chatroom_delivered_bytes_total counter
    chatroom_message_size_bytes histogram
    chatroom_broadcast_latency_seconds histogram
    chatroom_fanout_seconds histogram
    chatroom_batch_messages histogram
    chatroom_inbox_wait_seconds histogram
    chatroom_slow_consumers_total counter
    chatroom_gap_messages_total counter
    chatroom_member_lag_bytes_max gauge
    chatroom_members_lagging gauge
    chatroom_connections_limit gauge
    chatroom_transports_limit gauge
    chatroom_rooms_limit gauge
    chatroom_member_lag_limit_bytes gauge
    chatroom_drain_phase gauge
    chatroom_drain_deadline_timestamp_seconds gauge
    chatroom_log_bytes gauge
    chatroom_log_bytes_limit gauge
    chatroom_log_budget_trimmed_bytes_total counter
    chatroom_rooms_evicted_total counter
    chatroom_log_messages gauge
    chatroom_log_lines_dropped_total counter
    chatroom_kicks_total counter
    chatroom_bans gauge
    chatroom_ban_refusals_total counter
    chatroom_build_info gauge
    grpc_server_started_total counter
    grpc_server_handled_total counter
    grpc_server_handling_seconds histogram
    process_cpu_seconds_total counter
    process_resident_memory_bytes gauge
    process_open_fds gauge
    process_start_time_seconds gauge
";

async fn scrape(server: &Server) -> Scrape {
    Scrape::of(server.metrics_addr).await
}

/// Scrapes until it `holds`: what ends, ends a moment after its client has seen the end.
async fn scraped(server: &Server, what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
    let scraping = async {
        loop {
            let scrape = scrape(server).await;
            if holds(&scrape) {
                return scrape;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(PATIENCE, what, scraping).await
}

#[tokio::test]
async fn documented_metrics_have_help_and_type() {
    let server = Server::start(&[]);
    let mut ann = server.join("blue").await;
    ann.half_close();
    ann.ends_with(Code::Ok).await;
    let scrape = scraped(&server, "the end of the call", |s| s.sum("chatroom_connections") == 0.0).await;
    let contract: BTreeMap<&str, &str> =
        CONTRACT.lines().filter_map(|line| line.trim().split_once(' ')).collect();
    let exported = scrape.metrics();
    for (name, kind) in contract {
        assert!(exported.contains(name), "no {name}");
        assert_eq!(scrape.kinds()[name], kind, "{name}");
    }
    let described: BTreeSet<&str> = scrape.helps().iter().map(String::as_str).collect();
    let typed: BTreeSet<&str> = scrape.kinds().keys().map(String::as_str).collect();
    assert_eq!((&described, &typed), (&exported, &exported));
    for series in [
        "chatroom_connections{api=\"hello\"}",
        "chatroom_connections_opened_total{api=\"hello\"}",
        "chatroom_connections_closed_total{api=\"hello\",reason=\"left\"}",
        "chatroom_slow_consumers_total{action=\"disconnect\"}",
        "chatroom_transports_refused_total{reason=\"limit\"}",
        "chatroom_messages_published_total{api=\"hello\"}",
        "chatroom_messages_delivered_total{api=\"hello\"}",
    ] {
        scrape.value(series);
    }
    let info = scrape.series().into_iter().find(|series| series.starts_with("chatroom_build_info")).unwrap();
    assert!(["version=", "revision=", "rustc="].iter().all(|label| info.contains(label)), "{info}");
    for (series, bound) in [
        ("chatroom_broadcast_latency_seconds_bucket", "0.00001"),
        ("chatroom_broadcast_latency_seconds_bucket", "10"),
    ] {
        scrape.value(&format!("{series}{{le=\"{bound}\"}}"));
    }
}

/// Everything that was opened has been closed, and nothing is left.
fn is_over(scrape: &Scrape) -> bool {
    let gauges = ["chatroom_connections", "chatroom_transports", "chatroom_rooms", "chatroom_log_bytes"];
    gauges.iter().all(|gauge| scrape.sum(gauge) == 0.0)
        && scrape.sum("chatroom_connections_opened_total") == scrape.sum("chatroom_connections_closed_total")
        && scrape.sum("grpc_server_started_total") == scrape.sum("grpc_server_handled_total")
}

#[tokio::test]
async fn gauges_return_to_zero_after_storm() {
    let server = Server::start_quiet(&["--room-idle", "1s", "--lag-limit-bytes", "64KiB"]);
    let end = Instant::now() + Duration::from_secs(3);
    let storms: Vec<_> = (0..4).map(|n| tokio::spawn(storm(server.addr, n, end))).collect();
    let mut calls = 0;
    for storm in storms {
        calls += storm.await.unwrap();
    }
    let scrape = scraped(&server, "the end of the storm", is_over).await;
    let opened = scrape.sum("chatroom_connections_opened_total");
    println!("{calls} calls, {opened} connections");
    assert!(calls > 100 && opened > 100.0 && opened <= f64::from(calls), "{calls} {opened}");
    for gauge in ["chatroom_log_messages", "chatroom_member_lag_bytes_max", "chatroom_members_lagging"] {
        assert_eq!(scrape.sum(gauge), 0.0, "{gauge}");
    }
    let calls_of = |name| scrape.sum_of(name, "grpc_method=\"Chat\"");
    assert_eq!(calls_of("grpc_server_handled_total"), calls_of("grpc_server_handling_seconds_count"));
    // A call that is dropped before it is looked at has begun, and opens no connection.
    assert!(calls_of("grpc_server_started_total") >= opened);
    assert_eq!(calls_of("grpc_server_started_total"), calls_of("grpc_server_handled_total"));
}

/// Opens calls and leaves them in every way there is; how many.
async fn storm(addr: SocketAddr, room: usize, end: Instant) -> u32 {
    let mut calls = 0;
    let room = format!("storm-{room}");
    while Instant::now() < end {
        let transport = Transport::connect_with(addr, Windows::DEFAULT).await;
        for way in 0..40 {
            calls += 1;
            let Ok((answer, mut requests)) = transport.send(chat(&[("chatroom-room", &room)])).await else {
                break;
            };
            match way % 6 {
                0 => drop((answer, requests)),
                1 => drop(answer.await),
                2 => {
                    let _ = answer.await;
                    requests.send_reset(Reason::CANCEL);
                }
                3 => {
                    let _ = requests.send_data(frames::message(&[b'x'; 2_000]), true);
                    drop(answer.await);
                }
                4 => {
                    let _ = requests.send_data(Bytes::from_static(b"\x00\x00\x00\x00\x02\xff\xff"), false);
                    drop(answer.await);
                }
                _ => {
                    let _ = requests.send_data(frames::message(b"last words"), true);
                    let _ = answer.await;
                    tokio::task::yield_now().await;
                }
            }
        }
        transport.cut().await;
    }
    calls
}

const LISTENERS: usize = 8;

/// Listeners and a speaker who stay hear so many messages of about four kilobytes; how many were heard by all of them.
async fn a_room_hears(server: &Server, published: u32, pause: Duration) -> f64 {
    let mut crowd = Crowd::new();
    for listener in 0..LISTENERS {
        let name = format!("listener {listener}");
        crowd.listens(server.join_as(ROOM, &name).await, &name);
    }
    let mut speaker = crowd.speaks(server.join_as(ROOM, "speaker").await, 0);
    while speaker.published() < published {
        speaker.publishes(4, 4_000).await;
        speaker.receives_own(8).await;
        tokio::time::sleep(pause).await;
    }
    let mut history = History::default();
    history.published(0, published);
    speaker.stays();
    for log in crowd.leaves(published as usize).await {
        history.received(log);
    }
    history.holds() as f64
}

#[tokio::test]
async fn published_times_receivers_is_delivered_plus_gaps() {
    // The slow one is cut for its age, when all has been said: until then it is a receiver like the others.
    let options = ["--lag-limit-bytes", "16MiB", "--lag-limit-age", "5s"];
    let server = Server::start_quiet(&options);
    let transport = Transport::connect_with(server.addr, Windows::DEFAULT).await;
    let slow = transport.join(ROOM, "slow").await;
    let received = a_room_hears(&server, 600, Duration::ZERO).await;
    let before = scrape(&server).await;
    assert_eq!(before.sum("chatroom_slow_consumers_total"), 0.0, "cut before all was said");
    let lags = before.sum("chatroom_member_lag_bytes_max");
    assert!(lags > 1_000_000.0, "only {lags} bytes behind");

    let scrape = scraped(&server, "the end of the slow one", |s| s.sum("chatroom_connections") == 0.0).await;
    drop(slow);
    let published = scrape.sum("chatroom_messages_published_total");
    let delivered = scrape.sum("chatroom_messages_delivered_total");
    let gaps = scrape.sum("chatroom_gap_messages_total");
    println!("{published} published to {} receivers: {delivered} delivered, {gaps} in gaps", LISTENERS + 2);
    assert_eq!(published, 600.0);
    assert_eq!(published * (LISTENERS + 2) as f64, delivered + gaps);
    assert!(gaps > 0.0 && delivered > received, "{received} were heard by those who stayed");
    assert_eq!(scrape.sum("chatroom_slow_consumers_total"), 1.0);
    assert_eq!(scrape.sum_of("chatroom_connections_closed_total", "slow_consumer"), 1.0);
    assert_eq!(scrape.sum("chatroom_message_size_bytes_count"), published);
    assert_eq!(scrape.sum("chatroom_message_size_bytes_sum"), scrape.sum("chatroom_published_bytes_total"));
    assert_eq!(scrape.sum("chatroom_batch_messages_sum"), published);
    let batches = scrape.sum("chatroom_batch_messages_count");
    assert_eq!(scrape.sum("chatroom_fanout_seconds_count"), batches);
    assert_eq!(scrape.sum("chatroom_inbox_wait_seconds_count"), batches);
}

#[tokio::test]
async fn slow_consumer_disconnect_is_accounted_for() {
    let server = Server::start_quiet(&["--lag-limit-bytes", "256KiB", "--retention-bytes", "1MiB"]);
    let admin = AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await;
    let watching = admin.unwrap().watch_connections(WatchConnectionsRequest::default()).await;
    let mut events = watching.unwrap().into_inner();
    let transport = Transport::connect_with(server.addr, Windows::DEFAULT).await;
    let slow = transport.join(ROOM, "slow").await;
    // For five seconds: one that is slow gets three to come and read why it is cut, and is a receiver until then.
    a_room_hears(&server, 4_000, Duration::from_millis(5)).await;
    let left = within(PATIENCE, "the end of the slow one", leaving_of("slow", &mut events)).await;
    drop(slow);
    let scrape = scraped(&server, "the end of all", |s| s.sum("chatroom_connections") == 0.0).await;
    let published = scrape.sum("chatroom_messages_published_total");
    let gaps = scrape.sum("chatroom_gap_messages_total");
    println!("the slow one got {left} of {published}, and a gap of {gaps}");
    let delivered = published * (LISTENERS + 1) as f64 + left;
    assert_eq!(scrape.sum("chatroom_messages_delivered_total"), delivered);
    assert!(gaps > 0.0 && left + gaps <= published, "{left} and {gaps}");
}

/// What it had been handed when it left, cut for being slow.
async fn leaving_of(name: &str, events: &mut Streaming<WatchConnectionsResponse>) -> f64 {
    loop {
        let event = events.message().await.unwrap().unwrap().event;
        if let Some(Event::Left(left)) = event
            && let Some(connection) = left.connection.filter(|connection| connection.name == name)
        {
            assert_eq!(left.reason, "slow_consumer");
            return connection.messages_out as f64;
        }
    }
}

/// Each would be a series, so a few thousand are as good as any number.
const NAMES: usize = 5_000;
const ROOMS_MAX: usize = 300;
const PATHS: usize = 5_000;

#[tokio::test]
async fn client_input_adds_no_series() {
    let rooms_max = ROOMS_MAX.to_string();
    let server = Server::start_quiet(&[
        "--max-rooms",
        &rooms_max,
        "--max-rooms-per-client",
        "1000",
        "--room-idle",
        "10m",
    ]);
    choose(&server, "first", 10, 2 * ROOMS_MAX).await;
    let before = scrape(&server).await;
    let began = Instant::now();
    choose(&server, "then", PATHS, NAMES).await;
    let after = scrape(&server).await;
    println!("{NAMES} names and {PATHS} paths in {:?}; {} series", began.elapsed(), after.series().len());
    assert_eq!(after.sum("chatroom_rooms"), ROOMS_MAX as f64);
    let unknown = after.sum_of("grpc_server_started_total", "grpc_method=\"unknown\"");
    assert!(unknown >= (PATHS + 10) as f64, "{unknown}");
    let joined = after.sum("chatroom_connections_opened_total");
    assert!(joined > before.sum("chatroom_connections_opened_total"));
    let new: Vec<_> = after.series().difference(&before.series()).copied().collect();
    assert!(new.is_empty(), "{new:#?}");
    assert_eq!(after.series().len(), before.series().len());
}

/// Many names, in few rooms and in more than there may be, and many paths on each listener.
async fn choose(server: &Server, prefix: &str, paths: usize, names: usize) {
    let chosen: Vec<usize> = (0..names).collect();
    for some in chosen.chunks(200) {
        // Each call is dropped, which is a reset: a transport may have some hundred of those at once.
        let transport = Transport::connect(server.addr).await;
        let joining = some.iter().map(|n| {
            let name = format!("{prefix} {n}");
            let room = match n % 2 {
                0 => format!("shared-{}", n % (ROOMS_MAX / 2)),
                _ => format!("{prefix}-{n}"),
            };
            let transport = &transport;
            async move {
                let call = chat(&[("chatroom-room", &room), ("chatroom-name", &name)]);
                drop(transport.try_open(call).await.unwrap());
            }
        });
        futures_util::future::join_all(joining).await;
    }
    for (addr, every) in [(server.addr, 1), (server.admin_addr, 10)] {
        let mut transport = Transport::connect(addr).await;
        for (count, n) in (0..paths).step_by(every).enumerate() {
            if count % 500 == 499 {
                transport = Transport::connect(addr).await;
            }
            let path = match n % 3 {
                0 => format!("/hello.ChatRoom/{prefix}{n}"),
                1 => format!("/{prefix}.Service{n}/Method"),
                _ => format!("/{prefix}{n}"),
            };
            let call = call(Method::POST, &path, "application/grpc", &[]);
            let (_, unknown) = transport.try_open(call).await.unwrap();
            assert_eq!(unknown.responses.ending.and_then(|e| e.code()), Some(Code::Unimplemented), "{path}");
        }
    }
    for n in 0..paths.min(200) {
        assert_eq!(get(server.metrics_addr, &format!("/{prefix}{n}")).await.status, 404);
    }
    let admin = AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await;
    admin.unwrap().list_connections(ListConnectionsRequest::default()).await.unwrap();
}
