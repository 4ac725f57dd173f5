//! A drain of a full server under load, with everything on it that could hold it up.

use crate::common::{
    PATIENCE,
    client::{Member, Transport},
    eventually, frames,
    history::{History, Id, Log, Stay},
    raw::{RawClient, Sleeper},
    server::Server,
};
use crate::machine;
use futures_util::future::join_all;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tonic::Code;

const MEMBERS: usize = 1_000;
const PER_TRANSPORT: usize = 10;
/// So that the bucket of a second is a tenth.
const SPREAD: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(14);

/// The other limits would end what hangs before the drain does.
const OPTIONS: [&str; 8] = [
    "--drain-notice=1s",
    "--drain-spread=10s",
    "--drain-deadline=14s",
    "--preface-deadline=1h",
    "--write-stall-limit=1h",
    "--lag-limit-bytes=1GiB",
    "--lag-limit-age=1h",
    "--keepalive-interval=1h",
];

/// What the speaker heard of itself, and when: from then on everyone is owed it.
type Echoes = Arc<Mutex<Vec<(Instant, u32)>>>;

struct Stayed {
    log: Log,
    last: Option<u32>,
    ended: Instant,
}

/// Hears to the end, which is the polite one.
async fn stays(mut member: Member, name: String) -> Stayed {
    let mut log = Log::of(&name, Stay::Part);
    let mut last = None;
    let ending = loop {
        let hearing = member.responses.receive(|text| last = log.receive(text).map(Id::sequence).or(last));
        if let Some(ending) = hearing.await {
            break ending;
        }
    };
    assert_eq!(ending.code(), Some(Code::Unavailable), "{name}: {ending:?}");
    Stayed { log, last, ended: Instant::now() }
}

/// More than the sockets of those who do not read can hold.
async fn publishes_eight_megabytes(mut member: Member) {
    let text = "x".repeat(60_000);
    for _ in 0..140 {
        member.publish(&text).await;
        member.receives(&text).await;
    }
}

/// Says something every two milliseconds until it is ended; notes when it hears it.
async fn speaks(mut member: Member, echoes: Echoes) {
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    let mut sequence = 0;
    loop {
        let ending = tokio::select! {
            ending = member.responses.receive(|text| {
                let received = Id::of_text(text).unwrap();
                echoes.lock().unwrap().push((Instant::now(), received.sequence()));
            }) => ending,
            _ = tick.tick() => {
                let text = Id::new(0, sequence).text(100);
                sequence += 1;
                // Fails only when its call is over, which the ear tells.
                let _ = member.requests.try_send(frames::message(text.as_bytes())).await;
                None
            }
        };
        if ending.is_some() {
            return;
        }
    }
}

#[tokio::test]
async fn full_server_drains_evenly_and_in_time() {
    let _machine = machine::alone();
    // A collector that is as good as dead.
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let server = Server::start_in(&environment, &OPTIONS);
    // What does not let go: a socket that says nothing, a client that never reads and one that is not there any more.
    let _silent = TcpStream::connect(server.addr).await.unwrap();
    let mut deaf = RawClient::connect(server.addr);
    deaf.joins("loud", "deaf");
    let frozen = Sleeper::joins(server.addr, "loud", "frozen");
    server.id_of("frozen").await;
    frozen.stops();
    publishes_eight_megabytes(server.join("loud").await).await;
    let mut staying = Vec::new();
    for group in 0..MEMBERS / PER_TRANSPORT {
        let transport = Transport::connect(server.addr).await;
        for number in 0..PER_TRANSPORT {
            let name = format!("member {}", group * PER_TRANSPORT + number);
            let member = transport.join("lobby", &name).await;
            staying.push(tokio::spawn(stays(member, name)));
        }
    }
    // Joined last, so that it is ended last.
    let echoes = Echoes::default();
    let speaker = server.join_as("lobby", "speaker").await;
    let speaking = tokio::spawn(speaks(speaker, echoes.clone()));
    eventually(PATIENCE, "the speaker is in full flow", || echoes.lock().unwrap().len() >= 100).await;
    let told = Instant::now();
    server.terminate();
    let stayed: Vec<Stayed> = join_all(staying).await.into_iter().map(Result::unwrap).collect();
    speaking.await.unwrap();
    let log = server.watch_log();
    let stopped = server.ends().await;
    let took = told.elapsed();
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(stopped.joined, stopped.departed);
    // The dead collector costs less than a second more.
    assert!(took < DEADLINE + Duration::from_secs(2), "took {took:?}");
    let left = "closing by force what is left";
    let left = log.lines().into_iter().find(|line| line.contains(left));
    println!("{}", left.expect("the deaf and the frozen were to be left"));

    ends_are_spread_and_in_order(&stayed, told);
    // A message that its sender has heard is owed to everyone whose end is decided later; the margin is for the way.
    let echoes = echoes.lock().unwrap();
    let margin = Duration::from_millis(500);
    for member in &stayed {
        let owed = echoes.iter().filter(|(at, _)| *at + margin < member.ended).map(|(_, n)| *n).max();
        assert!(member.last >= owed, "{:?} heard up to {:?} of {owed:?}", member.log, member.last);
    }
    println!("drained {} in {took:?}; the speaker heard {} messages", stayed.len(), echoes.len());
    let mut history = History::default();
    for member in stayed {
        history.received(member.log);
    }
    history.holds();
}

fn ends_are_spread_and_in_order(stayed: &[Stayed], told: Instant) {
    let mut buckets = [0; 20];
    for member in stayed {
        buckets[(member.ended - told).as_secs() as usize] += 1;
    }
    println!("ends in each second since the signal: {buckets:?}");
    let most = buckets.iter().max().unwrap();
    assert!(*most * 4 <= stayed.len(), "a second had more than a quarter of the ends: {buckets:?}");
    // They joined in this order; a tenth of a second is for the way.
    let way = Duration::from_millis(300);
    for (older, younger) in stayed.iter().zip(&stayed[20..]) {
        assert!(older.ended < younger.ended + way, "a younger connection was ended long before an older one");
    }
    let first = stayed.iter().map(|member| member.ended).min().unwrap() - told;
    let last = stayed.iter().map(|member| member.ended).max().unwrap() - told;
    assert!(first > Duration::from_millis(990), "the first was ended within the notice, after {first:?}");
    assert!(last > SPREAD, "the last was ended early, after {last:?}");
}
