//! Half of a room stops reading: the other half loses nothing, and memory stays within what is documented.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::common::{
    Elsewhere,
    client::{Ending, Member, RequestStream, Transport, Windows},
    frames,
    history::Id,
    metrics::Scrape,
    positions::Chronicle,
    raw::RawClient,
    server::Server,
    track::{HelloLog, Track, Wants},
    until,
    v1_member::{Body, Hello, Incoming, JOIN, Publication, V1Member, Why},
    within,
};
use crate::machine;
use serde_json::Value;
use tokio::{task::JoinHandle, time::sleep};
use tonic::Code;

const ROOM: &str = "orchard";
const MIB: u64 = 1 << 20;

/// Of each kind, in each API.
const EACH: usize = 125;
/// Those who stop reading, and those who do not.
const SLOW: usize = 4 * EACH;
const HEALTHY: usize = 4 * EACH;

const RETENTION: u64 = 2 * MIB;
/// What one stream may have waiting to be written.
const SEND_BUFFER: u64 = 64 * 1024;

const STRICT: [&str; 4] = [
    "--retention-bytes=2097152",
    "--lag-limit-bytes=262144",
    "--lag-limit-age=5m",
    // They are to be cut for what they are behind, not for the socket.
    "--write-stall-limit=2m",
];

/// Ballast in each message: in both forms and as it came, the room retains less than 200 of them.
const PADDING: usize = 4_000;
const BURST: u32 = 8;
/// Nobody who is healthy is further behind, in messages: far from the limit.
const BEHIND_MAX: u32 = 24;

/// The sender of the last message.
const LAST: u16 = 2;

const LONG_PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn stalled_half_costs_the_other_half_nothing() {
    let _machine = machine::alone();
    let server = Server::start(&STRICT);
    let progress: Arc<[AtomicU32]> = (0..HEALTHY).map(|_| AtomicU32::new(0)).collect();
    let halves = [0, 1].map(|half| {
        let (addr, progress) = (server.addr, progress.clone());
        Elsewhere::runs(move || the_healthy(addr, half, progress))
    });
    let mut speaker = Speaker::joins(server.addr).await;
    let slow = the_slow(server.addr).await;
    everyone_is_in(&server, SLOW + HEALTHY + 1).await;
    let before = server.settled_rss().await;
    let mut peak = before;

    // Several times what is retained, and until all who are slow are gone.
    let mut slow_ones = 0.0;
    while slow_ones < SLOW as f64 || u64::from(speaker.published) * (PADDING as u64) < 2 * RETENTION {
        speaker.publishes(BURST).await;
        speaker.waits_for(&progress, BEHIND_MAX).await;
        peak = peak.max(server.rss());
        if speaker.published.is_multiple_of(8 * BURST) {
            let scrape = Scrape::of(server.metrics_addr).await;
            slow_ones = scrape.sum_of("chatroom_connections_closed_total", "slow_consumer");
            if u64::from(speaker.published) * PADDING as u64 > 2 * MIB {
                // Now it waits for the housekeeping only.
                sleep(Duration::from_millis(100)).await;
            }
        }
        assert!(speaker.published < 20_000, "{slow_ones} of {SLOW} were cut");
    }
    let after = server.settled_rss().await;
    let scrape = Scrape::of(server.metrics_addr).await;
    let (log_bytes, published) = (scrape.sum("chatroom_log_bytes"), speaker.published);
    println!(
        "{published} messages of {PADDING} bytes to {HEALTHY} healthy and {SLOW} slow; log {log_bytes} bytes"
    );
    println!("resident {} KiB before, {} at the peak, {} after", before >> 10, peak >> 10, after >> 10);
    assert!(log_bytes <= RETENTION as f64);
    // The slack is for the healthy, who have frames on their way, and for the allocator.
    let bound = RETENTION + SLOW as u64 * SEND_BUFFER + 16 * MIB;
    assert!(peak - before <= bound, "{} KiB over {} KiB", (peak - before) >> 10, bound >> 10);

    for api in ["hello", "v1"] {
        let closed = format!("chatroom_connections_closed_total{{api=\"{api}\",reason=\"slow_consumer\"}}");
        assert_eq!(scrape.value(&closed), (2 * EACH) as f64, "{api}");
    }
    assert_eq!(scrape.sum("chatroom_connections_closed_total"), SLOW as f64, "all of them, and nobody else");
    assert_eq!(scrape.sum_of("chatroom_slow_consumers_total", "disconnect"), SLOW as f64);
    assert_eq!(scrape.sum("chatroom_connections"), (HEALTHY + 1) as f64);

    let mut chronicle = Chronicle::default();
    chronicle.published(0, published);
    chronicle.published(LAST, 1);
    chronicle.received(speaker.publishes_the_last().await);
    for half in halves {
        let (logs, tracks) = half.done().await;
        for log in logs {
            chronicle.received(log);
        }
        for track in tracks {
            chronicle.met(track);
        }
    }
    let account = chronicle.holds();
    println!("{account:?}");
    assert_eq!(account.deliveries, u64::from(published + 1) * (HEALTHY + 1) as u64);
    assert_eq!(account.missed(), 0);
    drop(slow);
    are_logged_once(server).await;
}

