//! State shared by the event loops and the coordinator: the phase, and each loop's progress.
//!
//! Lock-free: neither side waits for the other.

use super::plan::Plan;
use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// The phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Connections join.
    Join,
    /// All have joined, nothing is published.
    Idle,
    /// Messages are published but not counted.
    Warmup,
    /// Messages are published and counted.
    Measure,
    /// No new message is due; outstanding messages are received.
    Drain,
    /// Stallers read, to see how the server ended them.
    InspectStallers,
    /// The run has ended.
    Done,
}

const PHASES: [Phase; 7] = [
    Phase::Join,
    Phase::Idle,
    Phase::Warmup,
    Phase::Measure,
    Phase::Drain,
    Phase::InspectStallers,
    Phase::Done,
];

/// The shared state.
pub(super) struct Control {
    epoch: Instant,
    phase: AtomicU8,
    /// When publishing began, in nanoseconds since `epoch`, like all times of a run.
    pub(super) publish_from: AtomicU64,
    /// Start of the measurement.
    pub(super) from: AtomicU64,
    /// End of the measurement.
    pub(super) to: AtomicU64,
    /// By publisher: how many of its messages every member must receive. Set when its loop has finished publishing.
    pub(super) published: Vec<AtomicU32>,
    /// Loops that have finished publishing.
    pub(super) finished: AtomicUsize,
    pub(super) progress: Vec<CachePadded<LoopProgress>>,
}

/// One loop's progress.
#[derive(Default)]
pub(super) struct LoopProgress {
    /// Transports that connected or failed.
    pub(super) opened: AtomicUsize,
    /// Calls that joined.
    pub(super) joined: AtomicUsize,
    /// Calls that ended without having joined.
    pub(super) refused: AtomicUsize,
    /// Members that are joined now.
    pub(super) live: AtomicUsize,
    /// Stallers that are joined now.
    pub(super) stalling: AtomicUsize,
    /// Deliveries in all phases.
    pub(super) received: AtomicU64,
    pub(super) last_join: AtomicU64,
    /// Whether all its members have received everything published.
    pub(super) drained: AtomicBool,
}

impl Control {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            epoch: Instant::now(),
            phase: AtomicU8::new(Phase::Join as u8),
            publish_from: AtomicU64::new(u64::MAX),
            from: AtomicU64::new(u64::MAX),
            to: AtomicU64::new(u64::MAX),
            published: (0..plan.publishers).map(|_| AtomicU32::new(0)).collect(),
            finished: AtomicUsize::new(0),
            progress: (0..plan.threads).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Nanoseconds since the run began.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    #[inline]
    pub(super) fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Acquire)) % PHASES.len()]
    }

    /// Enters a phase; returns the time.
    pub(super) fn enter(&self, phase: Phase) -> u64 {
        let now = self.now();
        match phase {
            Phase::Warmup => self.publish_from.store(now, Ordering::Relaxed),
            Phase::Measure => self.from.store(now, Ordering::Relaxed),
            Phase::Drain => self.to.store(now, Ordering::Relaxed),
            _ => {}
        }
        self.phase.store(phase as u8, Ordering::Release);
        now
    }

    /// The sum of one counter over all loops.
    pub(super) fn sum(&self, count: impl Fn(&LoopProgress) -> &AtomicUsize) -> usize {
        self.progress.iter().map(|progress| count(progress).load(Ordering::Relaxed)).sum()
    }

    /// Calls that joined or failed.
    pub(super) fn settled(&self) -> usize {
        self.sum(|progress| &progress.joined) + self.sum(|progress| &progress.refused)
    }

    /// Deliveries of all loops.
    pub(super) fn received(&self) -> u64 {
        self.progress.iter().map(|progress| progress.received.load(Ordering::Relaxed)).sum()
    }
}
