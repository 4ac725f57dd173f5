//! `chatroom.v1`: what a client says is acknowledged with its place, and said once however often it comes.

use crate::common::{
    server::Server,
    v1::{
        Guest, acked, after, client, earliest, hello, hello_from, keyed, of_kind, offset, publish_in,
        refusal, strictly, text, text_of,
    },
};
use chatroom::wire::v1::{Ack, Hello, Position, join_response::Response};

fn ack(reference: &str, at: &Position, offset: u64, repeated: bool) -> Ack {
    let position = Some(Position { offset, ..at.clone() });
    Ack { reference: reference.to_owned(), position, repeated }
}

fn quiet(room: &str) -> Hello {
    Hello { suppress_echo: true, ..hello(room) }
}

#[tokio::test]
async fn ack_has_position_of_delivered_event() {
    const EACH: u64 = 500;
    let server = Server::start(&[]);
    let mut listener = Guest::joins(&server, hello("blue")).await;
    let deaf = Hello { kinds: vec!["nothing".to_owned()], ..hello("blue") };
    let deaf_and_quiet = Hello { suppress_echo: true, ..deaf.clone() };
    let mut speakers = Vec::new();
    for (number, hello) in [hello("blue"), quiet("blue"), deaf, deaf_and_quiet].into_iter().enumerate() {
        speakers.push((number, Guest::joins(&server, hello).await));
    }
    let speaking = speakers.into_iter().map(|(number, mut guest)| {
        tokio::spawn(async move {
            for n in 0..EACH {
                guest.publishes(acked(&format!("{number}/{n}")));
            }
            let (mut acks, mut own) = (Vec::new(), Vec::new());
            while acks.len() < EACH as usize {
                match guest.next().await {
                    Response::Ack(ack) => {
                        assert!(!ack.repeated);
                        acks.push((ack.reference, ack.position.unwrap().offset));
                    }
                    Response::Event(event) => {
                        if event.sender.as_ref().unwrap().connection_id == guest.id() {
                            own.push((text_of(&event).unwrap().to_owned(), offset(&event)));
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(own, if number == 0 { acks.clone() } else { vec![] });
            (number, acks)
        })
    });
    let mut acknowledged = Vec::new();
    for speaker in speaking.collect::<Vec<_>>() {
        let (number, acks) = speaker.await.unwrap();
        let expected: Vec<_> = (0..EACH).map(|n| format!("{number}/{n}")).collect();
        assert_eq!(
            acks.iter().map(|(reference, _)| reference).collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>()
        );
        acknowledged.extend(acks);
    }
    acknowledged.sort_unstable_by_key(|(_, offset)| *offset);
    for (reference, place) in acknowledged {
        assert_eq!(offset(&listener.receives(&reference).await), place);
    }
}

#[tokio::test]
async fn no_reference_no_ack() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, quiet("blue")).await;
    ann.publishes(text("one"));
    ann.publishes(keyed("key", text("two")));
    ann.publishes(keyed("key", text("two")));
    ann.publishes(acked("three"));
    let at = ann.position().clone();
    assert_eq!(ann.ack().await, ack("three", &at, 3, false));
    assert_eq!(ann.leaves().await.position.unwrap().offset, 3);
}

#[tokio::test]
async fn references_are_private_to_the_publisher() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, quiet("blue")).await;
    let mut bob = Guest::joins(&server, quiet("blue")).await;
    let at = ann.position().clone();
    let (longest, odd) = ("r".repeat(64), "ü\n\0 ✓");
    for reference in [longest.as_str(), odd, "same", "same"] {
        ann.publishes(acked(reference));
    }
    for (reference, place) in [(longest.as_str(), 1), (odd, 2), ("same", 3), ("same", 4)] {
        assert_eq!(ann.ack().await, ack(reference, &at, place, false));
        assert_eq!(offset(&bob.receives(reference).await), place);
    }
    bob.publishes(acked("same"));
    assert_eq!(bob.ack().await, ack("same", &at, 5, false));
    ann.receives("same").await;
    ann.leaves().await;
}

#[tokio::test]
async fn idempotency_key_publishes_once_across_calls() {
    let server = Server::start(&[]);
    let mut listener = Guest::joins(&server, hello("blue")).await;
    let mut ann = Guest::joins(&server, hello("blue")).await;
    let at = ann.position().clone();
    ann.publish_and_receive("first").await;
    ann.publishes(keyed("k", acked("once")));
    ann.receives("once").await;
    assert_eq!(ann.ack().await, ack("once", &at, 2, false));
    // Again, and with other words: the key says that it is the same.
    ann.publishes(keyed("k", acked("once")));
    ann.publishes(keyed("k", of_kind("move", acked("other words"))));
    assert_eq!(ann.ack().await, ack("once", &at, 2, true));
    assert_eq!(ann.ack().await, ack("other words", &at, 2, true));
    // From another connection, which half-closes right after it.
    let mut bob = Guest::joins(&server, hello("blue")).await;
    bob.publishes(keyed("k", acked("from bob")));
    bob.half_closes();
    assert_eq!(bob.ack().await, ack("from bob", &at, 2, true));
    let (goodbye, status) = bob.ends().await;
    assert_eq!((goodbye.reason.as_str(), status.code()), ("left", tonic::Code::Ok));
    // By the unary call, before and after.
    let mut client = client(&server).await;
    let once = client.publish(publish_in("blue", keyed("k", text("unary")))).await.unwrap().into_inner();
    assert_eq!((once.position.unwrap().offset, once.repeated), (2, true));
    let new = client.publish(publish_in("blue", keyed("l", text("new")))).await.unwrap().into_inner();
    assert_eq!((new.position.unwrap().offset, new.repeated), (3, false));
    ann.receives("new").await;
    ann.publishes(keyed("l", acked("new")));
    assert_eq!(ann.ack().await, ack("new", &at, 3, true));
    // A key is of its room, and is taken as it is.
    let red = client.publish(publish_in("red", keyed("k", text("red")))).await.unwrap().into_inner();
    assert_eq!((red.position.unwrap().offset, red.repeated), (1, false));
    ann.publishes(keyed("K", acked("upper case")));
    ann.receives("upper case").await;
    assert_eq!(ann.ack().await, ack("upper case", &at, 4, false));
    for (words, place) in [("first", 1), ("once", 2), ("new", 3), ("upper case", 4)] {
        assert_eq!(offset(&listener.receives(words).await), place);
    }
    let mut late = Guest::joins(&server, hello_from("blue", earliest())).await;
    for words in ["first", "once", "new", "upper case"] {
        late.receives(words).await;
    }
    late.leaves().await;
    listener.leaves().await;
}

