//! Calls: what a transport tells the services about each, and how a call is ended by force.

use super::in_flight::InFlightData;
use super::socket::Flow;
use super::stats::TransportCensus;
use super::waker::{Part, Parts};
use super::windows::StreamWindow;
use crate::telemetry::trace::RpcSpan;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

/// Bytes of answers that a peer may leave unread on one transport, those that are being made included; beyond it, calls that
/// are answered in one piece wait. One answer may exceed it.
const UNREAD_ANSWERS_MAX: usize = 1024 * 1024;
/// The same on all transports of a listener; beyond it, calls whose answers are long are refused.
pub(super) const ALL_UNREAD_ANSWERS_MAX: usize = 64 * UNREAD_ANSWERS_MAX;
/// Calls that are woken each time there is more room.
const WOKEN_FOR_ROOM: usize = 8;

/// A transport's number: counted from 1 since the server began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransportId(u64);

impl TransportId {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

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
    /// The call's span, if it is sampled.
    pub span: Option<RpcSpan>,
}

impl Call {
    pub(super) fn new(state: &Arc<CallState>, span: Option<&RpcSpan>) -> Self {
        let transport = &state.transport;
        let handle = CallHandle(Arc::clone(state));
        Self { peer: transport.peer, transport: transport.id, handle, span: span.cloned() }
    }
}

/// Ends a call by force: its stream is reset, and its transport closed once no call is left on it, whatever the
/// peer still has to read.
#[derive(Clone)]
pub struct CallHandle(Arc<CallState>);

impl CallHandle {
    /// Ends the call now. May be called more than once, from any thread.
    pub fn abort(&self) {
        self.0.aborted.store(true, Ordering::Release);
        self.0.wake();
        self.0.transport.close_when_idle();
    }

    /// Closes the transport once no call is left on it.
    pub fn close_transport_when_idle(&self) {
        self.0.transport.close_when_idle();
    }

    /// Tells the peer to open no more calls on the transport, which is closed once none is left on it.
    pub fn go_away(&self) {
        self.0.transport.go_away();
    }
}

/// What a call's stream, the transport's windows and those that may end the call share.
pub(super) struct CallState {
    pub(super) transport: Arc<Transport>,
    pub(super) window: StreamWindow,
    /// Wakes the stream; the same for all its life.
    waker: OnceLock<Waker>,
    waits_for_room: AtomicBool,
    aborted: AtomicBool,
    closed: AtomicBool,
}

