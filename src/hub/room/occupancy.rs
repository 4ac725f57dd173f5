//! Whether a room is in use, and whether it still exists. Loom checks it in every interleaving (`room::model`).

use crate::hub::sync::{AtomicUsize, Ordering};

/// The number of members and publishers in a room, or the fact that the room is retired.
///
/// A join that races with the retirement of an idle room either keeps the room alive or fails; then the caller makes a
/// new room.
pub(crate) struct Occupancy(AtomicUsize);

const RETIRED: usize = usize::MAX;

impl Occupancy {
    pub(crate) fn empty() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Adds one. False if the room is retired.
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

    /// Removes one. True if nobody is left.
    pub(crate) fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Retires the room if it is empty. Once true, [`Occupancy::enter`] fails for ever.
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
