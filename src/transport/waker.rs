//! Which parts of a transport's task have something to do.
//!
//! A transport is one task, whatever the number of its calls. Each of its parts has a waker of its own, so that the
//! task polls only the parts that were woken: a broadcast polls a call, and then HTTP/2 to write what the call has handed
//! over, and nothing else. A part that is woken while the task runs does not schedule the task again.

use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

/// A part of a transport's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Part {
    /// The calls: requests, responses.
    Calls = 1,
    /// HTTP/2: the socket, frames, flow control.
    Http2 = 2,
    /// The life-cycle: deadlines, keepalive, shutdown.
    Life = 4,
}

/// The task is being polled: whatever is woken is seen before it ends.
const POLLING: u8 = 8;
const ALL: u8 = Part::Calls as u8 | Part::Http2 as u8 | Part::Life as u8;

/// The parts that have something to do, and the task.
pub(super) struct Parts {
    woken: AtomicU8,
    task: AtomicWaker,
}

impl Default for Parts {
    /// A new task polls all of its parts.
    fn default() -> Self {
        Self { woken: AtomicU8::new(ALL), task: AtomicWaker::new() }
    }
}

/// Parts to be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Woken(u8);

impl Woken {
    /// No part.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn has(self, part: Part) -> bool {
        self.0 & part as u8 != 0
    }

    pub(super) fn without(self, part: Part) -> Self {
        Self(self.0 & !(part as u8))
    }

    pub(super) fn with(self, part: Part) -> Self {
        Self(self.0 | part as u8)
    }
}

impl Parts {
    /// Wakes a part, from any thread.
    pub(super) fn wake(&self, part: Part) {
        if self.woken.fetch_or(part as u8, Ordering::AcqRel) == 0 {
            self.task.wake();
        }
    }

    /// A poll of the task begins; `waker` is the task's.
    pub(super) fn begin(&self, waker: &Waker) {
        self.task.register(waker);
        self.woken.fetch_or(POLLING, Ordering::AcqRel);
    }

    /// The parts to poll now. None ends the poll: the next wake schedules the task.
    pub(super) fn next(&self) -> Option<Woken> {
        loop {
            match self.woken.compare_exchange(POLLING, 0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return None,
                Err(_) => match self.woken.swap(POLLING, Ordering::AcqRel) & ALL {
                    0 => {}
                    woken => return Some(Woken(woken)),
                },
            }
        }
    }

    /// Takes the wake of one part, which is polled now anyway.
    pub(super) fn take(&self, part: Part) -> bool {
        self.woken.fetch_and(!(part as u8), Ordering::AcqRel) & part as u8 != 0
    }

    /// Ends a poll of the task although parts are to be polled, these among them: other tasks run first.
    pub(super) fn yield_now(&self, unpolled: Woken, waker: &Waker) {
        self.woken.fetch_or(unpolled.0, Ordering::AcqRel);
        self.woken.fetch_and(!POLLING, Ordering::AcqRel);
        waker.wake_by_ref();
    }
}

/// The waker of one part.
pub(super) struct PartWaker {
    pub(super) part: Part,
    pub(super) parts: Arc<Parts>,
}

impl PartWaker {
    pub(super) fn waker(part: Part, parts: &Arc<Parts>) -> Waker {
        Waker::from(Arc::new(Self { part, parts: Arc::clone(parts) }))
    }
}

impl Wake for PartWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.parts.wake(self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn a_wake_during_the_poll_is_polled_and_schedules_nothing() {
        let parts = Arc::new(Parts::default());
        let (count, waker) = task();
        parts.begin(&waker);
        assert_eq!(parts.next(), Some(Woken(ALL)));
        parts.wake(Part::Http2);
        let woken = parts.next().unwrap();
        assert!(woken.has(Part::Http2) && !woken.has(Part::Calls));
        assert_eq!(parts.next(), None);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_wake_between_polls_schedules_the_task_once() {
        let parts = Arc::new(Parts::default());
        let (count, waker) = task();
        parts.begin(&waker);
        while parts.next().is_some() {}
        PartWaker::waker(Part::Calls, &parts).wake();
        parts.wake(Part::Life);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        parts.begin(&waker);
        let woken = parts.next().unwrap();
        assert!(woken.has(Part::Calls) && woken.has(Part::Life) && !woken.has(Part::Http2));
    }

    #[test]
    fn a_yield_schedules_the_task_and_keeps_what_was_woken() {
        let parts = Arc::new(Parts::default());
        let (count, waker) = task();
        parts.begin(&waker);
        while parts.next().is_some() {}
        parts.begin(&waker);
        parts.wake(Part::Calls);
        parts.wake(Part::Life);
        let woken = parts.next().unwrap();
        parts.yield_now(woken.without(Part::Calls), &waker);
        parts.wake(Part::Http2);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        parts.begin(&waker);
        assert_eq!(parts.next(), Some(Woken::NONE.with(Part::Life).with(Part::Http2)));
    }
}
