//! One budget for the bytes of all rooms' logs: messages, their frames in each form that was encoded, idempotency keys,
//! and the memory of the lists that hold them.
//!
//! Guarantees: charging is an atomic add, on the broadcast path once for each segment. Somewhat below the limit the
//! trimmer ([`crate::hub::Hub::run_housekeeping`]) is woken at once, and removes the oldest segments of the rooms whose last
//! message is oldest. If the limit is reached all the same, each writer first frees as much of its own room's log as it
//! appends: the total then exceeds the limit by no more than one segment for each room that has no other.
//! Deliberately knows nothing of rooms.

use crate::metrics::Counter;
use crossbeam_utils::CachePadded;
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

/// Trimming begins this fraction of the limit below it. By default that is 64 MiB: it takes tens of milliseconds to write,
/// while the trimmer wakes up within one.
const BEGINS_BELOW: u64 = 16;
/// It ends this fraction below the limit, so that it frees a sixteenth, and the scan of all rooms is worth it.
const ENDS_BELOW: u64 = 8;

#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    held: CachePadded<AtomicU64>,
    /// Bytes that were removed for the budget, before retention demanded it.
    trimmed: Counter,
    /// The trimmer is to run, and has not begun.
    wanted: AtomicBool,
    trimmer: AtomicWaker,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: CachePadded::new(AtomicU64::new(0)),
            trimmed: Counter::default(),
            wanted: AtomicBool::new(false),
            trimmer: AtomicWaker::new(),
        })
    }

    /// Bytes that are held now.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes that were removed for the budget.
    pub(crate) fn trimmed(&self) -> u64 {
        self.trimmed.get()
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        self.held() > self.limit
    }

    /// Whether the trimmer, once it runs, has more to do.
    pub(crate) fn is_nearly_met(&self) -> bool {
        self.held() > self.limit - self.limit / ENDS_BELOW
    }

    pub(crate) fn count_trimmed(&self, bytes: u64) {
        self.trimmed.add(bytes);
    }

    fn charge(&self, bytes: u64) {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let is_time = held > self.limit - self.limit / BEGINS_BELOW;
        if is_time && !self.wanted.load(Ordering::Relaxed) && !self.wanted.swap(true, Ordering::AcqRel) {
            self.trimmer.wake();
        }
    }

    fn credit(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Waits until it is time to trim. For one task only.
    pub(crate) async fn trim_wanted(&self) {
        poll_fn(|cx| {
            self.trimmer.register(cx.waker());
            if self.wanted.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// The share of one log, or one list of keys, in the budget. Dropping it releases the share.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    held: AtomicU64,
}

impl Account {
    pub(crate) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), held: AtomicU64::new(0) }
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn charge(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.budget.charge(bytes);
    }

    pub(crate) fn credit(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.credit(bytes);
    }

    /// Sets it to this many bytes. For an account that one thread alone changes.
    pub(crate) fn set(&self, bytes: u64) {
        let held = self.held();
        if bytes > held {
            self.charge(bytes - held);
        } else if bytes < held {
            self.credit(held - bytes);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.credit(self.held());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    #[test]
    fn accounts_give_back_what_they_hold() {
        let budget = Budget::new(1000);
        let (a, b) = (Account::of(&budget), Account::of(&budget));
        a.charge(100);
        b.set(50);
        b.set(20);
        a.credit(30);
        assert_eq!((a.held(), b.held(), budget.held()), (70, 20, 90));
        drop(a);
        assert_eq!(budget.held(), 20);
        drop(b);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn trimmer_is_wanted_below_the_limit_and_once() {
        let budget = Budget::new(1600);
        let account = Account::of(&budget);
        let is_time = || {
            let mut waiting = std::pin::pin!(budget.trim_wanted());
            waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        account.charge(1500);
        assert!(!is_time() && budget.is_nearly_met());
        account.charge(1);
        assert!(is_time() && !budget.is_exceeded());
        assert!(!is_time());
        account.charge(100);
        assert!(is_time() && budget.is_exceeded());
        account.credit(201);
        assert!(!budget.is_nearly_met());
    }
}
