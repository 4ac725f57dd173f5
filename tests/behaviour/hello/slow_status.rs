//! A connection that is ended receives its status, however little its client reads; and streams of one transport do not
//! starve each other.

use crate::common::{
    Elsewhere, PATIENCE,
    client::{Ending, Member, Transport, Windows, chat},
    frames,
    server::Server,
    within,
};
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tonic::Code;

const ROOM: &str = "orchard";

/// A text whose message has so many bytes on the wire, with its prefix.
fn text(number: usize, size: usize) -> String {
    let mut text = format!("{number:05}");
    let len = frames::text_of_message_size(size - 5);
    text.extend(std::iter::repeat_n('x', len - text.len()));
    text
}

/// Publishes `count` messages of `size` bytes and receives each.
async fn publish(member: &mut Member, count: usize, size: usize) {
    for number in 0..count {
        let text = text(number, size);
        member.publish(&text).await;
        member.receives(&text).await;
    }
}

/// Receives numbered messages until the call ends.
async fn receive_until_end(member: &mut Member) -> (usize, Ending) {
    let mut received = 0;
    loop {
        match member.next().await {
            Ok(text) => assert_eq!(text[..5].parse(), Ok(received)),
            Err(ending) => return (received, ending),
        }
        received += 1;
    }
}

#[tokio::test]
async fn stopped_reader_receives_status() {
    let narrow = Windows { stream: 3_000, connection: 65_535 };
    let readers = [Windows::DEFAULT, narrow, Windows::WIDE].map(stopped_reader);
    join_all(readers).await;
}

async fn stopped_reader(windows: Windows) {
    let server = Server::start(&["--lag-limit-bytes=64KiB"]);
    let mut publisher = server.join(ROOM).await;
    let transport = Transport::connect_with(server.addr, windows).await;
    let mut slow = transport.join(ROOM, "slow").await;
    let mut neighbour = transport.join("elsewhere", "neighbour").await;
    publish(&mut publisher, 6_000, 1_000).await;
    assert_eq!(server.departure_of("slow").await, "slow_consumer");
    // Long after the end was decided.
    tokio::time::sleep(Duration::from_secs(4)).await;
    neighbour.publish("still here").await;
    neighbour.receives("still here").await;
    let (received, ending) = receive_until_end(&mut slow).await;
    assert_eq!(ending.code(), Some(Code::ResourceExhausted), "{ending:?}");
    let window = windows.stream.min(windows.connection) as usize;
    assert!(received >= window.min(64 * 1024) / 1_000, "{received} messages of 1,000 bytes in {window}");
}

#[tokio::test]
async fn kicked_connection_without_window_receives_status() {
    let server = Server::start(&[]);
    let mut publisher = server.join("blue").await;
    let windows = Windows { stream: 0, connection: 65_535 };
    let mut shut = Transport::connect_with(server.addr, windows).await.join("blue", "shut").await;
    publish(&mut publisher, 10, 100).await;
    server.kick_all().await;
    shut.ends_with(Code::PermissionDenied).await;
}

#[tokio::test]
async fn message_longer_than_window_arrives() {
    // More than all of it: the readers begin when it has been published.
    let server = Server::start(&["--lag-limit-bytes=8MiB"]);
    let mut publisher = server.join(ROOM).await;
    for windows in [Windows::DEFAULT, Windows { stream: 1_000, connection: 65_535 }] {
        let mut reader = Transport::connect_with(server.addr, windows).await.join(ROOM, "reader").await;
        // 64 KiB and the prefix: 6 bytes more than the window that HTTP/2 begins with.
        publish(&mut publisher, 20, 64 * 1024 + 5).await;
        for number in 0..20 {
            let received = reader.next().await.unwrap();
            assert_eq!((&received[..5], received.len()), (&*format!("{number:05}"), text(0, 65_541).len()));
        }
        reader.half_close();
        reader.ends_with(Code::Ok).await;
    }
}

#[tokio::test]
async fn late_window_updates_do_not_starve_reader() {
    let server = Server::start(&["--lag-limit-bytes=8MiB"]);
    let mut publisher = server.join(ROOM).await;
    // Its windows are seldom wholly open although it has read everything: updates come when half is used up.
    let mut reader = Transport::connect_with(server.addr, Windows::DEFAULT).await.join(ROOM, "reader").await;
    for (round, size) in [20_000, 40_000, 60_000, 33_000, 65_000, 1_000].into_iter().enumerate() {
        publish(&mut publisher, 10, size).await;
        for number in 0..10 {
            let received = reader.next().await.unwrap();
            assert_eq!(received[..5].parse(), Ok(number), "round {round}");
        }
    }
}

/// Each of them takes its turn as a thousand do (`tests/e2e` has 999), in a fraction of the time.
const STREAMS: usize = 250;
const LARGE: usize = 60 * 1024;
/// Two rounds: one is less than a member may be behind, both are more.
const ROUND: usize = 10;

/// Everyone on one transport, and the ending of the one that stops.
async fn readers(server: Server) -> Ending {
    let addr = server.addr;
    // The reader that stops holds one message's worth of the transport's window; the others share what is left.
    let windows = Windows { stream: 65_535, connection: 131_070 };
    let transport = Transport::connect_with(addr, windows).await;
    let mut stopped = transport.join(ROOM, "stopped").await;
    let rounds_done = Arc::new(Semaphore::new(0));
    for _ in 1..STREAMS {
        let (_, mut reader) = transport.open(chat(&[("chatroom-room", ROOM)])).await;
        let rounds_done = Arc::clone(&rounds_done);
        tokio::spawn(async move {
            loop {
                for number in 0..ROUND {
                    let received = reader.responses.next().await.unwrap();
                    assert_eq!((received[..5].parse(), received.len()), (Ok(number), text(0, LARGE).len()));
                }
                rounds_done.add_permits(1);
            }
        });
    }
    let mut publisher = Transport::connect(addr).await.join(ROOM, "publisher").await;
    for _ in 0..2 {
        publish(&mut publisher, ROUND, LARGE).await;
        let all = rounds_done.acquire_many(STREAMS as u32 - 1);
        within(4 * PATIENCE, "a round's messages on all streams", all).await.unwrap().forget();
    }
    assert_eq!(server.departure_of("stopped").await, "slow_consumer");
    let (received, ending) = receive_until_end(&mut stopped).await;
    assert_eq!(received, 1);
    ending
}

#[tokio::test]
async fn streams_of_one_transport_take_turns_beside_stopped_one() {
    let server = Server::start(&["--lag-limit-age=1h"]);
    let ending = Elsewhere::runs(move || readers(server)).done().await;
    assert_eq!(ending.code(), Some(Code::ResourceExhausted), "{ending:?}");
}
