//! One failing or slow receiver never stops the others: it is cut, and they hear everything.

use std::time::Duration;

use crate::common::{
    client::{Member, Transport, Windows},
    crowd::{Crowd, Speaker},
    eventually, frames,
    history::{History, Id, Log, Stay},
    raw::{Mortal, RawClient},
    server::Server,
    within,
};
use tonic::Code;

const ROOM: &str = "orchard";

/// Who lags by a quarter of a mebibyte is cut, so that it happens within the test.
const STRICT: [&str; 2] = ["--retention-bytes=1048576", "--lag-limit-bytes=262144"];

const LISTENERS: usize = 4;

/// Bytes of ballast in each message said to a reader that stopped.
const PADDING: usize = 4_000;

/// Far more than the buffers of both kernels and the server's own can hold.
const MESSAGES_MAX: u32 = 20_000;

/// A bad apple's socket is closed this long after its departure: 5 s in the design, more on a busy machine.
const CLOSING_PATIENCE: Duration = Duration::from_secs(15);

/// Healthy members, one of whom speaks, on transports of their own.
struct Orchard {
    server: Server,
    crowd: Crowd,
    speaker: Speaker,
}

impl Orchard {
    async fn grows(options: &[&str]) -> Self {
        let server = Server::start(options);
        let mut crowd = Crowd::new();
        for listener in 0..LISTENERS {
            let name = format!("listener {listener}");
            crowd.listens(server.join_as(ROOM, &name).await, &name);
        }
        let speaker = crowd.speaks(server.join_as(ROOM, "speaker").await, 0);
        Self { server, crowd, speaker }
    }

    /// The room goes on as if nothing had happened.
    async fn publishes_a_thousand(&mut self) {
        for _ in 0..100 {
            self.speaker.publishes(10, 50).await;
            self.speaker.receives_own(20).await;
        }
    }

    /// Speaks, at its own echo's pace, until the member called `name` is cut; why it was.
    async fn publishes_until_cut(&mut self, name: &str) -> String {
        let departure = self.server.departure_of(name);
        let mut departure = std::pin::pin!(departure);
        while self.speaker.published() < MESSAGES_MAX {
            self.speaker.publishes(4, PADDING).await;
            tokio::select! {
                departure = &mut departure => return departure,
                () = self.speaker.receives_own(8) => {}
            }
        }
        departure.await
    }

    /// Everyone has heard everything; the server's own count adds up.
    async fn ends_whole(self) {
        self.ends_whole_beside(None).await;
    }

    async fn ends_whole_beside(self, bad: Option<Log>) {
        let mut history = History::default();
        let published = self.speaker.published();
        history.published(0, published);
        self.speaker.stays();
        for log in self.crowd.leaves(published as usize).await {
            history.received(log);
        }
        if let Some(log) = bad {
            history.received(log);
        }
        let deliveries = history.holds();
        println!("{deliveries} deliveries of {published} messages");
        let stopped = self.server.stop().await;
        assert!(stopped.status.success(), "{stopped:?}");
        assert_eq!(stopped.joined, stopped.departed, "{stopped:?}");
    }
}

#[tokio::test]
async fn reader_without_window_updates_is_cut_others_lose_nothing() {
    let mut orchard = Orchard::grows(&STRICT).await;
    let transport = Transport::connect_with(orchard.server.addr, Windows::DEFAULT).await;
    let mut bad = transport.join(ROOM, "bad").await;
    assert_eq!(orchard.publishes_until_cut("bad").await, "slow_consumer");
    let (run, code) = what_it_got(&mut bad).await;
    assert_ne!(code, Some(Code::Ok));
    orchard.ends_whole_beside(Some(run)).await;
}

/// What was already on its way to a member, and how its call ended.
async fn what_it_got(member: &mut Member) -> (Log, Option<Code>) {
    let mut run = Log::of("bad", Stay::Part);
    let reading = async {
        loop {
            match member.responses.next().await {
                Ok(text) => run.receive(text.as_bytes()),
                Err(ending) => {
                    println!("the slow reader's call ended with {ending:?}");
                    return ending.code();
                }
            };
        }
    };
    let code = within(CLOSING_PATIENCE, "the end of the slow reader's call", reading).await;
    (run, code)
}

