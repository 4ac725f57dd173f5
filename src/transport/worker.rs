//! Workers: threads with a current-thread runtime each. A transport stays on its worker.
//!
//! A message for a thousand members wakes a thousand transports. Work stealing between threads costs more than it gains
//! there, so connections are distributed when they are accepted instead.
//!
//! Guarantees: a worker that fails cancels a token that ends the server. Otherwise its rooms would hang, and its empty list
//! of transports would attract all new ones. Deliberately does not know what the services or the critical task do.

use super::connection::Connection;
use super::lifecycle::CloseReason;
use super::limits::TransportLimits;
use super::rpc_metrics::RpcMetrics;
use super::services::Services;
use super::state::{TransportId, TransportState};
use super::stats::{Refusal, TransportGuard};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Accepted sockets that may wait for one worker; further ones wait in the kernel.
const ACCEPTED_MAX: usize = 1024;

type Transports = Arc<Mutex<HashMap<TransportId, Arc<TransportState>>>>;

/// A socket that waits for its worker.
type Accepted = (TcpStream, SocketAddr, TransportGuard);

/// The settings of a worker that is not started.
pub struct Worker<S> {
    /// The services that handle its calls.
    pub services: S,
    /// Bounds of its transports.
    pub limits: Arc<TransportLimits>,
    /// Limits and counts of all methods.
    pub methods: Arc<RpcMetrics>,
    /// Cancelled when the worker ends without [`WorkerHandle::stop`].
    pub failed: CancellationToken,
}

/// A running worker.
pub struct WorkerHandle {
    accepted: mpsc::Sender<Accepted>,
    transports: Transports,
    stop: CancellationToken,
    /// `None` for a worker that is a task of another runtime.
    thread: Option<thread::JoinHandle<()>>,
}

impl<S: Services> Worker<S> {
    /// Starts the worker's thread. `critical` runs there as a task. It must run as long as the worker does: if it ends or
    /// panics before, the worker fails.
    ///
    /// # Errors
    /// When the system cannot provide a thread or a runtime.
    pub fn start<F>(self, number: usize, critical: F) -> io::Result<WorkerHandle>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut handle, run) = self.run(critical);
        let thread = thread::Builder::new()
            .name(format!("worker-{number}"))
            // The thread drops the runtime at its end, and with it every remaining task.
            .spawn(move || runtime.block_on(run))?;
        handle.thread = Some(thread);
        Ok(handle)
    }

    /// Starts the worker as a task of the current runtime. For listeners with little traffic.
    #[must_use]
    pub fn start_here(self) -> WorkerHandle {
        let (handle, run) = self.run(std::future::pending());
        // Its handle stops it, and a panic in it cancels `failed`.
        tokio::spawn(run);
        handle
    }

    fn run<F>(self, critical: F) -> (WorkerHandle, impl Future<Output = ()> + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (accepted, incoming) = mpsc::channel(ACCEPTED_MAX);
        let transports = Transports::default();
        let stop = CancellationToken::new();
        let handle =
            WorkerHandle { accepted, transports: Arc::clone(&transports), stop: stop.clone(), thread: None };
        // A panic drops it too.
        let failed = self.failed.clone().drop_guard();
        (handle, self.main(incoming, transports, stop, critical, failed))
    }

    async fn main<F>(
        self,
        mut incoming: mpsc::Receiver<Accepted>,
        transports: Transports,
        stop: CancellationToken,
        critical: F,
        failed: DropGuard,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut critical: JoinHandle<()> = tokio::spawn(critical);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    failed.disarm();
                    return;
                }
                ended = &mut critical => {
                    tracing::error!(cause = cause_of(ended), "a worker's task ended: the server cannot go on");
                    return;
                }
                // Disabled once the acceptor is gone: the worker then serves the transports that it has.
                Some((socket, peer, guard)) = incoming.recv() => {
                    if let Err(error) = self.serve(socket, peer, guard, &transports) {
                        tracing::debug!(%peer, %error, "socket could not be served");
                    }
                }
            }
        }
    }

    fn serve(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        guard: TransportGuard,
        transports: &Transports,
    ) -> io::Result<()> {
        let entry = TransportEntry::new(guard, Arc::clone(transports), peer);
        let socket = tokio::net::TcpStream::from_std(socket)?;
        let connection = Connection::new(
            socket,
            Arc::clone(&entry.transport),
            self.services.clone(),
            Arc::clone(&self.methods),
            Arc::clone(&self.limits),
        );
        // Not an async block: that would reserve memory for the connection twice.
        tokio::spawn(connection.map(move |reason| entry.finish(&reason)));
        Ok(())
    }
}

