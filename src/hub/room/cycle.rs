//! The batch cycle: the state machine that takes a room's messages from its inbox to its members, batch by batch.
//!
//! ```text
//!                 a message                   the linger
//!                 is offered                    is over
//!     ┌─────────┐         ┌───────────┐  ┌───────────┐         ┌────────────┐
//!     │ resting │────────▶│ scheduled │─▶│ lingering │────────▶│ sequencing │
//!     └─────────┘         └───────────┘  └───────────┘         └────────────┘
//!          ▲                    ▲                                     │ members are woken
//!          │ inbox empty        │ messages waiting                    ▼ on every shard
//!          │                    │ (after a pause)              ┌─────────────┐
//!          └────────────────────┴──────────────────────────────│ fanning out │
//!                                    all shards have finished  └─────────────┘
//! ```
//!
//! The state is where the room's *writer* is, a box that moves: parked in [`Cycle::resting`]; in a [`Job::Sequence`] in
//! a shard's queue, or in a timer during a pause; in a shard's [`Round`] while it lingers; parked in
//! [`Cycle::fanning_out`]; and on the stack of whoever moves it, such as [`Cycle::begin_batch`], or housekeeping in
//! [`Cycle::with_resting`]. There is one box, so there is one writer: the type system guarantees what a lock would.
//!
//! Guarantees, without a lock:
//! - A message that was offered is sequenced: either the offer finds the writer at rest, or the writer finds the message
//!   after it was parked.
//! - At most one batch of a room is being fanned out, and the next begins when the members woken for it have had a turn on
//!   *every* shard. What arrives meanwhile gathers in the inbox and becomes the next batch. So batches grow with the load by
//!   themselves, without a fixed interval and without added latency when the room is idle. The turns pace batches: on a
//!   runtime of several threads a member may have its turn later, and nothing is lost.
//!
//! Deliberately knows nothing of logs, members or messages: whatever is a [`BatchRoom`] can run through it. Loom runs this
//! very code (`room::model`): in every interleaving of its threads on one shard, and with up to two preemptions on two.
//! Lingers and pauses are time, which loom does not have.

use crate::hub::room::linger::{LastBatch, Linger};
use crate::hub::shard::queue::ShardSet;
use crate::hub::sync::{AtomicCell, AtomicUsize, Ordering, fence};
use std::sync::Arc;
use std::time::Duration;

/// Something a shard has to do for a room.
pub(crate) enum Job<R, W> {
    /// Sequence what waits in the inbox, and fan out.
    Sequence(Arc<R>, Box<W>),
    /// Wake this shard's members for the current batch.
    FanOut(Arc<R>),
    /// Apply joins and leaves to this shard's list of members.
    ApplyMembers(Arc<R>),
}

/// What the cycle needs of a room.
pub(crate) trait BatchRoom: Sized {
    /// What may sequence messages; there is one for each room.
    type Writer;
    /// What a batch leaves to be sent once its members have been woken.
    type Receipts;

    fn cycle(&self) -> &Cycle<Self::Writer>;
    fn push(&self, shard: usize, job: Job<Self, Self::Writer>);
    /// Pushes the job after a pause.
    fn push_later(&self, pause: Duration, shard: usize, job: Job<Self, Self::Writer>);

    /// Whether the inbox has messages.
    fn has_pending(&self) -> bool;
    /// How many it has.
    fn pending(&self) -> u64;
    /// How long the messages of the inbox wait for others.
    fn linger(&self, writer: &Self::Writer) -> Linger;
    /// Moves what waits in the inbox to the log.
    fn sequence(&self, writer: &mut Self::Writer, shard: usize) -> Self::Receipts;
    /// The shards on which the room has members.
    fn populated_shards(&self) -> ShardSet;
    /// Wakes the members on this shard.
    fn wake_members(&self, shard: usize);
    /// The members have been woken on all shards; this shard was the last.
    fn fan_out_done(&self, shard: usize);
    fn send_receipts(&self, receipts: Self::Receipts);
    /// The members have run on all shards.
    fn batch_done(&self, writer: &mut Self::Writer) -> LastBatch;
    /// Applies joins and leaves on this shard.
    fn apply_members(&self, shard: usize);
}

/// A room's place in the cycle.
pub(crate) struct Cycle<W> {
    resting: Handoff<W>,
    fanning_out: Handoff<W>,
    /// Shards on which members have still to run for the current batch.
    shards_due: AtomicUsize,
    /// Shards that have still to wake their members for the current batch.
    shards_waking: AtomicUsize,
}

impl<W> Cycle<W> {
    /// At rest.
    pub(crate) fn new(writer: W) -> Self {
        Self {
            resting: Handoff::holding(Box::new(writer)),
            fanning_out: Handoff::empty(),
            shards_due: AtomicUsize::new(0),
            shards_waking: AtomicUsize::new(0),
        }
    }

    /// A message has been put into the inbox: schedules a batch on `shard`, if the room was at rest.
    pub(crate) fn offered<R: BatchRoom<Writer = W>>(room: &Arc<R>, shard: usize) {
        // If the writer is elsewhere, it looks into the inbox after it has been parked.
        if let Some(writer) = room.cycle().resting.take() {
            room.push(shard, Job::Sequence(Arc::clone(room), writer));
        }
    }

    /// Uses the writer if the room is at rest, and lets the room rest again.
    pub(crate) fn with_resting<R: BatchRoom<Writer = W>>(
        room: &Arc<R>,
        shard: usize,
        work: impl FnOnce(&mut W),
    ) {
        if let Some(mut writer) = room.cycle().resting.take() {
            work(&mut writer);
            Self::rest(room, writer, shard);
        }
    }

