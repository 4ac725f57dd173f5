//! Takes a run through its phases, from the first connect to the last delivery, and measures in between.
//!
//! Every phase has a time limit, whatever the server does.

use super::control::{Control, Phase};
use super::event_loop::{EventLoop, Outcome};
use super::plan::Plan;
use super::process_monitor::{ProcessMonitor, Usage};
use super::verdict::Verdict;
use anyhow::{Context as _, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often to check whether a phase is over.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How long to wait for further connections without any progress.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for outstanding deliveries without any progress, and in total.
const DRAIN_QUIET: Duration = Duration::from_secs(2);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait for messages of a broken call that others may still receive.
const SETTLE: Duration = Duration::from_millis(200);

/// How long to read from stallers: TCP may take seconds to resend what did not fit, and the call's end follows it.
const INSPECT_STALLERS: Duration = Duration::from_secs(6);

/// The results of a run.
pub(super) struct RunResult {
    pub(super) verdict: Verdict,
    /// Start of the measurement.
    pub(super) began: SystemTime,
    pub(super) measured: Duration,
    pub(super) server: Option<ServerCost>,
    /// CPU time of this process during the measurement.
    pub(super) own_cpu: u64,
}

/// Resources used by the server's process.
pub(super) struct ServerCost {
    pub(super) rss_before: u64,
    pub(super) rss_joined: u64,
    pub(super) rss_end: Option<u64>,
    /// During the measurement, in nanoseconds; `None` if the process ended.
    pub(super) cpu: Option<u64>,
    pub(super) threads: usize,
}

/// Executes the plan.
pub(super) fn run(plan: &Plan, monitor: Option<ProcessMonitor>) -> anyhow::Result<RunResult> {
    let control = Control::new(plan);
    let loops = (0..usize::from(plan.threads)).map(|number| EventLoop::new(plan, &control, number));
    let loops: Vec<_> = loops.collect::<anyhow::Result<_>>().context("cannot set up an event loop")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::scope(|scope| {
        // An error in one loop ends the others too.
        let ending =
            |event_loop: EventLoop<'_>| event_loop.run().inspect_err(|_| _ = control.enter(Phase::Done));
        let loops: Vec<_> = loops.into_iter().map(|each| scope.spawn(move || ending(each))).collect();
        let measurement = runtime.block_on(async { Coordinator::new(plan, &control, monitor)?.run().await });
        control.enter(Phase::Done);
        let outcomes =
            loops.into_iter().map(|each| each.join().unwrap_or_else(|_| Err(anyhow!("a loop panicked"))));
        let outcomes: Vec<Outcome> = outcomes.collect::<anyhow::Result<_>>()?;
        let Measurement { began, measured, server, own_cpu } = measurement?;
        Ok(RunResult { verdict: Verdict::of(plan, &control, outcomes)?, began, measured, server, own_cpu })
    })
}

struct Coordinator<'a> {
    plan: &'a Plan,
    control: &'a Control,
    monitor: Option<ProcessMonitor>,
    own: ProcessMonitor,
    interrupt: Signal,
    bar: ProgressBar,
}

/// The coordinator's own measurements; see [`RunResult`].
struct Measurement {
    began: SystemTime,
    measured: Duration,
    server: Option<ServerCost>,
    own_cpu: u64,
}

/// How a phase ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PhaseEnd {
    Completed,
    /// By Ctrl-C, or because no connection is left.
    Interrupted,
}

impl<'a> Coordinator<'a> {
    fn new(plan: &'a Plan, control: &'a Control, monitor: Option<ProcessMonitor>) -> anyhow::Result<Self> {
        // The bar draws to stderr, and only if that is a terminal.
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{msg:<10} {wide_bar} {pos}/{len}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
        Ok(Self { plan, control, monitor, own: ProcessMonitor::myself()?, interrupt, bar })
    }

    async fn run(mut self) -> anyhow::Result<Measurement> {
        let rss = |coordinator: &Self| coordinator.monitor.as_ref().map(ProcessMonitor::rss).transpose();
        let rss_before = rss(&self)?;
        let mut end = self.join().await;
        self.control.enter(Phase::Idle);
        if end == PhaseEnd::Completed {
            end = self.wait("idle", self.plan.idle).await;
        }
        let rss_joined = rss(&self)?;
        let mut measurement =
            Measurement { began: SystemTime::now(), measured: Duration::ZERO, server: None, own_cpu: 0 };
        let mut cpu = None;
        if end == PhaseEnd::Completed && self.plan.publishers > 0 {
            self.control.enter(Phase::Warmup);
            if self.wait("warm-up", self.plan.warmup).await == PhaseEnd::Completed {
                cpu = self.measure(&mut measurement).await?;
            }
            self.control.enter(Phase::Drain);
            self.drain().await;
        }
        let threads = self.usage().map_or(0, |usage| usage.threads());
        let rss_end = rss(&self).ok().flatten();
        if self.plan.stall > 0 {
            self.control.enter(Phase::InspectStallers);
            self.inspect_stallers().await;
        }
        measurement.server = rss_before.zip(rss_joined).map(|(rss_before, rss_joined)| ServerCost {
            rss_before,
            rss_joined,
            rss_end,
            cpu,
            threads,
        });
        self.bar.finish_and_clear();
        Ok(measurement)
    }

