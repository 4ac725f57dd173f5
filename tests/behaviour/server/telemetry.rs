//! What the server tells about itself: traces as a collector gets them, and log lines under attack.

use crate::common::client::{Member, Transport, call, chat};
use crate::common::collector::{Collector, Seen};
use crate::common::frames::prefixed;
use crate::common::metrics::Scrape;
use crate::common::own_process::runs_alone;
use crate::common::server::Server;
use crate::common::v1::{Guest, hello, publish_in, text};
use crate::common::{PATIENCE, eventually, within};
use chatroom::rpc::code_name;
use chatroom::telemetry::trace::{RpcInfo, RpcSpan};
use chatroom::telemetry::{self, LogFormat};
use chatroom::wire::admin::{GetServerInfoRequest, KickConnectionsRequest};
use chatroom::wire::v1::{ListMembersRequest, Publish, PublishRequest};
use http::Method;
use prost::Message;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tracing::level_filters::LevelFilter;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const CHAT: &str = "hello.ChatRoom/Chat";

/// A server that exports to this endpoint, without waiting for a batch to fill.
fn traced(endpoint: &str, more: &[(&str, &str)]) -> Server {
    let mut environment = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    environment.extend(more);
    Server::start_in(&environment, &[])
}

async fn join(server: &Server, room: &str, headers: &[(&str, &str)]) -> Member {
    let mut all = vec![("chatroom-room", room)];
    all.extend(headers);
    let transport = Transport::connect(server.addr).await;
    transport.open(chat(&all)).await.1
}

fn caller(sampled: bool) -> String {
    format!("00-{TRACE}-{CALLER}-0{}", u8::from(sampled))
}

async fn publishes_and_leaves(mut member: Member, text: &str) {
    member.publish(text).await;
    member.receives(text).await;
    member.half_close();
    member.ends_with(Code::Ok).await;
}

#[tokio::test]
async fn connection_span_joins_callers_trace() {
    let collector = Collector::start().await;
    let server = traced(&collector.url(), &[]);
    let ann = join(&server, "blue", &[("traceparent", &caller(true))]).await;
    let arrival = server.logs("new user", |_| true).await;
    publishes_and_leaves(ann, "hi").await;
    let span = collector.sees(1, CHAT).await.remove(0);
    assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, CALLER));
    assert_eq!(span.attribute("chatroom.connection.id"), arrival["connection"]);
    assert_eq!(
        (span.attribute("chatroom.room"), span.attribute("chatroom.disconnect.reason")),
        ("blue", "left")
    );
    let departure = server.logs("user left", |_| true).await;
    for line in [&arrival, &departure] {
        assert_eq!((&line["trace_id"], &line["span_id"]), (&TRACE.into(), &(&*span.id).into()), "{line}");
    }
    assert_eq!(span.resource["service.name"], "chatroom");
    // What is not within the span of a connection has no ids.
    let stopped = server.watch_log();
    assert!(server.stop().await.status.success());
    let ids = stopped.lines().iter().filter(|line| line.contains("trace_id")).count();
    assert_eq!(ids, 2, "{:#?}", stopped.lines());
}

#[tokio::test]
async fn text_log_lines_have_trace_ids() {
    let collector = Collector::start().await;
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let server = Server::start_in(&environment, &["--log-format", "text"]);
    let ann = join(&server, "blue", &[("traceparent", &caller(true))]).await;
    publishes_and_leaves(ann, "hi").await;
    let span = collector.sees(1, CHAT).await.remove(0);
    let ids = format!(" trace_id={TRACE} span_id={}", span.id);
    let lines = || server.log().iter().filter(|line| line.ends_with(&ids)).count();
    eventually(PATIENCE, "two lines with the ids of the span", || lines() == 2).await;
}

#[tokio::test]
async fn spans_follow_semantic_conventions() {
    let collector = Collector::start().await;
    let server = traced(&collector.url(), &[]);
    let ann = join(&server, "blue", &[]).await;
    let peer = server.logs("new user", |_| true).await["peer"].as_str().unwrap().to_owned();
    publishes_and_leaves(ann, "hi").await;
    let mut bob = join(&server, "blue", &[]).await;
    server.terminate();
    bob.ends_with(Code::Unavailable).await;
    assert!(server.ends().await.status.success());
    let spans = collector.sees(2, CHAT).await;
    let of =
        |status: &str| spans.iter().find(|s| s.attributes["rpc.response.status_code"] == status).unwrap();
    for span in [of("OK"), of("UNAVAILABLE")] {
        assert_eq!(
            (span.attribute("rpc.system.name"), span.attribute("rpc.method")),
            ("grpc", CHAT),
            "{span:?}"
        );
        uuid::Uuid::parse_str(&span.resource["service.instance.id"]).unwrap();
    }
    let client = format!("{}:{}", of("OK").attribute("client.address"), of("OK").attribute("client.port"));
    assert_eq!((client, of("OK").attributes.get("error.type")), (peer, None));
    assert_eq!(of("UNAVAILABLE").attribute("error.type"), "UNAVAILABLE");
}

