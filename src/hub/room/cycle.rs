//! Two small protocols that make rooms safe without locks: who may act for a room, and whether it still exists.
//!
//! Both are checked in every interleaving by `hub::model`.

use crate::hub::sync::{AtomicCell, AtomicUsize, Ordering, fence};

/// The right to act as a room's one writer, passed around by moving a box.
///
/// While the room rests, the box is parked here; whoever takes it out has the turn, and must park it again.
/// The type system then guarantees what a lock would: there is one writer.
pub(crate) struct Handoff<T>(AtomicCell<Option<Box<T>>>);

impl<T> Handoff<T> {
    pub(crate) fn holding(turn: Box<T>) -> Self {
        Self(AtomicCell::new(Some(turn)))
    }

    pub(crate) fn empty() -> Self {
        Self(AtomicCell::new(None))
    }

    /// The turn, unless somebody has it.
    pub(crate) fn take(&self) -> Option<Box<T>> {
        // Work was queued before this; pairs with the fence in `park`: either this take sees the parked
        // turn, or the look for work that follows the park sees the work.
        fence(Ordering::SeqCst);
        self.0.take()
    }

    /// Gives the turn back. Who then finds more work must try to [`Handoff::take`] it again: work that
    /// came while the turn was out found nothing to take.
    pub(crate) fn park(&self, turn: Box<T>) {
        self.0.store(Some(turn));
        fence(Ordering::SeqCst);
    }
}

/// How many are in a room, and whether the room is gone. Joining a room that retires at the same moment fails,
/// and the joiner makes a new room.
pub(crate) struct Occupancy(AtomicUsize);

const RETIRED: usize = usize::MAX;

impl Occupancy {
    pub(crate) fn empty() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Comes in. False: the room has been retired.
    #[must_use]
    pub(crate) fn enter(&self) -> bool {
        let mut here = self.0.load(Ordering::Acquire);
        while here != RETIRED {
            match self.0.compare_exchange_weak(here, here + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => here = now,
            }
        }
        false
    }

    /// Goes out; true when nobody is left.
    pub(crate) fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Retires the room if nobody is in it. Once true, nobody can enter any more.
    #[must_use]
    pub(crate) fn retire(&self) -> bool {
        self.0.compare_exchange(0, RETIRED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(crate) fn count(&self) -> usize {
        match self.0.load(Ordering::Relaxed) {
            RETIRED => 0,
            here => here,
        }
    }
}
