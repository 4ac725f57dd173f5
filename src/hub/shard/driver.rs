//! The driver of a shard: the task that runs the shard's jobs.
//!
//! It runs all queued jobs, lets everything that has become runnable run once, and only then finishes the batches: see
//! [`crate::hub::room::cycle`] for why. The driver alone knows both shards and rooms.

use crate::hub::payload::Payload;
use crate::hub::room::Shards;
use crate::hub::room::cycle::Round;
use crate::hub::shard::queue::ShardId;
use std::future::poll_fn;
use std::sync::Arc;

/// The work of one shard: run it as one task, on the thread whose connections join on this shard.
///
/// There is exactly one driver for each shard, which makes it the only writer of the shard's member lists.
#[must_use = "a shard that does not run delivers nothing"]
pub struct ShardDriver<M> {
    shards: Shards<M>,
    id: ShardId,
}

impl<M: Payload> ShardDriver<M> {
    pub(crate) fn all(shards: &Shards<M>) -> Vec<Self> {
        let driver = |shard| Self { shards: Arc::clone(shards), id: ShardId(shard) };
        (0..shards.len()).map(driver).collect()
    }

    /// The shard, for [`Hub::join`](crate::hub::Hub::join) from this driver's thread.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The shard's number, from 0.
    #[must_use]
    pub fn number(&self) -> usize {
        self.id.0
    }

    /// Runs the shard's jobs, for ever. Drop the future to stop it; nothing is delivered on this shard afterwards.
    pub async fn run(self) {
        let shard = &self.shards[self.id.0];
        let mut round = Round::new(self.id.0);
        loop {
            if round.is_lingering() {
                // The linger ends by time or by messages: look again after the others on this thread.
                tokio::task::yield_now().await;
            } else {
                poll_fn(|cx| shard.poll_jobs(cx)).await;
            }
            shard.take_jobs().for_each(|job| round.start(job));
            round.begin_batches();
            if round.is_fanning_out() {
                // To the end of the run queue, twice: behind every member just woken, and behind the transports to which
                // these have handed something to write.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                round.finish_batches();
            }
        }
    }
}
