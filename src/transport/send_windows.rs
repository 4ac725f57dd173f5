//! How many bytes the peer accepts now: HTTP/2 flow control for sending.
//!
//! h2 keeps these windows too, but it assigns the connection window to streams in parts, and queues data that does not fit
//! ahead of the stream's status. Here a stream knows its windows before it takes a message from its log, and passes h2 only
//! what they accept at once. Both counts agree because both see the same frames: [`super::frames`] reads the peer's, and
//! [`InFlightData`](super::in_flight::InFlightData) returns what h2 drops unsent. Reference: RFC 9113, section 5.2.
//!
//! Streams that wait for the connection window or the socket take turns, first come, first served. A stream that waits for
//! its own window holds nothing that others need.

use super::frames::FrameObserver;
use super::stream_state::{StreamState, StreamWindow};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

/// The initial size of every window (RFC 9113, section 6.9.2).
const INITIAL: i64 = 65_535;

/// The send windows of a transport, and the streams that wait for them.
pub(super) struct SendWindows {
    connection: AtomicI64,
    /// The peer's `SETTINGS_INITIAL_WINDOW_SIZE`. A change applies to the windows of open streams too.
    initial: AtomicI64,
    initial_changed: AtomicBool,
    /// Window updates of streams, not applied yet. Bounded by the frames of a turn.
    updates: Mutex<Vec<(u32, u32)>>,
    /// Streams that wait for the connection window, each once.
    waiting: Mutex<VecDeque<Arc<StreamState>>>,
    waiting_len: AtomicUsize,
}

impl Default for SendWindows {
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

impl FrameObserver for &SendWindows {
    fn window_update(&mut self, stream: u32, increment: u32) {
        if stream == 0 {
            self.release(increment as usize);
        } else {
            self.updates.lock().push((stream, increment));
        }
    }

    fn initial_window(&mut self, bytes: u32) {
        self.initial.store(i64::from(bytes), Ordering::Relaxed);
        self.initial_changed.store(true, Ordering::Relaxed);
    }
}

/// Whether a stream may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// It may send this many bytes now.
    Now(usize),
    /// It is woken when it may.
    Later,
}

/// The stream window from which a message of `needed` bytes may start, given the stream's initial window.
///
/// Usually that is the whole message. But a peer that has read everything may delay its updates until a part of the window
/// is used (a quarter with grpc-go, half with nghttp2, netty and h2), so a stream that waits for more would wait forever: the
/// message is then sent in parts.
///
/// Of the connection window any size will do for the first stream in the queue: streams that are not read occupy much of it,
/// and the rest may be less than what makes the peer send an update.
fn start_threshold(needed: usize, initial: i64) -> i64 {
    signed(needed).min((initial + 1) / 2).max(1)
}

