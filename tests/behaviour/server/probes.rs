//! Probes and scrapes over plain HTTP: answered as they should be, whatever others do to the listener.

use crate::common::{
    PATIENCE,
    client::Transport,
    metrics::{Scrape, get},
    server::Server,
    within,
};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request's head has five seconds by design, more on a busy machine.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn serving_is_live_and_ready_other_paths_404() {
    let server = Server::start(&[]);
    for (path, status) in
        [("/livez", 200), ("/readyz", 200), ("/", 404), ("/metrics/", 404), ("/healthz", 404)]
    {
        assert_eq!(get(server.metrics_addr, path).await.status, status, "{path}");
    }
    let metrics = get(server.metrics_addr, "/metrics").await;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
}

#[tokio::test]
async fn draining_is_live_and_not_ready() {
    let server = Server::start(&["--drain-deadline", "20s"]);
    // Holds up the stop: its transport has to be waited for.
    let mut slow = server.join("blue").await;
    slow.publish("hi").await;
    let addr = server.metrics_addr;
    let _held = TcpStream::connect(server.addr).await.unwrap();
    server.terminate();
    let mut seen = Vec::new();
    while let Ok(status) = probe(addr, "/readyz").await {
        seen.push(status);
        if status == 503 {
            assert!(matches!(probe(addr, "/livez").await, Ok(200) | Err(_)));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It may be over before the first look; but once it is not ready, it is not ready for good.
    println!(
        "{} answers while it stopped, {} of them 503",
        seen.len(),
        seen.iter().filter(|s| **s == 503).count()
    );
    assert!(seen.is_sorted(), "{seen:?}");
    let stopped = server.ends().await;
    assert!(stopped.status.success(), "{stopped:?}");
}

/// The status of an answer, if there still is one.
async fn probe(addr: SocketAddr, path: &str) -> io::Result<u16> {
    let asking = async {
        let mut socket = TcpStream::connect(addr).await?;
        socket
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or(io::ErrorKind::UnexpectedEof.into())
    };
    within(PATIENCE, "an answer or its refusal", asking).await
}

#[tokio::test]
async fn slow_request_head_is_cut() {
    let server = Server::start(&[]);
    let mut slow = TcpStream::connect(server.metrics_addr).await.unwrap();
    let began = Instant::now();
    let mut head = b"GET /metrics HTTP/1.1\r\nhost: ".iter().chain([b'x'; 1].iter().cycle());
    let cut = async {
        let mut answer = [0; 512];
        loop {
            let Ok(()) = slow.write_all(&[*head.next().unwrap()]).await else { return };
            // What is said about it does not matter, the end does.
            let answered = tokio::time::timeout(Duration::from_millis(100), slow.read(&mut answer)).await;
            if let Ok(Ok(0) | Err(_)) = answered {
                return;
            }
        }
    };
    within(HEAD_PATIENCE, "the end of a slow head", cut).await;
    println!("a slow head is cut after {:?}", began.elapsed());
    assert_eq!(get(server.metrics_addr, "/livez").await.status, 200);
}

#[tokio::test]
async fn idle_connections_delay_scrape_by_head_deadline_at_most() {
    let server = Server::start(&[]);
    // With all that serving takes: it answers.
    get(server.metrics_addr, "/metrics").await;
    let descriptors = server.descriptors();
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(server.metrics_addr).await.unwrap());
    }
    let began = Instant::now();
    let scrape = within(HEAD_PATIENCE, "a scrape", Scrape::of(server.metrics_addr)).await;
    println!("a scrape beside {} idle connections took {:?}", idle.len(), began.elapsed());
    assert!(scrape.series().contains("chatroom_connections{api=\"hello\"}"));
    // Cut, all of them, without having said anything.
    let cut = async {
        for socket in &mut idle {
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer).await;
        }
    };
    within(PATIENCE, "the end of all idle connections", cut).await;
    println!("all were cut after {:?}", began.elapsed());
    crate::common::eventually(PATIENCE, "no socket is left", || server.descriptors() <= descriptors).await;
}

/// One that is kept alive, idle between scrapes, has the same deadline: a scraper opens another, or comes sooner.
#[tokio::test]
async fn keep_alive_connection_answers_repeatedly() {
    let server = Server::start(&[]);
    let mut socket = TcpStream::connect(server.metrics_addr).await.unwrap();
    let _transport = Transport::connect(server.addr).await;
    for _ in 0..100 {
        socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"alive\n") {
            let mut some = [0; 512];
            let read = within(PATIENCE, "an answer", socket.read(&mut some)).await.unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend(&some[..read]);
        }
    }
}
