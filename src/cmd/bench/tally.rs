//! What a loop counts, and how the counts of several come together.

use super::control::Control;
use super::plan::{Pace, Plan, Role};
use super::protocol::Fault;
use super::receiver::Faults;
use anyhow::Context as _;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Latencies beyond an hour count as one.
const LATENCY_MAX: u64 = 3_600_000_000_000;

/// Digits that a latency is exact to.
const DIGITS: u8 = 3;

/// In a closed loop every so-manieth delivery's latency is recorded: there are millions each second. A prime, so that it
/// does not keep step with windows.
const SAMPLE: u32 = 13;

const SECOND: u64 = 1_000_000_000;

/// Ends of one kind: how many, and the words of the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) count: u64,
    pub(super) words: String,
}

/// Ends by kind.
pub(super) type EndsByKind = BTreeMap<String, Ends>;

/// The counts.
pub(super) struct Tally {
    /// Within the measurement.
    pub(super) deliveries: u64,
    pub(super) messages: u64,
    /// Texts that are none of this run and room, or damaged.
    pub(super) strange: u64,
    /// Messages that were due and that the server did not take.
    pub(super) unsaid: u64,
    /// Of those who left while it was going on.
    pub(super) faults: Faults,
    pub(super) left: u64,
    pub(super) failed: EndsByKind,
    /// Stallers that the server ended.
    pub(super) stalled: EndsByKind,
    pub(super) latencies: Latencies,
}

impl Tally {
    pub(super) fn new(plan: &Plan) -> anyhow::Result<Self> {
        Ok(Self {
            deliveries: 0,
            messages: 0,
            strange: 0,
            unsaid: 0,
            faults: Faults::default(),
            left: 0,
            failed: EndsByKind::new(),
            stalled: EndsByKind::new(),
            latencies: Latencies::new(plan)?,
        })
    }

    /// A call has ended without being asked to.
    pub(super) fn ended(&mut self, role: Role, had_joined: bool, fault: Fault) {
        let ends = if role == Role::Staller && had_joined { &mut self.stalled } else { &mut self.failed };
        add(ends, fault.kind, Ends { count: 1, words: fault.words });
    }

    /// Takes in what another loop has counted.
    pub(super) fn absorb(&mut self, other: Self) -> anyhow::Result<()> {
        self.deliveries += other.deliveries;
        self.messages += other.messages;
        self.strange += other.strange;
        self.unsaid += other.unsaid;
        self.faults += other.faults;
        self.left += other.left;
        other.failed.into_iter().for_each(|(kind, ends)| add(&mut self.failed, kind, ends));
        other.stalled.into_iter().for_each(|(kind, ends)| add(&mut self.stalled, kind, ends));
        self.latencies.absorb(other.latencies)
    }
}

fn add(all: &mut EndsByKind, kind: String, more: Ends) {
    let ends = all.entry(kind).or_default();
    ends.count += more.count;
    if ends.words.is_empty() {
        ends.words = more.words;
    }
}

/// What is measured of the deliveries, while bytes of one read are looked at.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) now: u64,
    from: u64,
    to: u64,
}

impl Span {
    /// The measurement as it stands.
    #[inline]
    pub(super) fn at(control: &Control) -> Self {
        let (from, to) = (control.from.load(Ordering::Relaxed), control.to.load(Ordering::Relaxed));
        Self { now: control.now(), from, to }
    }

    /// Whether deliveries count now.
    #[inline]
    pub(super) fn is_measured(&self) -> bool {
        self.from <= self.now && self.now < self.to
    }
}

/// How long messages were under way that were due within the measurement, whenever they came.
pub(super) struct Latencies {
    every: u32,
    skip: u32,
    /// Since the last second was closed.
    current: Histogram<u64>,
    second: usize,
    deliveries: u64,
    /// None unless they are wanted.
    seconds: Option<Vec<Second>>,
}

/// One second of a run.
#[derive(Clone, Default)]
pub(super) struct Second {
    pub(super) deliveries: u64,
    /// Latency in nanoseconds, and how many had it.
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

    /// Once for each read: `deliveries` is what was counted so far.
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

    /// Once for each delivery.
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

    /// Those of the whole run.
    pub(super) fn total(&self) -> anyhow::Result<Histogram<u64>> {
        let mut total = self.current.clone();
        for second in self.seconds() {
            total.add(second.histogram()?).context("histograms of different bounds")?;
        }
        Ok(total)
    }

    /// Those of each second, if they were wanted.
    pub(super) fn seconds(&self) -> &[Second] {
        self.seconds.as_deref().unwrap_or_default()
    }
}
