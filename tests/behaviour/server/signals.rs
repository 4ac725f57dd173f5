//! What each signal does: SIGTERM and SIGINT drain, SIGHUP drains only a server that was started from a terminal.

use crate::common::{PATIENCE, metrics::get, server::Server, within};
use std::time::{Duration, Instant};
use tonic::Code;

/// Far longer than any test here waits.
const LONG_NOTICE: [&str; 4] = ["--drain-notice", "50s", "--drain-deadline", "90s"];

/// Ready for load balancers, and answering them.
async fn is_ready(server: &Server) -> bool {
    get(server.metrics_addr, "/readyz").await.status == 200
}

async fn exits_without_the_notice(mut server: Server) {
    let asked = Instant::now();
    let status = server.exits().await;
    assert!(status.success(), "{status}");
    assert!(asked.elapsed() < Duration::from_secs(25), "it kept the notice of 50 s: {:?}", asked.elapsed());
}

#[tokio::test]
async fn sighup_without_terminal_is_ignored() {
    let server = Server::start(&[]);
    let mut ann = server.join_as("blue", "ann").await;
    for _ in 0..2 {
        server.signal("HUP");
        server.logs("SIGHUP is ignored: there is no configuration file to reload", |_| true).await;
    }
    ann.publish("still here").await;
    ann.receives("still here").await;
    assert!(is_ready(&server).await);
    // Nor does it count as the first of the two signals that end it at once.
    drop(ann);
    assert!(server.stop().await.status.success());
}

#[tokio::test]
async fn terminal_hangup_drains() {
    let (server, terminal) = Server::start_on_terminal(&["--drain-notice", "1s"]);
    let mut ann = server.join_as("blue", "ann").await;
    drop(terminal);
    server.logs("draining: not serving any more", |_| true).await;
    ann.publish("last words").await;
    ann.receives("last words").await;
    ann.ends_with(Code::Unavailable).await;
    assert!(server.ends().await.status.success());
}

#[tokio::test]
async fn ctrl_c_without_connections_exits_at_once() {
    let (server, mut terminal) = Server::start_on_terminal(&LONG_NOTICE);
    terminal.interrupt();
    exits_without_the_notice(server).await;
}

#[tokio::test]
async fn ctrl_c_during_operator_drain_exits_at_once() {
    let (server, mut terminal) = Server::start_on_terminal(&LONG_NOTICE);
    server.start_drain().await;
    terminal.interrupt();
    exits_without_the_notice(server).await;
}

#[tokio::test]
async fn ctrl_c_keeps_notice_for_connections() {
    let (mut server, mut terminal) = Server::start_on_terminal(&LONG_NOTICE);
    let mut ann = server.join_as("blue", "ann").await;
    terminal.interrupt();
    server.logs("draining: not serving any more", |line| line["connections"] == 1).await;
    ann.publish("still here").await;
    ann.receives("still here").await;
    assert!(server.is_alive() && !is_ready(&server).await);
    // A second one ends it, whoever is connected.
    terminal.interrupt();
    server.logs("second signal: ending at once", |_| true).await;
    assert_eq!(server.exits().await.code(), Some(1));
}

#[tokio::test]
async fn sigterm_and_foreign_sigint_keep_notice() {
    let without_terminal = Server::start(&LONG_NOTICE);
    without_terminal.signal("INT");
    let (on_terminal, _terminal) = Server::start_on_terminal(&LONG_NOTICE);
    on_terminal.signal("TERM");
    for mut server in [without_terminal, on_terminal] {
        server.logs("draining: not serving any more", |line| line["connections"] == 0).await;
        within(PATIENCE, "not ready", async { while is_ready(&server).await {} }).await;
        // Longer than the ending of nobody takes.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(server.is_alive());
    }
}
