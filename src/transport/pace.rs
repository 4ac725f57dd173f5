//! How fast a transport may send frames that cost more than the data in them.
//!
//! A token bucket (four units for a frame without data, see [`super::frames`]) that never refuses: a peer that is ahead of it is
//! read later, so that TCP slows it, and its neighbours on other transports do not notice. Honest clients stay far below.

use std::time::Duration;
use tokio::time::Instant;

/// Units a second: 40,000 frames with a few bytes of data, or 20,000 window updates, pings or requests, or 200 resets.
const RATE: u32 = 80_000;
/// Units at once: a client may open and drop 1,000 calls in a loop.
const BURST: u32 = 400_000;

pub(super) struct Pace {
    left: f64,
    at: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { left: f64::from(BURST), at: None }
    }

    /// Takes `cost` units; returns how long to wait until the next are taken.
    pub(super) fn take(&mut self, cost: u32, now: Instant) -> Option<Duration> {
        let passed = self.at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let refilled = self.left + passed.as_secs_f64() * f64::from(RATE);
        self.left = refilled.min(f64::from(BURST)) - f64::from(cost);
        (self.left < 0.0).then(|| Duration::from_secs_f64(-self.left / f64::from(RATE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut pace = Pace::new();
        assert_eq!(pace.take(BURST, start), None);
        let wait = pace.take(RATE / 10, start).expect("ahead of the rate");
        assert!((wait.as_secs_f64() - 0.1).abs() < 1e-6);
        // After the wait the next unit is due.
        assert_eq!(pace.take(0, start + wait), None);
        assert!(pace.take(1, start + wait).is_some());
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_burst() {
        let start = Instant::now();
        let mut pace = Pace::new();
        pace.take(1, start);
        assert_eq!(pace.take(BURST, start + Duration::from_secs(3600)), None);
        assert!(pace.take(1, start + Duration::from_secs(3600)).is_some());
    }
}