/// How a unary call ends, in its caller's trace.
async fn asks(addr: SocketAddr, path: &str, message: &impl Message) -> Option<Code> {
    let head = call(Method::POST, path, "application/grpc", &[("traceparent", &caller(true))]);
    let (_, mut answer) = Transport::connect(addr).await.ask(head, prefixed(&message.encode_to_vec())).await;
    loop {
        if let Some(ending) = within(PATIENCE, "the end", answer.responses.receive_bodies(|_| {})).await {
            return ending.code();
        }
    }
}

#[tokio::test]
async fn every_rpc_has_a_span_with_its_status() {
    let collector = Collector::start().await;
    let server = traced(&collector.url(), &[("CHATROOM_MAX_CONNECTIONS", "1")]);
    let publish = "chatroom.v1.ChatService/Publish";
    let list = "chatroom.v1.ChatService/ListMembers";
    let admin = "chatroom.admin.v1.AdminService/GetServerInfo";
    let kick = "chatroom.admin.v1.AdminService/KickConnections";
    let health = "grpc.health.v1.Health/Check";
    let request: PublishRequest = publish_in("blue", text("hi"));
    for (addr, method, code) in [
        (server.addr, publish, asks(server.addr, &format!("/{publish}"), &request).await),
        (server.addr, list, asks(server.addr, &format!("/{list}"), &ListMembersRequest::default()).await),
        (
            server.admin_addr,
            admin,
            asks(server.admin_addr, &format!("/{admin}"), &GetServerInfoRequest::default()).await,
        ),
        (
            server.admin_addr,
            kick,
            asks(server.admin_addr, &format!("/{kick}"), &KickConnectionsRequest::default()).await,
        ),
        (server.addr, health, asks(server.addr, &format!("/{health}"), &HealthCheckRequest::default()).await),
    ] {
        let span = collector.sees(1, method).await.remove(0);
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, CALLER), "{addr} {span:?}");
        let name = code_name(code.unwrap());
        assert_eq!(
            (span.attribute("rpc.method"), span.attribute("rpc.response.status_code")),
            (method, name)
        );
    }
    let published = collector.sees(1, publish).await.remove(0);
    let message = collector.sees(1, "publish").await.remove(0);
    assert_eq!((published.attribute("chatroom.room"), &message.parent), ("blue", &published.id));
    // Refused: by the room's name, by the limit, and for a method that nobody has.
    refused_in_trace(&server, "/hello.ChatRoom/Chat", &[("chatroom-room", "a b")]).await;
    let _ann = join(&server, "blue", &[("traceparent", &caller(false))]).await;
    refused_in_trace(&server, "/hello.ChatRoom/Chat", &[]).await;
    refused_in_trace(&server, "/no.Such/Method", &[]).await;
    let spans = collector.sees(2, CHAT).await;
    let codes: Vec<_> = spans.iter().map(|span| span.attribute("rpc.response.status_code")).collect();
    assert_eq!(codes, ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"], "{spans:?}");
    let unknown = collector.sees(1, "grpc").await.remove(0);
    let keys = ["rpc.method", "rpc.method_original", "rpc.response.status_code", "error.type"];
    let expected = ["_OTHER", "no.Such/Method", "UNIMPLEMENTED", "UNIMPLEMENTED"];
    assert_eq!(keys.map(|attribute| unknown.attribute(attribute)), expected);
    // The audit line of the kick is found from its trace.
    let audit = server.logs("audit", |_| true).await;
    let kicked = collector.sees(1, kick).await.remove(0);
    assert_eq!((&audit["trace_id"], &audit["span_id"]), (&TRACE.into(), &(&*kicked.id).into()), "{audit}");
}

/// A call that the server refuses, in its caller's trace.
async fn refused_in_trace(server: &Server, path: &str, more: &[(&str, &str)]) {
    let mut headers = vec![("traceparent", caller(true))];
    headers.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
    let headers: Vec<_> = headers.iter().map(|(key, value)| (*key, &**value)).collect();
    let head = call(Method::POST, path, "application/grpc", &headers);
    let (_, mut refused) = Transport::connect(server.addr).await.open(head).await;
    assert_ne!(refused.ends().await.code(), Some(Code::Ok));
}