/// Describes why a critical task ended.
fn cause_of(ended: Result<(), JoinError>) -> String {
    let panic = match ended {
        Ok(()) => return "it returned".to_owned(),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panic,
            Err(error) => return error.to_string(),
        },
    };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| <dyn Any>::downcast_ref::<&str>(&*panic).copied());
    format!("panic: {}", text.unwrap_or("without words"))
}

impl WorkerHandle {
    /// Transports on this worker, including those that wait for it.
    #[must_use]
    pub fn load(&self) -> usize {
        let waiting = self.accepted.max_capacity() - self.accepted.capacity();
        self.transports.lock().len() + waiting
    }

    /// Assigns a socket to this worker. Waits while the worker is behind. If the worker has ended, the socket is closed.
    pub(super) async fn assign(&self, socket: TcpStream, peer: SocketAddr, guard: TransportGuard) {
        // An error returns the socket, which is dropped here.
        let _ = self.accepted.send((socket, peer, guard)).await;
    }

    /// Sends GOAWAY on every transport. Transports close when their calls have ended.
    pub fn go_away(&self) {
        for transport in self.transports.lock().values() {
            transport.go_away();
        }
    }

    /// Whether a transport has data that its peer or its socket does not accept yet.
    #[must_use]
    pub fn has_unsent_data(&self) -> bool {
        self.transports.lock().values().any(|transport| transport.has_unsent_data())
    }

    /// Ends the worker with all its transports, and waits for its thread.
    pub fn stop(self) {
        self.stop.cancel();
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a worker panicked");
        }
    }
}

/// A transport's entry in its worker's list, removed on drop.
struct TransportEntry {
    transport: Arc<TransportState>,
    transports: Transports,
    _guard: TransportGuard,
}

impl TransportEntry {
    fn new(guard: TransportGuard, transports: Transports, peer: SocketAddr) -> Self {
        let transport = Arc::new(TransportState::new(peer, Arc::clone(guard.stats())));
        transports.lock().insert(transport.id, Arc::clone(&transport));
        Self { transport, transports, _guard: guard }
    }

    /// Counts and logs the end of the transport.
    fn finish(self, reason: &CloseReason) {
        let TransportState { id, peer, stats, .. } = &*self.transport;
        let has_called = self.transport.has_had_calls();
        match reason {
            CloseReason::Done => tracing::debug!(transport = %id, %peer, "transport closed"),
            CloseReason::Failed(error) if !has_called && !error.is_io() => {
                stats.count_refusal(Refusal::NotHttp2);
                tracing::info!(transport = %id, %peer, "transport closed: it does not speak HTTP/2 without TLS");
            }
            CloseReason::Failed(error) => tracing::debug!(transport = %id, %peer, %error, "transport failed"),
            why => {
                match why {
                    CloseReason::NoPreface => stats.count_refusal(Refusal::NoPreface),
                    CloseReason::NoCall => stats.count_refusal(Refusal::NoCall),
                    _ => {}
                }
                tracing::info!(transport = %id, %peer, ?why, "transport closed by the server");
            }
        }
    }
}

impl Drop for TransportEntry {
    fn drop(&mut self) {
        self.transports.lock().remove(&self.transport.id);
    }
}
