//! A rate limit for frames that cost more than the data in them.
//!
//! A token bucket (four units for a frame without data, see [`super::frames`]). It delays and never refuses: a peer above the
//! rate is read later, so TCP slows it down, and other transports keep their latency. Honest clients stay far below.

use std::time::Duration;
use tokio::time::Instant;

/// Units a second: 40,000 frames with a few bytes of data, or 20,000 window updates, pings or requests, or 200 resets, or 4
/// changes of settings.
const RATE: u32 = 80_000;
/// Units in a burst: a client may open and drop 1,000 calls in a loop.
const BURST: u32 = 400_000;

/// The token bucket of one transport.
pub(super) struct FrameRate {
    left: f64,
    at: Option<Instant>,
}

impl FrameRate {
    pub(super) fn new() -> Self {
        Self { left: f64::from(BURST), at: None }
    }

    /// Takes `cost` units. Returns the time to wait before more are taken, if the bucket is in debt.
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
        let mut rate = FrameRate::new();
        assert_eq!(rate.take(BURST, start), None);
        let wait = rate.take(RATE / 10, start).expect("ahead of the rate");
        assert!((wait.as_secs_f64() - 0.1).abs() < 1e-6);
        // After the wait the next unit is due.
        assert_eq!(rate.take(0, start + wait), None);
        assert!(rate.take(1, start + wait).is_some());
    }

    #[test]
    fn pause_refills_at_most_one_burst() {
        let start = Instant::now();
        let mut rate = FrameRate::new();
        rate.take(1, start);
        assert_eq!(rate.take(BURST, start + Duration::from_secs(3600)), None);
        assert!(rate.take(1, start + Duration::from_secs(3600)).is_some());
    }
}
