//! The drain's stages, one by one: what is said when, who is ended how, and what an operator may still change.

use crate::common::{
    PATIENCE,
    client::{Transport, Windows},
    eventually,
    metrics::{Scrape, get},
    server::Server,
    within,
};
use chatroom::wire::admin::{
    CancelDrainRequest, Drain, DrainPhase, GetDrainRequest, StartDrainRequest,
    admin_service_client::AdminServiceClient,
};
use chatroom::wire::hello::{ChatRequest, ChatResponse, chat_room_client::ChatRoomClient};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};
use tonic_health::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;

type Admin = AdminServiceClient<Channel>;

async fn admin(server: &Server) -> Admin {
    AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await.unwrap()
}

async fn start(admin: &mut Admin) -> Drain {
    admin.start_drain(StartDrainRequest {}).await.unwrap().into_inner().drain.unwrap()
}

async fn now(admin: &mut Admin) -> Drain {
    admin.get_drain(GetDrainRequest {}).await.unwrap().into_inner().drain.unwrap()
}

async fn cancel(admin: &mut Admin) -> Result<Drain, tonic::Status> {
    let answer = admin.cancel_drain(CancelDrainRequest {}).await?;
    Ok(answer.into_inner().drain.unwrap())
}

async fn is_in(admin: &mut Admin, phase: DrainPhase) -> Drain {
    within(PATIENCE, phase.as_str_name(), async {
        loop {
            let drain = now(admin).await;
            if drain.phase() == phase {
                return drain;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

fn phase_of(scrape: &Scrape) -> String {
    scrape.value("chatroom_drain_phase").to_string()
}

/// Settings with these stages, in seconds.
fn stages(notice: &str, spread: &str, deadline: &str) -> [String; 3] {
    [("notice", notice), ("spread", spread), ("deadline", deadline)]
        .map(|(stage, time)| format!("--drain-{stage}={time}"))
}

fn starts(stages: &[String; 3]) -> Server {
    Server::start(&[&stages[0], &stages[1], &stages[2]])
}

#[tokio::test]
async fn health_changes_first_and_listener_closes_after_notice() {
    let server = starts(&stages("3s", "0s", "8s"));
    let mut member = server.join_as("blue", "ann").await;
    let channel = Channel::from_shared(format!("http://{}", server.addr)).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);
    let told = Instant::now();
    server.terminate();
    let flipped = within(PATIENCE, "a change of health", watch.message()).await.unwrap().unwrap();
    assert_eq!(flipped.status, ServingStatus::NotServing as i32);
    println!("health changed {:?} after the signal", told.elapsed());
    assert_eq!(get(server.metrics_addr, "/readyz").await.status, 503);
    assert_eq!(get(server.metrics_addr, "/livez").await.status, 200);
    let scrape = Scrape::of(server.metrics_addr).await;
    assert_eq!(phase_of(&scrape), "1");
    assert!(scrape.value("chatroom_drain_deadline_timestamp_seconds") > 1e9);
    // Balancers are slow: who comes now is served.
    let mut late = server.join_as("blue", "late").await;
    late.publish("am I in?").await;
    late.receives("am I in?").await;
    member.receives("am I in?").await;
    assert!(told.elapsed() < Duration::from_secs(3), "too busy a machine to look within the notice");
    member.ends_with(Code::Unavailable).await;
    let lasted = told.elapsed();
    assert!(lasted > Duration::from_millis(2_900), "the notice lasted {lasted:?}");
    late.ends_with(Code::Unavailable).await;
    assert!(TcpStream::connect(server.addr).await.is_err(), "the listener is open after the notice");
    let stopped = server.ends().await;
    assert!(stopped.status.success() && (stopped.joined, stopped.departed) == (2, 2), "{stopped:?}");
}

#[tokio::test]
async fn empty_server_exits_after_notice() {
    let server = starts(&stages("1s", "10s", "25s"));
    let stopped = server.stop().await;
    assert!(stopped.status.success(), "{stopped:?}");
    assert!(
        stopped.took >= Duration::from_millis(950) && stopped.took < Duration::from_secs(5),
        "{stopped:?}"
    );
}

#[tokio::test]
async fn spread_ends_when_all_have_left() {
    let server = starts(&stages("0s", "600s", "601s"));
    let mut members = Vec::new();
    for _ in 0..10 {
        members.push(server.join("blue").await);
    }
    server.terminate();
    for mut member in members {
        member.half_close();
        drop(member);
    }
    let stopped = server.ends().await;
    assert!(stopped.status.success() && stopped.took < Duration::from_secs(20), "{stopped:?}");
}

#[tokio::test]
async fn second_signal_exits_at_once() {
    let mut server = starts(&stages("100s", "100s", "300s"));
    let _member = server.join("blue").await;
    server.terminate();
    server.logs("draining on a signal; a second one ends it at once", |_| true).await;
    assert!(server.is_alive());
    server.terminate();
    let status = server.exits().await;
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn operator_starts_and_cancels() {
    let server = starts(&stages("100s", "0s", "105s"));
    let mut admin = admin(&server).await;
    let mut member = server.join("blue").await;
    let none = now(&mut admin).await;
    assert_eq!((none.phase(), none.connections, none.started), (DrainPhase::Serving, 1, None));
    let refused = cancel(&mut admin).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    let first = start(&mut admin).await;
    assert_eq!((first.phase(), first.connections), (DrainPhase::Notice, 1));
    let (began, end) = (first.started.unwrap(), first.deadline.unwrap());
    assert_eq!((end.seconds - began.seconds, end.nanos), (105, began.nanos));
    // A second one changes nothing.
    assert_eq!(start(&mut admin).await, first);
    assert_eq!(get(server.metrics_addr, "/readyz").await.status, 503);
    assert_eq!(cancel(&mut admin).await.unwrap().phase(), DrainPhase::Serving);
    assert_eq!(get(server.metrics_addr, "/readyz").await.status, 200);
    assert_eq!(phase_of(&Scrape::of(server.metrics_addr).await), "0");
    member.publish("still here").await;
    member.receives("still here").await;
    server.join("blue").await.half_close();
    // Who sends a signal waits for the exit, whoever has started the drain.
    start(&mut admin).await;
    server.terminate();
    server.logs("draining on a signal; a second one ends it at once", |_| true).await;
    let refused = cancel(&mut admin).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("signal"), "{refused:?}");
    assert!(refused.get_details_precondition_failure().is_some());
    let audited =
        || server.log().iter().filter(|line| line.contains("\"audit\"") && line.contains("drain")).count();
    eventually(PATIENCE, "an audit line for each start and cancel, done or refused", || audited() == 6).await;
}

#[tokio::test]
async fn ending_phase_refuses_cancel_and_joins() {
    let server = starts(&stages("0s", "3s", "20s"));
    let mut admin = admin(&server).await;
    let mut members = Vec::new();
    for _ in 0..50 {
        members.push(server.join("blue").await);
    }
    let idle = Transport::connect(server.addr).await;
    start(&mut admin).await;
    let drain = is_in(&mut admin, DrainPhase::Ending).await;
    assert!(drain.transports >= drain.connections && drain.connections > 0, "{drain:?}");
    let refused = cancel(&mut admin).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    let (_, mut late) = idle.open(crate::common::client::chat(&[])).await;
    late.ends_with(Code::Unavailable).await;
    for mut member in members {
        member.ends_with(Code::Unavailable).await;
    }
    let stopped = server.ends().await;
    assert!(stopped.status.success() && stopped.departed == 50, "{stopped:?}");
}

type Call = (mpsc::Sender<ChatRequest>, Streaming<ChatResponse>);

async fn joins(server: &Server) -> Call {
    let mut client = ChatRoomClient::connect(format!("http://{}", server.addr)).await.unwrap();
    let (publish, published) = mpsc::channel(8);
    (publish, client.chat(ReceiverStream::new(published)).await.unwrap().into_inner())
}

#[tokio::test]
async fn status_has_reason_position_and_retry_delay() {
    let server = starts(&stages("0s", "0s", "5s"));
    let mut calls = Vec::new();
    for _ in 0..20 {
        calls.push(joins(&server).await);
    }
    for text in ["one", "two", "three"] {
        calls[0].0.send(ChatRequest { message: text.to_owned() }).await.unwrap();
    }
    for (_, receives) in &mut calls {
        for text in ["one", "two", "three"] {
            assert_eq!(receives.message().await.unwrap().unwrap().message, text);
        }
    }
    server.terminate();
    let mut delays = BTreeSet::new();
    for (_say, mut receives) in calls {
        let status = within(PATIENCE, "the end", receives.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        let why = status.get_details_error_info().unwrap();
        assert_eq!((why.reason.as_str(), why.domain.as_str()), ("SHUTDOWN", "chatroom"));
        assert!(why.metadata["position"].ends_with(":3"), "{why:?}");
        delays.insert(status.get_details_retry_info().unwrap().retry_delay.unwrap());
    }
    // Not all at once.
    assert!(delays.len() > 15, "{delays:?}");
    assert!(server.ends().await.status.success());
}

/// With a backlog that fits what HTTP/2 and the kernel hold: for the server the call has ended long before its client
/// has read it.
#[tokio::test]
async fn late_reader_gets_backlog_and_status() {
    let server = starts(&stages("0s", "0s", "20s"));
    let mut late = Vec::new();
    for kib in (16..=256).step_by(16) {
        let room = format!("room-{kib}");
        let transport = Transport::connect_with(server.addr, Windows::DEFAULT).await;
        let member = transport.join(&room, "late").await;
        let mut speaker = server.join(&room).await;
        for number in 0..kib {
            let text = format!("{number}:{}", "x".repeat(1024));
            speaker.publish(&text).await;
            speaker.receives(&text).await;
        }
        late.push((kib, member));
    }
    server.terminate();
    // Longer than an idle transport is waited for.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (kib, mut member) in late {
        for number in 0..kib {
            let text = member.next().await;
            let text = text.unwrap_or_else(|end| panic!("{number} of {kib} messages, then {end:?}"));
            assert!(text.starts_with(&format!("{number}:")), "{text}");
        }
        member.ends_with(Code::Unavailable).await;
    }
    let stopped = server.ends().await;
    assert!(stopped.status.success(), "{stopped:?}");
}

/// Whoever reads the log stops: the server goes on, drains, and ends.
#[tokio::test]
async fn unread_stderr_blocks_nothing() {
    let mut server = Server::start_unread(&["--drain-deadline=3s"]);
    let mut member = server.join("blue").await;
    // Two lines for each call: far more than a pipe holds, and than are logged at once.
    for _ in 0..1_500 {
        let (_, mut call) =
            Transport::connect(server.addr).await.open(crate::common::client::chat(&[])).await;
        call.half_close();
        call.ends_with(Code::Ok).await;
    }
    member.publish("still here").await;
    member.receives("still here").await;
    server.terminate();
    member.ends_with(Code::Unavailable).await;
    assert_eq!(server.exits().await.code(), Some(0));
}