/// Each who was slow has left once, and so has everyone else.
async fn are_logged_once(server: Server) {
    let log = server.watch_log();
    let stopped = server.stop().await;
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(
        (stopped.joined, stopped.departed),
        ((SLOW + HEALTHY + 1) as u64, (SLOW + HEALTHY + 1) as u64)
    );
    let mut leaves: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        if line["message"] == "user left" {
            let text = |key: &str| line[key].as_str().unwrap().to_owned();
            leaves.entry(text("connection")).or_default().push(text("reason"));
        }
    }
    assert!(leaves.values().all(|reasons| reasons.len() == 1), "somebody left twice");
    let slow = leaves.values().filter(|reasons| reasons[0] == "slow_consumer").count();
    assert_eq!((slow, leaves.len()), (SLOW, SLOW + HEALTHY + 1));
}

async fn everyone_is_in(server: &Server, count: usize) {
    let connections = async || Scrape::of(server.metrics_addr).await.sum("chatroom_connections");
    until("everyone is in", async || connections().await == count as f64).await;
}

/// A client of hello.ChatRoom who speaks, and hears itself.
struct Speaker {
    requests: RequestStream,
    published: u32,
    receives: JoinHandle<HelloLog>,
}

impl Speaker {
    async fn joins(addr: SocketAddr) -> Self {
        let Member { requests, mut responses } = Transport::connect(addr).await.join(ROOM, "speaker").await;
        let receives = tokio::spawn(async move {
            let mut log = HelloLog::of("speaker");
            loop {
                let each = |text: &[u8]| {
                    log.receive(text);
                };
                match responses.receive(each).await {
                    None => {}
                    Some(ending) if ending.code() == Some(Code::Ok) => return log,
                    Some(ending) => panic!("the speaker's call ended with {ending:?}"),
                }
            }
        });
        Self { requests, published: 0, receives }
    }

    async fn publishes(&mut self, messages: u32) {
        let next = self.published..self.published + messages;
        let texts: Vec<String> = next.map(|sequence| Id::new(0, sequence).text(PADDING)).collect();
        self.requests.publish_all(&texts).await;
        self.published += messages;
    }