impl CallState {
    pub(super) fn new(transport: &Arc<Transport>) -> Arc<Self> {
        Arc::new(Self {
            transport: Arc::clone(transport),
            window: StreamWindow::default(),
            waker: OnceLock::new(),
            waits_for_room: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    /// Notes how the stream is woken.
    pub(super) fn register(&self, waker: &Waker) {
        if self.waker.get().is_none() {
            // Only the stream registers, and its waker does not change.
            let _ = self.waker.set(waker.clone());
        }
    }

    /// Has the stream look at its state.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Nothing will be sent any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self, data: Bytes) -> InFlightData {
        InFlightData::new(data, &self.transport)
    }
}

/// What a transport's task shares with its calls and with the server.
pub(super) struct Transport {
    pub(super) id: TransportId,
    pub(super) peer: SocketAddr,
    pub(super) flow: Arc<Flow>,
    pub(super) parts: Arc<Parts>,
    pub(super) census: Arc<TransportCensus>,
    calls_opened: AtomicU64,
    calls_open: AtomicUsize,
    /// Bytes of answers that wait for the peer's windows.
    unread_answer_bytes: AtomicUsize,
    /// The same that answers may have which are being made.
    reserved: AtomicUsize,
    /// Calls that begin when there is room for their answers.
    waiting: Mutex<VecDeque<Arc<CallState>>>,
    going_away: AtomicBool,
    closes_when_idle: AtomicBool,
}

impl Transport {
    pub(super) fn new(id: TransportId, peer: SocketAddr, census: Arc<TransportCensus>) -> Self {
        Self {
            id,
            peer,
            flow: Arc::default(),
            parts: Arc::default(),
            census,
            calls_opened: AtomicU64::new(0),
            calls_open: AtomicUsize::new(0),
            unread_answer_bytes: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            waiting: Mutex::default(),
            going_away: AtomicBool::new(false),
            closes_when_idle: AtomicBool::new(false),
        }
    }

    pub(super) fn has_had_calls(&self) -> bool {
        self.calls_opened.load(Ordering::Relaxed) > 0
    }

    pub(super) fn has_no_call(&self) -> bool {
        self.calls_open.load(Ordering::Acquire) == 0
    }

    /// Bytes of answers that wait for the peer's windows.
    pub(super) fn unread_answer_bytes(&self) -> usize {
        self.unread_answer_bytes.load(Ordering::Relaxed)
    }

    /// Room for an answer of so many bytes, while it is being made. None: the call is woken when there is.
    pub(super) fn reserve(self: &Arc<Self>, call: &Arc<CallState>, bytes: usize) -> Option<Reserved> {
        let taken = self.unread_answer_bytes() + self.reserved.load(Ordering::Relaxed);
        if taken > 0 && taken + bytes > UNREAD_ANSWERS_MAX {
            if !call.waits_for_room.swap(true, Ordering::Relaxed) {
                self.waiting.lock().push_back(Arc::clone(call));
            }
            return None;
        }
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Some(Reserved { bytes, transport: Arc::clone(self) })
    }

    /// Answers have been taken, or have turned out to be short.
    fn has_room(&self) {
        let mut waiting = self.waiting.lock();
        let mut woken = 0;
        // One that finds no room waits again, behind the others.
        while woken < WOKEN_FOR_ROOM
            && let Some(call) = waiting.pop_front()
        {
            call.waits_for_room.store(false, Ordering::Relaxed);
            if !call.is_closed() {
                call.wake();
                woken += 1;
            }
        }
    }

    /// Whether something is on its way to the peer.
    pub(super) fn is_writing(&self) -> bool {
        self.unread_answer_bytes() > 0 || self.flow.is_blocked()
    }

    /// Whether the transport is closed as soon as it has no call.
    pub(super) fn closes_when_idle(&self) -> bool {
        self.closes_when_idle.load(Ordering::Acquire)
    }

    /// Whether the peer is to be told to open no more calls.
    pub(super) fn is_going_away(&self) -> bool {
        self.going_away.load(Ordering::Acquire) || (self.closes_when_idle() && self.has_no_call())
    }

    /// Tells the peer to open no more calls; the transport closes when the open ones have ended.
    pub(super) fn go_away(&self) {
        if !self.going_away.swap(true, Ordering::AcqRel) {
            self.parts.wake(Part::Life);
        }
    }

    fn close_when_idle(&self) {
        if !self.closes_when_idle.swap(true, Ordering::AcqRel) {
            self.parts.wake(Part::Life);
        }
    }

    /// HTTP/2 has dropped so many bytes unsent.
    pub(super) fn returns_unsent(&self, bytes: usize) {
        self.flow.windows.give_back(bytes);
        self.parts.wake(Part::Http2);
    }
}

/// An open call, counted until this is dropped.
pub(super) struct OpenCall(Arc<Transport>);

impl OpenCall {
    pub(super) fn new(transport: &Arc<Transport>) -> Self {
        transport.calls_opened.fetch_add(1, Ordering::Relaxed);
        transport.calls_open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(transport))
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if self.0.calls_open.fetch_sub(1, Ordering::AcqRel) == 1 {
            // It may close now, or begin to be idle.
            self.0.parts.wake(Part::Life);
        }
    }
}

/// Data that a response has handed over and that waits for the peer's windows, counted.
pub(super) struct Rest {
    data: Bytes,
    transport: Arc<Transport>,
}

impl Rest {
    pub(super) fn new(transport: &Arc<Transport>) -> Self {
        Self { data: Bytes::new(), transport: Arc::clone(transport) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    pub(super) fn set(&mut self, data: Bytes) {
        self.count_off(self.data.len());
        let len = data.len();
        self.data = data;
        self.transport.unread_answer_bytes.fetch_add(len, Ordering::Relaxed);
        self.transport.census.answers_unread(len);
    }

    pub(super) fn split_to(&mut self, len: usize) -> Bytes {
        self.count_off(len);
        self.data.split_to(len)
    }

    fn count_off(&self, len: usize) {
        if len > 0 {
            self.transport.unread_answer_bytes.fetch_sub(len, Ordering::Relaxed);
            self.transport.census.answers_read(len);
            self.transport.has_room();
        }
    }
}

/// Room for an answer that is being made, until this is dropped.
pub(super) struct Reserved {
    bytes: usize,
    transport: Arc<Transport>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.transport.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
        self.transport.has_room();
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.count_off(self.data.len());
    }
}
