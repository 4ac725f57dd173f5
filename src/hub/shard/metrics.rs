//! Metrics: one set for each shard, so that no two threads write the same memory on the broadcast path.

use crate::hub::wire_form::ByForm;
use crate::metrics::{BATCHES, Counter, DURATIONS, Histogram, HistogramSnapshot, SIZES};
use std::time::Duration;

/// The counts of one shard.
pub(crate) struct ShardMetrics {
    pub(crate) published_messages: ByForm<Counter>,
    pub(crate) published_bytes: Counter,
    pub(crate) delivered_messages: ByForm<Counter>,
    pub(crate) delivered_bytes: Counter,
    pub(crate) gap_messages: Counter,
    pub(crate) skips: Counter,
    pub(crate) message_size: Histogram,
    pub(crate) broadcast_latency: Histogram,
    pub(crate) fanout: Histogram,
    pub(crate) batch_messages: Histogram,
    pub(crate) inbox_wait: Histogram,
}

impl ShardMetrics {
    pub(crate) fn new() -> Self {
        Self {
            published_messages: ByForm::default(),
            published_bytes: Counter::default(),
            delivered_messages: ByForm::default(),
            delivered_bytes: Counter::default(),
            gap_messages: Counter::default(),
            skips: Counter::default(),
            message_size: Histogram::new(SIZES),
            broadcast_latency: Histogram::new(DURATIONS),
            fanout: Histogram::new(DURATIONS),
            batch_messages: Histogram::new(BATCHES),
            inbox_wait: Histogram::new(DURATIONS),
        }
    }
}

/// A duration in nanoseconds, for histograms.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The sums over all shards. Durations are in nanoseconds, sizes in bytes of frames.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Messages that got an offset in a room, by the wire form they came in.
    pub published_messages: ByForm<u64>,
    /// Their bytes.
    pub published_bytes: u64,
    /// Messages handed to receivers' transports, each counted for each receiver, by the receiver's wire form.
    pub delivered_messages: ByForm<u64>,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Messages that were reported to a receiver as missing.
    pub gap_messages: u64,
    /// How often messages were skipped for a slow receiver.
    pub skips: u64,
    /// Sizes of published messages.
    pub message_size: HistogramSnapshot,
    /// From accepting the oldest message of a segment to handing the segment to one receiver's transport.
    pub broadcast_latency: HistogramSnapshot,
    /// From taking a batch to waking its last member.
    pub fanout: HistogramSnapshot,
    /// Messages in a batch.
    pub batch_messages: HistogramSnapshot,
    /// How long the oldest message of a batch waited in the inbox.
    pub inbox_wait: HistogramSnapshot,
}

impl Totals {
    /// # Panics
    /// If there is no shard.
    pub(crate) fn of<'a>(shards: impl Iterator<Item = &'a ShardMetrics>) -> Self {
        let shards: Vec<&ShardMetrics> = shards.collect();
        let sum = |counter: fn(&ShardMetrics) -> &Counter| shards.iter().map(|t| counter(t).get()).sum();
        let by_form = |counters: fn(&ShardMetrics) -> &ByForm<Counter>| {
            ByForm::from_fn(|form| shards.iter().map(|t| counters(t)[form].get()).sum())
        };
        let merged = |histogram: fn(&ShardMetrics) -> &Histogram| {
            let read = shards.iter().map(|t| histogram(t).snapshot());
            read.reduce(|a, b| a.merged(&b)).expect("a hub has at least one shard")
        };
        Self {
            published_messages: by_form(|t| &t.published_messages),
            published_bytes: sum(|t| &t.published_bytes),
            delivered_messages: by_form(|t| &t.delivered_messages),
            delivered_bytes: sum(|t| &t.delivered_bytes),
            gap_messages: sum(|t| &t.gap_messages),
            skips: sum(|t| &t.skips),
            message_size: merged(|t| &t.message_size),
            broadcast_latency: merged(|t| &t.broadcast_latency),
            fanout: merged(|t| &t.fanout),
            batch_messages: merged(|t| &t.batch_messages),
            inbox_wait: merged(|t| &t.inbox_wait),
        }
    }
}
