//! Health as load balancers, container platforms and operators ask for it: over the wire, and by `chatroom health`.

use crate::common::{PATIENCE, server::Server, within};
use chatroom::wire::health::HealthListRequest;
use chatroom::wire::health::health_client::HealthClient;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

async fn client(server: &Server) -> HealthClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{}", server.addr)).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn reports(answers: &mut Streaming<HealthCheckResponse>, expected: ServingStatus) {
    let answer = within(PATIENCE, "a health answer", answers.message()).await;
    assert_eq!(answer.unwrap().map(|answer| answer.status()), Some(expected));
}

#[tokio::test]
async fn list_has_server_and_each_service() {
    let server = Server::start(&[]);
    let list = client(&server).await.list(HealthListRequest {}).await.unwrap().into_inner();
    for service in ["", "hello.ChatRoom"] {
        let status = list.statuses.get(service).map(HealthCheckResponse::status);
        assert_eq!(status, Some(ServingStatus::Serving), "{service:?} in {list:?}");
    }
}

#[tokio::test]
async fn unknown_service_is_not_found() {
    let server = Server::start(&[]);
    let status = client(&server).await.check(of("no.Service")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn watch_reports_shutdown_without_delaying_it() {
    let server = Server::start(&["--drain-deadline", "20s"]);
    let mut client = client(&server).await;
    let mut known = client.watch(of("hello.ChatRoom")).await.unwrap().into_inner();
    let mut unknown = client.watch(of("no.Service")).await.unwrap().into_inner();
    reports(&mut known, ServingStatus::Serving).await;
    reports(&mut unknown, ServingStatus::ServiceUnknown).await;
    server.terminate();
    reports(&mut known, ServingStatus::NotServing).await;
    let stopped = server.ends().await;
    assert!(stopped.status.success(), "{stopped:?}");
    assert!(stopped.took < Duration::from_secs(15), "{stopped:?}");
}

// The command.

fn health(addr: SocketAddr, options: &[&str]) -> (Output, Duration) {
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatroom"));
    command.args(["health", "--addr", &addr.to_string()]).args(options).stdin(Stdio::null());
    (command.output().unwrap(), began.elapsed())
}

fn lines(bytes: &[u8]) -> Vec<&str> {
    std::str::from_utf8(bytes).unwrap().lines().collect()
}

/// It failed, silent on stdout and with one line on stderr that contains these words.
fn failed(output: &Output, words: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let told = lines(&output.stderr);
    assert!(told.len() == 1 && told[0].contains(words), "{told:?} should be one line with {words:?}");
}

#[tokio::test]
async fn command_succeeds_when_serving() {
    let server = Server::start(&[]);
    for options in [&[][..], &["--service", "hello.ChatRoom"]] {
        let (output, _) = health(server.addr, options);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let told = lines(&output.stdout);
        assert!(told.len() == 1 && told[0].ends_with("is SERVING"), "{told:?}");
    }
}

#[tokio::test]
async fn command_fails_for_unknown_service() {
    let server = Server::start(&[]);
    let (output, _) = health(server.addr, &["--service", "no.Service"]);
    failed(&output, "has no service no.Service");
}

#[test]
fn command_fails_when_nobody_listens() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (output, _) = health(closed, &[]);
    failed(&output, "cannot reach");
}

#[test]
fn command_times_out() {
    // The kernel accepts for it, and nobody ever reads.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (output, took) = health(silent.local_addr().unwrap(), &["--timeout", "300ms"]);
    failed(&output, "within 300ms");
    assert!(took < Duration::from_secs(10), "took {took:?}");
}

#[test]
fn command_fails_on_other_protocol() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = other.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut socket, _) = other.accept().unwrap();
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    });
    let (output, _) = health(addr, &[]);
    failed(&output, "127.0.0.1");
    answering.join().unwrap();
}
