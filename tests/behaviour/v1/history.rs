//! `chatroom.v1`: hearing may begin anywhere in what is retained, and what is missing is told exactly.

use crate::common::{
    client::{Ending, Transport, chat},
    server::Server,
    v1::{
        Guest, after, earliest, hello, hello_from, is_invalid, last, of_kind, offset, reason_of, refusal,
        strictly, tail, text, text_of, written,
    },
};
use chatroom::wire::v1::{
    Gap, Hello, Position, Start, SubscribeRequest, gap::Reason, join_response::Response, start::At,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn at(position: &Position, offset: u64) -> Position {
    Position { offset, ..position.clone() }
}

/// Says this many texts, each its own offset, with a batch of its own; hears them.
async fn publishes_one_by_one(guest: &mut Guest, texts: u64) {
    let published = guest.position().offset;
    for n in published + 1..=published + texts {
        assert_eq!(offset(&guest.publish_and_receive(&n.to_string()).await), n);
    }
}

/// Says them as fast as it can, so that batches have several; hears them.
async fn publishes_at_once(guest: &mut Guest, texts: std::ops::RangeInclusive<u64>) {
    for n in texts.clone() {
        guest.publishes(text(&n.to_string()));
    }
    for n in texts {
        assert_eq!(offset(&guest.receives(&n.to_string()).await), n);
    }
}

async fn receives_all(guest: &mut Guest, mut texts: std::ops::RangeInclusive<u64>) {
    assert_eq!(guest.position().offset, *texts.start() - 1);
    receives(guest, &mut texts).await;
}

async fn receives(guest: &mut Guest, texts: &mut std::ops::RangeInclusive<u64>) {
    for n in texts {
        assert_eq!(offset(&guest.receives(&n.to_string()).await), n);
    }
}

#[track_caller]
fn is_gap(gap: &Gap, reason: Reason, of: &Position, (from, to, count): (u64, u64, u64)) {
    let expected = Gap { from: Some(at(of, from)), to: Some(at(of, to)), count, reason: reason.into() };
    assert_eq!(*gap, expected);
}

/// The refusal of a start before what is retained.
fn is_not_retained(status: &Status, of: &Position, (from, to): (u64, u64)) {
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let why = reason_of(status);
    assert_eq!(why.reason, "START_NOT_RETAINED");
    let told = (why.metadata["from"].as_str(), why.metadata["to"].as_str());
    assert_eq!(told, (written(&at(of, from)).as_str(), written(&at(of, to)).as_str()));
    assert_eq!(why.metadata["why"], "retention");
    let words = format!("{} messages from ", to + 1 - from);
    assert!(status.message().contains(&words) && !status.message().contains("anew"), "{status:?}");
    assert!(status.get_details_retry_info().is_none());
}

#[tokio::test]
async fn start_at_tail_earliest_last_or_after() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    publishes_at_once(&mut ann, 1..=500).await;
    let position = ann.position().clone();
    let from = |start| hello_from("blue", start);
    let starts = [
        (from(earliest()), 1),
        (from(last(7)), 494),
        (from(last(0)), 501),
        (from(last(500)), 1),
        (from(last(1_000_000)), 1),
        (from(last(u64::MAX)), 1),
        (from(tail()), 501),
        (from(Start::default()), 501),
        (hello("blue"), 501),
        (from(after(&at(&position, 0))), 1),
        (from(after(&at(&position, 1))), 2),
        (from(after(&at(&position, 499))), 500),
        (from(after(&at(&position, 500))), 501),
        (from(strictly(earliest())), 1),
        (from(strictly(last(9))), 492),
        (from(strictly(after(&at(&position, 250)))), 251),
    ];
    let mut guests = Vec::new();
    for (hello, first) in starts {
        guests.push((first, Guest::joins(&server, hello).await));
    }
    let request = SubscribeRequest {
        room: "blue".to_owned(),
        start: Some(after(&at(&position, 123))),
        ..Default::default()
    };
    guests.push((124, Guest::subscribes(&server, request).await));
    ann.publish_and_receive("501").await;
    for (first, guest) in &mut guests {
        receives_all(guest, *first..=501).await;
    }
}

