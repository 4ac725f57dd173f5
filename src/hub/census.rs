//! Who came and why they went: counted once each, and told to those who watch.

use super::departure::Departure;
use super::sight::{Event, Happening, Sight};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;
use tokio::sync::broadcast;

/// Events that a watcher may be behind before it misses some.
const EVENTS_KEPT: usize = 4096;

/// Counts since the hub began. `joined` = `present` + the sum of `departed`, at every moment but inside a change.
#[derive(Debug)]
pub struct Census {
    numbered: AtomicU64,
    joined: AtomicU64,
    present: AtomicUsize,
    departed: [AtomicU64; Departure::ALL.len()],
    events: broadcast::Sender<Event>,
}

impl Default for Census {
    fn default() -> Self {
        Self {
            numbered: AtomicU64::new(0),
            joined: AtomicU64::new(0),
            present: AtomicUsize::new(0),
            departed: std::array::from_fn(|_| AtomicU64::new(0)),
            events: broadcast::Sender::new(EVENTS_KEPT),
        }
    }
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

    /// What happens from now on. A watcher that falls behind misses events and is told how many.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Claims a place for one more connection; false when `max` are here. It must then join or be given back.
    pub(crate) fn claim(&self, max: usize) -> bool {
        let more = |here| (here < max).then_some(here + 1);
        self.present.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.numbered.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn give_back(&self) {
        self.present.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn joined(&self, sight: impl FnOnce() -> Sight) {
        self.joined.fetch_add(1, Ordering::Relaxed);
        self.tell(Happening::Joined, sight);
    }

    pub(crate) fn departed(&self, departure: Departure, sight: impl FnOnce() -> Sight) {
        self.departed[departure as usize].fetch_add(1, Ordering::Relaxed);
        self.give_back();
        self.tell(Happening::Left(departure), sight);
    }

    /// Costs one load while nobody watches.
    pub(crate) fn tell(&self, what: Happening, sight: impl FnOnce() -> Sight) {
        if self.events.receiver_count() > 0 {
            let event = Event { what, sight: sight(), at: SystemTime::now() };
            // Nobody hears it if the last watcher has just gone.
            let _ = self.events.send(event);
        }
    }
}
