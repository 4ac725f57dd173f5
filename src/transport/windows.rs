//! How much the peer takes now: HTTP/2 flow control, as far as sending needs it.
//!
//! h2 keeps these windows too, but gives a stream its share of the transport's window in parts and keeps what does not fit
//! ahead of the stream's status. Here a stream sees its windows before it takes a message from its log, and hands h2 only
//! what these take at once. Both counts agree because both see the same frames: [`super::frames`] reads the peer's, and
//! [`InFlightData`](super::in_flight::InFlightData) returns what h2 drops unsent. Reference: RFC 9113, section 5.2.
//!
//! Streams that wait for the transport's window or its socket take turns: first come, first served. One that waits for its
//! own window holds nothing that others need.

use super::call::CallState;
use super::frames::Observer;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

/// The windows that every connection begins with (RFC 9113, section 6.9.2).
const INITIAL: i64 = 65_535;

/// The windows of a transport, and the streams that wait for them.
pub(super) struct Windows {
    connection: AtomicI64,
    /// What each stream begins with; it may change, and with it the open streams' windows.
    initial: AtomicI64,
    initial_changed: AtomicBool,
    /// Window updates of streams, not yet applied. Bounded by the frames of a turn.
    updates: Mutex<Vec<(u32, u32)>>,
    /// Streams that wait, each once.
    waiting: Mutex<VecDeque<Arc<CallState>>>,
    waiting_len: AtomicUsize,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            connection: AtomicI64::new(INITIAL),
            initial: AtomicI64::new(INITIAL),
            initial_changed: AtomicBool::new(false),
            updates: Mutex::default(),
            waiting: Mutex::default(),
            waiting_len: AtomicUsize::new(0),
        }
    }
}

impl Observer for &Windows {
    fn window_update(&mut self, stream: u32, increment: u32) {
        if stream == 0 {
            self.give_back(increment as usize);
        } else {
            self.updates.lock().push((stream, increment));
        }
    }

    fn initial_window(&mut self, bytes: u32) {
        self.initial.store(i64::from(bytes), Ordering::Relaxed);
        self.initial_changed.store(true, Ordering::Relaxed);
    }
}

/// A stream's part in its transport's windows.
#[derive(Default)]
pub(super) struct StreamWindow {
    /// What the peer has given beyond the initial window, less what was sent.
    delta: AtomicI64,
    /// It waits for an update of its own window.
    waits: AtomicBool,
    /// It is in the transport's queue, and needs so many bytes there.
    queued: AtomicBool,
    needed: AtomicUsize,
    /// It has come to the head of the queue.
    has_turn: AtomicBool,
}

/// Whether a stream may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// It may send as many bytes now.
    Now(usize),
    /// It is woken when it may.
    Later,
}

/// The window of a stream from which on a message of `needed` bytes is begun, given the one it began with. Usually it is
/// all the message needs. But a peer that has read everything may hold back updates until a part of the window is used up
/// (a quarter with grpc-go, half with nghttp2, netty and h2), and would never open it further: then the message is sent in
/// parts.
///
/// Of the transport's window any part will do, for whoever is first in the queue: streams that are not read hold on to much
/// of it, and what the peer holds back of the rest may be less than it takes to send an update.
fn threshold(needed: usize, initial: i64) -> i64 {
    signed(needed).min((initial + 1) / 2).max(1)
}