#[tokio::test]
async fn duplicate_key_within_batch_is_found() {
    let server = Server::start(&[]);
    let mut listener = Guest::joins(&server, hello("blue")).await;
    let mut ann = Guest::joins(&server, quiet("blue")).await;
    let at = ann.position().clone();
    for n in 0..200 {
        for _ in 0..3 {
            ann.publishes(keyed(&format!("key {n}"), acked(&n.to_string())));
        }
    }
    for n in 0..200 {
        for repeated in [false, true, true] {
            assert_eq!(ann.ack().await, ack(&n.to_string(), &at, n + 1, repeated));
        }
    }
    for n in 0..200 {
        assert_eq!(offset(&listener.receives(&n.to_string()).await), n + 1);
    }
    assert_eq!(ann.leaves().await.position.unwrap().offset, 200);
    assert_eq!(listener.leaves().await.position.unwrap().offset, 200);
}

#[tokio::test]
async fn key_is_known_for_retention_messages() {
    let server = Server::start(&["--retention-messages", "5"]);
    let mut ann = Guest::joins(&server, quiet("blue")).await;
    let at = ann.position().clone();
    ann.publishes(keyed("k", acked("one")));
    assert_eq!(ann.ack().await, ack("one", &at, 1, false));
    // One by one, so that each is a batch; what has no key takes none's place.
    for n in 2..=9 {
        ann.publishes(acked("filler"));
        assert_eq!(ann.ack().await, ack("filler", &at, n, false));
    }
    for n in 10..=13 {
        ann.publishes(keyed(&n.to_string(), acked("filler")));
        assert_eq!(ann.ack().await, ack("filler", &at, n, false));
    }
    ann.publishes(keyed("k", acked("one")));
    assert_eq!(ann.ack().await, ack("one", &at, 1, true));
    ann.publishes(keyed("14", acked("filler")));
    assert_eq!(ann.ack().await, ack("filler", &at, 14, false));
    ann.publishes(keyed("k", acked("one")));
    assert_eq!(ann.ack().await, ack("one", &at, 15, false));
    let mut client = client(&server).await;
    let again = client.publish(publish_in("blue", keyed("k", text("one")))).await.unwrap().into_inner();
    assert_eq!((again.position.unwrap().offset, again.repeated), (15, true));
}

#[tokio::test]
async fn key_outlives_its_trimmed_message() {
    let server = Server::start(&["--retention-bytes", "256KiB"]);
    let mut ann = Guest::joins(&server, Hello { kinds: vec!["none".to_owned()], ..hello("blue") }).await;
    let at = ann.position().clone();
    ann.publishes(keyed("k", acked("one")));
    assert_eq!(ann.ack().await, ack("one", &at, 1, false));
    let long = "x".repeat(60_000);
    let mut client = client(&server).await;
    for _ in 0..10 {
        client.publish(publish_in("blue", text(&long))).await.unwrap();
    }
    let start = hello_from("blue", strictly(after(&Position { offset: 0, ..at.clone() })));
    assert_eq!(refusal(&server, start).await.code(), tonic::Code::OutOfRange);
    ann.publishes(keyed("k", acked("one")));
    assert_eq!(ann.ack().await, ack("one", &at, 1, true));
}

#[tokio::test]
async fn duplicates_trim_nothing() {
    let server = Server::start(&["--retention-bytes", "256KiB"]);
    let mut client = client(&server).await;
    let first = client.publish(publish_in("blue", text("old news"))).await.unwrap().into_inner();
    let mut ann = Guest::joins(&server, hello("blue")).await;
    for _ in 0..5_000 {
        ann.publishes(keyed("k", text("again and again")));
    }
    ann.receives("again and again").await;
    for _ in 0..20 {
        let again = client.publish(publish_in("blue", keyed("k", text("unary")))).await.unwrap().into_inner();
        assert_eq!((again.position.unwrap().offset, again.repeated), (2, true));
    }
    // Also when the last that it says is nothing new.
    assert_eq!(ann.leaves().await.position.unwrap().offset, 2);
    let mut late = Guest::joins(&server, hello_from("blue", earliest())).await;
    assert_eq!(late.receives("old news").await.position, first.position);
    late.receives("again and again").await;
    late.leaves().await;
}
