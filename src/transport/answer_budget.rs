//! A bound on answers that the peer leaves unread.
//!
//! An *answer* is the response of a unary call. It exists in one piece before the peer takes any of it, so clients that do
//! not read could fill the memory with answers. A call's service starts only once there is space for its answer.
//!
//! Guarantees: the unread answers of one transport, with those that are being made, exceed [`UNREAD_ANSWERS_MAX`] by at most
//! one answer. Waiting calls start in the order in which they came. Streaming responses take no space before they start,
//! but their unsent bytes count.

use super::stats::TransportStats;
use super::stream_state::StreamState;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of unread answers on one transport, including those that are being made.
const UNREAD_ANSWERS_MAX: usize = 1024 * 1024;
/// The same for all transports of a listener. Above it, calls with long answers are refused.
pub(super) const ALL_UNREAD_ANSWERS_MAX: usize = 64 * UNREAD_ANSWERS_MAX;
/// Calls to wake each time space becomes free.
const WAKE_BATCH: usize = 8;

/// The answer space of one transport.
pub(super) struct AnswerBudget {
    stats: Arc<TransportStats>,
    /// Bytes that wait for the peer's windows.
    unread: AtomicUsize,
    /// Bytes reserved for answers that are being made.
    reserved: AtomicUsize,
    /// Calls that wait for space.
    waiting: Mutex<VecDeque<Arc<StreamState>>>,
}

impl AnswerBudget {
    pub(super) fn new(stats: Arc<TransportStats>) -> Arc<Self> {
        Arc::new(Self {
            stats,
            unread: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Bytes of answers that wait for the peer's windows.
    pub(super) fn unread(&self) -> usize {
        self.unread.load(Ordering::Relaxed)
    }

    /// Reserves space for an answer of `bytes`. Returns `None` if there is not enough; the stream is woken when there is.
    pub(super) fn reserve(
        self: &Arc<Self>,
        stream: &Arc<StreamState>,
        bytes: usize,
    ) -> Option<AnswerReservation> {
        let used = self.unread() + self.reserved.load(Ordering::Relaxed);
        if used > 0 && used + bytes > UNREAD_ANSWERS_MAX {
            if !stream.set_queued_for_answer(true) {
                self.waiting.lock().push_back(Arc::clone(stream));
            }
            return None;
        }
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Some(AnswerReservation { bytes, budget: Arc::clone(self) })
    }

    /// Wakes the first waiting calls. One that still finds no space queues again, behind the others.
    fn wake_waiting(&self) {
        let mut waiting = self.waiting.lock();
        let mut woken = 0;
        while woken < WAKE_BATCH
            && let Some(stream) = waiting.pop_front()
        {
            stream.set_queued_for_answer(false);
            if !stream.is_closed() {
                stream.wake();
                woken += 1;
            }
        }
    }

    fn add_unread(&self, bytes: usize) {
        self.unread.fetch_add(bytes, Ordering::Relaxed);
        self.stats.add_unread_answer(bytes);
    }

    fn remove_unread(&self, bytes: usize) {
        if bytes > 0 {
            self.unread.fetch_sub(bytes, Ordering::Relaxed);
            self.stats.remove_unread_answer(bytes);
            self.wake_waiting();
        }
    }
}

/// Space for an answer that is being made, until dropped.
pub(super) struct AnswerReservation {
    bytes: usize,
    budget: Arc<AnswerBudget>,
}

impl Drop for AnswerReservation {
    fn drop(&mut self) {
        self.budget.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.wake_waiting();
    }
}

/// Response data that waits for the peer's windows; its bytes count as unread.
pub(super) struct PendingData {
    data: Bytes,
    budget: Arc<AnswerBudget>,
}

impl PendingData {
    pub(super) fn new(budget: &Arc<AnswerBudget>) -> Self {
        Self { data: Bytes::new(), budget: Arc::clone(budget) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    /// Replaces the data.
    pub(super) fn set(&mut self, data: Bytes) {
        self.budget.remove_unread(self.data.len());
        self.budget.add_unread(data.len());
        self.data = data;
    }

    /// Removes the first `len` bytes, and returns them.
    pub(super) fn split_to(&mut self, len: usize) -> Bytes {
        self.budget.remove_unread(len);
        self.data.split_to(len)
    }
}

impl Drop for PendingData {
    fn drop(&mut self) {
        self.budget.remove_unread(self.data.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_beyond_budget_waits_until_space_is_free() {
        let stats = Arc::new(TransportStats::default());
        let budget = AnswerBudget::new(Arc::clone(&stats));
        let stream = Arc::new(StreamState::default());
        let mut unread = PendingData::new(&budget);
        unread.set(Bytes::from(vec![0; UNREAD_ANSWERS_MAX]));
        assert!(budget.reserve(&stream, 1).is_none());
        assert!(budget.reserve(&stream, 1).is_none(), "queued once");
        assert_eq!((budget.waiting.lock().len(), stats.unread_answer_bytes()), (1, UNREAD_ANSWERS_MAX));
        unread.split_to(10);
        assert!(budget.waiting.lock().is_empty());
        let reservation = budget.reserve(&stream, 10).unwrap();
        assert!(budget.reserve(&stream, 1).is_none());
        drop(reservation);
        drop(unread);
        assert_eq!((budget.unread(), stats.unread_answer_bytes()), (0, 0));
        assert!(
            budget.reserve(&stream, 2 * UNREAD_ANSWERS_MAX).is_some(),
            "one answer may exceed the budget"
        );
    }
}