/// Windows may be negative (RFC 9113, section 6.9.2). No message is longer than `i64` can count.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl SendWindows {
    fn connection(&self) -> i64 {
        self.connection.load(Ordering::Relaxed)
    }

    fn stream(&self, stream: &StreamWindow) -> i64 {
        self.initial.load(Ordering::Relaxed) + stream.delta.load(Ordering::Relaxed)
    }

    /// Bytes that a stream may send now; 0 while others wait before it, or while the socket is `blocked`.
    pub(super) fn available(&self, stream: &StreamWindow, blocked: bool) -> usize {
        let has_turn =
            self.waiting_len.load(Ordering::Relaxed) == 0 || stream.has_turn.load(Ordering::Relaxed);
        if blocked || !has_turn {
            return 0;
        }
        usize::try_from(self.connection().min(self.stream(stream))).unwrap_or(0)
    }

    /// Asks for window to start a message of `needed` bytes, which is more than [`SendWindows::available`].
    pub(super) fn acquire(&self, stream: &Arc<StreamState>, needed: usize, blocked: bool) -> Grant {
        let threshold = start_threshold(needed, self.initial.load(Ordering::Relaxed));
        self.acquire_from(stream, needed, threshold, blocked)
    }

    /// Asks for window to continue a message that is sent in parts, before other streams start theirs.
    pub(super) fn acquire_rest(&self, stream: &Arc<StreamState>, needed: usize, blocked: bool) -> Grant {
        stream.window.has_turn.store(true, Ordering::Relaxed);
        self.acquire_from(stream, needed, 1, blocked)
    }

    fn acquire_from(&self, stream: &Arc<StreamState>, needed: usize, threshold: i64, blocked: bool) -> Grant {
        let window = &stream.window;
        if !blocked && self.stream(window) < threshold {
            window.awaits_update.store(true, Ordering::Relaxed);
            window.has_turn.store(false, Ordering::Relaxed);
            return Grant::Later;
        }
        let had_turn = window.has_turn.swap(false, Ordering::Relaxed);
        let is_first = had_turn || self.waiting_len.load(Ordering::Relaxed) == 0;
        if blocked || !is_first || self.connection() <= 0 {
            self.enqueue(stream, needed, had_turn);
            return Grant::Later;
        }
        // Both are positive: the thresholds are.
        Grant::Now(usize::try_from(self.connection().min(self.stream(window))).unwrap_or(0))
    }

    fn enqueue(&self, stream: &Arc<StreamState>, needed: usize, first: bool) {
        let window = &stream.window;
        if window.queued.swap(true, Ordering::Relaxed) {
            return;
        }
        window.needed.store(needed, Ordering::Relaxed);
        let mut waiting = self.waiting.lock();
        if first {
            waiting.push_front(Arc::clone(stream));
        } else {
            waiting.push_back(Arc::clone(stream));
        }
        self.waiting_len.store(waiting.len(), Ordering::Relaxed);
    }

    /// Subtracts `bytes`, which are passed to h2, from both windows.
    pub(super) fn consume(&self, stream: &StreamWindow, bytes: usize) {
        self.connection.fetch_sub(signed(bytes), Ordering::Relaxed);
        stream.delta.fetch_sub(signed(bytes), Ordering::Relaxed);
        stream.has_turn.store(false, Ordering::Relaxed);
    }

    /// Adds `bytes` to the connection window.
    pub(super) fn release(&self, bytes: usize) {
        self.connection.fetch_add(signed(bytes), Ordering::Relaxed);
    }

    /// Applies the updates that were read, and wakes the streams that may send now. Must run after h2 has seen them too.
    pub(super) fn apply_updates(&self, streams: &HashMap<u32, Arc<StreamState>>) {
        if self.initial_changed.swap(false, Ordering::Relaxed) {
            for stream in streams.values() {
                wake_if_awaiting(stream);
            }
        }
        for (id, increment) in self.updates.lock().drain(..) {
            // A stream that has ended needs none.
            let Some(stream) = streams.get(&id) else { continue };
            stream.window.delta.fetch_add(i64::from(increment), Ordering::Relaxed);
            wake_if_awaiting(stream);
        }
    }

    /// Wakes the first streams of the queue, as many as fit the connection window.
    pub(super) fn wake_queued(&self, blocked: bool) {
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

fn wake_if_awaiting(stream: &Arc<StreamState>) {
    if stream.window.awaits_update.swap(false, Ordering::Relaxed) {
        stream.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Arc<StreamState> {
        Arc::new(StreamState::default())
    }

    #[test]
    fn streams_share_the_connection_window_in_order() {
        let windows = SendWindows::default();
        let [greedy, first, second] = [stream(), stream(), stream()];
        windows.consume(&greedy.window, 65_535);
        assert_eq!(windows.acquire(&first, 100, false), Grant::Later);
        assert_eq!(windows.acquire(&second, 100, false), Grant::Later);
        windows.release(50);
        windows.wake_queued(false);
        assert_eq!(windows.available(&second.window, false), 0, "it is the first one's turn");
        assert_eq!(windows.available(&first.window, false), 50);
        windows.consume(&first.window, 50);
        windows.release(60);
        windows.wake_queued(false);
        assert_eq!(windows.available(&second.window, false), 60);
    }

    #[test]
    fn closed_stream_leaves_the_queue() {
        let windows = SendWindows::default();
        let [gone, next] = [stream(), stream()];
        windows.consume(&stream().window, 65_535);
        windows.acquire(&gone, 100, false);
        windows.acquire(&next, 100, false);
        gone.close();
        windows.release(10);
        windows.wake_queued(false);
        assert_eq!(windows.available(&next.window, false), 10);
    }

    #[test]
    fn message_starts_at_half_of_the_initial_window() {
        let windows = SendWindows::default();
        let stream = stream();
        windows.release(1_000_000);
        windows.consume(&stream.window, 40_000);
        assert_eq!(windows.acquire(&stream, 30_000, false), Grant::Later);
        let streams = HashMap::from([(1, Arc::clone(&stream))]);
        (&windows).window_update(1, 7_233);
        windows.apply_updates(&streams);
        assert_eq!(windows.acquire(&stream, 60_000, false), Grant::Now(32_768));
    }
}
