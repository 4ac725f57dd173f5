//! The session against the in-memory room, on a paused clock.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use super::fake::Fake;
use super::*;
use crate::wire::v1;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

fn from_the_start() -> Join {
    Join { start: Start::Earliest, ..Join::room("r") }
}

fn retry(code: Code, after: Duration) -> Status {
    Status::with_error_details(code, "not now", ErrorDetails::with_retry_info(Some(after)))
}

async fn session(fake: &Fake, join: Join) -> (Publisher, Receiver) {
    fake.client(Options::default()).await.join(join).await.unwrap().split()
}

/// The next item that is not about the call itself.
async fn next_incoming(receiver: &mut Receiver) -> Option<Incoming> {
    loop {
        let incoming = timeout(Duration::from_secs(3600), receiver.receive()).await;
        match incoming.expect("nothing received").unwrap() {
            Some(Incoming::Disconnected(_) | Incoming::Reconnected(_)) => {}
            other => return other,
        }
    }
}

async fn expect_texts(receiver: &mut Receiver, texts: impl IntoIterator<Item = impl AsRef<str>>) {
    for expected in texts {
        match next_incoming(receiver).await {
            Some(Incoming::Event(event)) => assert_eq!(event.text(), Some(expected.as_ref())),
            other => panic!("{other:?} instead of {:?}", expected.as_ref()),
        }
    }
}

