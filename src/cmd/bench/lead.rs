//! A run from its first connect to its last delivery: when each phase begins, and what is looked at between them.
//!
//! Promises that no phase lasts longer than it may, whatever the server does.

use super::control::{Control, Phase};
use super::event_loop::{EventLoop, Outcome};
use super::plan::Plan;
use super::process::{Usage, Watched};
use super::verdict::Result;
use anyhow::{Context as _, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often it is looked whether a phase is over.
const LOOK: Duration = Duration::from_millis(5);

/// How long nobody may connect or join while others are still to come.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);

/// How long nothing may be heard while something is still to come, and how long that may go on in all.
const DRAIN_QUIET: Duration = Duration::from_secs(2);
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// How long what others are still to hear of a call that broke may take.
const SETTLE: Duration = Duration::from_millis(200);

/// How long those that did not read are read at most: TCP may take seconds to resend what found no room, and the end of
/// the call is behind it.
const LOOK_AT_STALLERS: Duration = Duration::from_secs(6);

/// What was found out.
pub(super) struct Findings {
    pub(super) result: Result,
    /// When measuring began.
    pub(super) began: SystemTime,
    pub(super) measured: Duration,
    pub(super) server: Option<Server>,
    /// CPU time of this process while measuring.
    pub(super) own_cpu: u64,
}

/// What the server's process cost.
pub(super) struct Server {
    pub(super) rss_before: u64,
    pub(super) rss_joined: u64,
    pub(super) rss_end: Option<u64>,
    /// While measuring, in nanoseconds; none if it ended before.
    pub(super) cpu: Option<u64>,
    pub(super) threads: usize,
}

/// Plays the run.
pub(super) fn run(plan: &Plan, watched: Option<Watched>) -> anyhow::Result<Findings> {
    let control = Control::new(plan);
    let loops = (0..usize::from(plan.threads)).map(|number| EventLoop::new(plan, &control, number));
    let loops: Vec<_> = loops.collect::<anyhow::Result<_>>().context("cannot set up an event loop")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::scope(|scope| {
        // The first error ends the others too.
        let ending =
            |event_loop: EventLoop<'_>| event_loop.run().inspect_err(|_| _ = control.enter(Phase::Over));
        let loops: Vec<_> = loops.into_iter().map(|each| scope.spawn(move || ending(each))).collect();
        let led = runtime.block_on(async { Leader::new(plan, &control, watched)?.lead().await });
        control.enter(Phase::Over);
        let outcomes =
            loops.into_iter().map(|each| each.join().unwrap_or_else(|_| Err(anyhow!("a loop panicked"))));
        let outcomes: Vec<Outcome> = outcomes.collect::<anyhow::Result<_>>()?;
        let Led { began, measured, server, own_cpu } = led?;
        Ok(Findings { result: Result::of(plan, &control, outcomes)?, began, measured, server, own_cpu })
    })
}

struct Leader<'a> {
    plan: &'a Plan,
    control: &'a Control,
    watched: Option<Watched>,
    myself: Watched,
    interrupt: Signal,
    bar: ProgressBar,
}

/// What the leader has found out by itself; see [`Findings`].
struct Led {
    began: SystemTime,
    measured: Duration,
    server: Option<Server>,
    own_cpu: u64,
}

/// Whether a phase came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Went {
    On,
    /// By Ctrl-C, or because nobody is left.
    Short,
}

impl<'a> Leader<'a> {
    fn new(plan: &'a Plan, control: &'a Control, watched: Option<Watched>) -> anyhow::Result<Self> {
        // Its own target is stderr, and it is silent unless that is a terminal.
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{msg:<10} {wide_bar} {pos}/{len}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
        Ok(Self { plan, control, watched, myself: Watched::myself()?, interrupt, bar })
    }