/// Windows may be negative (RFC 9113, section 6.9.2); no message is longer than this can count.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Windows {
    fn connection(&self) -> i64 {
        self.connection.load(Ordering::Relaxed)
    }

    fn stream(&self, stream: &StreamWindow) -> i64 {
        self.initial.load(Ordering::Relaxed) + stream.delta.load(Ordering::Relaxed)
    }

    /// Bytes that a stream may send now; 0 while others wait before it, or the socket is `blocked`.
    pub(super) fn room(&self, stream: &StreamWindow, blocked: bool) -> usize {
        let has_turn =
            self.waiting_len.load(Ordering::Relaxed) == 0 || stream.has_turn.load(Ordering::Relaxed);
        if blocked || !has_turn {
            return 0;
        }
        usize::try_from(self.connection().min(self.stream(stream))).unwrap_or(0)
    }

    /// Asks for room to begin a message of `needed` bytes, which is more than [`Windows::room`].
    pub(super) fn ask(&self, call: &Arc<CallState>, needed: usize, blocked: bool) -> Grant {
        self.ask_from(call, needed, threshold(needed, self.initial.load(Ordering::Relaxed)), blocked)
    }

    /// Asks for room to go on with a message that is sent in parts, before others begin theirs.
    pub(super) fn ask_for_rest(&self, call: &Arc<CallState>, needed: usize, blocked: bool) -> Grant {
        call.window.has_turn.store(true, Ordering::Relaxed);
        self.ask_from(call, needed, 1, blocked)
    }

    fn ask_from(&self, call: &Arc<CallState>, needed: usize, threshold: i64, blocked: bool) -> Grant {
        let stream = &call.window;
        if !blocked && self.stream(stream) < threshold {
            stream.waits.store(true, Ordering::Relaxed);
            stream.has_turn.store(false, Ordering::Relaxed);
            return Grant::Later;
        }
        let had_turn = stream.has_turn.swap(false, Ordering::Relaxed);
        let is_first = had_turn || self.waiting_len.load(Ordering::Relaxed) == 0;
        if blocked || !is_first || self.connection() <= 0 {
            self.queue(call, needed, had_turn);
            return Grant::Later;
        }
        // Both are positive: the thresholds are.
        Grant::Now(usize::try_from(self.connection().min(self.stream(stream))).unwrap_or(0))
    }

    fn queue(&self, call: &Arc<CallState>, needed: usize, first: bool) {
        let stream = &call.window;
        if stream.queued.swap(true, Ordering::Relaxed) {
            return;
        }
        stream.needed.store(needed, Ordering::Relaxed);
        let mut waiting = self.waiting.lock();
        if first {
            waiting.push_front(Arc::clone(call));
        } else {
            waiting.push_back(Arc::clone(call));
        }
        self.waiting_len.store(waiting.len(), Ordering::Relaxed);
    }

    /// So many bytes have been handed to HTTP/2.
    pub(super) fn take(&self, stream: &StreamWindow, bytes: usize) {
        self.connection.fetch_sub(signed(bytes), Ordering::Relaxed);
        stream.delta.fetch_sub(signed(bytes), Ordering::Relaxed);
        stream.has_turn.store(false, Ordering::Relaxed);
    }

    /// The transport's window is open for so many bytes more.
    pub(super) fn give_back(&self, bytes: usize) {
        self.connection.fetch_add(signed(bytes), Ordering::Relaxed);
    }

    /// Applies what the peer has sent since, once HTTP/2 has seen it too, and wakes the streams that it lets send.
    pub(super) fn apply(&self, calls: &HashMap<u32, Arc<CallState>>) {
        if self.initial_changed.swap(false, Ordering::Relaxed) {
            for call in calls.values() {
                wake_if_waiting(call);
            }
        }
        for (id, increment) in self.updates.lock().drain(..) {
            // A stream that has ended needs none.
            let Some(call) = calls.get(&id) else { continue };
            call.window.delta.fetch_add(i64::from(increment), Ordering::Relaxed);
            wake_if_waiting(call);
        }
    }

    /// Wakes the first streams of the queue, as many as the transport's window has room for.
    pub(super) fn advance(&self, blocked: bool) {
        if blocked || self.waiting_len.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut open = self.connection();
        let mut waiting = self.waiting.lock();
        while let Some(first) = waiting.front() {
            let needed = first.window.needed.load(Ordering::Relaxed);
            if !first.is_closed() && open <= 0 {
                break;
            }
            let Some(first) = waiting.pop_front() else { break };
            first.window.queued.store(false, Ordering::Relaxed);
            if !first.is_closed() {
                open -= signed(needed);
                first.window.has_turn.store(true, Ordering::Relaxed);
                first.wake();
            }
        }
        self.waiting_len.store(waiting.len(), Ordering::Relaxed);
    }
}

fn wake_if_waiting(call: &Arc<CallState>) {
    if call.window.waits.swap(false, Ordering::Relaxed) {
        call.wake();
    }
}