#[tokio::test]
async fn stalled_socket_is_cut_others_lose_nothing() {
    let mut orchard = Orchard::grows(&STRICT).await;
    let sockets = orchard.server.descriptors();
    let mut bad = RawClient::connect(orchard.server.addr);
    bad.joins(ROOM, "bad");
    assert_eq!(orchard.publishes_until_cut("bad").await, "slow_consumer");
    let closed = || orchard.server.descriptors() <= sockets;
    eventually(CLOSING_PATIENCE, "the server's end of its socket is closed", closed).await;
    orchard.ends_whole().await;
}

#[tokio::test]
async fn slow_call_does_not_end_calls_on_same_transport() {
    let mut orchard = Orchard::grows(&STRICT).await;
    let narrow = Windows { connection: Windows::WIDE.connection, ..Windows::DEFAULT };
    let transport = Transport::connect_with(orchard.server.addr, narrow).await;
    let neighbour = transport.join(ROOM, "neighbour").await;
    orchard.crowd.listens(neighbour, "neighbour");
    let mut bad = transport.join(ROOM, "bad").await;
    assert_eq!(orchard.publishes_until_cut("bad").await, "slow_consumer");
    let (run, _) = what_it_got(&mut bad).await;
    orchard.ends_whole_beside(Some(run)).await;
}

#[tokio::test]
async fn slow_readers_share_the_rooms_memory() {
    let mut orchard = Orchard::grows(&STRICT).await;
    let mut bad = Vec::new();
    for number in 0..50 {
        let transport = Transport::connect_with(orchard.server.addr, Windows::DEFAULT).await;
        bad.push(transport.join(ROOM, &format!("bad {number}")).await);
    }
    let before = orchard.server.rss();
    for number in 0..50 {
        let departure = orchard.publishes_until_cut(&format!("bad {number}")).await;
        assert_eq!(departure, "slow_consumer");
    }
    let grown = orchard.server.settled_rss().await.saturating_sub(before);
    println!("50 slow readers: {} KiB more", grown / 1024);
    assert!(grown < 32 << 20, "{grown} bytes");
    orchard.ends_whole().await;
}

#[tokio::test]
async fn client_killed_inside_message_leaves_alone() {
    let mut orchard = Orchard::grows(&[]).await;
    let mut bad = Mortal::connect(orchard.server.addr);
    bad.sends(&frames::chat_call(1, ROOM, "bad"));
    let published = frames::message(Id::new(9, 0).text(1_000).as_bytes());
    let half = &published[..500];
    bad.sends(&frames::frame(frames::DATA, 0, 1, half));
    orchard.server.id_of("bad").await;
    orchard.publishes_a_thousand().await;
    bad.dies();
    assert_eq!(orchard.server.departure_of("bad").await, "cancelled");
    orchard.publishes_a_thousand().await;
    orchard.ends_whole().await;
}

#[tokio::test]
async fn stream_reset_leaves_alone() {
    let mut orchard = Orchard::grows(&[]).await;
    let bad = orchard.server.join_as(ROOM, "bad").await;
    orchard.publishes_a_thousand().await;
    bad.reset();
    orchard.publishes_a_thousand().await;
    assert_eq!(orchard.server.departure_of("bad").await, "cancelled");
    orchard.ends_whole().await;
}

#[tokio::test]
async fn socket_reset_leaves_alone() {
    let mut orchard = Orchard::grows(&[]).await;
    let transport = Transport::connect_abortive(orchard.server.addr).await;
    let _bad = transport.join(ROOM, "bad").await;
    orchard.publishes_a_thousand().await;
    transport.cut().await;
    orchard.publishes_a_thousand().await;
    assert_eq!(orchard.server.departure_of("bad").await, "cancelled");
    orchard.ends_whole().await;
}