    /// Sequences what waits, wakes the members on this shard, and makes the other shards wake theirs. This shard and those
    /// then owe a [`Cycle::finish_batch`].
    fn begin_batch<R: BatchRoom<Writer = W>>(room: &Arc<R>, mut writer: Box<W>, shard: usize) {
        let receipts = room.sequence(&mut writer, shard);
        // Read once: the count must match the jobs that are pushed. A shard whose first member comes later wakes that
        // newcomer by itself; one whose last member has left finishes all the same.
        let others = room.populated_shards().without(shard);
        let cycle = room.cycle();
        // Set before any shard can be the last to finish.
        cycle.shards_waking.store(others.len() + 1, Ordering::Release);
        cycle.shards_due.store(others.len() + 1, Ordering::Release);
        cycle.fanning_out.park(writer);
        for other in others.iter() {
            room.push(other, Job::FanOut(Arc::clone(room)));
        }
        Self::fan_out(room, shard);
        room.send_receipts(receipts);
    }

    fn fan_out<R: BatchRoom<Writer = W>>(room: &Arc<R>, shard: usize) {
        room.wake_members(shard);
        if room.cycle().shards_waking.fetch_sub(1, Ordering::AcqRel) == 1 {
            room.fan_out_done(shard);
        }
    }

    /// The members on this shard have had their turn for the current batch. The last shard moves the writer on: to the next batch if
    /// messages wait, to rest if none do.
    fn finish_batch<R: BatchRoom<Writer = W>>(room: &Arc<R>, shard: usize) {
        if room.cycle().shards_due.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(writer) = room.cycle().fanning_out.take()
        {
            Self::next_or_rest(room, writer, shard);
        }
    }

    fn next_or_rest<R: BatchRoom<Writer = W>>(room: &Arc<R>, mut writer: Box<W>, shard: usize) {
        let last_batch = room.batch_done(&mut writer);
        if !room.has_pending() {
            return Self::rest(room, writer, shard);
        }
        let job = Job::Sequence(Arc::clone(room), writer);
        match last_batch.pause() {
            None => room.push(shard, job),
            Some(pause) => room.push_later(pause, shard, job),
        }
    }

    fn rest<R: BatchRoom<Writer = W>>(room: &Arc<R>, writer: Box<W>, shard: usize) {
        room.cycle().resting.park(writer);
        // An offer that came while the writer was elsewhere found nothing to take: look again, now that there is.
        if room.has_pending() {
            Self::offered(room, shard);
        }
    }
}

/// A shard's part in the cycles of all rooms: those whose batch is about to begin here, and those that are being fanned
/// out. Owned by the shard's driver.
pub(crate) struct Round<R: BatchRoom> {
    shard: usize,
    lingering: Vec<Lingering<R>>,
    fanning_out: Vec<Arc<R>>,
}

struct Lingering<R: BatchRoom> {
    room: Arc<R>,
    writer: Box<R::Writer>,
    linger: Linger,
}

impl<R: BatchRoom> Round<R> {
    pub(crate) fn new(shard: usize) -> Self {
        Self { shard, lingering: Vec::new(), fanning_out: Vec::new() }
    }

    /// Whether a batch is to begin soon, without another job.
    pub(crate) fn is_lingering(&self) -> bool {
        !self.lingering.is_empty()
    }

    /// Whether members have been woken; [`Round::finish_batches`] is due when they have run.
    pub(crate) fn is_fanning_out(&self) -> bool {
        !self.fanning_out.is_empty()
    }

    pub(crate) fn start(&mut self, job: Job<R, R::Writer>) {
        match job {
            Job::Sequence(room, writer) => {
                let linger = room.linger(&writer);
                self.lingering.push(Lingering { room, writer, linger });
            }
            Job::FanOut(room) => {
                Cycle::fan_out(&room, self.shard);
                self.fanning_out.push(room);
            }
            Job::ApplyMembers(room) => room.apply_members(self.shard),
        }
    }

    /// Begins the batches that have lingered long enough.
    pub(crate) fn begin_batches(&mut self) {
        let is_over = |lingering: &mut Lingering<R>| lingering.linger.is_over(lingering.room.pending());
        for Lingering { room, writer, .. } in self.lingering.extract_if(.., is_over) {
            Cycle::begin_batch(&room, writer, self.shard);
            self.fanning_out.push(room);
        }
    }

    /// The members that were woken have run.
    pub(crate) fn finish_batches(&mut self) {
        for room in self.fanning_out.drain(..) {
            Cycle::finish_batch(&room, self.shard);
        }
    }
}

/// A place where a box is left for whoever takes it next.
struct Handoff<T>(AtomicCell<Option<Box<T>>>);

impl<T> Handoff<T> {
    fn holding(item: Box<T>) -> Self {
        Self(AtomicCell::new(Some(item)))
    }

    fn empty() -> Self {
        Self(AtomicCell::new(None))
    }

    /// The box, if it is here.
    fn take(&self) -> Option<Box<T>> {
        // Pairs with the fence in `park`: work was queued before this, so either this finds the parked box, or the look
        // for work that follows the park finds the work.
        fence(Ordering::SeqCst);
        self.0.take()
    }

    /// Leaves the box here. A caller that rests then looks for work, and takes the box again if there is some.
    fn park(&self, item: Box<T>) {
        self.0.store(Some(item));
        fence(Ordering::SeqCst);
    }
}