#[tokio::test]
async fn half_closed_join_receives_whole_history() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    let texts: Vec<String> = (1..=4_000).map(|n| format!("{n} {}", "x".repeat(500))).collect();
    for some in texts.chunks(500) {
        for words in some {
            ann.call.publishes(text(words));
        }
        for words in some {
            ann.receives(words).await;
        }
    }
    let mut bob = Guest::joins(&server, hello_from("blue", earliest())).await;
    bob.call.half_closes();
    for words in &texts {
        bob.receives(words).await;
    }
    let (goodbye, status) = bob.ends().await;
    assert_eq!((goodbye.reason.as_str(), status.code()), ("left", Code::Ok), "{status:?}");
    // The same in the other API.
    let resume = written(&at(ann.position(), 0));
    let call = chat(&[("chatroom-room", "blue"), ("chatroom-resume", &resume)]);
    let (_, mut cat) = Transport::connect(server.addr).await.open(call).await;
    cat.half_close();
    for words in &texts {
        cat.receives(words).await;
    }
    cat.ends_with(Code::Ok).await;
}

#[tokio::test]
async fn resume_after_any_offset() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    for burst in 0..10 {
        publishes_at_once(&mut ann, burst * 30 + 1..=burst * 30 + 30).await;
    }
    let mut client = crate::common::v1::client(&server).await;
    for offset in 0..=300 {
        let hello = hello_from("blue", strictly(after(&at(ann.position(), offset))));
        let mut guest = Guest::joins_by(&mut client, hello).await;
        receives_all(&mut guest, offset + 1..=300).await;
    }
    // The same for a client of the other API, which has no events: its texts say where it is.
    let transport = Transport::connect(server.addr).await;
    for offset in (0..=300).step_by(7) {
        let resume = written(&at(ann.position(), offset));
        let call = chat(&[("chatroom-room", "blue"), ("chatroom-resume", &resume)]);
        let (_, mut member) = transport.open(call).await;
        for n in offset + 1..=300 {
            member.receives(&n.to_string()).await;
        }
    }
}

#[tokio::test]
async fn trimmed_start_is_gap_or_strict_refusal() {
    let server = Server::start(&["--retention-messages", "10"]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    publishes_one_by_one(&mut ann, 40).await;
    let position = ann.position().clone();
    for missed in [0, 1, 29] {
        let start = after(&at(&position, missed));
        let mut guest = Guest::joins(&server, hello_from("blue", start.clone())).await;
        assert_eq!(guest.position().offset, 30);
        is_gap(&guest.gap().await, Reason::Retention, &position, (missed + 1, 30, 30 - missed));
        receives(&mut guest, &mut (31..=40)).await;
        let refused = refusal(&server, hello_from("blue", strictly(start))).await;
        is_not_retained(&refused, &position, (missed + 1, 30));
        let resume = written(&at(&position, missed));
        let call = chat(&[("chatroom-room", "blue"), ("chatroom-resume", &resume)]);
        let (_, mut member) = Transport::connect(server.addr).await.open(call).await;
        member.ends_with(Code::OutOfRange).await;
    }
    // What is retained in part or in whole is no gap for who did not have a position.
    for (start, first) in [(earliest(), 31), (last(40), 31), (after(&at(&position, 30)), 31)] {
        let mut guest = Guest::joins(&server, hello_from("blue", strictly(start))).await;
        receives_all(&mut guest, first..=40).await;
    }
    ann.publish_and_receive("41").await;
}

#[tokio::test]
async fn future_position_is_out_of_range() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    publishes_one_by_one(&mut ann, 3).await;
    let position = ann.position().clone();
    for offset in [4, 5, u64::MAX] {
        for start in [after(&at(&position, offset)), strictly(after(&at(&position, offset)))] {
            let status = refusal(&server, hello_from("blue", start)).await;
            assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
            let why = reason_of(&status);
            let last = written(&at(&position, 3));
            assert_eq!((why.reason.as_str(), &why.metadata["last_position"]), ("START_BEYOND", &last));
        }
        let resume = written(&at(&position, offset));
        let call = chat(&[("chatroom-room", "blue"), ("chatroom-resume", &resume)]);
        let (_, mut member) = Transport::connect(server.addr).await.open(call).await;
        member.ends_with(Code::OutOfRange).await;
    }
    ann.publish_and_receive("4").await;
}

