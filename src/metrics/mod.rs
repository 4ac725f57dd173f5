//! Counters and histograms, and their Prometheus text format.
//!
//! An update is a relaxed add to memory that, on the broadcast path, only the updating thread writes. The prometheus crate
//! writes the text at scrape, and is used only here. Deliberately does not know what is counted.

#[cfg(feature = "server")]
mod exposition;

#[cfg(feature = "server")]
pub use exposition::{Exposition, Labels};

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts of values by range. Values are integers of the smallest unit (nanoseconds, bytes, messages); the text format has
/// the base unit.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds, ascending and inclusive.
    bounds: &'static [u64],
    /// One for each bound, and one for values above the last.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty histogram with these upper bounds, which must ascend.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.is_sorted());
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts `value`, `times` times.
    pub fn observe(&self, value: u64, times: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(times, Ordering::Relaxed);
        self.sum.fetch_add(value.saturating_mul(times), Ordering::Relaxed);
    }

    /// The counts so far.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            bounds: self.bounds,
            buckets: self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// The counts of a [`Histogram`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    bounds: &'static [u64],
    buckets: Vec<u64>,
    sum: u64,
}

impl HistogramSnapshot {
    /// Adds the counts of another histogram with the same bounds.
    ///
    /// # Panics
    /// When the bounds differ.
    #[must_use]
    pub fn merged(mut self, other: &Self) -> Self {
        assert_eq!(self.bounds, other.bounds, "histograms of one metric have one set of bounds");
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(a, b)| *a += b);
        self.sum += other.sum;
        self
    }

    /// The number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Upper bounds of durations, in nanoseconds: 10 µs to 10 s, about three for each power of ten.
pub const DURATIONS: &[u64] = &[
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds of sizes, in bytes: 16 B to 64 KiB.
pub const SIZES: &[u64] = &[16, 64, 256, 1_024, 4_096, 16_384, 65_536];

/// Upper bounds of numbers of messages: 1 to 4,096.
pub const BATCHES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 4_096];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [1, 10, 11, 20, 21] {
            histogram.observe(value, 1);
        }
        let snapshot = histogram.snapshot();
        assert_eq!(
            (snapshot.buckets.as_slice(), snapshot.sum, snapshot.count()),
            ([2, 2, 1].as_slice(), 63, 5)
        );
    }

    #[test]
    fn merge_adds_counts() {
        let a = Histogram::new(&[10]);
        let b = Histogram::new(&[10]);
        a.observe(5, 2);
        b.observe(50, 1);
        let both = a.snapshot().merged(&b.snapshot());
        assert_eq!((both.buckets.as_slice(), both.sum), ([2, 1].as_slice(), 60));
    }
}