/// The texts of all events up to the session's end.
async fn drain_texts(receiver: &mut Receiver) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        match next_incoming(receiver).await {
            Some(Incoming::Event(event)) => texts.push(event.text().unwrap().to_owned()),
            Some(Incoming::Goodbye(_)) => {}
            Some(other) => panic!("{other:?}"),
            None => return texts,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_event_is_delivered_once_over_broken_calls() {
    let fake = Fake::start();
    let texts: Vec<_> = (0..2000).map(|n| format!("{n} {}", "x".repeat(300))).collect();
    fake.publish_all(&texts);
    let client = fake.client(Options { events_ahead: 1, ..Options::default() }).await;
    let (_publisher, mut receiver) = client.join(from_the_start()).await.unwrap().split();
    for seven in texts.chunks(7) {
        expect_texts(&mut receiver, seven).await;
        fake.cut();
    }
    fake.publish_event("chat", "last");
    expect_texts(&mut receiver, ["last"]).await;
    assert!(fake.hellos().len() > 20);
}

#[tokio::test(start_paused = true)]
async fn idle_session_at_the_tail_resumes_at_its_welcome() {
    let fake = Fake::start();
    fake.publish_event("chat", "before");
    let (_publisher, mut receiver) = session(&fake, Join::room("r")).await;
    fake.cut();
    fake.publish_event("chat", "after");
    expect_texts(&mut receiver, ["after"]).await;
    let at = fake.hellos()[1].1.start.clone().and_then(|start| start.at);
    assert_eq!(at, Some(v1::start::At::After(v1::Position { epoch: "one".into(), offset: 1 })));
}

#[tokio::test(start_paused = true)]
async fn reconnect_waits_for_server_delay() {
    let fake = Fake::start();
    let (_publisher, mut receiver) = session(&fake, Join::room("r")).await;
    let seven = Duration::from_secs(7);
    let nine = Duration::from_secs(9);
    let began = Instant::now();
    fake.refuse_next([retry(Code::ResourceExhausted, nine)]);
    fake.end_calls(Some(seven), Status::unavailable("stopping"));
    assert!(
        matches!(next_incoming(&mut receiver).await, Some(Incoming::Goodbye(bye)) if bye.retry_after == Some(seven))
    );
    fake.publish_event("chat", "hi");
    expect_texts(&mut receiver, ["hi"]).await;
    let [(_, _), (second, _), (third, _)] = fake.hellos()[..] else { panic!("{:?}", fake.hellos()) };
    assert!(second - began >= seven && second - began < seven + Duration::from_secs(1));
    assert!(third - second >= nine && third - second < nine + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn unavailable_server_is_retried_with_backoff_until_the_limit() {
    let fake = Fake::start();
    let give_up_after = Some(Duration::from_secs(600));
    let options = Options {
        backoff: BackoffPolicy { give_up_after, ..BackoffPolicy::default() },
        ..Options::default()
    };
    let client = fake.client(options).await;
    let (publisher, mut receiver) = client.join(Join::room("r")).await.unwrap().split();
    fake.refuse_next(std::iter::repeat_n(Status::unavailable("away"), 10_000));
    fake.cut();
    let receipt = publisher.submit("chat", "hi").await.unwrap();
    let error = loop {
        match receiver.receive().await {
            Ok(Some(Incoming::Disconnected(lost))) => assert!(lost.retry_in <= Duration::from_secs(30)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::GaveUp { last, .. } if last.code() == Code::Unavailable), "{error:?}");
    assert!(matches!(receiver.receive().await, Ok(None)));
    assert!(matches!(receipt.await, Err(Error::GaveUp { .. })));
    assert!(matches!(publisher.publish("chat", "hi").await, Err(Error::GaveUp { .. })));
    // Ten minutes: at most 30 s and on average 15 s each, except for the first few.
    assert!((25..100).contains(&fake.hellos().len()), "{}", fake.hellos().len());
}

#[tokio::test(start_paused = true)]
async fn refusal_ends_the_session() {
    let fake = Fake::start();
    fake.refuse_next([Status::unavailable("stopping"), Status::out_of_range("gone")]);
    let client = fake.client(Options::default()).await;
    assert!(matches!(client.join(Join::room("r")).await, Err(Error::Lost(_))));
    assert!(matches!(client.join(Join::room("r")).await, Err(Error::Refused(_))));
    let (publisher, mut receiver) = client.join(Join::room("r")).await.unwrap().split();
    fake.refuse_next([Status::permission_denied("banned")]);
    fake.cut();
    let receipt = publisher.submit("chat", "hi").await.unwrap();
    assert!(matches!(receiver.receive().await, Ok(Some(Incoming::Disconnected(_)))));
    let error = receiver.receive().await.unwrap_err();
    assert_eq!(error.status().map(Status::code), Some(Code::PermissionDenied));
    assert!(matches!(receipt.await, Err(Error::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn goodbye_without_a_time_ends_the_session() {
    let fake = Fake::start();
    let (_publisher, mut receiver) = session(&fake, Join::room("r")).await;
    fake.end_calls(None, Status::unavailable("for ever"));
    assert!(matches!(next_incoming(&mut receiver).await, Some(Incoming::Goodbye(_))));
    assert!(matches!(receiver.receive().await, Err(Error::Refused(_))));
    assert_eq!(fake.hellos().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn publishes_are_exactly_once_and_in_order_over_broken_calls() {
    let fake = Fake::start();
    let (publisher, mut receiver) = session(&fake, Join::room("r")).await;
    let texts: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    let publishing = async {
        let mut receipts = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            receipts.push(publisher.submit("chat", text.as_str()).await.unwrap());
            if n % 20 == 19 {
                fake.cut();
            }
        }
        for (n, receipt) in receipts.into_iter().enumerate() {
            assert_eq!(receipt.await.unwrap().position.offset, n as u64 + 1);
        }
    };
    tokio::join!(publishing, expect_texts(&mut receiver, &texts));
    assert_eq!(fake.log(), texts);
    drop(publisher);
    assert!(drain_texts(&mut receiver).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn lost_acknowledgement_is_repeated() {
    let fake = Fake::start();
    let (publisher, _receiver) = session(&fake, Join::room("r")).await;
    fake.suppress_acks(true);
    let receipt = publisher.submit("chat", "hi").await.unwrap();
    fake.wait_until(|fake| !fake.log().is_empty()).await;
    fake.suppress_acks(false);
    fake.cut();
    let ack = receipt.await.unwrap();
    assert!(ack.repeated && ack.position.offset == 1, "{ack:?}");
    assert_eq!(fake.log(), ["hi"]);
}

#[tokio::test(start_paused = true)]
async fn finished_session_receives_its_own_messages_over_a_broken_call() {
    for kinds in [vec![], vec!["move".to_owned()]] {
        let fake = Fake::start();
        let (publisher, mut receiver) =
            session(&fake, Join { kinds: kinds.clone(), ..Join::room("r") }).await;
        publisher.publish("chat", "first").await.unwrap();
        if kinds.is_empty() {
            expect_texts(&mut receiver, ["first"]).await;
        }
        fake.cut();
        fake.refuse_next([Status::unavailable("not yet")]);
        fake.wait_until(|fake| fake.calls() == 0).await;
        // The message is published, but its call breaks before the acknowledgement or the event arrives.
        fake.publish_event("move", "theirs");
        fake.suppress_acks(true);
        let receipt = publisher.submit("chat", "last").await.unwrap();
        fake.wait_until(|fake| fake.log().len() == 3).await;
        drop(publisher);
        fake.suppress_acks(false);
        fake.cut();
        let ack = receipt.await.unwrap();
        assert_eq!(ack.position.offset, 3);
        let expected = if kinds.is_empty() { vec!["theirs", "last"] } else { vec!["theirs"] };
        assert_eq!(drain_texts(&mut receiver).await, expected, "{kinds:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn filtered_session_finishes_completely_after_reconnect() {
    let fake = Fake::start();
    let join = Join { kinds: vec!["move".into()], ..Join::room("r") };
    let (publisher, mut receiver) = session(&fake, join).await;
    publisher.publish("chat", "mine").await.unwrap();
    fake.cut();
    fake.wait_until(|fake| fake.hellos().len() == 2 && fake.calls() == 1).await;
    // The server has received no publish on this call, and the session cannot see that its own message has passed.
    drop(publisher);
    assert!(drain_texts(&mut receiver).await.is_empty());
    let last = fake.hellos().last().unwrap().1.clone();
    assert!(fake.hellos().len() == 3 && last.kinds.is_empty(), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn echo_stays_suppressed_after_reconnect() {
    let fake = Fake::start();
    let join = Join { suppress_echo: true, ..Join::room("r") };
    let (publisher, mut receiver) = session(&fake, join).await;
    for n in 0..5 {
        publisher.publish("chat", format!("mine {n}")).await.unwrap();
        fake.cut();
    }
    fake.publish_event("chat", "theirs");
    expect_texts(&mut receiver, ["theirs"]).await;
}

#[tokio::test(start_paused = true)]
async fn missing_events_are_reported_as_a_gap_in_order() {
    let fake = Fake::start();
    let (_publisher, mut receiver) = session(&fake, Join::room("r")).await;
    fake.publish_event("chat", "1");
    expect_texts(&mut receiver, ["1"]).await;
    fake.refuse_next([Status::unavailable("not yet")]);
    fake.cut();
    fake.wait_until(|fake| fake.calls() == 0).await;
    fake.publish_all(&["2", "3", "4", "5"]);
    fake.retain_last(1);
    match next_incoming(&mut receiver).await {
        Some(Incoming::Gap(gap)) => {
            assert_eq!((gap.from.offset, gap.to.offset, gap.count), (2, 4, 3));
            assert_eq!(gap.reason, Reason::Retention);
        }
        other => panic!("{other:?}"),
    }
    expect_texts(&mut receiver, ["5"]).await;
    fake.restart();
    fake.publish_event("chat", "new life");
    match next_incoming(&mut receiver).await {
        Some(Incoming::Gap(gap)) => assert_eq!((gap.reason, gap.count), (Reason::Epoch, 0)),
        other => panic!("{other:?}"),
    }
    expect_texts(&mut receiver, ["new life"]).await;
    fake.cut();
    fake.publish_event("chat", "and on");
    expect_texts(&mut receiver, ["and on"]).await;
}

#[tokio::test(start_paused = true)]
async fn slow_caller_stops_its_call_and_misses_nothing() {
    let fake = Fake::start();
    let texts: Vec<_> = (0..3000).map(|n| format!("{n} {}", "x".repeat(100))).collect();
    let options = Options { events_ahead: 10, ..Options::default() };
    let client = fake.client(options).await;
    let (publisher, mut receiver) = client.join(Join::room("r")).await.unwrap().split();
    fake.publish_all(&texts);
    let publishing = timeout(Duration::from_secs(60), publisher.publish("chat", "late")).await;
    assert!(publishing.is_err(), "the acknowledgement overtook what came before it");
    expect_texts(&mut receiver, &texts).await;
    expect_texts(&mut receiver, ["late"]).await;
    publisher.publish("chat", "then").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn publishing_continues_without_a_receiver() {
    let fake = Fake::start();
    let options = Options { events_ahead: 1, ..Options::default() };
    let client = fake.client(options).await;
    let (publisher, receiver) = client.join(Join::room("r")).await.unwrap().split();
    for n in 0..3000 {
        fake.publish_event("chat", &format!("{n} {}", "x".repeat(100)));
    }
    assert!(timeout(Duration::from_secs(60), publisher.publish("chat", "1")).await.is_err());
    drop(receiver);
    publisher.publish("chat", "2").await.unwrap();
    fake.cut();
    publisher.publish("chat", "3").await.unwrap();
    drop(publisher);
    fake.wait_until(|fake| fake.calls() == 0).await;
    assert_eq!(fake.log()[3000..], ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn abandoned_session_ends() {
    let fake = Fake::start();
    drop(session(&fake, Join::room("r")).await);
    fake.wait_until(|fake| fake.calls() == 0).await;
    let receiver = fake.client(Options::default()).await.subscribe(Join::room("r")).await.unwrap();
    fake.refuse_next(std::iter::repeat_n(Status::unavailable("away"), 10));
    fake.cut();
    fake.wait_until(|fake| fake.hellos().len() > 4).await;
    drop(receiver);
    let calls = fake.hellos().len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(fake.hellos().len() <= calls + 1);
}

#[tokio::test(start_paused = true)]
async fn submitted_messages_are_published_without_receipts() {
    let fake = Fake::start();
    let (publisher, receiver) = session(&fake, Join::room("r")).await;
    for n in 0..100 {
        drop(publisher.submit("chat", n.to_string()).await.unwrap());
    }
    drop((publisher, receiver));
    fake.wait_until(|fake| fake.log().len() == 100 && fake.calls() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn subscription_resumes() {
    let fake = Fake::start();
    fake.publish_event("chat", "1");
    let client = fake.client(Options::default()).await;
    let mut receiver = client.subscribe(from_the_start()).await.unwrap();
    for n in 1..10 {
        expect_texts(&mut receiver, [n.to_string()]).await;
        fake.cut();
        fake.publish_event("chat", &(n + 1).to_string());
    }
    drop(receiver);
    fake.wait_until(|fake| fake.calls() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn unary_publish_is_retried_with_its_key_until_the_timeout() {
    let fake = Fake::start();
    let client = fake.client(Options::default()).await;
    fake.refuse_next([retry(Code::ResourceExhausted, Duration::from_secs(1)), Status::unavailable("")]);
    let ack = client.publish("r", "ann", "chat", "hi").await.unwrap();
    assert!(ack.repeated && fake.log() == ["hi"]);
    fake.refuse_next([retry(Code::ResourceExhausted, Duration::from_secs(60))]);
    assert!(matches!(client.publish("r", "ann", "chat", "hi").await, Err(Error::Lost(_))));
    fake.refuse_next([Status::invalid_argument("room")]);
    assert!(matches!(client.publish("a b", "ann", "chat", "hi").await, Err(Error::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn lists_read_all_pages_and_end_after_an_error() {
    let fake = Fake::start();
    fake.publish_all(&(1..=10).map(|n| n.to_string()).collect::<Vec<_>>());
    fake.retain_last(8);
    let client = fake.client(Options::default()).await;
    let start = Start::After(Position { epoch: "one".into(), offset: 0 });
    let past = client.list_events("r", &start, &[]).all().await.unwrap();
    assert!(matches!(&past[0], HistoryItem::Gap(gap) if gap.count == 2));
    let offsets: Vec<_> = past[1..]
        .iter()
        .map(|past| match past {
            HistoryItem::Event(event) => event.position.offset,
            HistoryItem::Gap(gap) => panic!("{gap:?}"),
        })
        .collect();
    assert_eq!(offsets, (3..=10).collect::<Vec<_>>());
    let mut members = client.list_members("nowhere");
    assert!(matches!(members.next().await, Err(Error::Refused(status)) if status.code() == Code::NotFound));
    assert!(matches!(members.next().await, Ok(None)));
    assert!(client.list_rooms().all().await.unwrap().is_empty());
    let mut some = client.list_events("r", &Start::Earliest, &[]);
    assert!(some.next().await.unwrap().is_some());
    fake.refuse_next([Status::internal("broken")]);
    let rest = some.all().await;
    assert!(matches!(rest, Err(Error::Refused(_))), "{rest:?}");
}
