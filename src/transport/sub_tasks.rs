//! Wakers for the sub-tasks of a transport's task.
//!
//! A transport is one task, whatever the number of its calls. Each sub-task has a waker of its own, so the task polls only
//! what was woken: a broadcast polls a call, then HTTP/2 to write the call's data, and nothing else.
//!
//! Guarantees: no wake is lost, and a wake while the task is being polled does not schedule the task again. Deliberately
//! does not know what the sub-tasks do.

use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

/// A sub-task of a transport's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SubTask {
    /// The futures of the calls.
    Calls = 1,
    /// h2: the socket, frames, flow control.
    Http2 = 2,
    /// Deadlines, keepalive, shutdown.
    Lifecycle = 4,
}

/// Set while the task is being polled: the poll sees every wake before it ends.
const POLLING: u8 = 8;
const ALL: u8 = SubTask::Calls as u8 | SubTask::Http2 as u8 | SubTask::Lifecycle as u8;

/// The sub-tasks that were woken, and the task's own waker.
pub(super) struct SubTasks {
    woken: AtomicU8,
    task: AtomicWaker,
}

impl Default for SubTasks {
    /// A new task polls all of its sub-tasks.
    fn default() -> Self {
        Self { woken: AtomicU8::new(ALL), task: AtomicWaker::new() }
    }
}

/// A set of sub-tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubTaskSet(u8);

impl SubTaskSet {
    /// The empty set.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn has(self, sub_task: SubTask) -> bool {
        self.0 & sub_task as u8 != 0
    }

    pub(super) fn without(self, sub_task: SubTask) -> Self {
        Self(self.0 & !(sub_task as u8))
    }

    pub(super) fn with(self, sub_task: SubTask) -> Self {
        Self(self.0 | sub_task as u8)
    }
}

impl SubTasks {
    /// Wakes a sub-task. May be called from any thread.
    pub(super) fn wake(&self, sub_task: SubTask) {
        if self.woken.fetch_or(sub_task as u8, Ordering::AcqRel) == 0 {
            self.task.wake();
        }
    }

    /// Begins a poll of the task, whose waker is `waker`.
    pub(super) fn begin_poll(&self, waker: &Waker) {
        self.task.register(waker);
        self.woken.fetch_or(POLLING, Ordering::AcqRel);
    }

    /// Takes the sub-tasks that were woken. `None` ends the poll: the next wake schedules the task.
    pub(super) fn take_woken(&self) -> Option<SubTaskSet> {
        loop {
            match self.woken.compare_exchange(POLLING, 0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return None,
                Err(_) => match self.woken.swap(POLLING, Ordering::AcqRel) & ALL {
                    0 => {}
                    woken => return Some(SubTaskSet(woken)),
                },
            }
        }
    }

    /// Clears the wake of one sub-task that is about to be polled; returns whether it was woken.
    pub(super) fn clear_wake(&self, sub_task: SubTask) -> bool {
        self.woken.fetch_and(!(sub_task as u8), Ordering::AcqRel) & sub_task as u8 != 0
    }

    /// Ends the poll with work left, so that other tasks run first. Adds `unpolled` to what was woken.
    pub(super) fn yield_now(&self, unpolled: SubTaskSet, waker: &Waker) {
        self.woken.fetch_or(unpolled.0, Ordering::AcqRel);
        self.woken.fetch_and(!POLLING, Ordering::AcqRel);
        waker.wake_by_ref();
    }
}

/// The waker of one sub-task.
pub(super) struct SubTaskWaker {
    pub(super) sub_task: SubTask,
    pub(super) sub_tasks: Arc<SubTasks>,
}

impl SubTaskWaker {
    pub(super) fn waker(sub_task: SubTask, sub_tasks: &Arc<SubTasks>) -> Waker {
        Waker::from(Arc::new(Self { sub_task, sub_tasks: Arc::clone(sub_tasks) }))
    }
}

impl Wake for SubTaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.sub_tasks.wake(self.sub_task);
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
    fn wake_during_poll_does_not_schedule_task() {
        let sub_tasks = Arc::new(SubTasks::default());
        let (count, waker) = task();
        sub_tasks.begin_poll(&waker);
        assert_eq!(sub_tasks.take_woken(), Some(SubTaskSet(ALL)));
        sub_tasks.wake(SubTask::Http2);
        let woken = sub_tasks.take_woken().unwrap();
        assert!(woken.has(SubTask::Http2) && !woken.has(SubTask::Calls));
        assert_eq!(sub_tasks.take_woken(), None);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn wakes_between_polls_schedule_task_once() {
        let sub_tasks = Arc::new(SubTasks::default());
        let (count, waker) = task();
        sub_tasks.begin_poll(&waker);
        while sub_tasks.take_woken().is_some() {}
        SubTaskWaker::waker(SubTask::Calls, &sub_tasks).wake();
        sub_tasks.wake(SubTask::Lifecycle);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        sub_tasks.begin_poll(&waker);
        let woken = sub_tasks.take_woken().unwrap();
        assert!(woken.has(SubTask::Calls) && woken.has(SubTask::Lifecycle) && !woken.has(SubTask::Http2));
    }

    #[test]
    fn yield_schedules_task_and_keeps_wakes() {
        let sub_tasks = Arc::new(SubTasks::default());
        let (count, waker) = task();
        sub_tasks.begin_poll(&waker);
        while sub_tasks.take_woken().is_some() {}
        sub_tasks.begin_poll(&waker);
        sub_tasks.wake(SubTask::Calls);
        sub_tasks.wake(SubTask::Lifecycle);
        let woken = sub_tasks.take_woken().unwrap();
        sub_tasks.yield_now(woken.without(SubTask::Calls), &waker);
        sub_tasks.wake(SubTask::Http2);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        sub_tasks.begin_poll(&waker);
        assert_eq!(
            sub_tasks.take_woken(),
            Some(SubTaskSet::NONE.with(SubTask::Lifecycle).with(SubTask::Http2))
        );
    }
}
