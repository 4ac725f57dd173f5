//! Workers: threads with one current-thread runtime each, on which transports live and stay.
//!
//! A message for a thousand members is a thousand tasks to run; threads that steal them from each other cost more than
//! they win. Connections are spread when they are accepted instead.

use super::accept::{Refusal, TransportCensus};
use super::call::{Shared, TransportId};
use super::connection::{Closed, Connection, Limits, Services};
use super::rpcs::Rpcs;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Sockets on their way to one worker; beyond it they queue in the kernel.
const HANDOVER: usize = 1024;

type Transports = Arc<Mutex<HashMap<TransportId, Arc<Shared>>>>;

/// A worker to be started.
pub struct Worker<S> {
    /// The services for this worker's calls.
    pub services: S,
    /// Bounds for its transports.
    pub limits: Limits,
    /// Where transports are counted.
    pub census: Arc<TransportCensus>,
    /// Where RPCs are counted.
    pub rpcs: Arc<Rpcs>,
}

/// A worker that runs.
pub struct WorkerHandle {
    sockets: mpsc::Sender<(TcpStream, SocketAddr)>,
    transports: Transports,
    stop: CancellationToken,
    /// None for a worker that runs as a task of somebody else's runtime.
    thread: Option<thread::JoinHandle<()>>,
}

impl<S: Services> Worker<S> {
    /// Starts the worker's thread; `beside` runs there as one task as long as the worker does.
    ///
    /// # Errors
    /// When the system gives no thread or no runtime.
    pub fn start<F>(self, number: usize, beside: F) -> io::Result<WorkerHandle>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut handle, incoming) = WorkerHandle::new();
        let main = self.main(incoming, Arc::clone(&handle.transports), handle.stop.clone(), beside);
        let thread = thread::Builder::new()
            .name(format!("worker-{number}"))
            // The runtime is dropped with the thread, and with it every task that is left.
            .spawn(move || runtime.block_on(main))?;
        handle.thread = Some(thread);
        Ok(handle)
    }

    /// Starts the worker as a task of the current runtime, for listeners that carry little.
    #[must_use]
    pub fn start_here(self) -> WorkerHandle {
        let (handle, incoming) = WorkerHandle::new();
        let nothing = std::future::ready(());
        tokio::spawn(self.main(incoming, Arc::clone(&handle.transports), handle.stop.clone(), nothing));
        handle
    }

    async fn main<F>(self, mut incoming: Incoming, transports: Transports, stop: CancellationToken, beside: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(beside);
        loop {
            let (socket, peer) = tokio::select! {
                accepted = incoming.recv() => match accepted {
                    Some(accepted) => accepted,
                    // No more will come, but those that are here go on until the stop.
                    None => return stop.cancelled().await,
                },
                () = stop.cancelled() => return,
            };
            if let Err(error) = self.serve(socket, peer, &transports) {
                tracing::debug!(%peer, %error, "socket could not be served");
            }
        }
    }

    fn serve(&self, socket: TcpStream, peer: SocketAddr, transports: &Transports) -> io::Result<()> {
        let place = Place::take(Arc::clone(&self.census), Arc::clone(transports), peer);
        let socket = tokio::net::TcpStream::from_std(socket)?;
        let (shared, services, rpcs) =
            (Arc::clone(&place.shared), self.services.clone(), Arc::clone(&self.rpcs));
        let connection = Connection::new(socket, shared, services, rpcs, &self.limits);
        // Not an async block: that would have room for the connection twice.
        tokio::spawn(connection.map(move |end| place.closes(end)));
        Ok(())
    }
}

type Incoming = mpsc::Receiver<(TcpStream, SocketAddr)>;

/// Whether the socket failed, rather than what came over it.
fn broke(error: &hyper::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl WorkerHandle {
    fn new() -> (Self, Incoming) {
        let (sockets, incoming) = mpsc::channel(HANDOVER);
        let (transports, stop) = (Transports::default(), CancellationToken::new());
        (Self { sockets, transports, stop, thread: None }, incoming)
    }

    /// Transports that live on this worker, or are on their way to it.
    #[must_use]
    pub fn load(&self) -> usize {
        let on_their_way = self.sockets.max_capacity() - self.sockets.capacity();
        self.transports.lock().len() + on_their_way
    }

    /// Hands over a socket; waits while the worker is behind. False: the worker has ended.
    pub(super) async fn take(&self, socket: TcpStream, peer: SocketAddr) -> bool {
        self.sockets.send((socket, peer)).await.is_ok()
    }

    /// Tells every peer to open no more calls; transports close when their calls have ended.
    pub fn go_away(&self) {
        for transport in self.transports.lock().values() {
            transport.go_away();
        }
    }

    /// Whether something is on its way to a peer.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.transports.lock().values().any(|transport| transport.is_writing())
    }

    /// Ends the worker, and whatever still lives on it.
    pub fn stop(self) {
        self.stop.cancel();
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a worker panicked");
        }
    }
}

/// A transport's place in the lists, given up when it is dropped.
struct Place {
    shared: Arc<Shared>,
    transports: Transports,
    census: Arc<TransportCensus>,
}

impl Place {
    fn take(census: Arc<TransportCensus>, transports: Transports, peer: SocketAddr) -> Self {
        let shared = Arc::new(Shared::new(TransportId::next(), peer));
        transports.lock().insert(shared.id, Arc::clone(&shared));
        Self { shared, transports, census }
    }

    /// The transport has ended.
    fn closes(self, end: Result<Closed, hyper::Error>) {
        let (transport, peer) = (self.shared.id, self.shared.peer);
        match end {
            Ok(Closed::Done) => tracing::debug!(%transport, %peer, "transport closed"),
            Ok(why) => {
                let refusal = match why {
                    Closed::NoPreface => Some(Refusal::NoPreface),
                    Closed::NoCall => Some(Refusal::NoCall),
                    Closed::Done | Closed::AfterGoodbye => None,
                };
                if let Some(refusal) = refusal {
                    self.census.refused(refusal);
                }
                tracing::info!(%transport, %peer, ?why, "transport closed by the server");
            }
            Err(error) if !self.shared.has_had_calls() && !broke(&error) => {
                self.census.refused(Refusal::NotHttp2);
                tracing::info!(%transport, %peer, "transport closed: it does not speak HTTP/2 without TLS");
            }
            Err(error) => tracing::debug!(%transport, %peer, %error, "transport failed"),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.transports.lock().remove(&self.shared.id);
        self.census.closed();
    }
}
