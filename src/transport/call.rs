//! Calls: what a transport tells the services about each, and how a call is ended by force.

use super::io::Flow;
use super::unwritten::InFlight;
use futures_util::task::AtomicWaker;
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::task::AbortHandle;

/// A transport's number: counted from 1 since the server began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransportId(u64);

impl TransportId {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl TransportId {
    /// The bare number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TransportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One call on a transport; every request carries one in its extensions.
#[derive(Clone)]
pub struct Call {
    /// The client's address.
    pub peer: SocketAddr,
    /// The transport that carries the call.
    pub transport: TransportId,
    /// Ends the call.
    pub handle: CallHandle,
}

/// Ends a call by force: its stream is reset, and its transport closed once no call is left on it, whatever the
/// peer still has to read.
#[derive(Clone)]
pub struct CallHandle(Arc<State>);

/// What a call's task, its response and those that may end it share.
pub(super) struct State {
    pub(super) transport: Arc<Shared>,
    task: OnceLock<AbortHandle>,
    pub(super) in_flight: InFlight,
}

impl CallHandle {
    /// Ends the call now. May be called more than once, from any thread.
    pub fn abort(&self) {
        if let Some(task) = self.0.task.get() {
            task.abort();
        }
        self.0.transport.doom();
    }

    /// Has the transport closed once no call is left on it.
    pub fn doom_transport(&self) {
        self.0.transport.doom();
    }

    /// Tells the peer to open no more calls on the transport, which is closed once none is left on it.
    pub fn retire_transport(&self) {
        self.0.transport.go_away();
    }

    pub(super) fn state(&self) -> &Arc<State> {
        &self.0
    }
}

/// What a transport's task shares with its calls and with the server.
pub(super) struct Shared {
    pub(super) id: TransportId,
    pub(super) peer: SocketAddr,
    pub(super) flow: Arc<Flow>,
    calls_opened: AtomicU64,
    calls_open: AtomicUsize,
    /// Frames that responses have handed over and that are not written.
    unwritten: AtomicUsize,
    /// Where the executor, which runs right after the service on the same thread, leaves the task it spawned.
    spawning: parking_lot::Mutex<Option<Arc<State>>>,
    going_away: AtomicBool,
    doomed: AtomicBool,
    /// One of the above has changed.
    attention: AtomicBool,
    task: AtomicWaker,
}

impl Shared {
    pub(super) fn new(id: TransportId, peer: SocketAddr) -> Self {
        Self {
            id,
            peer,
            flow: Arc::default(),
            calls_opened: AtomicU64::new(0),
            calls_open: AtomicUsize::new(0),
            unwritten: AtomicUsize::new(0),
            spawning: parking_lot::Mutex::new(None),
            going_away: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            attention: AtomicBool::new(true),
            task: AtomicWaker::new(),
        }
    }

    /// A new call; the next task that the executor spawns is its.
    pub(super) fn open_call(self: &Arc<Self>) -> Call {
        self.calls_opened.fetch_add(1, Ordering::Relaxed);
        let transport = Arc::clone(self);
        let state = State { transport, task: OnceLock::new(), in_flight: InFlight::default() };
        let handle = CallHandle(Arc::new(state));
        *self.spawning.lock() = Some(Arc::clone(&handle.0));
        Call { peer: self.peer, transport: self.id, handle }
    }

    pub(super) fn has_had_calls(&self) -> bool {
        self.calls_opened.load(Ordering::Relaxed) > 0
    }

    pub(super) fn has_no_call(&self) -> bool {
        self.calls_open.load(Ordering::Acquire) == 0
    }

    pub(super) fn has_more_to_write(&self) {
        self.unwritten.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn has_less_to_write(&self) {
        if self.unwritten.fetch_sub(1, Ordering::AcqRel) == 1 && self.is_to_go() {
            self.call_attention();
        }
    }

    /// Whether something is on its way to the peer.
    pub(super) fn is_writing(&self) -> bool {
        self.unwritten.load(Ordering::Acquire) > 0 || self.flow.is_blocked()
    }

    /// Whether the transport may be closed once it has said goodbye: no call is left, and what was said has been written.
    /// One that is doomed is not waited for.
    pub(super) fn is_done(&self) -> bool {
        self.has_no_call() && (self.doomed.load(Ordering::Acquire) || !self.is_writing())
    }

    /// Whether the peer is to be told to open no more calls.
    pub(super) fn is_to_go(&self) -> bool {
        self.going_away.load(Ordering::Acquire) || (self.doomed.load(Ordering::Acquire) && self.has_no_call())
    }

    /// Has the transport tell its peer to open no more calls, and close when the open ones have ended.
    pub(super) fn go_away(&self) {
        if !self.going_away.swap(true, Ordering::AcqRel) {
            self.call_attention();
        }
    }

    fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
        self.call_attention();
    }

    /// Has the transport's task look at its state.
    pub(super) fn call_attention(&self) {
        self.attention.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Whether something has changed since the last time; the task is woken at the next change.
    pub(super) fn take_attention(&self, cx: &mut Context<'_>) -> bool {
        // The usual answer, on every write of every transport: one relaxed load.
        if !self.attention.load(Ordering::Relaxed) {
            return false;
        }
        self.task.register(cx.waker());
        self.attention.swap(false, Ordering::AcqRel)
    }
}

/// Spawns a transport's streams on the worker's own runtime, where they stay.
#[derive(Clone)]
pub(super) struct StreamExecutor(pub(super) Arc<Shared>);

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        self.0.calls_open.fetch_add(1, Ordering::AcqRel);
        let open = OpenCall(Arc::clone(&self.0));
        let task = tokio::spawn(StreamTask { stream, open });
        if let Some(call) = self.0.spawning.lock().take() {
            // Nobody else sets it: the call was made for this very task.
            let _ = call.task.set(task.abort_handle());
        }
    }
}

struct OpenCall(Arc<Shared>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        let last = self.0.calls_open.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && self.0.is_to_go() {
            self.0.call_attention();
        }
    }
}

pin_project! {
    struct StreamTask<F> {
        #[pin]
        stream: F,
        open: OpenCall,
    }
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().stream.poll(cx).map(drop)
    }
}
