//! Clients whose sockets are full, in a room of tiny messages, each of which is broadcast alone: HTTP/2 keeps far more
//! around a frame than is in it.

use crate::common::{PATIENCE, client::Transport, metrics::Scrape, raw::RawClient, server::Server, within};
use crate::machine;
use std::time::Duration;

const ROOM: &str = "orchard";
const STUCK: usize = 50;
/// More than their sockets take: each is about 20 bytes on the wire.
const MESSAGES: u32 = 20_000;

/// What a stuck client may cost: the send buffer of its stream, and HTTP/2's own state.
const EACH_MAX: u64 = 128 * 1024;
/// The room's retention, and the allocator.
const SLACK: u64 = 24 << 20;

#[tokio::test]
async fn tiny_messages_wait_in_log_not_in_frames() {
    let _machine = machine::alone();
    let patient = ["--lag-limit-bytes=64MiB", "--lag-limit-age=5m", "--write-stall-limit=5m"];
    let server = Server::start_quiet(&patient);
    let addr = server.addr;
    let stuck = tokio::task::spawn_blocking(move || {
        let one = |_| {
            let mut client = RawClient::connect(addr);
            client.joins(ROOM, "stuck");
            client
        };
        (0..STUCK).map(one).collect::<Vec<_>>()
    });
    let stuck = stuck.await.unwrap();
    let mut speaker = Transport::connect(addr).await.join(ROOM, "speaker").await;
    let before = server.settled_rss().await;
    for number in 0..MESSAGES {
        let text = format!("{number:05}");
        speaker.publish(&text).await;
        speaker.receives(&text).await;
    }
    let after = server.rss();
    let scrape = Scrape::of(server.metrics_addr).await;
    println!("resident {} KiB before, {} after; {STUCK} stuck", before >> 10, after >> 10);
    assert_eq!(scrape.sum("chatroom_connections"), (STUCK + 1) as f64);
    let bound = STUCK as u64 * EACH_MAX + SLACK;
    assert!(after - before <= bound, "{} KiB over {} KiB", (after - before) >> 10, bound >> 10);

    // They are behind and no more: who reads on gets everything.
    let mut reader = stuck.into_iter().next().unwrap();
    let received = tokio::task::spawn_blocking(move || reader.receives(MESSAGES as usize));
    let received = within(PATIENCE + Duration::from_secs(20), "all of it", received).await.unwrap();
    let published: Vec<String> = (0..MESSAGES).map(|number| format!("{number:05}")).collect();
    assert!(
        received == published,
        "{} of {} in order",
        received.iter().zip(&published).take_while(|(a, b)| a == b).count(),
        MESSAGES
    );
}
