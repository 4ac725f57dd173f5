//! What the event loops and the one who leads them tell each other: the phase, and how far each loop is.
//!
//! Promises that neither waits for the other: all of it is read and written without a lock.

use super::plan::Plan;
use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Connections come.
    Join,
    /// All are there, nothing is said.
    Idle,
    /// Messages are said, and not counted.
    Warmup,
    /// Messages are said and counted.
    Measure,
    /// Nothing new is due; all is to be heard that was said.
    Drain,
    /// Those that did not read do, to see what became of them.
    Look,
    /// It is over.
    Over,
}

const PHASES: [Phase; 7] =
    [Phase::Join, Phase::Idle, Phase::Warmup, Phase::Measure, Phase::Drain, Phase::Look, Phase::Over];

/// Shared by all.
pub(super) struct Control {
    epoch: Instant,
    phase: AtomicU8,
    /// When publishing began; nanoseconds since the epoch, like all times of a run.
    pub(super) publish_from: AtomicU64,
    /// What is measured: from when, and until when.
    pub(super) from: AtomicU64,
    pub(super) to: AtomicU64,
    /// By publisher: how many messages everyone is to hear of it. Told when the loop has nothing left to say.
    pub(super) said: Vec<AtomicU32>,
    /// Loops that have nothing left to say.
    pub(super) finished: AtomicUsize,
    pub(super) progress: Vec<CachePadded<Progress>>,
}

/// One loop's account.
#[derive(Default)]
pub(super) struct Progress {
    /// Transports that are connected, or failed to.
    pub(super) opened: AtomicUsize,
    /// Calls that joined, and calls that did not and never will.
    pub(super) joined: AtomicUsize,
    pub(super) refused: AtomicUsize,
    /// Members that are in.
    pub(super) live: AtomicUsize,
    /// Stallers that are in.
    pub(super) stalling: AtomicUsize,
    /// Deliveries, whatever the phase.
    pub(super) heard: AtomicU64,
    pub(super) last_join: AtomicU64,
    /// Whether all its members have heard all that was said.
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
            said: (0..plan.publishers).map(|_| AtomicU32::new(0)).collect(),
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

    /// Begins a phase, and says when.
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

    /// A count, of all loops.
    pub(super) fn sum(&self, count: impl Fn(&Progress) -> &AtomicUsize) -> usize {
        self.progress.iter().map(|progress| count(progress).load(Ordering::Relaxed)).sum()
    }

    /// Calls about which it is known whether they joined.
    pub(super) fn settled(&self) -> usize {
        self.sum(|progress| &progress.joined) + self.sum(|progress| &progress.refused)
    }

    /// Deliveries so far.
    pub(super) fn heard(&self) -> u64 {
        self.progress.iter().map(|progress| progress.heard.load(Ordering::Relaxed)).sum()
    }
}
