//! The staged way out: in which stage a server is, who sent it there, and until when.
//!
//! ```text
//! Serving ──start──▶ Notice ──its time is over, or it is skipped──▶ Ending ──everyone was told──▶ Closing
//!    ▲──────cancel─────┘
//! ```
//!
//! A state and its clock. What is ended in which stage the server knows; how a connection ends, the hub.

use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long each stage takes. Defaults and their reasons are in [`crate::config`].
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    /// Between saying that the server takes no more work and acting like it: balancers look only now and then.
    pub notice: Duration,
    /// Over which the ends of the connections are spread.
    pub spread: Duration,
    /// From the start of the drain to the close of whatever is left.
    pub deadline: Duration,
}

/// A stage, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// There is no drain.
    Serving,
    /// Health says `NOT_SERVING`; everything else goes on, and the drain can be cancelled.
    Notice,
    /// Nobody is taken in any more; connections are ended, the oldest first.
    Ending,
    /// Everyone has been told; what has not gone by the deadline is closed.
    Closing,
}

impl Phase {
    /// The number that the metric shows: 0 to 3.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// Who wants the server to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Whoever supervises the process: it waits for the exit, and kills if there is none.
    Signal,
    /// A person at the terminal that the process was started from: as a signal, but there may be no balancer.
    Interrupt,
    /// An operator, who may think again.
    Operator,
}

/// A drain as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// In which stage.
    pub phase: Phase,
    /// Since when and for whom, if there is a drain.
    pub started: Option<Started>,
}

/// When a drain began, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// By the clock on the wall.
    pub at: SystemTime,
    began: Instant,
    cause: Cause,
    /// How long the notice takes: its stage's time, or none.
    notice: Duration,
}

/// Why a drain could not be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCancelled {
    /// There is none.
    #[error("the server is not draining")]
    NotDraining,
    /// Whoever sent the signal expects the process to end, and would kill it.
    #[error("the drain was asked for by a signal: its sender waits for the end of the process")]
    Signalled,
    /// Connections have been ended, and the listener is closed.
    #[error("connections are being ended: it is too late to stay")]
    TooLate,
}

/// A server's drain, or the lack of it. Clones are handles to the same.
#[derive(Clone)]
pub struct Drain {
    stages: Stages,
    status: Arc<watch::Sender<Status>>,
}

const SERVING: Status = Status { phase: Phase::Serving, started: None };

impl Drain {
    /// A server that serves.
    #[must_use]
    pub fn new(stages: Stages) -> Self {
        Self { stages, status: Arc::new(watch::Sender::new(SERVING)) }
    }

    /// How long its stages take.
    #[must_use]
    pub fn stages(&self) -> Stages {
        self.stages
    }

    /// The drain as it is now.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Starts the drain. One that runs goes on as it is, but a signal takes away the way back.
    pub fn start(&self, cause: Cause) -> Status {
        self.status.send_if_modified(|status| match &mut status.started {
            None => {
                let (at, began, notice) = (SystemTime::now(), Instant::now(), self.stages.notice);
                let started = Started { at, began, cause, notice };
                *status = Status { phase: Phase::Notice, started: Some(started) };
                true
            }
            Some(started) => {
                let takes_over = cause != Cause::Operator && started.cause == Cause::Operator;
                if takes_over {
                    started.cause = cause;
                }
                takes_over
            }
        });
        self.status()
    }

    /// Ends the notice now if a person at the terminal started the drain or took it over; else changes nothing. For a
    /// server without connections: then the notice would only make that person wait.
    pub fn skip_notice(&self) {
        self.status.send_if_modified(|status| match &mut status.started {
            Some(started) if started.cause == Cause::Interrupt && status.phase == Phase::Notice => {
                !std::mem::replace(&mut started.notice, Duration::ZERO).is_zero()
            }
            _ => false,
        });
    }

    /// Goes back to serving, as long as nobody has been ended.
    ///
    /// # Errors
    /// [`NotCancelled`], and nothing is changed.
    pub fn cancel(&self) -> Result<Status, NotCancelled> {
        let mut refused = None;
        self.status.send_if_modified(|status| {
            refused = match (status.phase, status.started.map(|started| started.cause)) {
                (Phase::Serving, _) => Some(NotCancelled::NotDraining),
                (Phase::Notice, Some(Cause::Operator) | None) => None,
                (Phase::Notice, Some(Cause::Signal | Cause::Interrupt)) => Some(NotCancelled::Signalled),
                (Phase::Ending | Phase::Closing, _) => Some(NotCancelled::TooLate),
            };
            if refused.is_none() {
                *status = SERVING;
            }
            refused.is_none()
        });
        refused.map_or_else(|| Ok(self.status()), Err)
    }

    /// When the spread of the ends is over, and when whatever is left is closed.
    #[must_use]
    pub fn times(&self, started: &Started) -> (Instant, Instant) {
        let Stages { spread, deadline, .. } = self.stages;
        (started.began + started.notice + spread, started.began + deadline)
    }

