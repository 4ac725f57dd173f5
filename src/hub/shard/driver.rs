//! A shard: one task per worker thread that does the rooms' turns there.
//!
//! MemberList are woken by the shard of the thread they live on, so a wake is a push to the thread's own run queue:
//! no lock, no system call, whatever the number of members. A shard does all turns that wait, lets everything
//! that is now runnable run once, and only then reports the turns as had: see [`super::Room`] for why.
//! A busy room's batch may begin a moment later, see [`crate::hub::room::linger`]: then the shard looks again after each round.

use crate::hub::payload::Payload;
use crate::hub::room::Room;
use crate::hub::room::linger::Linger;
use crate::hub::room::sequencer::Sequencer;
use crate::hub::shard::metrics::ShardMetrics;
use crate::hub::sync::{AtomicWaker, SegQueue};
use crossbeam_utils::CachePadded;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Something a shard has to do for a room.
pub(crate) enum Job<M> {
    /// Sequence what waits in the inbox, and fan out.
    Sequence(Arc<Room<M>>, Box<Sequencer<M>>),
    /// Wake this shard's members.
    FanOut(Arc<Room<M>>),
    /// Bring joins and leaves into this shard's list of members.
    Members(Arc<Room<M>>),
}

/// What others see of a shard: where turns for it are put. Bounded by three turns per room.
pub(crate) struct Shard<M> {
    turns: SegQueue<Job<M>>,
    waker: AtomicWaker,
    /// What happens on this shard's thread; on cache lines of its own.
    metrics: CachePadded<ShardMetrics>,
}

impl<M: Payload> Shard<M> {
    pub(crate) fn new() -> Self {
        Self {
            turns: SegQueue::new(),
            waker: AtomicWaker::new(),
            metrics: CachePadded::new(ShardMetrics::new()),
        }
    }

    pub(crate) fn push(&self, turn: Job<M>) {
        self.turns.push(turn);
        self.waker.wake();
    }

    pub(crate) fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    fn poll_turns(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.turns.is_empty() {
            self.waker.register(cx.waker());
            if self.turns.is_empty() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

/// Which shard; a shard belongs to one worker thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardId(pub(crate) usize);

/// A room whose next batch is about to begin.
struct Gathering<M> {
    room: Arc<Room<M>>,
    sequencer: Box<Sequencer<M>>,
    moment: Linger,
}

impl<M: Payload> Gathering<M> {
    fn is_over(&self) -> bool {
        self.moment.is_over(self.room.inbox().messages())
    }
}

/// The work of one shard, to be run as one task on the thread whose connections join on this shard.
/// There is exactly one for each shard: that is what makes it the only writer of the shard's member lists.
#[must_use = "a shard that does not run delivers nothing"]
pub struct ShardDriver<M> {
    shards: Arc<[Shard<M>]>,
    id: ShardId,
}

impl<M: Payload> ShardDriver<M> {
    pub(crate) fn all(shards: &Arc<[Shard<M>]>) -> Vec<Self> {
        let task = |shard| Self { shards: Arc::clone(shards), id: ShardId(shard) };
        (0..shards.len()).map(task).collect()
    }

    /// The shard to join on from connections of this task's thread.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The shard's number, from 0.
    #[must_use]
    pub fn number(&self) -> usize {
        self.id.0
    }

    /// Does the shard's turns, for ever. Cancel it by dropping the future, when nothing needs delivering any more.
    pub async fn run(self) {
        let me = self.id.0;
        let shard = &self.shards[me];
        let mut under_way: Vec<Arc<Room<M>>> = Vec::new();
        let mut gathering: Vec<Gathering<M>> = Vec::new();
        loop {
            if gathering.is_empty() {
                poll_fn(|cx| shard.poll_turns(cx)).await;
            } else {
                tokio::task::yield_now().await;
            }
            // As many as wait now: turns that are put meanwhile come after the yield.
            for _ in 0..shard.turns.len() {
                match shard.turns.pop() {
                    Some(Job::Sequence(room, sequencer)) => {
                        let moment = sequencer.moment();
                        gathering.push(Gathering { room, sequencer, moment });
                    }
                    Some(Job::FanOut(room)) => {
                        room.fan_out(me);
                        under_way.push(room);
                    }
                    Some(Job::Members(room)) => room.apply_members(me),
                    None => break,
                }
            }
            for Gathering { room, sequencer, .. } in gathering.extract_if(.., |room| room.is_over()) {
                room.sequence(sequencer, me);
                under_way.push(room);
            }
            if !under_way.is_empty() {
                // To the end of the run queue, twice: behind every member just woken, and behind the
                // transports that these have given something to write.
                for _ in 0..2 {
                    tokio::task::yield_now().await;
                }
                for room in under_way.drain(..) {
                    room.finish_batch(me);
                }
            }
        }
    }
}

/// Most shards a hub can have.
pub const SHARDS_MAX: usize = 64;

/// A set of shard numbers.
#[derive(Default)]
pub(crate) struct ShardSet(u64);

impl ShardSet {
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
