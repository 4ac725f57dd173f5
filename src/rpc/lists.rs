//! The runtime for calls that scan many entries: lists, and searches by filter.
//!
//! Guarantees: lists run on a thread of their own, at a lower priority than the workers, in slices of at most a millisecond.
//! The number of running lists is bounded, and they start in the order in which they came. A list that waits too long, or
//! finds too many waiting, is refused with `RetryInfo`.
//!
//! Deliberately does not know what is listed.

use super::{refused, retry_after};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

/// Concurrent lists of clients. Each holds what it has found so far, up to a page.
const CLIENT_LISTS_MAX: usize = 12;
/// Concurrent lists of operators; separate, so that clients cannot keep operators out.
const OPERATOR_LISTS_MAX: usize = 4;

/// Waiting lists. Each is a decoded request of some KiB.
const WAITING_MAX: usize = 256;

/// Time that a list waits for its turn: shorter than the usual deadlines of clients.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Time after which a slice ends, at its next [`TimeSlice::pause`].
const SLICE_LENGTH: Duration = Duration::from_micros(500);

/// The nice value of the thread. A worker that wakes up preempts it. When workers use a whole processor, lists still get a
/// tenth of it, so that operators can ask why (sched(7): each step is a weight of 1.25).
const NICE: i32 = 10;

/// The thread on which lists run. Dropping it ends the lists that are left.
///
/// A separate thread, because a list on a worker's thread would delay its members, and one on the control plane's would
/// delay new connections and housekeeping.
pub struct ListRuntime {
    runtime: Handle,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl ListRuntime {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system cannot provide a thread or a runtime.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("lists".to_owned()).spawn(move || {
            // On Linux the value is the thread's own. Without it lists only compete more with workers.
            let _ = rustix::process::nice(NICE);
            runtime.block_on(stopped.cancelled_owned());
        })?;
        Ok(Self { runtime: handle, stop, thread: Some(thread) })
    }

    /// The executor for the chat service.
    #[must_use]
    pub fn for_clients(&self) -> ListExecutor {
        ListExecutor::on(&self.runtime, CLIENT_LISTS_MAX, WAITING_MAX)
    }

    /// The executor for the admin service.
    #[must_use]
    pub fn for_operators(&self) -> ListExecutor {
        ListExecutor::on(&self.runtime, OPERATOR_LISTS_MAX, WAITING_MAX)
    }
}

impl Drop for ListRuntime {
    fn drop(&mut self) {
        self.stop.cancel();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of lists panicked");
        }
    }
}

/// Runs the lists of one service. Cheap to clone.
#[derive(Clone)]
pub struct ListExecutor {
    runtime: Handle,
    /// Fair: lists start in order.
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl ListExecutor {
    fn on(runtime: &Handle, running_max: usize, waiting_max: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { runtime: runtime.clone(), running: semaphore(running_max), waiting: semaphore(waiting_max) }
    }

    /// Runs a list when its turn comes, and cancels it if the caller drops the future. The list must call
    /// [`TimeSlice::pause`] regularly.
    ///
    /// # Errors
    /// Those of the list; `RESOURCE_EXHAUSTED` (`TOO_MANY_LISTS`) when its turn does not come.
    pub async fn run<T: Send + 'static>(
        &self,
        list: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let queued = self.waiting.try_acquire().map_err(|_| too_many())?;
        let turn = timeout(WAIT_MAX, Arc::clone(&self.running).acquire_owned()).await;
        // The semaphore is never closed.
        let turn = turn.ok().and_then(Result::ok).ok_or_else(too_many)?;
        drop(queued);
        let task = self.runtime.spawn(async move {
            // Held until the work is over, even if the caller is gone.
            let _turn = turn;
            list.await
        });
        AbortOnDropHandle::new(task).await.unwrap_or_else(|ended| {
            if ended.is_panic() {
                tracing::error!(error = %ended, "a list panicked");
                return Err(Status::internal("the list failed"));
            }
            Err(refused(Code::Unavailable, "the server is stopping", "SHUTDOWN", &[], Some(retry_after())))
        })
    }
}

fn too_many() -> Status {
    let words = "too many lists are being made just now";
    refused(Code::ResourceExhausted, words, "TOO_MANY_LISTS", &[], Some(retry_after()))
}

/// A slice of a list's work, between two pauses.
pub struct TimeSlice {
    began: Instant,
}

impl Default for TimeSlice {
    fn default() -> Self {
        Self { began: Instant::now() }
    }
}

impl TimeSlice {
    /// Yields to other lists if the slice is over. To be called at least every hundred microseconds of work.
    pub async fn pause(&mut self) {
        if self.began.elapsed() >= SLICE_LENGTH {
            tokio::task::yield_now().await;
            self.began = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;
    use tonic_types::StatusExt;

    fn lists(running: usize, waiting: usize) -> ListExecutor {
        ListExecutor::on(&Handle::current(), running, waiting)
    }

    fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>) {
        let status = result.expect_err("it is refused");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.get_details_error_info().expect("a reason").reason, "TOO_MANY_LISTS");
        assert!(status.get_details_retry_info().expect("when to come back").retry_delay.is_some());
    }

    /// A list's call, and the sender that ends the list.
    type StartedList = (oneshot::Sender<()>, tokio::task::JoinHandle<Result<(), Status>>);

    /// Starts lists that run until their senders are used.
    fn start(lists: &ListExecutor, count: usize) -> Vec<StartedList> {
        let start_one = |_| {
            let (end, ended) = oneshot::channel();
            let lists = lists.clone();
            let list = async move { ended.await.map_err(|_| Status::cancelled("dropped")) };
            (end, tokio::spawn(async move { lists.run(list).await }))
        };
        (0..count).map(start_one).collect()
    }

    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn list_that_waits_too_long_is_refused() {
        let lists = lists(2, 3);
        for _ in 0..2 {
            let mut calls = start(&lists, 5);
            settle().await;
            // Two run, three wait, and one more is refused at once.
            assert_refused(lists.run(async { Ok(()) }).await);
            let late = calls.split_off(2);
            for (_, waiting) in late {
                assert_refused(waiting.await.unwrap());
            }
            for (end, running) in calls {
                end.send(()).unwrap();
                assert!(running.await.unwrap().is_ok());
            }
        }
        assert_eq!((lists.running.available_permits(), lists.waiting.available_permits()), (2, 3));
    }

    #[tokio::test]
    async fn lists_start_in_order() {
        let lists = lists(1, 10);
        let order = Arc::new(AtomicUsize::new(0));
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let lists = lists.clone();
                let order = Arc::clone(&order);
                let list = async move { Ok(order.fetch_add(1, Ordering::Relaxed)) };
                tokio::spawn(async move { lists.run(list).await })
            })
            .collect();
        for (expected, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn dropped_call_frees_its_turn() {
        let lists = lists(1, 1);
        let (_end, running) = start(&lists, 1).remove(0);
        settle().await;
        running.abort();
        assert!(lists.run(async { Ok(()) }).await.is_ok());
    }

    #[tokio::test]
    async fn panicking_list_fails_alone() {
        let thread = ListRuntime::start().unwrap();
        let lists = thread.for_clients();
        for _ in 0..2 * CLIENT_LISTS_MAX {
            let status = lists.run::<()>(async { panic!("planted") }).await.unwrap_err();
            assert_eq!(status.code(), Code::Internal);
        }
        assert_eq!(lists.run(async { Ok(7) }).await.unwrap(), 7);
        drop(thread);
        assert_eq!(lists.run(async { Ok(7) }).await.unwrap_err().code(), Code::Unavailable);
    }
}