    /// Waits until none of these is further behind.
    async fn waits_for(&self, progress: &[AtomicU32], behind_max: u32) {
        let due = self.published.saturating_sub(behind_max);
        let all = || progress.iter().all(|received| received.load(Ordering::Relaxed) >= due);
        within(LONG_PATIENCE, "the healthy", async {
            while !all() {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// The last message.
    async fn publishes_the_last(mut self) -> HelloLog {
        self.requests.publish(&Id::new(LAST, 0).text(0)).await;
        self.requests.half_close();
        let mut log = within(LONG_PATIENCE, "the speaker's end", self.receives).await.unwrap();
        log.has_published(0, 0..self.published);
        log.is_complete();
        log
    }
}

/// Half of those who read, each on a transport of its own.
async fn the_healthy(
    addr: SocketAddr,
    half: usize,
    progress: Arc<[AtomicU32]>,
) -> (Vec<HelloLog>, Vec<Track>) {
    let (mut logs, mut tracks) = (Vec::new(), Vec::new());
    for number in (0..HEALTHY).filter(|number| number % 2 == half) {
        let progress = progress.clone();
        let name = format!("healthy {number}");
        let transport = Transport::connect(addr).await;
        if (number / 2).is_multiple_of(2) {
            let member = transport.join(ROOM, &name).await;
            logs.push(tokio::spawn(receives_by_hello(member, name, number, progress)));
        } else {
            let member = V1Member::join(&transport, &Hello { room: ROOM, ..Hello::default() }).await;
            tracks.push(tokio::spawn(receives_by_v1(transport, member, name, number, progress)));
        }
    }
    let (mut received, mut met) = (Vec::new(), Vec::new());
    for log in logs {
        received.push(log.await.expect("a healthy member panicked, see above"));
    }
    for track in tracks {
        met.push(track.await.expect("a healthy member panicked, see above"));
    }
    (received, met)
}

async fn receives_by_hello(
    mut member: Member,
    name: String,
    number: usize,
    progress: Arc<[AtomicU32]>,
) -> HelloLog {
    let mut log = HelloLog::of(&name);
    let mut is_last = false;
    loop {
        let each = |text: &[u8]| {
            is_last |= log.receive(text).is_some_and(|id| id.sender() == LAST);
            progress[number].fetch_add(1, Ordering::Relaxed);
        };
        let ending = member.responses.receive(each).await;
        if std::mem::take(&mut is_last) {
            member.half_close();
        }
        if let Some(ending) = ending {
            assert_eq!(ending.code(), Some(Code::Ok), "{name}: {ending:?}");
            log.is_complete();
            return log;
        }
    }
}

async fn receives_by_v1(
    _transport: Transport,
    mut member: V1Member,
    name: String,
    number: usize,
    progress: Arc<[AtomicU32]>,
) -> Track {
    let mut track = Track::of(&name, Wants::default());
    let mut is_last = false;
    loop {
        let each = |received: &Incoming<'_>| {
            if let Some(id) = track.receive(received) {
                is_last |= id.sender() == LAST;
                progress[number].fetch_add(1, Ordering::Relaxed);
            }
        };
        let ending = member.receive(each).await;
        if std::mem::take(&mut is_last) {
            member.requests.half_close();
        }
        if let Some(ending) = ending {
            assert_eq!(ending.code(), Some(Code::Ok), "{name}: {ending:?}");
            track.is_complete();
            return track;
        }
    }
}

/// Those who join and read nothing: half of them give no window, half do not read their socket.
async fn the_slow(
    addr: SocketAddr,
) -> (Vec<(Transport, Member)>, Vec<(Transport, V1Member)>, Vec<RawClient>) {
    let (mut hello, mut v1) = (Vec::new(), Vec::new());
    for _ in 0..EACH {
        let transport = Transport::connect_with(addr, Windows::DEFAULT).await;
        let member = transport.join(ROOM, "slow").await;
        hello.push((transport, member));
        let transport = Transport::connect_with(addr, Windows::DEFAULT).await;
        let member = V1Member::join(&transport, &Hello { room: ROOM, ..Hello::default() }).await;
        v1.push((transport, member));
    }
    let raw = tokio::task::spawn_blocking(move || {
        let one = |number: usize| {
            let mut client = RawClient::connect(addr);
            match number % 2 {
                0 => client.joins(ROOM, "slow"),
                _ => client.opens(&joining(1, &Hello { room: ROOM, ..Hello::default() })),
            }
            client
        };
        (0..2 * EACH).map(one).collect()
    });
    (hello, v1, raw.await.unwrap())
}

/// The bytes of a `Join`, up to its hello.
fn joining(stream: u32, hello: &Hello<'_>) -> Vec<u8> {
    let mut bytes = frames::call_head(stream, JOIN, &[]);
    bytes.extend(frames::frame(frames::DATA, 0, stream, &hello.joining()));
    bytes
}

#[tokio::test]
async fn stalled_member_of_skipping_room_gets_one_gap() {
    let _machine = machine::alone();
    let options = ["--slow-policy=skip", "--retention-bytes=262144", "--lag-limit-bytes=262144"];
    let server = Server::start_quiet(&options);
    let transport = Transport::connect_with(server.addr, Windows::DEFAULT).await;
    let mut member = V1Member::join(&transport, &Hello { room: ROOM, ..Hello::default() }).await;
    let mut track = Track::of("stalled", Wants::default());
    member
        .receives_until("welcome", |received| {
            track.receive(received);
            ControlFlow::Break(())
        })
        .await;
    let mut speaker = Speaker::joins(server.addr).await;
    let witness_transport = Transport::connect(server.addr).await;
    let witness = V1Member::join(&witness_transport, &Hello { room: ROOM, ..Hello::default() }).await;
    let progress: Arc<[AtomicU32]> = [AtomicU32::new(0)].into();
    let name = "witness".to_owned();
    let witness = tokio::spawn(receives_by_v1(witness_transport, witness, name, 0, progress.clone()));
    everyone_is_in(&server, 3).await;
    // Many times what is retained.
    while speaker.published < 1_000 {
        speaker.publishes(BURST).await;
        // The witness is to miss nothing, though little is retained.
        speaker.waits_for(&progress, 0).await;
    }
    let mut last = 0;
    let published = u64::from(speaker.published);
    member
        .receives_until("the last message", |received| {
            track.receive(received);
            if let Incoming::Event(event) = received {
                last = event.position.offset;
            }
            if last == published { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await;
    // It goes on.
    speaker.publishes(BURST).await;
    let mut chronicle = Chronicle::default();
    chronicle.published(0, speaker.published);
    chronicle.published(LAST, 1);
    chronicle.received(speaker.publishes_the_last().await);
    let mut is_last = false;
    let ending: Ending = within(LONG_PATIENCE, "the end", async {
        loop {
            let each = |received: &Incoming<'_>| {
                is_last |= track.receive(received).is_some_and(|id| id.sender() == LAST);
            };
            let ending = member.receive(each).await;
            if std::mem::take(&mut is_last) {
                member.requests.half_close();
            }
            if let Some(ending) = ending {
                return ending;
            }
        }
    })
    .await;
    assert_eq!(ending.code(), Some(Code::Ok), "{ending:?}");
    track.is_complete();
    chronicle.met(track);
    chronicle.met(witness.await.unwrap());
    let account = chronicle.holds();
    println!("{account:?}");
    let (gaps, missed) = account.gaps_for(Why::Slow);
    assert_eq!((gaps, account.missed()), (1, missed));
    assert!(missed > 500, "only {missed} were skipped");
    let scrape = Scrape::of(server.metrics_addr).await;
    assert_eq!(scrape.sum("chatroom_gap_messages_total"), missed as f64);
    assert_eq!(scrape.sum_of("chatroom_slow_consumers_total", "skip"), 1.0);
    assert_eq!(scrape.sum_of("chatroom_slow_consumers_total", "disconnect"), 0.0);
}

/// Streams on transports that are stuck, each of which lets in what is rare of much that is said.
const STUCK_TRANSPORTS: usize = 10;
const FILTERED_EACH: u32 = 100;
const RARE: u32 = 30;

#[tokio::test]
async fn filtered_backlog_is_bounded() {
    let _machine = machine::alone();
    let patient = [
        "--retention-bytes=8388608",
        "--lag-limit-bytes=67108864",
        "--lag-limit-age=5m",
        "--write-stall-limit=5m",
    ];
    let server = Server::start_quiet(&patient);
    let addr = server.addr;
    let stuck = tokio::task::spawn_blocking(move || {
        let one = |_| {
            let mut client = RawClient::connect(addr);
            // The first fills the socket.
            client.opens(&joining(1, &Hello { room: ROOM, ..Hello::default() }));
            for number in 1..=FILTERED_EACH {
                let hello = Hello { room: ROOM, kinds: &["rare"], ..Hello::default() };
                client.sends(&joining(2 * number + 1, &hello));
            }
            client
        };
        (0..STUCK_TRANSPORTS).map(one).collect::<Vec<_>>()
    });
    let _stuck = stuck.await.unwrap();
    let streams = STUCK_TRANSPORTS * (FILTERED_EACH as usize + 1);
    let transport = Transport::connect(addr).await;
    let mut speaker = V1Member::join(&transport, &Hello { room: ROOM, ..Hello::default() }).await;
    everyone_is_in(&server, streams + 1).await;
    // Until the sockets are full.
    let mut published = 0;
    for _ in 0..20 {
        publishes_much(&mut speaker, "chat", &mut published).await;
    }
    let before = server.settled_rss().await;
    for _ in 0..RARE {
        publishes_much(&mut speaker, "rare", &mut published).await;
    }
    let after = server.settled_rss().await;
    let scrape = Scrape::of(server.metrics_addr).await;
    println!(
        "resident {} KiB before, {} after; log {}",
        before >> 10,
        after >> 10,
        scrape.sum("chatroom_log_bytes")
    );
    // Frames of some 250 bytes, and what HTTP/2 has for each.
    let waiting = (streams as u64) * u64::from(RARE) * 1024;
    let grown = after.saturating_sub(before);
    assert!(grown < waiting + 16 * MIB, "{} KiB more", grown >> 10);
}

/// 15 messages that nobody who filters wants and one of this kind, in few segments; waits until they were heard.
async fn publishes_much(speaker: &mut V1Member, kind: &str, published: &mut u64) {
    let words = "x".repeat(PADDING);
    let mut bytes = bytes::BytesMut::new();
    for number in 0..16 {
        let (kind, words) = if number == 7 { (kind, "!") } else { ("chat", &*words) };
        let body = Body::Text(words.as_bytes());
        bytes.extend_from_slice(&Publication { reference: "", kind, body, key: "" }.publish());
    }
    speaker.requests.send(bytes.freeze()).await;
    *published += 16;
    speaker
        .receives_until("its own words", |received| match received {
            Incoming::Event(event) if event.position.offset == *published => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .await;
}
