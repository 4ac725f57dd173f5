//! What a transport's task shares with its calls, its worker and the server.

use super::answer_budget::AnswerBudget;
use super::socket::SocketState;
use super::stats::TransportStats;
use super::sub_tasks::{SubTask, SubTasks};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// A transport's number, counted from 1 since the process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransportId(u64);

impl TransportId {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The number as an integer.
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

/// The shared state of one transport.
pub(super) struct TransportState {
    pub(super) id: TransportId,
    pub(super) peer: SocketAddr,
    pub(super) socket: Arc<SocketState>,
    pub(super) sub_tasks: Arc<SubTasks>,
    pub(super) stats: Arc<TransportStats>,
    pub(super) answers: Arc<AnswerBudget>,
    calls_opened: AtomicU64,
    calls_open: AtomicUsize,
    going_away: AtomicBool,
    closing_when_idle: AtomicBool,
}

impl TransportState {
    pub(super) fn new(peer: SocketAddr, stats: Arc<TransportStats>) -> Self {
        Self {
            id: TransportId::next(),
            peer,
            socket: Arc::default(),
            sub_tasks: Arc::default(),
            answers: AnswerBudget::new(Arc::clone(&stats)),
            stats,
            calls_opened: AtomicU64::new(0),
            calls_open: AtomicUsize::new(0),
            going_away: AtomicBool::new(false),
            closing_when_idle: AtomicBool::new(false),
        }
    }

    /// Whether the peer has ever opened a call.
    pub(super) fn has_had_calls(&self) -> bool {
        self.calls_opened.load(Ordering::Relaxed) > 0
    }

    pub(super) fn has_no_call(&self) -> bool {
        self.calls_open.load(Ordering::Acquire) == 0
    }

    /// Whether data waits for the peer's windows or for the socket.
    pub(super) fn has_unsent_data(&self) -> bool {
        self.answers.unread() > 0 || self.socket.is_blocked()
    }

    /// Whether the transport closes as soon as it has no call.
    pub(super) fn closes_when_idle(&self) -> bool {
        self.closing_when_idle.load(Ordering::Acquire)
    }

    /// Whether the peer should get GOAWAY.
    pub(super) fn is_going_away(&self) -> bool {
        self.going_away.load(Ordering::Acquire) || (self.closes_when_idle() && self.has_no_call())
    }

    /// Sends GOAWAY: the peer opens no more calls, and the transport closes when the open ones have ended.
    pub(super) fn go_away(&self) {
        if !self.going_away.swap(true, Ordering::AcqRel) {
            self.sub_tasks.wake(SubTask::Lifecycle);
        }
    }

    /// Closes the transport once it has no call.
    pub(super) fn close_when_idle(&self) {
        if !self.closing_when_idle.swap(true, Ordering::AcqRel) {
            self.sub_tasks.wake(SubTask::Lifecycle);
        }
    }

    /// Returns `bytes` to the connection window: HTTP/2 has dropped them unsent.
    pub(super) fn return_unsent(&self, bytes: usize) {
        self.socket.windows.release(bytes);
        self.sub_tasks.wake(SubTask::Http2);
    }
}

/// Counts an open call on its transport, until dropped.
pub(super) struct OpenCallGuard(Arc<TransportState>);

impl OpenCallGuard {
    pub(super) fn new(transport: &Arc<TransportState>) -> Self {
        transport.calls_opened.fetch_add(1, Ordering::Relaxed);
        transport.calls_open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(transport))
    }
}

impl Drop for OpenCallGuard {
    fn drop(&mut self) {
        if self.0.calls_open.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The transport may close now, or becomes idle.
            self.0.sub_tasks.wake(SubTask::Lifecycle);
        }
    }
}
