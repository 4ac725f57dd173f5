//! The accept loop: takes connections from listeners and spreads them over the workers.

use super::listener::{Listener, prepare};
use super::stats::{Refusal, TransportCensus};
use super::worker::WorkerHandle;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How long to leave the queue alone after the system had no descriptor or memory for a connection. Without it
/// the loop spins: the connection stays at the head of the queue, and the listener stays readable.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Accepts for the workers.
pub struct Acceptor {
    transports_max: usize,
    census: Arc<TransportCensus>,
    refusal_logged: Mutex<Option<Instant>>,
}

impl Acceptor {
    /// Accepts up to `transports_max` transports at a time, which are counted in `census`. More are closed at once, so that
    /// they learn it rather than wait.
    #[must_use]
    pub fn new(transports_max: usize, census: Arc<TransportCensus>) -> Self {
        Self { transports_max, census, refusal_logged: Mutex::default() }
    }

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
        let Some(counted) = self.census.open(self.transports_max) else {
            self.log_refusal(peer);
            return;
        };
        // The worker with the fewest; the first of several.
        let worker = workers.iter().min_by_key(|worker| worker.load());
        // Out of this thread's runtime: it lives in the worker's. An error means that the peer is gone already.
        if let (Ok(socket), Some(worker)) = (prepare(&socket).and_then(|()| socket.into_std()), worker) {
            worker.take(socket, peer, counted).await;
        }
    }

    /// One line a second at most: whoever meets the limit may try again and again.
    fn log_refusal(&self, peer: SocketAddr) {
        let now = Instant::now();
        let mut last = self.refusal_logged.lock();
        if last.is_none_or(|last| now.duration_since(last) >= Duration::from_secs(1)) {
            *last = Some(now);
            let refused = self.census.refused_total(Refusal::Limit);
            tracing::warn!(%peer, max = self.transports_max, refused, "transport refused: the limit is met");
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