#[tokio::test]
async fn invalid_v1_message_has_its_status_in_the_span() {
    let collector = Collector::start().await;
    let server = traced(&collector.url(), &[]);
    let mut guest = Guest::joins(&server, hello("blue")).await;
    guest.publishes(Publish::default());
    assert_eq!(guest.ends().await.1.code(), Code::InvalidArgument);
    let span = collector.sees(1, "chatroom.v1.ChatService/Join").await.remove(0);
    assert_eq!(span.attribute("rpc.response.status_code"), "INVALID_ARGUMENT");
    assert_eq!(span.attribute("chatroom.disconnect.reason"), "invalid_message");
}

#[tokio::test]
async fn first_line_has_version_and_settings() {
    for (options, environment) in [
        (&["--max-rooms", "7"][..], &[][..]),
        (&[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1")]),
    ] {
        let server = Server::start_in(environment, options);
        server.logs("serving", |_| true).await;
        let first: serde_json::Value = serde_json::from_str(&server.log()[0]).unwrap();
        assert_eq!((&first["message"], &first["version"]), (&"starting".into(), &"0.1.0".into()), "{first}");
        assert!(first["revision"].is_string(), "{first}");
        let settings: Vec<_> = first["settings"].as_str().unwrap().split(' ').collect();
        assert!(settings.contains(&"listen=127.0.0.1:0"), "{first}");
        assert_eq!(settings.contains(&"max-rooms=7"), !options.is_empty(), "{first}");
        assert!(!settings.iter().any(|setting| setting.starts_with("max-streams")), "{first}");
    }
}

#[tokio::test]
async fn unwritable_lines_count_as_dropped() {
    let server = Server::start_without_stderr();
    let dropped = async || Scrape::of(server.metrics_addr).await.sum("chatroom_log_lines_dropped_total");
    let before = dropped().await;
    let ann = server.join("blue").await;
    let counted = async { while dropped().await <= before {} };
    within(PATIENCE, "a count of the line that nobody can read", counted).await;
    publishes_and_leaves(ann, "still served").await;
}

#[tokio::test]
async fn message_span_is_child_of_connection_span() {
    let collector = Collector::start().await;
    let server = traced(&collector.url(), &[]);
    let mut bob = join(&server, "blue", &[("traceparent", &caller(false))]).await;
    let ann = join(&server, "blue", &[("traceparent", &caller(true))]).await;
    publishes_and_leaves(ann, "hi").await;
    bob.receives("hi").await;
    let connection = collector.sees(1, CHAT).await.remove(0);
    let message = collector.sees(1, "publish").await.remove(0);
    assert_eq!((&message.trace, &message.parent), (&connection.trace, &connection.id));
    assert!(message.attribute("chatroom.position").ends_with(":1"), "{message:?}");
    assert_eq!(
        (message.attribute("chatroom.batch.messages"), message.attribute("chatroom.batch.members")),
        ("1", "2")
    );
}

#[tokio::test]
async fn publish_is_traced_once_and_delivery_never() {
    let collector = Collector::start().await;
    let server = traced(&collector.url(), &[]);
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(join(&server, "blue", &[("traceparent", &caller(false))]).await);
    }
    let mut ann = join(&server, "blue", &[("traceparent", &caller(true))]).await;
    for n in 0..30 {
        ann.publish(&n.to_string()).await;
    }
    for n in 0..30 {
        others[0].receives(&n.to_string()).await;
    }
    drop(ann);
    collector.sees(1, CHAT).await;
    assert!(server.stop().await.status.success());
    let offsets =
        |span: &Seen| span.attribute("chatroom.position").rsplit_once(':').unwrap().1.parse::<u64>().unwrap();
    let mut positions: Vec<_> = collector.sees(30, "publish").await.iter().map(offsets).collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=30).collect::<Vec<_>>());
    let names: Vec<_> = collector.seen().into_iter().map(|span| span.name).collect();
    assert_eq!(names.len(), 31, "the one sampled connection and its messages, nothing else: {names:?}");
}

#[tokio::test]
async fn last_spans_are_exported_before_exit() {
    let collector = Collector::start().await;
    // No batch is due in this test but at the end.
    let server = traced(&collector.url(), &[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]);
    let mut ann = join(&server, "lobby", &[]).await;
    server.terminate();
    ann.ends_with(Code::Unavailable).await;
    drop(ann);
    let stopped = server.ends().await;
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(collector.sees(1, CHAT).await[0].attribute("chatroom.disconnect.reason"), "shutdown");
}

