//! One room, 50 senders and 200 listeners, 40,000 messages: everyone hears the same, in the same order.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use crate::common::{
    Elsewhere,
    client::Transport,
    crowd::{Crowd, Speaker, passes_by},
    history::{History, Log},
    server::Server,
};
use crate::machine;
use rand::Rng;
use tokio::sync::{Barrier, watch};

const SENDERS: u16 = 50;
const LISTENERS: usize = 200;
const MESSAGES_EACH: u32 = 800;
const MESSAGES: usize = SENDERS as usize * MESSAGES_EACH as usize;

/// The clients run on two threads, half of the room on each.
const HALVES: usize = 2;

/// Nobody is to be cut for lagging on a busy machine: the whole history stays in the log.
const PATIENT: [&str; 5] = [
    "--retention-bytes=67108864",
    "--retention-messages=200000",
    "--retention-age=10m",
    "--lag-limit-bytes=67108864",
    "--lag-limit-age=10m",
];

#[tokio::test]
async fn all_members_agree_on_one_order() {
    let _machine = machine::alone();
    let server = Server::start_quiet(&PATIENT);
    let began = Instant::now();
    let everyone_is_in = Arc::new(Barrier::new(HALVES));
    let halves: Vec<_> = (0..HALVES)
        .map(|half| {
            let (addr, everyone_is_in) = (server.addr, everyone_is_in.clone());
            Elsewhere::runs(move || half_of_the_room(addr, half, everyone_is_in))
        })
        .collect();
    let mut history = History::default();
    for half in halves {
        for log in half.done().await {
            history.received(log);
        }
    }
    let received = began.elapsed();
    for sender in 0..SENDERS {
        history.published(sender, MESSAGES_EACH);
    }
    let deliveries = history.holds();
    println!("{deliveries} deliveries in {received:?}, checked {:?} after the start", began.elapsed());
    let stopped = server.stop().await;
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(stopped.joined, stopped.departed, "{stopped:?}");
}

async fn half_of_the_room(addr: SocketAddr, half: usize, everyone_is_in: Arc<Barrier>) -> Vec<Log> {
    let mut crowd = Crowd::new();
    let mut seats = Seats::at(addr);
    for listener in (0..LISTENERS).filter(|listener| listener % HALVES == half) {
        let name = format!("listener {listener}");
        crowd.listens(seats.next().await.join("order", &name).await, &name);
    }
    let mut speakers = Vec::new();
    for sender in (0..SENDERS).filter(|sender| usize::from(*sender) % HALVES == half) {
        let member = seats.next().await.join("order", "speaker").await;
        speakers.push(crowd.speaks(member, sender));
    }
    everyone_is_in.wait().await;
    for speaker in speakers {
        tokio::spawn(publishes_its_part(speaker));
    }
    let over = watch::Sender::new(false);
    let passing = tokio::spawn(some_pass_by(addr, over.subscribe()));
    let mut logs = crowd.leaves(MESSAGES).await;
    over.send_replace(true);
    logs.extend(passing.await.unwrap());
    logs
}

/// Speaks in bursts of any size, never far ahead of its own echo. Every other one leaves after its last word.
async fn publishes_its_part(mut speaker: Speaker) {
    while speaker.published() < MESSAGES_EACH {
        let burst = rand::rng().random_range(1..=40);
        let padding = rand::rng().random_range(0..20);
        speaker.publishes(burst.min(MESSAGES_EACH - speaker.published()), padding).await;
        speaker.receives_own(100).await;
    }
    if rand::rng().random() {
        speaker.stays();
    } else {
        speaker.leaves();
    }
}

/// One after another: each comes late and goes early.
async fn some_pass_by(addr: SocketAddr, over: watch::Receiver<bool>) -> Vec<Log> {
    let mut logs = Vec::new();
    while !*over.borrow() {
        let member = Transport::connect(addr).await.join("order", "passer-by").await;
        logs.push(passes_by(member, 1_000, over.clone()).await);
    }
    logs
}

/// Every other member has a transport of its own, the others share one by 25.
struct Seats {
    addr: SocketAddr,
    taken: usize,
    shared: Option<Transport>,
    own: Option<Transport>,
}

impl Seats {
    const SHARING: usize = 25;

    fn at(addr: SocketAddr) -> Self {
        Self { addr, taken: 0, shared: None, own: None }
    }

    async fn next(&mut self) -> &Transport {
        self.taken += 1;
        if self.taken.is_multiple_of(2) {
            return self.own.insert(Transport::connect(self.addr).await);
        }
        if self.taken % (2 * Self::SHARING) == 1 {
            self.shared = None;
        }
        let shared = match self.shared.take() {
            Some(shared) => shared,
            None => Transport::connect(self.addr).await,
        };
        self.shared.insert(shared)
    }
}
