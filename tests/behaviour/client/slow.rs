//! The client library in a room that skips for the slow: what its own slowness costs it, and what it does not.

use crate::common::{PATIENCE, server::Server, within};
use chatroom::client::{Client, Event, Incoming, Join, Options, Position, Publisher, Receiver};
use std::collections::HashSet;

async fn connect(server: &Server) -> Client {
    Client::connect(&server.addr.to_string()).await.unwrap()
}

/// Says far more than the room retains, and than the windows of a client that does not read.
async fn floods(publisher: &Publisher) {
    let mut receipts = Vec::new();
    for n in 0..2_000 {
        receipts.push(publisher.submit("flood", format!("{n} {}", "x".repeat(1_000))).await.unwrap());
    }
    for receipt in receipts {
        within(PATIENCE, "an ack", receipt).await.unwrap();
    }
}

async fn receives_own(receiver: &mut Receiver, own: usize) -> Vec<Event> {
    let mut got = Vec::new();
    while got.len() < own {
        match within(PATIENCE, "something", receiver.receive()).await.unwrap().unwrap() {
            Incoming::Event(event) if event.kind == "own" => got.push(event),
            Incoming::Event(_) => {}
            other => panic!("{other:?}"),
        }
    }
    got
}

#[tokio::test]
async fn ack_inside_gap_publishes_once() {
    is_acknowledged(true).await;
}

#[tokio::test]
async fn ack_inside_gap_publishes_once_after_finish() {
    is_acknowledged(false).await;
}

/// Whether the slow one may say more, once it has said what falls into its gap.
async fn is_acknowledged(may_say_more: bool) {
    const OWN: usize = 20;
    let server = Server::start(&["--slow-policy", "skip", "--retention-bytes", "1MiB"]);
    let own = Join { kinds: vec!["own".into()], ..Join::room("r") };
    let mut witness = connect(&server).await.subscribe(own).await.unwrap();
    let (flood, unreceived) = connect(&server).await.join(Join::room("r")).await.unwrap().split();
    drop(unreceived);
    let options = Options { events_ahead: 16, ..Options::default() };
    let slow = Client::connect_with(&server.addr.to_string(), options).await.unwrap();
    let (publisher, mut receiver) = slow.join(Join::room("r")).await.unwrap().split();
    floods(&flood).await;
    let mut receipts = Vec::new();
    for n in 0..OWN {
        receipts.push(publisher.submit("own", n.to_string()).await.unwrap());
    }
    let got = receives_own(&mut witness, OWN).await;
    floods(&flood).await;
    let publisher = Some(publisher).filter(|_| may_say_more);

    // It wakes up.
    let hearing = tokio::spawn(async move {
        let mut missed = 0;
        while let Some(incoming) = receiver.receive().await.unwrap() {
            if let Incoming::Gap(gap) = incoming {
                missed += gap.count;
            }
        }
        missed
    });
    let mut acked: Vec<Position> = Vec::new();
    for receipt in receipts {
        acked.push(within(PATIENCE, "an ack", receipt).await.unwrap().position);
    }
    drop(publisher);
    let positions: Vec<Position> = got.into_iter().map(|event| event.position).collect();
    assert_eq!(acked, positions);
    assert_eq!(positions.iter().map(|at| at.offset).collect::<HashSet<_>>().len(), OWN);
    let missed = within(PATIENCE, "the end", hearing).await.unwrap();
    assert!(missed > 1_000, "only {missed} were missed");
    // Nothing of it was said again.
    let last = connect(&server).await.publish("r", "", "own", "the last").await;
    let got = receives_own(&mut witness, 1).await;
    assert_eq!(got[0].position, last.unwrap().position);
}
