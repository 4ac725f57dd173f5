//! A bad network: a TCP proxy that cuts connections after a random number of bytes, or when it is told to.
//!
//! It promises that the numbers come from a seed alone, and that a cut is seen by both ends, sometimes in order and
//! sometimes as a reset. It knows no protocol.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

/// How many cuts to make, and where.
pub struct Plan {
    random: StdRng,
    left: usize,
    /// A connection is cut after at most `2^k` bytes, with a random `k` of these.
    powers: Range<u32>,
    both_ways: bool,
}

impl Plan {
    /// No cut but those that are asked for.
    pub fn quiet() -> Self {
        Self::new(0, 0, 0..1)
    }

    /// The first connections are cut when the server has sent a random number of bytes, at most `2^powers`. Each power
    /// is as likely as the others, so that hellos, welcomes, and long answers in their middle all meet their end.
    ///
    /// Mind that HTTP/2 clients take frames whole, and frames may have 16 KiB: what is cut before hands over nothing.
    pub fn new(seed: u64, cuts: usize, powers: Range<u32>) -> Self {
        Self { random: StdRng::seed_from_u64(seed), left: cuts, powers, both_ways: false }
    }

    /// Counts what the client sends in every other connection.
    pub fn both_ways(self) -> Self {
        Self { both_ways: true, ..self }
    }

    /// What the next connection may carry: bytes from the server, and from the client; and how it ends.
    fn fate(&mut self) -> Fate {
        let free = Fate { down: u64::MAX, up: u64::MAX, reset: true };
        if self.left == 0 {
            return free;
        }
        self.left -= 1;
        let power = self.random.random_range(self.powers.clone());
        let bytes = self.random.random_range(0..=1_u64 << power);
        let (up, reset) = (self.both_ways && self.random.random(), self.random.random());
        if up { Fate { up: bytes, reset, ..free } } else { Fate { down: bytes, reset, ..free } }
    }
}

struct Fate {
    down: u64,
    up: u64,
    reset: bool,
}

pub struct Proxy {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// Where connections lead; none are let in while there is nothing.
    target: Mutex<Option<SocketAddr>>,
    plan: Mutex<Plan>,
    cuts: AtomicUsize,
    /// Connections that were made before the last change are cut.
    generation: watch::Sender<u64>,
}

impl Proxy {
    pub async fn start(target: SocketAddr, plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(Some(target)),
            plan: Mutex::new(plan),
            cuts: AtomicUsize::new(0),
            generation: watch::channel(0).0,
        });
        tokio::spawn(accept(listener, shared.clone()));
        Self { addr, shared }
    }

    /// Leads new connections elsewhere.
    pub fn leads_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = Some(target);
    }

    /// Lets nobody in from now on.
    pub fn closes(&self) {
        *self.shared.target.lock().unwrap() = None;
    }

    /// Cuts everyone who is there.
    pub fn cuts_all(&self) {
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    /// Connections that were cut as planned.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let target = *shared.target.lock().unwrap();
        let Some(target) = target else { continue };
        let fate = shared.plan.lock().unwrap().fate();
        tokio::spawn(carry(client, target, fate, shared.clone()));
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, fate: Fate, shared: Arc<Shared>) {
    let mut generation = shared.generation.subscribe();
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
        if fate.reset {
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let was_cut = tokio::select! {
        was_cut = relay(from_server, to_client, fate.down) => was_cut,
        was_cut = relay(from_client, to_server, fate.up) => was_cut,
        _ = generation.changed() => false,
    };
    if was_cut {
        shared.cuts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether it ended because all bytes it might carry were carried.
async fn relay(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, bytes: u64) -> bool {
    let mut left = bytes;
    let mut buffer = vec![0; 16 * 1024];
    while left > 0 {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return false };
        let carried = read.min(usize::try_from(left).unwrap_or(usize::MAX));
        if to.write_all(&buffer[..carried]).await.is_err() {
            return false;
        }
        left -= carried as u64;
    }
    true
}
