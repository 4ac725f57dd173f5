//! A lane: one task per worker thread that does the rooms' turns there.
//!
//! Members are woken by the lane of the thread they live on, so a wake is a push to the thread's own run queue:
//! no lock, no system call, whatever the number of members. A lane does all turns that wait, lets everything
//! that is now runnable run once, and only then reports the turns as had: see [`super::Room`] for why.
//! A busy room's batch may begin a moment later, see [`super::gather`]: then the lane looks again after each round.

use super::frame::Frame;
use super::gather::Moment;
use super::room::Room;
use super::sequencer::Sequencer;
use super::sync::{AtomicWaker, SegQueue};
use super::tally::Tally;
use crossbeam_utils::CachePadded;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Something a lane has to do for a room.
pub(crate) enum Turn<M> {
    /// Sequence what waits in the inbox, and fan out.
    Sequence(Arc<Room<M>>, Box<Sequencer<M>>),
    /// Wake this lane's members.
    FanOut(Arc<Room<M>>),
    /// Bring joins and leaves into this lane's list of members.
    Members(Arc<Room<M>>),
}

/// What others see of a lane: where turns for it are put. Bounded by three turns per room.
pub(crate) struct Lane<M> {
    turns: SegQueue<Turn<M>>,
    waker: AtomicWaker,
    /// What happens on this lane's thread; on cache lines of its own.
    tally: CachePadded<Tally>,
}

impl<M: Frame> Lane<M> {
    pub(crate) fn new() -> Self {
        Self { turns: SegQueue::new(), waker: AtomicWaker::new(), tally: CachePadded::new(Tally::new()) }
    }

    pub(crate) fn push(&self, turn: Turn<M>) {
        self.turns.push(turn);
        self.waker.wake();
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
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

/// Which lane; a lane belongs to one worker thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId(pub(crate) usize);

/// A room whose next batch is about to begin.
struct Gathering<M> {
    room: Arc<Room<M>>,
    sequencer: Box<Sequencer<M>>,
    moment: Moment,
}

impl<M: Frame> Gathering<M> {
    fn is_over(&self) -> bool {
        self.moment.is_over(self.room.inbox().messages())
    }
}

/// The work of one lane, to be run as one task on the thread whose connections join on this lane.
/// There is exactly one for each lane: that is what makes it the only writer of the lane's member lists.
#[must_use = "a lane that does not run delivers nothing"]
pub struct LaneTask<M> {
    lanes: Arc<[Lane<M>]>,
    id: LaneId,
}

impl<M: Frame> LaneTask<M> {
    pub(crate) fn all(lanes: &Arc<[Lane<M>]>) -> Vec<Self> {
        let task = |lane| Self { lanes: Arc::clone(lanes), id: LaneId(lane) };
        (0..lanes.len()).map(task).collect()
    }

    /// The lane to join on from connections of this task's thread.
    #[must_use]
    pub fn id(&self) -> LaneId {
        self.id
    }

    /// The lane's number, from 0.
    #[must_use]
    pub fn number(&self) -> usize {
        self.id.0
    }

    /// Does the lane's turns, for ever. Cancel it by dropping the future, when nothing needs delivering any more.
    pub async fn run(self) {
        let me = self.id.0;
        let lane = &self.lanes[me];
        let mut under_way: Vec<Arc<Room<M>>> = Vec::new();
        let mut gathering: Vec<Gathering<M>> = Vec::new();
        loop {
            if gathering.is_empty() {
                poll_fn(|cx| lane.poll_turns(cx)).await;
            } else {
                tokio::task::yield_now().await;
            }
            // As many as wait now: turns that are put meanwhile come after the yield.
            for _ in 0..lane.turns.len() {
                match lane.turns.pop() {
                    Some(Turn::Sequence(room, sequencer)) => {
                        let moment = sequencer.moment();
                        gathering.push(Gathering { room, sequencer, moment });
                    }
                    Some(Turn::FanOut(room)) => {
                        room.fan_out(me);
                        under_way.push(room);
                    }
                    Some(Turn::Members(room)) => room.apply_members(me),
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
                    room.had_their_turn(me);
                }
            }
        }
    }
}

/// Most lanes a hub can have.
pub const LANES_MAX: usize = 64;

/// A set of lane numbers.
#[derive(Default)]
pub(crate) struct LaneSet(u64);

impl LaneSet {
    pub(crate) fn len(&self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        let set = self.0;
        (0..LANES_MAX).filter(move |lane| set & (1 << lane) != 0)
    }
}

impl FromIterator<usize> for LaneSet {
    fn from_iter<I: IntoIterator<Item = usize>>(lanes: I) -> Self {
        Self(lanes.into_iter().fold(0, |set, lane| set | 1 << lane))
    }
}