    async fn lead(mut self) -> anyhow::Result<Led> {
        let rss = |leader: &Self| leader.watched.as_ref().map(Watched::rss).transpose();
        let rss_before = rss(&self)?;
        let mut went = self.join().await;
        self.control.enter(Phase::Idle);
        if went == Went::On {
            went = self.wait("idle", self.plan.idle).await;
        }
        let rss_joined = rss(&self)?;
        let mut led = Led { began: SystemTime::now(), measured: Duration::ZERO, server: None, own_cpu: 0 };
        let mut cpu = None;
        if went == Went::On && self.plan.publishers > 0 {
            self.control.enter(Phase::Warmup);
            if self.wait("warm-up", self.plan.warmup).await == Went::On {
                cpu = self.measure(&mut led).await?;
            }
            self.control.enter(Phase::Drain);
            self.drain().await;
        }
        let threads = self.usage().map_or(0, |usage| usage.threads());
        let rss_end = rss(&self).ok().flatten();
        if self.plan.stall > 0 {
            self.control.enter(Phase::Look);
            self.look_at_stallers().await;
        }
        led.server = rss_before.zip(rss_joined).map(|(rss_before, rss_joined)| Server {
            rss_before,
            rss_joined,
            rss_end,
            cpu,
            threads,
        });
        self.bar.finish_and_clear();
        Ok(led)
    }

    /// Waits until it is known of every call whether it joined.
    async fn join(&mut self) -> Went {
        let all = self.plan.calls() as usize;
        let patience = JOIN_PATIENCE + self.plan.ramp / all as u32;
        // Who is in may be known only when all are connected; a connection whose first packet is lost takes seconds.
        let (mut settled, mut open, mut since) = (0, 0, Instant::now());
        self.begin("connecting", all as u64);
        while settled < all && since.elapsed() < patience {
            if self.pause().await == Went::Short {
                return Went::Short;
            }
            let now = (self.control.settled(), self.control.sum(|progress| &progress.opened));
            if now != (settled, open) {
                ((settled, open), since) = (now, Instant::now());
            }
            self.bar.set_position(settled as u64);
        }
        if self.live() == 0 { Went::Short } else { Went::On }
    }

    async fn measure(&mut self, led: &mut Led) -> anyhow::Result<Option<u64>> {
        let (server, own) = (self.usage(), self.myself.usage()?);
        let from = self.control.enter(Phase::Measure);
        led.began = SystemTime::now();
        self.wait("measuring", self.plan.duration).await;
        let (server_then, own_then) = (self.usage(), self.myself.usage()?);
        let to = self.control.now();
        led.measured = Duration::from_nanos(to - from);
        led.own_cpu = own_then.since(&own);
        Ok(server_then.zip(server).map(|(then, before)| then.since(&before)))
    }

    /// What the server has used; none if it is not watched, or gone.
    fn usage(&self) -> Option<Usage> {
        self.watched.as_ref().and_then(|watched| watched.usage().ok())
    }

    /// Waits until everyone has heard everything, as long as somebody hears something.
    async fn drain(&mut self) {
        let (began, mut heard, mut since) = (Instant::now(), self.control.heard(), Instant::now());
        self.begin("draining", 1);
        while began.elapsed() < DRAIN_PATIENCE && since.elapsed() < DRAIN_QUIET && self.live() > 0 {
            if self.pause().await == Went::Short {
                return;
            }
            let now = self.control.heard();
            if now != heard {
                (heard, since) = (now, Instant::now());
            }
            // Whether a call broke or not: nothing may still be under way, not even twice.
            let drained =
                self.control.progress.iter().all(|progress| progress.drained.load(Ordering::Relaxed));
            if drained && since.elapsed() > SETTLE {
                return;
            }
        }
    }

    /// Waits until it is known of all stallers that the server has ended them, or long enough.
    async fn look_at_stallers(&mut self) {
        let began = Instant::now();
        self.begin("stalled", self.plan.stall.into());
        let stalling = || self.control.sum(|progress| &progress.stalling);
        while began.elapsed() < LOOK_AT_STALLERS && stalling() > 0 {
            if self.pause().await == Went::Short {
                return;
            }
        }
    }

    /// Lets time pass; less of it when nobody is left.
    async fn wait(&mut self, what: &'static str, time: Duration) -> Went {
        let began = Instant::now();
        self.begin(what, time.as_secs());
        while let Some(left) = time.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
            if self.live() == 0 {
                return Went::Short;
            }
            tokio::select! {
                _ = self.interrupt.recv() => return Went::Short,
                () = tokio::time::sleep(left.min(10 * LOOK)) => {}
            }
            self.bar.set_position(began.elapsed().as_secs());
        }
        Went::On
    }

    async fn pause(&mut self) -> Went {
        tokio::select! {
            _ = self.interrupt.recv() => Went::Short,
            () = tokio::time::sleep(LOOK) => Went::On,
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
