//! The accept loop: takes connections from listeners and spreads them over the workers.

use super::listener::{Listener, prepare};
use super::worker::WorkerHandle;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long to leave the queue alone after the system had no descriptor or memory for a connection. Without it
/// the loop spins: the connection stays at the head of the queue, and the listener stays readable.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Why a transport was closed before it carried a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The server had all it may have.
    Limit,
    /// It did not begin to speak HTTP/2 in time.
    NoPreface,
    /// It opened no call in time.
    NoCall,
    /// It spoke something else: HTTP/1, TLS, noise.
    NotHttp2,
}

impl Refusal {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Limit, Self::NoPreface, Self::NoCall, Self::NotHttp2];

    /// The word that metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::NoPreface => "no_preface",
            Self::NoCall => "no_call",
            Self::NotHttp2 => "not_http2",
        }
    }
}

/// Transports, counted.
#[derive(Debug, Default)]
pub struct TransportCensus {
    opened: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    present: AtomicUsize,
}

impl TransportCensus {
    /// Transports that are open now.
    #[must_use]
    pub fn present(&self) -> usize {
        self.present.load(Ordering::Acquire)
    }

    /// Transports that were ever accepted and served.
    #[must_use]
    pub fn opened_total(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Transports that were refused for this reason.
    #[must_use]
    pub fn refused_total(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one more transport, until the claim is dropped.
    fn open(&self, max: usize) -> Option<Claim<'_>> {
        let more = |here| (here < max).then_some(here + 1);
        let opened = self.present.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok();
        if opened {
            self.opened.fetch_add(1, Ordering::Relaxed);
        } else {
            self.refused(Refusal::Limit);
        }
        opened.then(|| Claim(self))
    }

    pub(super) fn closed(&self) {
        self.present.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A counted transport that no worker has yet.
struct Claim<'a>(&'a TransportCensus);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.closed();
    }
}

/// Accepts for the workers.
pub struct Acceptor {
    /// Most transports at a time; more are closed at once, so that they learn it rather than wait.
    pub transports_max: usize,
    /// Where transports are counted.
    pub census: Arc<TransportCensus>,
}

impl Acceptor {
    /// Accepts until the future is dropped, which closes the listener.
    ///
    /// # Errors
    /// When the listener cannot be used at all; what goes wrong with one connection is no error here.
    pub async fn run(&self, listener: Listener, workers: &[WorkerHandle]) -> io::Result<()> {
        let listener = listener.into_async()?;
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => self.admit(socket, peer, workers).await,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => self.back_off(&error).await,
            }
        }
    }

    async fn admit(&self, socket: TcpStream, peer: SocketAddr, workers: &[WorkerHandle]) {
        let Some(claim) = self.census.open(self.transports_max) else {
            tracing::warn!(%peer, max = self.transports_max, "transport refused: the limit is met");
            return;
        };
        // The worker with the fewest; the first of several.
        let worker = workers.iter().min_by_key(|worker| worker.load());
        // Out of this thread's runtime: it lives in the worker's.
        let prepared = prepare(&socket).and_then(|()| socket.into_std());
        let served = match (prepared, worker) {
            (Ok(socket), Some(worker)) => worker.take(socket, peer).await,
            // The peer is gone already.
            (Err(_), _) | (_, None) => false,
        };
        if served {
            // The worker's now.
            std::mem::forget(claim);
        }
    }

    async fn back_off(&self, error: &io::Error) {
        tracing::warn!(%error, transports = self.census.present(), "cannot accept, trying again");
        tokio::time::sleep(BACK_OFF).await;
    }
}

/// Errors of `accept` that belong to the connection at the head of the queue, not to us (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
