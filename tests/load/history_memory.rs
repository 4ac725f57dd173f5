//! A room of `hello.ChatRoom` only, into which many clients of `chatroom.v1` come and ask for all that is retained: it
//! is written for them once, and memory is bounded by that.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::common::{
    Elsewhere,
    client::{Transport, Windows},
    history::Id,
    metrics::Scrape,
    server::Server,
    v1_member::{Body, Hello, Incoming, Start, V1Member},
    within,
};
use crate::machine;
use tokio::sync::Barrier;

const ROOM: &str = "archive";
const MIB: u64 = 1 << 20;

/// The default.
const RETENTION: u64 = 16 * MIB;
const READERS: usize = 200;
const HALVES: usize = 2;

/// What a stream may have waiting to be written, and what a transport costs beside.
const PER_STREAM: u64 = 64 * 1024;
const PER_TRANSPORT: u64 = 48 * 1024;

const PADDING: usize = 1_500;

const LONG_PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn history_is_encoded_once_for_all_readers() {
    let _machine = machine::alone();
    // Who is slower than what is said may miss some, and is told instead of cut.
    let options = ["--retention-age=1h", "--lag-limit-age=5m", "--slow-policy=skip"];
    let server = Server::start_quiet(&options);
    let mut speaker = server.join(ROOM).await;
    let mut published = 0;
    // Until the room forgets the oldest.
    let full = loop {
        publishes(&mut speaker, &mut published, 100).await;
        let scrape = Scrape::of(server.metrics_addr).await;
        if scrape.sum("chatroom_log_messages") < f64::from(published) {
            break scrape;
        }
    };
    let (retained, log_bytes) = (full.sum("chatroom_log_messages") as u64, full.sum("chatroom_log_bytes"));
    let rss_before = server.settled_rss().await;

    let began = Instant::now();
    let (reads, peak) = everyone_reads(&server, published.into()).await;
    let took = began.elapsed();
    let rss_after = server.settled_rss().await;
    let kib = |bytes: u64| bytes >> 10;
    println!("{READERS} readers of {retained} messages in {took:?}; the log has {log_bytes} bytes");
    println!("resident {} KiB before, {} at the peak, {} after", kib(rss_before), kib(peak), kib(rss_after));
    // Each message is there as it was said and as hello.ChatRoom has it; now once more, with position, time and sender.
    let encoding = log_bytes as u64 / 2 + retained * 256;
    let bound = encoding + READERS as u64 * (PER_STREAM + PER_TRANSPORT) + 8 * MIB;
    assert!(peak - rss_before <= bound, "{} KiB over {} KiB", kib(peak - rss_before), kib(bound));

    let oldest = u64::from(published) - retained + 1;
    let begins: Vec<u64> = reads.iter().map(|read| read.first).collect();
    println!(
        "they began with {:?} to {:?}; the oldest was {oldest}",
        begins.iter().min(),
        begins.iter().max()
    );
    assert_eq!(begins.iter().min(), Some(&oldest));
    publishes(&mut speaker, &mut published, 1).await;
    let scrape = Scrape::of(server.metrics_addr).await;
    let (kept, messages) = (scrape.sum("chatroom_log_bytes"), scrape.sum("chatroom_log_messages"));
    let gaps: u64 = reads.iter().map(|read| read.missed).sum();
    println!("{gaps} messages in gaps; the log has {kept} bytes, {messages} messages, with the next");
    // What was written for the readers is counted, and shortens nothing.
    assert!(kept > 1.3 * log_bytes && kept <= (RETENTION + encoding) as f64);
    assert!(messages > retained as f64 / 2.0);
    assert_eq!(scrape.sum("chatroom_gap_messages_total"), gaps as f64);
    assert_eq!(scrape.sum_of("chatroom_slow_consumers_total", "disconnect"), 0.0);
}

/// Everyone, and the most memory that the server had meanwhile.
async fn everyone_reads(server: &Server, tail: u64) -> (Vec<Read>, u64) {
    let everyone = Arc::new(Barrier::new(HALVES));
    let halves = [0, 1].map(|half| {
        let (addr, everyone) = (server.addr, everyone.clone());
        Elsewhere::runs(move || half_of_the_readers(addr, half, everyone, tail))
    });
    let (mut reads, mut peak) = (Vec::new(), 0);
    let mut looking = tokio::time::interval(Duration::from_millis(20));
    for half in halves {
        let mut done = std::pin::pin!(half.done());
        reads.extend(loop {
            tokio::select! {
                of_half = &mut done => break of_half,
                _ = looking.tick() => peak = peak.max(server.rss()),
            }
        });
    }
    assert_eq!(reads.len(), READERS);
    (reads, peak)
}

/// What a reader got: everything from here on, but for what it was told it missed.
struct Read {
    first: u64,
    missed: u64,
}

async fn publishes(speaker: &mut crate::common::client::Member, published: &mut u32, messages: u32) {
    let next = *published..*published + messages;
    let texts: Vec<String> = next.map(|sequence| Id::new(0, sequence).text(PADDING)).collect();
    speaker.requests.publish_all(&texts).await;
    for text in &texts {
        speaker.receives(text).await;
    }
    *published += messages;
}

/// Half of those who read all that is retained, at once.
async fn half_of_the_readers(addr: SocketAddr, half: usize, everyone: Arc<Barrier>, tail: u64) -> Vec<Read> {
    let mut transports = Vec::new();
    for _ in (0..READERS).filter(|reader| reader % HALVES == half) {
        transports.push(Transport::connect_with(addr, Windows::DEFAULT).await);
    }
    everyone.wait().await;
    let read = |transport| async move { within(LONG_PATIENCE, "all", reads_all(transport, tail)).await };
    let reads: Vec<_> = transports.into_iter().map(|transport| tokio::spawn(read(transport))).collect();
    let mut done = Vec::new();
    for read in reads {
        done.push(read.await.expect("a reader panicked, see above"));
    }
    done
}

/// Reads from the oldest on; nothing is missing that is not told.
async fn reads_all(transport: Transport, tail: u64) -> Read {
    let hello = Hello { room: ROOM, start: Start::Earliest, ..Hello::default() };
    let mut member = V1Member::join(&transport, &hello).await;
    let (mut read, mut last) = (Read { first: 0, missed: 0 }, 0);
    while last < tail {
        let each = |received: &Incoming<'_>| match received {
            Incoming::Welcome(position) => (read.first, last) = (position.offset + 1, position.offset),
            Incoming::Event(event) => {
                assert_eq!(event.position.offset, last + 1);
                assert!(matches!(event.body, Body::Text(words) if words.len() > PADDING));
                last += 1;
            }
            Incoming::Gap { from, to, count, .. } => {
                assert_eq!((from.offset, *count), (last + 1, to.offset - last));
                read.missed += count;
                last = to.offset;
            }
            received => panic!("{received:?} after {last}"),
        };
        let ending = member.receive(each).await;
        assert_eq!(ending, None, "after {last}");
    }
    read
}
