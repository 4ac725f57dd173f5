//! The growth rate of a count, averaged over the last seconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The weight of growth ten seconds ago is 1/e of that of growth now.
const MEMORY: Duration = Duration::from_secs(10);

/// An exponentially weighted moving average of a count's growth per second. Measured by one thread, read by any.
#[derive(Default)]
pub(crate) struct Rate {
    last: AtomicU64,
    /// The bits of an `f64`.
    per_second: AtomicU64,
}

impl Rate {
    /// Updates the rate with the count `now`, `passed` after the last update.
    pub(crate) fn measure(&self, now: u64, passed: Duration) {
        let grown = now.saturating_sub(self.last.swap(now, Ordering::Relaxed)) as f64;
        if passed.is_zero() {
            return;
        }
        let weight = 1.0 - (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        let rate = self.get() + (grown / passed.as_secs_f64() - self.get()) * weight;
        self.per_second.store(rate.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(self.per_second.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_follows_growth_and_decays() {
        let rate = Rate::default();
        for n in 1..=400 {
            rate.measure(n * 25, Duration::from_millis(250));
        }
        assert!((rate.get() - 100.0).abs() < 1.0, "{}", rate.get());
        for _ in 0..400 {
            rate.measure(10_000, Duration::from_millis(250));
        }
        assert!(rate.get() < 0.1, "{}", rate.get());
    }
}