    /// How long until the deadline, if there is a drain.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let started = self.status().started?;
        Some(self.times(&started).1.saturating_duration_since(Instant::now()))
    }

    /// When a drain closes whatever is left, by the clock on the wall.
    #[must_use]
    pub fn deadline(&self, status: &Status) -> Option<SystemTime> {
        status.started.map(|started| started.at + self.stages.deadline)
    }

    /// Waits for a drain whose notice is over, and has it go on to [`Phase::Ending`]. For one caller: whoever then acts.
    pub async fn noticed(&self) -> Started {
        let mut changes = self.status.subscribe();
        loop {
            let Some(started) = changes.borrow_and_update().started else {
                // The sender is ours: there always is a next change to wait for.
                let _ = changes.changed().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(started.began + started.notice) => {}
                _ = changes.changed() => continue,
            }
            // Not one that was cancelled and started anew meanwhile.
            if self.advance(Phase::Ending, |now| now.started.is_some_and(|now| now.began == started.began)) {
                return started;
            }
        }
    }

    /// Says that everyone has been told.
    pub fn close(&self) {
        self.advance(Phase::Closing, |now| now.phase == Phase::Ending);
    }

    fn advance(&self, to: Phase, from: impl FnOnce(&Status) -> bool) -> bool {
        self.status.send_if_modified(|status| {
            let may = from(status);
            if may {
                status.phase = to;
            }
            may
        })
    }

    /// Waits until the drain is in this phase, or a later one.
    pub async fn reaches(&self, phase: Phase) {
        let mut changes = self.status.subscribe();
        // The sender is ours: this cannot fail.
        let _ = changes.wait_for(|status| status.phase >= phase).await;
    }

    /// Calls back with the phase now, and at each change of phase or cause, for ever.
    pub async fn follow<T>(&self, mut tell: impl FnMut(Phase)) -> T {
        let mut changes = self.status.subscribe();
        loop {
            let phase = changes.borrow_and_update().phase;
            tell(phase);
            // The sender is ours: this cannot fail.
            let _ = changes.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn drain() -> Drain {
        Drain::new(Stages { notice: 5 * SECOND, spread: 10 * SECOND, deadline: 25 * SECOND })
    }

    #[tokio::test(start_paused = true)]
    async fn the_notice_takes_its_time_and_comes_before_the_ends() {
        let drain = drain();
        let began = Instant::now();
        assert_eq!(drain.start(Cause::Signal).phase, Phase::Notice);
        let started = drain.noticed().await;
        assert_eq!((began.elapsed(), drain.status().phase), (5 * SECOND, Phase::Ending));
        let (ends, deadline) = drain.times(&started);
        assert_eq!((ends - began, deadline - began), (15 * SECOND, 25 * SECOND));
        drain.close();
        assert_eq!(drain.status().phase, Phase::Closing);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_start_changes_nothing_but_who_waits() {
        let drain = drain();
        let first = drain.start(Cause::Operator);
        tokio::time::advance(SECOND).await;
        assert_eq!(drain.start(Cause::Operator), first);
        let signalled = drain.start(Cause::Signal);
        assert_eq!(signalled.started.map(|s| s.at), first.started.map(|s| s.at));
        assert_eq!(drain.cancel(), Err(NotCancelled::Signalled));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_drain_from_the_terminal_skips_its_notice() {
        for (causes, skips) in [
            (vec![Cause::Interrupt], true),
            (vec![Cause::Operator, Cause::Interrupt], true),
            (vec![Cause::Signal], false),
            (vec![Cause::Operator], false),
            (vec![Cause::Signal, Cause::Interrupt], false),
        ] {
            let (drain, began) = (drain(), Instant::now());
            // Without a drain there is no notice to skip.
            drain.skip_notice();
            for cause in &causes {
                drain.start(*cause);
            }
            let waiting = tokio::spawn({
                let drain = drain.clone();
                async move { drain.noticed().await }
            });
            tokio::task::yield_now().await;
            drain.skip_notice();
            waiting.await.unwrap();
            assert_eq!(began.elapsed() < SECOND, skips, "{causes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_drain_ends_nothing_and_the_next_has_its_full_notice() {
        let drain = drain();
        assert_eq!(drain.cancel(), Err(NotCancelled::NotDraining));
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.noticed().await }
        });
        drain.start(Cause::Operator);
        tokio::time::sleep(4 * SECOND).await;
        assert_eq!(drain.cancel(), Ok(SERVING));
        tokio::time::sleep(60 * SECOND).await;
        assert!(!waiting.is_finished());
        let again = Instant::now();
        drain.start(Cause::Operator);
        waiting.await.unwrap();
        assert_eq!(again.elapsed(), 5 * SECOND);
        assert_eq!(drain.cancel(), Err(NotCancelled::TooLate));
    }
}
