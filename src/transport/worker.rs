//! Workers: threads with one current-thread runtime each, on which transports live and stay.
//!
//! A message for a thousand members wakes a thousand transports; threads that steal them from each other cost more than
//! they win. Connections are spread when they are accepted instead.
//!
//! A worker that cannot go on ends the server: its rooms would hang, and its empty list of transports would attract every
//! new one.

use super::call::{Transport, TransportId};
use super::connection::{Closed, Connection, Limits, Services};
use super::methods::Methods;
use super::stats::{CountedTransport, Refusal};
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

/// Sockets on their way to one worker; beyond it they queue in the kernel.
const HANDOVER: usize = 1024;

type Transports = Arc<Mutex<HashMap<TransportId, Arc<Transport>>>>;

/// A socket on its way to a worker.
type Accepted = (TcpStream, SocketAddr, CountedTransport);

/// A worker to be started.
pub struct Worker<S> {
    /// The services for this worker's calls.
    pub services: S,
    /// Bounds for its transports.
    pub limits: Arc<Limits>,
    /// The methods that can be called.
    pub methods: Arc<Methods>,
    /// Cancelled when the worker ends without having been stopped.
    pub failed: CancellationToken,
}

/// A worker that runs.
pub struct WorkerHandle {
    sockets: mpsc::Sender<Accepted>,
    transports: Transports,
    stop: CancellationToken,
    /// None for a worker that runs as a task of somebody else's runtime.
    thread: Option<thread::JoinHandle<()>>,
}

impl<S: Services> Worker<S> {
    /// Starts the worker's thread. `critical` runs there as one task as long as the worker does; if it ends before, the
    /// worker has failed.
    ///
    /// # Errors
    /// When the system gives no thread or no runtime.
    pub fn start<F>(self, number: usize, critical: F) -> io::Result<WorkerHandle>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut handle, run) = self.run(critical);
        let thread = thread::Builder::new()
            .name(format!("worker-{number}"))
            // The runtime is dropped with the thread, and with it every task that is left.
            .spawn(move || runtime.block_on(run))?;
        handle.thread = Some(thread);
        Ok(handle)
    }

    /// Starts the worker as a task of the current runtime, for listeners that carry little.
    #[must_use]
    pub fn start_here(self) -> WorkerHandle {
        let (handle, run) = self.run(std::future::pending());
        // It is stopped by its handle, and a panic in it cancels `failed`.
        tokio::spawn(run);
        handle
    }

    fn run<F>(self, critical: F) -> (WorkerHandle, impl Future<Output = ()> + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sockets, incoming) = mpsc::channel(HANDOVER);
        let transports = Transports::default();
        let stop = CancellationToken::new();
        let handle =
            WorkerHandle { sockets, transports: Arc::clone(&transports), stop: stop.clone(), thread: None };
        // Dropped by a panic, too.
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
                // After the last of them the worker goes on with what it has.
                Some((socket, peer, counted)) = incoming.recv() => {
                    if let Err(error) = self.serve(socket, peer, counted, &transports) {
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
        counted: CountedTransport,
        transports: &Transports,
    ) -> io::Result<()> {
        let entry = Entry::new(counted, Arc::clone(transports), peer);
        let socket = tokio::net::TcpStream::from_std(socket)?;
        let connection = Connection::new(
            socket,
            Arc::clone(&entry.transport),
            self.services.clone(),
            Arc::clone(&self.methods),
            Arc::clone(&self.limits),
        );
        // Not an async block: that would have room for the connection twice.
        tokio::spawn(connection.map(move |closed| entry.closes(&closed)));
        Ok(())
    }
}

/// Why a task ended that should not have.
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
    /// Transports that live on this worker, or are on their way to it.
    #[must_use]
    pub fn load(&self) -> usize {
        let on_their_way = self.sockets.max_capacity() - self.sockets.capacity();
        self.transports.lock().len() + on_their_way
    }

    /// Hands over a socket; waits while the worker is behind. A worker that has ended closes it.
    pub(super) async fn take(&self, socket: TcpStream, peer: SocketAddr, counted: CountedTransport) {
        // An error gives it all back, to be dropped.
        let _ = self.sockets.send((socket, peer, counted)).await;
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

/// A transport's entry in the worker's list, removed when it is dropped.
struct Entry {
    transport: Arc<Transport>,
    transports: Transports,
    _counted: CountedTransport,
}

impl Entry {
    fn new(counted: CountedTransport, transports: Transports, peer: SocketAddr) -> Self {
        let census = Arc::clone(counted.census());
        let transport = Arc::new(Transport::new(TransportId::next(), peer, census));
        transports.lock().insert(transport.id, Arc::clone(&transport));
        Self { transport, transports, _counted: counted }
    }

    /// The transport has ended.
    fn closes(self, closed: &Closed) {
        let Transport { id, peer, census, .. } = &*self.transport;
        let has_called = self.transport.has_had_calls();
        match closed {
            Closed::Done => tracing::debug!(transport = %id, %peer, "transport closed"),
            Closed::Failed(error) if !has_called && !error.is_io() => {
                census.refused(Refusal::NotHttp2);
                tracing::info!(transport = %id, %peer, "transport closed: it does not speak HTTP/2 without TLS");
            }
            Closed::Failed(error) => tracing::debug!(transport = %id, %peer, %error, "transport failed"),
            why => {
                match why {
                    Closed::NoPreface => census.refused(Refusal::NoPreface),
                    Closed::NoCall => census.refused(Refusal::NoCall),
                    _ => {}
                }
                tracing::info!(transport = %id, %peer, ?why, "transport closed by the server");
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.transports.lock().remove(&self.transport.id);
    }
}
