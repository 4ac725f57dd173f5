//! The counters of a loop, and their sum over loops.

use super::call_handler::CallError;
use super::control::Control;
use super::plan::{Pace, Plan, Role};
use super::receiver::DeliveryErrors;
use anyhow::Context as _;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Latencies above an hour count as an hour.
const LATENCY_MAX: u64 = 3_600_000_000_000;

/// Significant digits of latencies.
const DIGITS: u8 = 3;

/// In a closed loop, with its millions of deliveries per second, one in this many latencies is recorded. A prime, so that
/// sampling does not align with windows.
const SAMPLE: u32 = 13;

const SECOND: u64 = 1_000_000_000;

/// Ends of one kind: the count, and the first message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) count: u64,
    pub(super) message: String,
}

/// Ends by kind.
pub(super) type EndsByKind = BTreeMap<String, Ends>;

/// The counters.
pub(super) struct Counters {
    /// During the measurement.
    pub(super) deliveries: u64,
    pub(super) messages: u64,
    /// Texts of another run or room, or damaged.
    pub(super) strange: u64,
    /// Messages that were due but could not be written.
    pub(super) unpublished: u64,
    /// Errors of connections that left during the run.
    pub(super) errors: DeliveryErrors,
    pub(super) left: u64,
    pub(super) failed: EndsByKind,
    /// Stallers that the server ended.
    pub(super) stalled: EndsByKind,
    pub(super) latencies: Latencies,
}

impl Counters {
    pub(super) fn new(plan: &Plan) -> anyhow::Result<Self> {
        Ok(Self {
            deliveries: 0,
            messages: 0,
            strange: 0,
            unpublished: 0,
            errors: DeliveryErrors::default(),
            left: 0,
            failed: EndsByKind::new(),
            stalled: EndsByKind::new(),
            latencies: Latencies::new(plan)?,
        })
    }

    /// Counts the unexpected end of a call.
    pub(super) fn ended(&mut self, role: Role, had_joined: bool, error: CallError) {
        let ends = if role == Role::Staller && had_joined { &mut self.stalled } else { &mut self.failed };
        add(ends, error.kind, Ends { count: 1, message: error.message });
    }

    /// Adds another loop's counters.
    pub(super) fn absorb(&mut self, other: Self) -> anyhow::Result<()> {
        self.deliveries += other.deliveries;
        self.messages += other.messages;
        self.strange += other.strange;
        self.unpublished += other.unpublished;
        self.errors += other.errors;
        self.left += other.left;
        other.failed.into_iter().for_each(|(kind, ends)| add(&mut self.failed, kind, ends));
        other.stalled.into_iter().for_each(|(kind, ends)| add(&mut self.stalled, kind, ends));
        self.latencies.absorb(other.latencies)
    }
}

fn add(all: &mut EndsByKind, kind: String, more: Ends) {
    let ends = all.entry(kind).or_default();
    ends.count += more.count;
    if ends.message.is_empty() {
        ends.message = more.message;
    }
}

/// The measurement interval, and the time of one read.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) now: u64,
    from: u64,
    to: u64,
}

impl Span {
    /// The current interval and time.
    #[inline]
    pub(super) fn at(control: &Control) -> Self {
        let from = control.from.load(Ordering::Relaxed);
        let to = control.to.load(Ordering::Relaxed);
        Self { now: control.now(), from, to }
    }

    /// Whether deliveries of this read count.
    #[inline]
    pub(super) fn is_measured(&self) -> bool {
        self.from <= self.now && self.now < self.to
    }
}

/// Latencies of messages that were due during the measurement.
pub(super) struct Latencies {
    every: u32,
    skip: u32,
    /// Latencies of the current second.
    current: Histogram<u64>,
    second: usize,
    deliveries: u64,
    /// By second, if requested.
    seconds: Option<Vec<Second>>,
}

/// One second of a run.
#[derive(Clone, Default)]
pub(super) struct Second {
    pub(super) deliveries: u64,
    /// Latencies in nanoseconds with their counts.
    latencies: Vec<(u64, u64)>,
}

impl Second {
    pub(super) fn histogram(&self) -> anyhow::Result<Histogram<u64>> {
        let mut histogram = empty()?;
        for &(latency, count) in &self.latencies {
            histogram.saturating_record_n(latency, count);
        }
        Ok(histogram)
    }
}

fn empty() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS).context("no histogram of these bounds")
}

impl Latencies {
    fn new(plan: &Plan) -> anyhow::Result<Self> {
        let every = if matches!(plan.pace, Pace::Rate(_)) { 1 } else { SAMPLE };
        let seconds = plan.by_second.then(Vec::new);
        Ok(Self { every, skip: every, current: empty()?, second: 0, deliveries: 0, seconds })
    }

    /// Called once per read, with the deliveries so far.
    #[inline]
    pub(super) fn tick(&mut self, span: Span, deliveries: u64) {
        if self.seconds.is_some() && span.now > span.from {
            let second = ((span.now - span.from) / SECOND) as usize;
            if second != self.second {
                self.close(deliveries);
                self.second = second;
            }
        }
    }

    /// Called once per delivery.
    #[inline]
    pub(super) fn sample(&mut self, span: Span, due: impl Fn() -> u64) {
        self.skip -= 1;
        if self.skip == 0 {
            self.skip = self.every;
            let due = due();
            if span.from <= due && due < span.to {
                self.current.saturating_record(span.now.saturating_sub(due).max(1));
            }
        }
    }

    /// Ends the current second.
    pub(super) fn close(&mut self, deliveries: u64) {
        let Some(seconds) = &mut self.seconds else { return };
        if seconds.len() <= self.second {
            seconds.resize_with(self.second + 1, Second::default);
        }
        let second = &mut seconds[self.second];
        second.deliveries += deliveries - self.deliveries;
        self.deliveries = deliveries;
        let recorded = self.current.iter_recorded();
        second.latencies.extend(recorded.map(|step| (step.value_iterated_to(), step.count_at_value())));
        self.current.reset();
    }

    fn absorb(&mut self, other: Self) -> anyhow::Result<()> {
        self.current.add(&other.current).context("histograms of different bounds")?;
        if let (Some(ours), Some(theirs)) = (&mut self.seconds, other.seconds) {
            ours.resize_with(ours.len().max(theirs.len()), Second::default);
            for (ours, theirs) in ours.iter_mut().zip(theirs) {
                ours.deliveries += theirs.deliveries;
                ours.latencies.extend(theirs.latencies);
            }
        }
        Ok(())
    }

    /// The latencies of the whole run.
    pub(super) fn total(&self) -> anyhow::Result<Histogram<u64>> {
        let mut total = self.current.clone();
        for second in self.seconds() {
            total.add(second.histogram()?).context("histograms of different bounds")?;
        }
        Ok(total)
    }

    /// The latencies by second; empty unless requested.
    pub(super) fn seconds(&self) -> &[Second] {
        self.seconds.as_deref().unwrap_or_default()
    }
}