    /// Waits until every call has joined or failed.
    async fn join(&mut self) -> PhaseEnd {
        let all = self.plan.calls() as usize;
        let patience = JOIN_TIMEOUT + self.plan.ramp / all as u32;
        // Joins may become known only when all are connected, and a connection that loses its first packet takes seconds.
        let mut settled = 0;
        let mut open = 0;
        let mut since = Instant::now();
        self.begin("connecting", all as u64);
        while settled < all && since.elapsed() < patience {
            if self.pause().await == PhaseEnd::Interrupted {
                return PhaseEnd::Interrupted;
            }
            let now = (self.control.settled(), self.control.sum(|progress| &progress.opened));
            if now != (settled, open) {
                ((settled, open), since) = (now, Instant::now());
            }
            self.bar.set_position(settled as u64);
        }
        if self.live() == 0 { PhaseEnd::Interrupted } else { PhaseEnd::Completed }
    }

    async fn measure(&mut self, measurement: &mut Measurement) -> anyhow::Result<Option<u64>> {
        let server = self.usage();
        let own = self.own.usage()?;
        let from = self.control.enter(Phase::Measure);
        measurement.began = SystemTime::now();
        self.wait("measuring", self.plan.duration).await;
        let server_then = self.usage();
        let own_then = self.own.usage()?;
        let to = self.control.now();
        measurement.measured = Duration::from_nanos(to - from);
        measurement.own_cpu = own_then.since(&own);
        Ok(server_then.zip(server).map(|(then, before)| then.since(&before)))
    }

    /// The server's usage; `None` if it is not monitored or has ended.
    fn usage(&self) -> Option<Usage> {
        self.monitor.as_ref().and_then(|monitor| monitor.usage().ok())
    }

    /// Waits until every member has received everything, as long as there is progress.
    async fn drain(&mut self) {
        let began = Instant::now();
        let mut received = self.control.received();
        let mut since = Instant::now();
        self.begin("draining", 1);
        while began.elapsed() < DRAIN_TIMEOUT && since.elapsed() < DRAIN_QUIET && self.live() > 0 {
            if self.pause().await == PhaseEnd::Interrupted {
                return;
            }
            let now = self.control.received();
            if now != received {
                (received, since) = (now, Instant::now());
            }
            // Also after a broken call: late or duplicate deliveries must have arrived.
            let drained =
                self.control.progress.iter().all(|progress| progress.drained.load(Ordering::Relaxed));
            if drained && since.elapsed() > SETTLE {
                return;
            }
        }
    }

    /// Waits until the server has ended all stallers, or for `INSPECT_STALLERS`.
    async fn inspect_stallers(&mut self) {
        let began = Instant::now();
        self.begin("stalled", self.plan.stall.into());
        let stalling = || self.control.sum(|progress| &progress.stalling);
        while began.elapsed() < INSPECT_STALLERS && stalling() > 0 {
            if self.pause().await == PhaseEnd::Interrupted {
                return;
            }
        }
    }

    /// Waits for `time`; returns early if no connection is left.
    async fn wait(&mut self, what: &'static str, time: Duration) -> PhaseEnd {
        let began = Instant::now();
        self.begin(what, time.as_secs());
        while let Some(left) = time.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
            if self.live() == 0 {
                return PhaseEnd::Interrupted;
            }
            tokio::select! {
                _ = self.interrupt.recv() => return PhaseEnd::Interrupted,
                () = tokio::time::sleep(left.min(10 * POLL_INTERVAL)) => {}
            }
            self.bar.set_position(began.elapsed().as_secs());
        }
        PhaseEnd::Completed
    }

    async fn pause(&mut self) -> PhaseEnd {
        tokio::select! {
            _ = self.interrupt.recv() => PhaseEnd::Interrupted,
            () = tokio::time::sleep(POLL_INTERVAL) => PhaseEnd::Completed,
        }
    }

    fn live(&self) -> usize {
        self.control.sum(|progress| &progress.live)
    }

    fn begin(&self, what: &'static str, length: u64) {
        self.bar.set_message(what);
        self.bar.set_length(length);
        self.bar.set_position(0);
    }
}
