//! Calls and transports opened and dropped as fast as it goes, beside a room that talks on.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use crate::common::{
    Elsewhere,
    client::{Transport, Windows, chat},
    crowd::{Crowd, Speaker},
    frames,
    history::{History, Id, LOOSE},
    server::Server,
};
use crate::machine;
use bytes::Bytes;
use h2::{Reason, SendStream, client::ResponseFuture};
use rand::Rng;
use tokio::{io::AsyncWriteExt, net::TcpSocket, sync::watch, time::MissedTickBehavior};

const ROOM: &str = "storm";
/// Of each of two rounds, in seconds, unless `CHATROOM_STORM_SECONDS` says otherwise.
const ROUND: u64 = 4;
/// More than the resets that h2 bears at a time, by default 1,024.
const NEIGHBOURS: u32 = 3_000;
const SPEAKERS: u16 = 4;
const LISTENERS: usize = 16;
const PAUSE_BETWEEN_WORDS: Duration = Duration::from_millis(20);

/// The room keeps little, so that memory which grows is memory that leaks.
const FORGETFUL: [&str; 3] =
    ["--retention-bytes=2097152", "--retention-messages=16384", "--lag-limit-bytes=1048576"];

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn churn_does_not_disturb_room() {
    let _machine = machine::alone();
    let mut server = Server::start_quiet(&FORGETFUL);
    let addr = server.addr;
    let over = watch::Sender::new(false);
    let until = over.subscribe();
    let room = Elsewhere::runs(move || a_room_talks(addr, until));

    let first = storms(addr, 0).await;
    let rss_after_first = server.settled_rss().await;
    let second = storms(addr, 1).await;
    let rss_after_second = server.settled_rss().await;
    over.send_replace(true);

    let deliveries = room.done().await.holds();
    println!("{first:?}, then {second:?}; {deliveries} deliveries checked");
    println!("resident {rss_after_first} bytes after the first, {rss_after_second} after the second");
    assert!(server.is_alive());
    let panics: Vec<_> = server.log().into_iter().filter(|line| line.contains("panic")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
    let bound = rss_after_first + rss_after_first / 4 + 8 * MIB;
    assert!(rss_after_second <= bound, "{rss_after_first} grew to {rss_after_second}");
    let stopped = server.stop().await;
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(stopped.joined, stopped.departed, "{stopped:?}");
}

/// Rapid resets may cost the transport they are on; calls that were answered may not.
#[tokio::test]
async fn churn_does_not_disturb_calls_on_same_transport() {
    let _machine = machine::alone();
    let server = Server::start_quiet(&FORGETFUL);
    let transport = Transport::connect(server.addr).await;
    let mut crowd = Crowd::new();
    crowd.listens(transport.join(ROOM, "neighbour").await, "neighbour");
    let mut speaker = crowd.speaks(transport.join(ROOM, "speaker").await, 0);
    for call in 0..NEIGHBOURS {
        let (answer, requests) = transport.send(chat(&[("chatroom-room", ROOM)])).await.unwrap();
        let words = Id::new(LOOSE, call).text(0);
        match call % 3 {
            0 => drop(answer.await.unwrap()),
            1 => publishes_and_drops(answer, requests, &words).await.unwrap(),
            _ => {
                answer.await.unwrap();
                resets(requests, Reason::CANCEL).await;
            }
        }
        if call % 10 == 0 {
            speaker.publishes(1, 20).await;
            speaker.receives_own(50).await;
        }
    }
    let mut history = History::default();
    let published = speaker.published();
    history.published(0, published);
    speaker.stays();
    for log in crowd.leaves(published as usize).await {
        history.received(log);
    }
    history.holds();
    let stopped = server.stop().await;
    let joined = u64::from(NEIGHBOURS) + 2;
    assert_eq!((stopped.joined, stopped.departed), (joined, joined));
}

/// Everyone stays for both rounds; speakers say one word at a steady rate, and leave with the storm.
async fn a_room_talks(addr: SocketAddr, over: watch::Receiver<bool>) -> History {
    let mut crowd = Crowd::new();
    let shared = Transport::connect(addr).await;
    for listener in 0..LISTENERS {
        let name = format!("listener {listener}");
        let member = match listener % 2 {
            0 => shared.join(ROOM, &name).await,
            _ => Transport::connect(addr).await.join(ROOM, &name).await,
        };
        crowd.listens(member, &name);
    }
    let mut speakers = Vec::new();
    for sender in 0..SPEAKERS {
        let member = Transport::connect(addr).await.join(ROOM, "speaker").await;
        speakers.push(crowd.speaks(member, sender));
    }
    let talks = speakers.into_iter().map(|speaker| tokio::spawn(talks(speaker, over.clone())));
    let mut history = History::default();
    let mut published = 0;
    for (sender, talk) in talks.collect::<Vec<_>>().into_iter().enumerate() {
        let messages = talk.await.unwrap();
        history.published(sender as u16, messages);
        published += messages as usize;
    }
    for log in crowd.leaves(published).await {
        history.received(log);
    }
    history
}

async fn talks(mut speaker: Speaker, over: watch::Receiver<bool>) -> u32 {
    let mut pace = tokio::time::interval(PAUSE_BETWEEN_WORDS);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*over.borrow() {
        pace.tick().await;
        speaker.publishes(1, 20).await;
    }
    let published = speaker.published();
    speaker.stays();
    published
}

#[derive(Debug)]
#[allow(dead_code, reason = "for the eyes")]
struct Storm {
    calls: u32,
    transports_for_calls: u32,
    transports: u32,
}

/// One round of both storms, each on a thread of its own.
async fn storms(addr: SocketAddr, round: u16) -> Storm {
    let calls = Elsewhere::runs(move || calls_storm(addr, LOOSE + round));
    let transports = Elsewhere::runs(move || transports_storm(addr));
    let (calls, transports_for_calls) = calls.done().await;
    let transports = transports.done().await;
    assert!(calls > 100 && transports > 100, "no storm: {calls} {transports}");
    Storm { calls, transports_for_calls, transports }
}

fn round_time() -> Duration {
    Duration::from_secs(machine::number("CHATROOM_STORM_SECONDS").unwrap_or(ROUND))
}

/// Opens calls and drops them, on one transport for as long as the server bears it.
async fn calls_storm(addr: SocketAddr, sender: u16) -> (u32, u32) {
    let (mut calls, mut transports) = (0, 0);
    let end = Instant::now() + round_time();
    while Instant::now() < end {
        let transport = Transport::connect(addr).await;
        transports += 1;
        while Instant::now() < end {
            let words = Id::new(sender, calls).text(0);
            calls += 1;
            if one_call(&transport, &words).await.is_err() {
                break;
            }
        }
    }
    (calls, transports)
}

async fn one_call(transport: &Transport, words: &str) -> Result<(), h2::Error> {
    let (answer, requests) = transport.send(chat(&[("chatroom-room", ROOM)])).await?;
    match rand::rng().random_range(0..6) {
        0 => drop((answer, requests)),
        1 => {
            // The HEADERS are out, the answer is not here yet.
            tokio::task::yield_now().await;
        }
        2 => drop(answer.await?),
        3 => publishes_and_drops(answer, requests, words).await?,
        4 => resets(requests, Reason::CANCEL).await,
        _ => resets(requests, Reason::INTERNAL_ERROR).await,
    }
    Ok(())
}

async fn publishes_and_drops(
    answer: ResponseFuture,
    mut requests: SendStream<Bytes>,
    words: &str,
) -> Result<(), h2::Error> {
    let _hears = answer.await?;
    requests.send_data(frames::message(words.as_bytes()), false)?;
    tokio::task::yield_now().await;
    Ok(())
}

async fn resets(mut requests: SendStream<Bytes>, reason: Reason) {
    tokio::task::yield_now().await;
    requests.send_reset(reason);
}

/// Opens and drops whole transports; returns how many.
async fn transports_storm(addr: SocketAddr) -> u32 {
    let end = Instant::now() + round_time();
    let mut transports = 0;
    while Instant::now() < end {
        // A reset by the server is part of the weather.
        let _ = one_transport(addr).await;
        transports += 1;
    }
    transports
}

async fn one_transport(addr: SocketAddr) -> io::Result<()> {
    let kind = rand::rng().random_range(0..6);
    let mut socket = connects(addr, kind % 2 == 0).await?;
    match kind {
        0 | 1 => {}
        2 => socket.write_all(&frames::PREFACE[..10]).await?,
        3 => socket.write_all(frames::PREFACE).await?,
        4 => {
            let mut bytes = frames::handshake();
            bytes.extend(frames::chat_call(1, ROOM, "raw"));
            socket.write_all(&bytes).await?;
        }
        _ => {
            let transport = Transport::over(socket, Windows::DEFAULT).await.map_err(io::Error::other)?;
            let call = transport.send(chat(&[("chatroom-room", ROOM)])).await;
            if let Ok((answer, _words)) = call {
                let _ = answer.await;
            }
            transport.cut().await;
        }
    }
    Ok(())
}

/// From one of many source addresses, because each port that is closed first here stays taken for a minute.
async fn connects(addr: SocketAddr, abortive: bool) -> io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let host = rand::rng().random_range(2..100);
    socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into())?;
    let socket = socket.connect(addr).await?;
    if abortive {
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    }
    Ok(socket)
}