#[tokio::test]
async fn otel_variables_are_honoured() {
    let collector = Collector::start().await;
    let off = traced(&collector.url(), &[("OTEL_SDK_DISABLED", "true")]);
    publishes_and_leaves(join(&off, "off", &[]).await, "hi").await;
    assert!(off.stop().await.status.success());
    let never = traced(&collector.url(), &[("OTEL_TRACES_SAMPLER", "always_off")]);
    publishes_and_leaves(join(&never, "never", &[]).await, "hi").await;
    assert!(never.stop().await.status.success());
    let named = traced(&collector.url(), &[("OTEL_SERVICE_NAME", "lounge")]);
    publishes_and_leaves(join(&named, "named", &[]).await, "hi").await;
    assert!(named.stop().await.status.success());
    let seen = collector.sees(1, CHAT).await;
    assert_eq!((seen.len(), seen[0].attribute("chatroom.room")), (1, "named"));
    assert_eq!(seen[0].resource["service.name"], "lounge");
}

/// One warning, no error, everyone served, and out in time.
async fn costs_nothing_but_a_warning(endpoint: &str) {
    let server = traced(endpoint, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")]);
    for _ in 0..20 {
        publishes_and_leaves(join(&server, "lobby", &[]).await, "hi").await;
    }
    server.logs("traces cannot be exported", |line| line["level"] == "WARN").await;
    publishes_and_leaves(join(&server, "lobby", &[]).await, "still here").await;
    let lines = server.log();
    let warnings = |line: &&String| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
    assert_eq!(lines.iter().filter(warnings).count(), 1, "{lines:#?}");
    let stopped = server.stop().await;
    assert!(stopped.status.success() && stopped.took < Duration::from_secs(10), "{stopped:?}");
}

#[tokio::test]
async fn collector_down_only_warns() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    costs_nothing_but_a_warning(&format!("http://{closed}")).await;
}

#[tokio::test]
async fn collector_hanging_only_warns() {
    // The kernel accepts for it, and nobody ever reads.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    costs_nothing_but_a_warning(&format!("http://{}", silent.local_addr().unwrap())).await;
}

#[tokio::test]
async fn collector_hanging_does_not_delay_exit() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = traced(&format!("http://{}", silent.local_addr().unwrap()), &[]);
    publishes_and_leaves(join(&server, "lobby", &[]).await, "hi").await;
    let log = server.watch_log();
    let stopped = server.stop().await;
    // The exporter itself would wait for ten seconds, and then try again.
    assert!(stopped.status.success() && stopped.took < Duration::from_secs(8), "{stopped:?}");
    let errors: Vec<_> = log.lines().into_iter().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn traces_off_disable_spans_at_callsite() {
    runs_alone(PATIENCE, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let (telemetry, _last_lines) = telemetry::init(LogFormat::Text, "info", &[]).unwrap();
        // Static, so that what is not wanted costs a load wherever it stands in the code, also in h2.
        assert_eq!(LevelFilter::current(), LevelFilter::INFO);
        let rpc =
            RpcInfo { method: Some(CHAT), path: "/hello.ChatRoom/Chat", peer: ([127, 0, 0, 1], 1).into() };
        assert!(RpcSpan::begin(&http::HeaderMap::new(), rpc).is_none());
        let change = telemetry.logs().set("warn", None).unwrap();
        assert_eq!((change.previous.as_str(), LevelFilter::current()), ("info", LevelFilter::WARN));
    });
}

#[tokio::test]
async fn unsupported_exporter_setting_is_named() {
    for (endpoint, more) in
        [("https://127.0.0.1:1", &[][..]), ("http://a:1", &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")])]
    {
        let server = traced(endpoint, more);
        server.logs("traces are off", |line| line["level"] == "WARN").await;
        publishes_and_leaves(join(&server, "lobby", &[]).await, "hi").await;
    }
}

#[tokio::test]
async fn log_lines_beyond_rate_are_counted_as_suppressed() {
    const CALLS: u64 = 1_500;
    let server = Server::start(&[]);
    let transport = Transport::connect(server.addr).await;
    for _ in 0..CALLS {
        drop(transport.join("lobby", "someone").await);
    }
    let told = || {
        let lines: Vec<_> =
            server.log().iter().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()).collect();
        let logged = lines.iter().filter(|line| line["message"] == "new user").count() as u64;
        let about =
            |line: &&serde_json::Value| line["message"] == "suppressed" && line["cause"] == "new user";
        let suppressed: u64 = lines.iter().filter(about).map(|line| line["count"].as_u64().unwrap()).sum();
        (logged, suppressed)
    };
    eventually(PATIENCE, "an account of every arrival", || {
        let (logged, suppressed) = told();
        logged + suppressed == CALLS
    })
    .await;
    assert!(told().1 > 0, "something was suppressed: {:?}", told());
}
