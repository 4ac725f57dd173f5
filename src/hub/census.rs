//! Who came and why they went: counted once each, read by metrics, the admin and the tests.

use super::departure::Departure;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counts since the hub began. `joined` = `present` + the sum of `departed`, at every moment but inside a change.
#[derive(Debug, Default)]
pub struct Census {
    joined: AtomicU64,
    present: AtomicUsize,
    departed: [AtomicU64; Departure::ALL.len()],
}

impl Census {
    /// Connections that ever joined a room.
    #[must_use]
    pub fn joined_total(&self) -> u64 {
        self.joined.load(Ordering::Relaxed)
    }

    /// Connections that ended for this reason.
    #[must_use]
    pub fn departed_total(&self, departure: Departure) -> u64 {
        self.departed[departure as usize].load(Ordering::Relaxed)
    }

    /// Connections that ended, for whatever reason.
    #[must_use]
    pub fn all_departed_total(&self) -> u64 {
        Departure::ALL.iter().map(|d| self.departed_total(*d)).sum()
    }

    /// Connections that are in a room now.
    #[must_use]
    pub fn present(&self) -> usize {
        self.present.load(Ordering::Relaxed)
    }

    /// Claims a place for one more connection; false when `max` are here. It must then join or be given back.
    pub(crate) fn claim(&self, max: usize) -> bool {
        let more = |here| (here < max).then_some(here + 1);
        self.present.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    pub(crate) fn give_back(&self) {
        self.present.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn joined(&self) {
        self.joined.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn departed(&self, departure: Departure) {
        self.departed[departure as usize].fetch_add(1, Ordering::Relaxed);
        self.give_back();
    }
}
