//! What a stream shares with the code that wakes it.
//!
//! The queue for the connection window, the queue for answer space, and [`CallHandle`](super::CallHandle) all hold an
//! `Arc` of it. Deliberately does not know the transport that carries the stream.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::task::Waker;

/// The shared state of one stream.
#[derive(Default)]
pub(super) struct StreamState {
    pub(super) window: StreamWindow,
    /// Wakes the call's future. It is set once, as the waker is the same for the call's whole life.
    waker: OnceLock<Waker>,
    /// The stream is in the queue for answer space.
    queued_for_answer: AtomicBool,
    aborted: AtomicBool,
    closed: AtomicBool,
}

/// A stream's flow-control window, and its place in the queue for the connection window. Only
/// [`SendWindows`](super::send_windows::SendWindows) changes it.
#[derive(Default)]
pub(super) struct StreamWindow {
    /// Bytes that the peer has granted beyond the initial window, less the bytes sent.
    pub(super) delta: AtomicI64,
    /// The stream waits for an update of its own window.
    pub(super) awaits_update: AtomicBool,
    /// The stream is in the queue for the connection window.
    pub(super) queued: AtomicBool,
    /// The bytes that it needs there.
    pub(super) needed: AtomicUsize,
    /// The stream has reached the head of the queue, and may send.
    pub(super) has_turn: AtomicBool,
}

impl StreamState {
    /// Stores the waker of the call's future.
    pub(super) fn register(&self, waker: &Waker) {
        if self.waker.get().is_none() {
            // Only the call's future registers, and its waker does not change.
            let _ = self.waker.set(waker.clone());
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Marks the call as aborted, and wakes its future, which resets the stream.
    pub(super) fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Marks the stream as closed for sending: queues skip it.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Sets whether the stream is in the queue for answer space; returns whether it was.
    pub(super) fn set_queued_for_answer(&self, queued: bool) -> bool {
        self.queued_for_answer.swap(queued, Ordering::Relaxed)
    }
}