#[tokio::test]
async fn other_epoch_is_epoch_gap() {
    let server = Server::start(&["--room-idle", "1s"]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    publishes_one_by_one(&mut ann, 3).await;
    let old = at(ann.position(), 3);
    let left = ann.leaves().await.position.unwrap();
    assert_eq!(left, old);
    // It goes away when nobody has been there for a second.
    let gone = async {
        // To look is to be there, so it is left alone between two looks.
        while Guest::joins(&server, hello("blue")).await.position().epoch == old.epoch {
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        }
    };
    crate::common::within(crate::common::PATIENCE, "another life of the room", gone).await;
    let refused = refusal(&server, hello_from("blue", strictly(after(&old)))).await;
    let why = reason_of(&refused);
    assert_eq!((refused.code(), &*why.reason), (Code::OutOfRange, "START_NOT_RETAINED"));
    assert_eq!(why.metadata["why"], "epoch");
    let words = refused.message();
    assert!(words.contains("the room began anew") && !words.contains("retained"), "{words}");
    let resume = written(&old);
    let call = chat(&[("chatroom-room", "blue"), ("chatroom-resume", &resume)]);
    let (_, mut member) = Transport::connect(server.addr).await.open(call).await;
    // On the wire blanks are escaped.
    assert_eq!(member.ends().await, Ending::Status(Code::OutOfRange, words.replace(' ', "%20")));

    let mut bob = Guest::joins(&server, hello_from("blue", after(&old))).await;
    let new = bob.position().clone();
    assert_ne!(new.epoch, old.epoch);
    is_gap(&bob.gap().await, Reason::Epoch, &new, (1, 0, 0));
    publishes_one_by_one(&mut bob, 2).await;
    // All that the new life has is heard, whatever the offset was in the old one.
    for offset in [0, 1, 3, u64::MAX] {
        let mut late = Guest::joins(&server, hello_from("blue", after(&at(&old, offset)))).await;
        is_gap(&late.gap().await, Reason::Epoch, &new, (1, 0, 0));
        receives_all(&mut late, 1..=2).await;
    }
}

#[tokio::test]
async fn epoch_gap_counts_what_new_epoch_trimmed() {
    let old = Guest::joins(&Server::start(&[]), hello("blue")).await.position().clone();
    let server = Server::start(&["--retention-messages", "5"]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    publishes_one_by_one(&mut ann, 12).await;
    let mut bob = Guest::joins(&server, hello_from("blue", after(&old))).await;
    assert_eq!(bob.position(), &at(ann.position(), 7));
    is_gap(&bob.gap().await, Reason::Epoch, ann.position(), (1, 7, 7));
    let refused = refusal(&server, hello_from("blue", strictly(after(&old)))).await;
    let words = refused.message();
    assert!(words.contains("began anew") && words.contains("7 messages from "), "{words}");
    receives(&mut bob, &mut (8..=12)).await;
}

#[tokio::test]
async fn replay_joins_live_without_gap_or_duplicate() {
    const MESSAGES: u64 = 20_000;
    let server = Server::start_quiet(&[]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    let position = ann.position().clone();
    let (published, mut received) = tokio::sync::watch::channel(0);
    let speaking = tokio::spawn(async move {
        for n in 1..=MESSAGES {
            ann.publishes(text(&n.to_string()));
            if n % 200 == 0 {
                for n in n - 199..=n {
                    assert_eq!(offset(&ann.receives(&n.to_string()).await), n);
                }
                published.send_replace(n);
            }
        }
    });
    let mut listening = Vec::new();
    for round in 1..=30 {
        received.wait_for(|published| *published >= round * MESSAGES / 40).await.unwrap();
        let start = match round % 3 {
            0 => earliest(),
            1 => last(round * 100),
            _ => after(&at(&position, round * 37)),
        };
        let mut guest = Guest::joins(&server, hello_from("blue", start)).await;
        listening.push(tokio::spawn(async move {
            for n in guest.position().offset + 1..=MESSAGES {
                assert_eq!(offset(&guest.receives(&n.to_string()).await), n);
            }
        }));
    }
    speaking.await.unwrap();
    for listener in listening {
        listener.await.unwrap();
    }
}

#[tokio::test]
async fn filters_and_suppress_echo_apply_to_replay() {
    let server = Server::start(&[]);
    let mut ann = Guest::joins(&server, hello("blue")).await;
    for n in 1..=100 {
        let kind = if n % 3 == 0 { "move" } else { "chat" };
        ann.publishes(of_kind(kind, text(&n.to_string())));
    }
    for n in 1..=100 {
        ann.receives(&n.to_string()).await;
    }
    let only = Hello {
        kinds: vec!["move".to_owned()],
        suppress_echo: true,
        ..hello_from("blue", after(&at(ann.position(), 50)))
    };
    let mut bob = Guest::joins(&server, only).await;
    for n in (51..=100).filter(|n| n % 3 == 0) {
        assert_eq!(offset(&bob.receives(&n.to_string()).await), n);
    }
    bob.publishes(of_kind("move", crate::common::v1::acked("mine")));
    // Not its own: that is acknowledged only.
    assert_eq!(bob.ack().await.position.unwrap().offset, 101);
    ann.receives("mine").await;
    ann.publishes(of_kind("move", text("102")));
    bob.receives("102").await;
    // On another connection it is no echo any more.
    let quiet = Hello { suppress_echo: true, ..hello_from("blue", last(2)) };
    let mut again = Guest::joins(&server, quiet).await;
    again.receives("mine").await;
    again.receives("102").await;
}

#[tokio::test]
async fn presence_is_not_replayed() {
    let server = Server::start(&[]);
    let watching = Hello { presence: true, ..hello("blue") };
    let mut ann = Guest::joins(&server, watching.clone()).await;
    let mut changes = 0;
    for round in 0..3 {
        let bob = Guest::joins(&server, hello("blue")).await;
        ann.publishes(text(&round.to_string()));
        let mut received = false;
        // Until it is told of bob, and hears itself.
        let mut told = false;
        while !received || !told {
            match ann.next().await {
                Response::Presence(presence) => {
                    changes += 1;
                    told = presence.joined.iter().any(|member| member.connection_id == bob.id());
                }
                Response::Event(event) => received = text_of(&event) == Some(&round.to_string()),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(changes >= 3);
    let late = Hello { start: Some(earliest()), ..watching };
    let mut late = Guest::joins(&server, late).await;
    for round in 0..3 {
        late.receives(&round.to_string()).await;
    }
}

#[tokio::test]
async fn invalid_start_is_refused() {
    let server = Server::start(&[]);
    let ann = Guest::joins(&server, hello("blue")).await;
    let epoch = &ann.position().epoch;
    for wrong in ["", "x", &epoch[1..], &epoch.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A")] {
        let position = Position { epoch: wrong.to_owned(), offset: 0 };
        let status = refusal(&server, hello_from("blue", after(&position))).await;
        is_invalid(&status, "hello.start.after.epoch");
    }
    let bare = Start { at: Some(At::After(Position::default())), strict: true };
    is_invalid(&refusal(&server, hello_from("blue", bare)).await, "hello.start.after.epoch");
    let transport = Transport::connect(server.addr).await;
    for resume in
        ["", "x", ":", ":1", epoch, &format!("{epoch}:"), &format!("{epoch}:-1"), &format!("{epoch}:1:2")]
    {
        let call = chat(&[("chatroom-room", "blue"), ("chatroom-resume", resume)]);
        let (_, mut member) = transport.open(call).await;
        member.ends_with(Code::InvalidArgument).await;
    }
}
