//! The accept loop: assigns accepted connections to workers.
//!
//! Guarantees: above the limit of transports, a connection is closed at once; without descriptors or memory the loop pauses
//! and recovers by itself. Deliberately does not read from connections.

use super::listener::{Listener, configure_socket};
use super::stats::{Refusal, TransportStats};
use super::worker::WorkerHandle;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// The pause after the system had no descriptor or memory for a connection. Without it the loop spins: the connection stays
/// at the head of the queue, and the listener stays readable.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Accepts connections for a set of workers.
pub struct Acceptor {
    transports_max: usize,
    stats: Arc<TransportStats>,
    refusal_logged: Mutex<Option<Instant>>,
}

impl Acceptor {
    /// Accepts up to `transports_max` concurrent transports, and counts them in `stats`. Further ones are closed at once, so
    /// that their peers fail instead of waiting.
    #[must_use]
    pub fn new(transports_max: usize, stats: Arc<TransportStats>) -> Self {
        Self { transports_max, stats, refusal_logged: Mutex::default() }
    }

    /// Accepts until the future is dropped, which closes the listener.
    ///
    /// # Errors
    /// When the listener cannot be used at all. The failure of one connection is not an error.
    pub async fn run(&self, listener: Listener, workers: &[WorkerHandle]) -> io::Result<()> {
        let listener = listener.into_async()?;
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => self.admit(socket, peer, workers).await,
                Err(error) if is_connection_error(&error) => {}
                Err(error) => self.back_off(&error).await,
            }
        }
    }

    async fn admit(&self, socket: TcpStream, peer: SocketAddr, workers: &[WorkerHandle]) {
        let Some(guard) = self.stats.open_transport(self.transports_max) else {
            self.log_refusal(peer);
            return;
        };
        // The worker with the fewest transports; the first of several.
        let worker = workers.iter().min_by_key(|worker| worker.load());
        // Deregistered from this thread's runtime: it moves to the worker's. An error means that the peer is gone already.
        let socket = configure_socket(&socket).and_then(|()| socket.into_std());
        if let (Ok(socket), Some(worker)) = (socket, worker) {
            worker.assign(socket, peer, guard).await;
        }
    }

    /// At most one line a second: a refused client may retry in a loop.
    fn log_refusal(&self, peer: SocketAddr) {
        let now = Instant::now();
        let mut last = self.refusal_logged.lock();
        if last.is_none_or(|last| now.duration_since(last) >= Duration::from_secs(1)) {
            *last = Some(now);
            let refused = self.stats.refused_total(Refusal::Limit);
            tracing::warn!(%peer, max = self.transports_max, refused, "transport refused: the limit is met");
        }
    }

    async fn back_off(&self, error: &io::Error) {
        tracing::warn!(%error, transports = self.stats.present(), "cannot accept, trying again");
        tokio::time::sleep(BACK_OFF).await;
    }
}

/// Whether an error of `accept` belongs to the connection at the head of the queue and not to the listener (accept(2)).
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
