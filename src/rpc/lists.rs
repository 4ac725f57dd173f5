//! Where calls run that look through much: lists, and searches by filter.
//!
//! Guarantees: they run on a thread of their own, below the priority of those that serve members, in slices of at most a
//! millisecond in turn; only so many are at work at a time, in the order in which they came; those that wait too long,
//! or find too many waiting, are refused and told when to come back.
//! Deliberately knows nothing of what is listed.

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

/// Calls at work at a time: each holds what it has found so far, up to a page.
const CLIENTS_AT_WORK: usize = 12;
/// Operators have their own, so that clients cannot keep them out.
const OPERATORS_AT_WORK: usize = 4;

/// Calls that wait. Each has been decoded, so it holds some KiB.
const WAITING_MAX: usize = 256;

/// How long a call waits for its turn: shorter than clients' usual deadlines.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A slice ends after this, at the next place where it can.
const SLICE: Duration = Duration::from_micros(500);

/// How much lower the thread's priority is: a worker that wakes up runs at once, the lists have what is left, and even
/// when workers take all of a processor a tenth of it, for operators who ask why (sched(7): each step is a weight of 1.25).
const NICE: i32 = 10;

/// The thread on which lists run. Dropping it ends what is left there.
///
/// A thread of its own, because a list on a worker's thread holds up the members there, and on the control plane's it
/// holds up new connections and housekeeping.
pub struct ListThread {
    runtime: Handle,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl ListThread {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread or no runtime.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("lists".to_owned()).spawn(move || {
            // On Linux it is the thread's own. Without it lists are only less considerate.
            let _ = rustix::process::nice(NICE);
            runtime.block_on(stopped.cancelled_owned());
        })?;
        Ok(Self { runtime: handle, stop, thread: Some(thread) })
    }

    /// For the lists of the chat service.
    #[must_use]
    pub fn for_clients(&self) -> Lists {
        Lists::on(&self.runtime, CLIENTS_AT_WORK, WAITING_MAX)
    }

    /// For the lists of the admin service.
    #[must_use]
    pub fn for_operators(&self) -> Lists {
        Lists::on(&self.runtime, OPERATORS_AT_WORK, WAITING_MAX)
    }
}

impl Drop for ListThread {
    fn drop(&mut self) {
        self.stop.cancel();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of lists panicked");
        }
    }
}

/// One service's lists. Cheap to clone.
#[derive(Clone)]
pub struct Lists {
    runtime: Handle,
    /// Fair: who came first is next.
    at_work: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Lists {
    fn on(runtime: &Handle, at_work: usize, waiting: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { runtime: runtime.clone(), at_work: semaphore(at_work), waiting: semaphore(waiting) }
    }

    /// Runs a list when it is its turn, and ends it early if the caller goes away. It must pause now and then
    /// ([`Slice::pause`]).
    ///
    /// # Errors
    /// Those of the list; `RESOURCE_EXHAUSTED` (`TOO_MANY_LISTS`) when its turn does not come.
    pub async fn run<T: Send + 'static>(
        &self,
        list: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let place = self.waiting.try_acquire().map_err(|_| too_many())?;
        let turn = timeout(WAIT_MAX, Arc::clone(&self.at_work).acquire_owned()).await;
        // The semaphore is never closed.
        let turn = turn.ok().and_then(Result::ok).ok_or_else(too_many)?;
        drop(place);
        let task = self.runtime.spawn(async move {
            // Held until the work is over, also when the caller has gone.
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

/// A slice of a list's work.
pub struct Slice {
    began: Instant,
}

impl Default for Slice {
    fn default() -> Self {
        Self { began: Instant::now() }
    }
}

impl Slice {
    /// Lets others have their turn if the slice is over. To be called after every hundred microseconds' work or less.
    pub async fn pause(&mut self) {
        if self.began.elapsed() >= SLICE {
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

    fn lists(at_work: usize, waiting: usize) -> Lists {
        Lists::on(&Handle::current(), at_work, waiting)
    }

    fn is_refused<T: std::fmt::Debug>(answer: Result<T, Status>) {
        let status = answer.expect_err("it is refused");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.get_details_error_info().expect("a reason").reason, "TOO_MANY_LISTS");
        assert!(status.get_details_retry_info().expect("when to come back").retry_delay.is_some());
    }

    /// A call, and what ends its list.
    type Call = (oneshot::Sender<()>, tokio::task::JoinHandle<Result<(), Status>>);

    /// Lists that end when told to.
    fn started(lists: &Lists, count: usize) -> Vec<Call> {
        let start = |_| {
            let (tell, told) = oneshot::channel();
            let lists = lists.clone();
            let list = async move { told.await.map_err(|_| Status::cancelled("dropped")) };
            (tell, tokio::spawn(async move { lists.run(list).await }))
        };
        (0..count).map(start).collect()
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
            let mut calls = started(&lists, 5);
            settle().await;
            // Two are at work, three wait, and one more is refused at once.
            is_refused(lists.run(async { Ok(()) }).await);
            let late = calls.split_off(2);
            for (_, waiting) in late {
                is_refused(waiting.await.unwrap());
            }
            for (end, at_work) in calls {
                end.send(()).unwrap();
                assert!(at_work.await.unwrap().is_ok());
            }
        }
        assert_eq!((lists.at_work.available_permits(), lists.waiting.available_permits()), (2, 3));
    }

    #[tokio::test]
    async fn lists_have_their_turn_in_order() {
        let lists = lists(1, 10);
        let order = Arc::new(AtomicUsize::new(0));
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let (lists, order) = (lists.clone(), Arc::clone(&order));
                let list = async move { Ok(order.fetch_add(1, Ordering::Relaxed)) };
                tokio::spawn(async move { lists.run(list).await })
            })
            .collect();
        for (expected, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn caller_that_goes_away_gives_its_turn_back() {
        let lists = lists(1, 1);
        let (_end, at_work) = started(&lists, 1).remove(0);
        settle().await;
        at_work.abort();
        assert!(lists.run(async { Ok(()) }).await.is_ok());
    }

    #[tokio::test]
    async fn list_that_panics_fails_alone() {
        let thread = ListThread::start().unwrap();
        let lists = thread.for_clients();
        for _ in 0..2 * CLIENTS_AT_WORK {
            let status = lists.run::<()>(async { panic!("planted") }).await.unwrap_err();
            assert_eq!(status.code(), Code::Internal);
        }
        assert_eq!(lists.run(async { Ok(7) }).await.unwrap(), 7);
        drop(thread);
        assert_eq!(lists.run(async { Ok(7) }).await.unwrap_err().code(), Code::Unavailable);
    }
}
