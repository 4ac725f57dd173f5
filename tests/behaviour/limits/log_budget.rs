//! One budget for all rooms' logs: memory stays within it, and the idlest rooms' history goes first.

use crate::common::{
    PATIENCE,
    metrics::Scrape,
    server::Server,
    until,
    v1::{Client, Guest, client, earliest, hello, hello_from, offset, publish_in, text},
    within,
};
use chatroom::wire::v1::ListEventsRequest;
use futures_util::future::join_all;

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 16 * MIB;
const ROOMS: usize = 40;
const LEN: usize = 60_000;

/// Publishes to each of the rooms in turn.
async fn fill(client: &Client, prefix: &str, rounds: usize) {
    let words = "x".repeat(LEN);
    for _ in 0..rounds {
        let publish = (0..ROOMS).map(|n| {
            let (mut client, request) = (client.clone(), publish_in(&format!("{prefix}{n}"), text(&words)));
            async move { client.publish(request).await.map(drop) }
        });
        for published in within(PATIENCE, "a round", join_all(publish)).await {
            published.unwrap();
        }
    }
}

async fn retained(client: &mut Client, room: &str) -> Vec<u64> {
    let mut request = ListEventsRequest { room: room.to_owned(), ..Default::default() };
    let mut offsets = Vec::new();
    loop {
        let page = client.list_events(request.clone()).await.unwrap().into_inner();
        offsets.extend(page.events.iter().map(offset));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return offsets;
        }
    }
}

#[tokio::test]
async fn logs_of_all_rooms_stay_within_budget() {
    let options = ["--retention-total-bytes", "16MiB", "--room-idle", "1s"];
    let server = Server::start_quiet(&options);
    let mut client = client(&server).await;
    let before = server.settled_rss().await;
    let mut peak = 0;
    // The second time, the first rooms are gone.
    for prefix in ["a", "b"] {
        let mut trimmed =
            Scrape::of(server.metrics_addr).await.sum("chatroom_log_budget_trimmed_bytes_total");
        for _ in 0..5 {
            fill(&client, prefix, 10).await;
            let scrape = Scrape::of(server.metrics_addr).await;
            let held = scrape.sum("chatroom_log_bytes") as u64;
            // A segment for each room may be over it.
            assert!(held <= BUDGET + (ROOMS * (LEN + 1000)) as u64, "{held} bytes of {BUDGET}");
            peak = peak.max(server.rss());
            let now = scrape.sum("chatroom_log_budget_trimmed_bytes_total");
            assert!(now >= trimmed);
            trimmed = now;
        }
        assert!(trimmed as u64 > 5 * BUDGET, "{trimmed} bytes trimmed");
        let no_room = async || Scrape::of(server.metrics_addr).await.sum("chatroom_rooms") == 0.0;
        until("all rooms retire", no_room).await;
        assert_eq!(Scrape::of(server.metrics_addr).await.sum("chatroom_log_bytes") as u64, 0);
    }
    println!("resident: {} KiB more than before, at most", (peak - before) >> 10);
    // What is on its way through inboxes and transports is beside the budget.
    assert!(peak - before < 4 * BUDGET, "{} MiB more than before", (peak - before) >> 20);
    let limit = Scrape::of(server.metrics_addr).await.sum("chatroom_log_bytes_limit") as u64;
    assert_eq!(limit, BUDGET);
    client.publish(publish_in("a0", text("hi"))).await.unwrap();
}

#[tokio::test]
async fn idlest_room_is_trimmed_first() {
    let server = Server::start(&["--retention-total-bytes", "8MiB"]);
    let mut client = client(&server).await;
    // Idle, but somebody is there: it has all, and misses nothing.
    let mut ann = Guest::joins(&server, hello("idle")).await;
    for n in 0..20 {
        client.publish(publish_in("idle", text(&"i".repeat(LEN)))).await.unwrap();
        assert_eq!(offset(&ann.event().await), n + 1);
    }
    let words = "a".repeat(LEN);
    client.publish(publish_in("active", text(&words))).await.unwrap();
    for n in 0..100 {
        client.publish(publish_in(&format!("other{}", n % 10), text(&words))).await.unwrap();
        if n % 10 == 0 {
            client.publish(publish_in("active", text(&words))).await.unwrap();
        }
    }
    let trims = async { while retained(&mut client, "idle").await.first() == Some(&1) {} };
    within(PATIENCE, "the idle room is trimmed", trims).await;
    assert_eq!(retained(&mut client, "active").await, (1..=11).collect::<Vec<_>>());
    assert_eq!(retained(&mut client, "other0").await, (1..=10).collect::<Vec<_>>());
    client.publish(publish_in("idle", text("on"))).await.unwrap();
    assert_eq!(offset(&ann.receives("on").await), 21);
    // Who comes later begins with what is left.
    let left = retained(&mut client, "idle").await;
    assert!(left.len() < 21 && left.is_sorted(), "{left:?}");
    let mut bob = Guest::joins(&server, hello_from("idle", earliest())).await;
    assert_eq!(offset(&bob.event().await), left[0]);
}
