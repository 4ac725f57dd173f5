//! `chatroom.v1`: who does not read is disconnected or skips, and is told exactly what it does not get.

use crate::common::{
    metrics::Scrape,
    server::Server,
    v1::{
        Guest, acked, after, earliest, hello, hello_from, hello_of, keyed, narrow_client, offset, reason_of,
        text, written,
    },
};
use chatroom::wire::v1::{gap::Reason, join_response::Response};
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt;

/// Says this many texts of a KiB; hears them.
async fn publishes_kibibytes(guest: &mut Guest, texts: u64) {
    let words = "x".repeat(1024);
    for _ in 0..texts {
        guest.publish_and_receive(&words).await;
    }
}

/// One whose window is full after 64 KiB, when it does not read.
async fn sleepy(server: &Server, hello: chatroom::wire::v1::Hello) -> Guest {
    Guest::joins_by(&mut narrow_client(server).await, hello).await
}

#[tokio::test]
async fn slow_consumer_gets_position_and_resumes() {
    let server = Server::start(&["--lag-limit-bytes", "64KiB"]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    let mut slow = sleepy(&server, hello_of("blue", "slow")).await;
    let mut hearty = Guest::joins(&server, hello("blue")).await;
    publishes_kibibytes(&mut ann, 500).await;
    assert_eq!(server.departure_of("slow").await, "slow_consumer");
    // If its window has no room for a goodbye, the status says it all.
    let (mut received, status) = slow.receives_rest().await;
    if let Some(Response::Goodbye(goodbye)) = received.pop_if(|last| matches!(last, Response::Goodbye(_))) {
        assert_eq!(goodbye.reason, "slow_consumer");
    }
    let mut last = None;
    for (response, place) in received.iter().zip(1..) {
        let Response::Event(event) = response else { panic!("{response:?}") };
        assert_eq!(offset(event), place);
        last = event.position.clone();
    }
    let position = &last.unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let why = reason_of(&status);
    assert_eq!((&*why.reason, &why.metadata["position"]), ("SLOW_CONSUMER", &written(position)));
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    let scrape = Scrape::of(server.metrics_addr).await;
    assert_eq!(scrape.value("chatroom_slow_consumers_total{action=\"disconnect\"}"), 1.0);
    assert_eq!(scrape.value("chatroom_slow_consumers_total{action=\"skip\"}"), 0.0);
    // It is missed up to the disconnect, which may come before the last is published.
    let missed = scrape.value("chatroom_gap_messages_total") as u64;
    assert!((1..=500 - position.offset).contains(&missed), "{missed} missed after {position:?}");

    let mut back = Guest::joins(&server, hello_from("blue", after(position))).await;
    for place in position.offset + 1..=500 {
        assert_eq!(offset(&back.event().await), place);
    }
    for place in 1..=500 {
        assert_eq!(offset(&hearty.event().await), place);
    }
    ann.publish_and_receive("still here").await;
    hearty.receives("still here").await;
    back.receives("still here").await;
}

/// What it hears and is told that it does not, up to this place: all there is. The gaps' messages, and how many gaps.
async fn receives_or_misses_all(guest: &mut Guest, places: std::ops::RangeInclusive<u64>) -> (u64, u64) {
    let (mut next, mut missed, mut gaps) = (*places.start(), 0, 0);
    while next <= *places.end() {
        match guest.next().await {
            Response::Event(event) => {
                assert_eq!(offset(&event), next);
                next += 1;
            }
            Response::Gap(gap) => {
                let (from, to) = (gap.from.as_ref().unwrap(), gap.to.as_ref().unwrap());
                assert_eq!((gap.reason(), from.offset), (Reason::Slow, next));
                assert_eq!((&from.epoch, &to.epoch), (&guest.position().epoch, &guest.position().epoch));
                assert_eq!(gap.count, to.offset - from.offset + 1);
                next = to.offset + 1;
                missed += gap.count;
                gaps += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    (missed, gaps)
}

#[tokio::test]
async fn skip_policy_sends_gap_and_continues_at_oldest() {
    const ROUND: u64 = 1000;
    let server = Server::start(&[
        "--slow-policy",
        "skip",
        "--lag-limit-bytes",
        "64KiB",
        "--retention-messages",
        "100",
    ]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    let mut guests = Vec::new();
    for _ in 0..3 {
        guests.push(sleepy(&server, hello("blue")).await);
    }
    let (mut missed, mut gaps) = (0, 0);
    for round in 0..3 {
        publishes_kibibytes(&mut ann, ROUND).await;
        for guest in &mut guests {
            let (messages, times) =
                receives_or_misses_all(guest, round * ROUND + 1..=(round + 1) * ROUND).await;
            assert!(messages > 0 && times > 0, "nothing was skipped");
            missed += messages;
            gaps += times;
        }
    }
    let scrape = Scrape::of(server.metrics_addr).await;
    assert_eq!(scrape.value("chatroom_gap_messages_total"), missed as f64);
    assert_eq!(scrape.value("chatroom_slow_consumers_total{action=\"skip\"}"), gaps as f64);
    assert_eq!(scrape.value("chatroom_slow_consumers_total{action=\"disconnect\"}"), 0.0);
    // Published times receivers is delivered and missed.
    let delivered = scrape.value("chatroom_messages_delivered_total{api=\"v1\"}");
    assert_eq!(delivered + missed as f64, (3 * ROUND * 4) as f64);
    for guest in guests {
        assert_eq!(guest.leaves().await.position.unwrap().offset, 3 * ROUND);
    }
}

#[tokio::test]
async fn gap_covers_own_skipped_messages() {
    let server = Server::start(&["--slow-policy", "skip", "--retention-messages", "50"]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    let mut slow = sleepy(&server, hello("blue")).await;
    publishes_kibibytes(&mut ann, 400).await;
    slow.publishes(keyed("mine", acked("mine")));
    ann.receives("mine").await;
    publishes_kibibytes(&mut ann, 400).await;
    slow.half_closes();
    let (missed, _) = receives_or_misses_all(&mut slow, 1..=801).await;
    assert!(missed > 0);
    let (goodbye, status) = slow.ends().await;
    assert_eq!((status.code(), goodbye.position.unwrap().offset), (Code::Ok, 801));
    // Its acknowledgement was there, too: asked again by its key, it comes.
    let mut again = Guest::joins(&server, hello("blue")).await;
    again.publishes(keyed("mine", acked("mine")));
    let ack = again.ack().await;
    assert_eq!((ack.position.unwrap().offset, ack.repeated), (401, true));
}

#[tokio::test]
async fn slow_policy_applies_to_matching_rooms() {
    let server = Server::start(&[
        "--slow-policy-for",
        "game-*=skip",
        "--lag-limit-bytes",
        "64KiB",
        "--retention-messages",
        "100",
    ]);
    for (room, skips) in [("game-1", true), ("games", false)] {
        let mut ann = Guest::joins(&server, hello(room)).await;
        let mut slow = sleepy(&server, hello_of(room, room)).await;
        publishes_kibibytes(&mut ann, 1000).await;
        if skips {
            let (missed, _) = receives_or_misses_all(&mut slow, 1..=1000).await;
            assert!(missed > 0);
        } else {
            assert_eq!(server.departure_of(room).await, "slow_consumer");
        }
    }
    // A client that cannot be told of a gap is disconnected everywhere.
    let mut ann = Guest::joins(&server, hello("game-2")).await;
    let windows = crate::common::client::Windows { stream: 0, ..crate::common::client::Windows::DEFAULT };
    let transport = crate::common::client::Transport::connect_with(server.addr, windows).await;
    let _deaf = transport.join("game-2", "deaf").await;
    publishes_kibibytes(&mut ann, 500).await;
    assert_eq!(server.departure_of("deaf").await, "slow_consumer");
}

#[tokio::test]
async fn history_reader_in_progress_is_not_slow() {
    const MESSAGES: u64 = 3000;
    let server = Server::start(&["--lag-limit-bytes", "64KiB", "--lag-limit-age", "1s"]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    publishes_kibibytes(&mut ann, MESSAGES).await;
    let mut reader = sleepy(&server, hello_from("blue", earliest())).await;
    // Many looks of the housekeeper, each of which finds it further behind than the limit.
    for place in 1..=MESSAGES {
        if place % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(offset(&reader.event().await), place);
    }
    reader.publish_and_receive("up to now").await;
    // And who does not read on is.
    let stuck =
        chatroom::wire::v1::Hello { display_name: "stuck".to_owned(), ..hello_from("blue", earliest()) };
    let _stuck = sleepy(&server, stuck).await;
    assert_eq!(server.departure_of("stuck").await, "slow_consumer");
    ann.receives("up to now").await;
    ann.publishes(text("bye"));
    ann.receives("bye").await;
    reader.receives("bye").await;
}
