//! A shard as other threads see it: a queue of jobs, and what the shard counts.
//!
//! Generic over the job: knows nothing of rooms.

use crate::hub::shard::metrics::ShardMetrics;
use crate::hub::sync::{AtomicWaker, SegQueue};
use crossbeam_utils::CachePadded;
use std::task::{Context, Poll};

/// Most shards that a hub can have: a [`ShardSet`] has one bit for each.
pub const SHARDS_MAX: usize = 64;

/// Identifies a shard; a shard belongs to one worker thread. The default is the first, the only one of a
/// [single](crate::hub::Hub::single) hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardId(pub(crate) usize);

/// A shard's jobs and metrics. A room has at most three jobs in a shard's queue, which bounds it.
pub(crate) struct Shard<J> {
    jobs: SegQueue<J>,
    /// Wakes the shard's driver.
    driver: AtomicWaker,
    /// On cache lines of their own: the shard's thread writes them all the time.
    metrics: CachePadded<ShardMetrics>,
}

impl<J> Shard<J> {
    pub(crate) fn new() -> Self {
        Self {
            jobs: SegQueue::new(),
            driver: AtomicWaker::new(),
            metrics: CachePadded::new(ShardMetrics::new()),
        }
    }

    /// Queues a job, and wakes the driver.
    pub(crate) fn push(&self, job: J) {
        self.jobs.push(job);
        self.driver.wake();
    }

    pub(crate) fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    /// Ready when there are jobs. For the driver only.
    pub(crate) fn poll_jobs(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.jobs.is_empty() {
            self.driver.register(cx.waker());
            if self.jobs.is_empty() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Takes the jobs that are queued now; those that are queued meanwhile stay. For the driver only.
    pub(crate) fn take_jobs(&self) -> impl Iterator<Item = J> {
        (0..self.jobs.len()).map_while(|_| self.jobs.pop())
    }
}

/// A set of shards, by number.
#[derive(Default)]
pub(crate) struct ShardSet(u64);

impl ShardSet {
    pub(crate) fn without(self, shard: usize) -> Self {
        Self(self.0 & !(1 << shard))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        let set = self.0;
        (0..SHARDS_MAX).filter(move |shard| set & (1 << shard) != 0)
    }
}

impl FromIterator<usize> for ShardSet {
    fn from_iter<I: IntoIterator<Item = usize>>(shards: I) -> Self {
        Self(shards.into_iter().fold(0, |set, shard| set | 1 << shard))
    }
}
