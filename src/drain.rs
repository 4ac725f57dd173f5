//! The state of a graceful shutdown: its phase, its cause, and its deadlines.
//!
//! ```text
//! Serving ──start──▶ Notice ──notice over or skipped──▶ Ending ──all connections ended──▶ Closing
//!    ▲──────cancel─────┘
//! ```
//!
//! Guarantees: phases only advance, except that [`Drain::cancel`] returns from the notice to serving. Deliberately does not
//! act: the server ends connections and transports, phase by phase.

use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The length of each phase. Defaults and their reasons are in [`crate::config`].
#[derive(Clone, Copy, Debug)]
pub struct DrainTimes {
    /// From `NOT_SERVING` to the close of the listener. Balancers poll health only now and then.
    pub notice: Duration,
    /// The time over which disconnects are spread.
    pub spread: Duration,
    /// From the start of the drain to the forced close of everything left.
    pub deadline: Duration,
}

/// A phase of the drain, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// There is no drain.
    Serving,
    /// Health reports `NOT_SERVING`. Everything else continues, and the drain can be cancelled.
    Notice,
    /// The listener is closed. Connections are ended, the oldest first.
    Ending,
    /// All connections were ended. Whatever is left at the deadline is closed.
    Closing,
}

impl Phase {
    /// The value of the metric: 0 to 3.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// The cause of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal from the process's supervisor, which waits for the exit and then kills.
    Signal,
    /// Ctrl-C at the terminal that started the process. Like a signal, but there may be no balancer.
    Interrupt,
    /// An operator, who may cancel it.
    Operator,
}

/// The state of the drain at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainStatus {
    /// The phase.
    pub phase: Phase,
    /// The start of the drain, if there is one.
    pub started: Option<DrainStart>,
}

/// When a drain started, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainStart {
    /// The time of the start.
    pub at: SystemTime,
    began: Instant,
    cause: Cause,
    /// The length of the notice: [`DrainTimes::notice`], or zero once skipped.
    notice: Duration,
}

/// A drain cannot be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CancelDrainError {
    /// There is no drain.
    #[error("the server is not draining")]
    NotDraining,
    /// A signal started the drain: its sender expects the exit, and would kill the process.
    #[error("the drain was asked for by a signal: its sender waits for the end of the process")]
    Signalled,
    /// The listener is closed, and connections are being ended.
    #[error("connections are being ended: it is too late to stay")]
    TooLate,
}

/// The drain of a server. Clones share one state.
#[derive(Clone)]
pub struct Drain {
    times: DrainTimes,
    status: Arc<watch::Sender<DrainStatus>>,
}

const SERVING: DrainStatus = DrainStatus { phase: Phase::Serving, started: None };

impl Drain {
    /// The state of a server without a drain.
    #[must_use]
    pub fn new(times: DrainTimes) -> Self {
        Self { times, status: Arc::new(watch::Sender::new(SERVING)) }
    }

    /// The length of its phases.
    #[must_use]
    pub fn times(&self) -> DrainTimes {
        self.times
    }

    /// The current state.
    #[must_use]
    pub fn status(&self) -> DrainStatus {
        *self.status.borrow()
    }

    /// Starts the drain. If one runs it continues unchanged, except that after a signal it can no longer be cancelled.
    pub fn start(&self, cause: Cause) -> DrainStatus {
        self.status.send_if_modified(|status| match &mut status.started {
            None => {
                let started = DrainStart {
                    at: SystemTime::now(),
                    began: Instant::now(),
                    cause,
                    notice: self.times.notice,
                };
                *status = DrainStatus { phase: Phase::Notice, started: Some(started) };
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

    /// Ends the notice now if the drain was started, or taken over, by [`Cause::Interrupt`]; else changes nothing. For a
    /// server without connections, where the notice would only make the person at the terminal wait.
    pub fn skip_notice(&self) {
        self.status.send_if_modified(|status| match &mut status.started {
            Some(started) if started.cause == Cause::Interrupt && status.phase == Phase::Notice => {
                !std::mem::replace(&mut started.notice, Duration::ZERO).is_zero()
            }
            _ => false,
        });
    }

    /// Returns from the notice to serving.
    ///
    /// # Errors
    /// [`CancelDrainError`]; nothing has changed then.
    pub fn cancel(&self) -> Result<DrainStatus, CancelDrainError> {
        let mut refused = None;
        self.status.send_if_modified(|status| {
            refused = match (status.phase, status.started.map(|started| started.cause)) {
                (Phase::Serving, _) => Some(CancelDrainError::NotDraining),
                (Phase::Notice, Some(Cause::Operator) | None) => None,
                (Phase::Notice, Some(Cause::Signal | Cause::Interrupt)) => Some(CancelDrainError::Signalled),
                (Phase::Ending | Phase::Closing, _) => Some(CancelDrainError::TooLate),
            };
            if refused.is_none() {
                *status = SERVING;
            }
            refused.is_none()
        });
        refused.map_or_else(|| Ok(self.status()), Err)
    }

    /// When the last connection is ended.
    #[must_use]
    pub fn spread_end(&self, started: &DrainStart) -> Instant {
        started.began + started.notice + self.times.spread
    }

    /// When everything left is closed.
    #[must_use]
    pub fn forced_close(&self, started: &DrainStart) -> Instant {
        started.began + self.times.deadline
    }

    /// The time until everything left is closed, if there is a drain.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let started = self.status().started?;
        Some(self.forced_close(&started).saturating_duration_since(Instant::now()))
    }

    /// The same as wall-clock time, if `status` has a drain.
    #[must_use]
    pub fn deadline(&self, status: &DrainStatus) -> Option<SystemTime> {
        status.started.map(|started| started.at + self.times.deadline)
    }

    /// Waits for a drain whose notice is over, and advances it to [`Phase::Ending`]. For one caller: the one that then ends
    /// connections.
    pub async fn finish_notice(&self) -> DrainStart {
        let mut changes = self.status.subscribe();
        loop {
            let Some(started) = changes.borrow_and_update().started else {
                // `self` owns the sender, so there is always a next change.
                let _ = changes.changed().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(started.began + started.notice) => {}
                _ = changes.changed() => continue,
            }
            // Unless the drain was cancelled, and another one started, in the meantime.
            if self.advance(Phase::Ending, |now| now.started.is_some_and(|now| now.began == started.began)) {
                return started;
            }
        }
    }

    /// Advances from [`Phase::Ending`] to [`Phase::Closing`].
    pub fn begin_closing(&self) {
        self.advance(Phase::Closing, |now| now.phase == Phase::Ending);
    }

    fn advance(&self, to: Phase, from: impl FnOnce(&DrainStatus) -> bool) -> bool {
        self.status.send_if_modified(|status| {
            let allowed = from(status);
            if allowed {
                status.phase = to;
            }
            allowed
        })
    }

    /// Waits until the drain is in this phase, or a later one.
    pub async fn wait_for(&self, phase: Phase) {
        let mut changes = self.status.subscribe();
        // `self` owns the sender: this cannot fail.
        let _ = changes.wait_for(|status| status.phase >= phase).await;
    }

    /// Calls `on_phase` with the current phase, and again at each change of phase or cause. Never returns.
    pub async fn watch<T>(&self, mut on_phase: impl FnMut(Phase)) -> T {
        let mut changes = self.status.subscribe();
        loop {
            let phase = changes.borrow_and_update().phase;
            on_phase(phase);
            // `self` owns the sender: this cannot fail.
            let _ = changes.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn drain() -> Drain {
        Drain::new(DrainTimes { notice: 5 * SECOND, spread: 10 * SECOND, deadline: 25 * SECOND })
    }

    #[tokio::test(start_paused = true)]
    async fn notice_precedes_ending() {
        let drain = drain();
        let began = Instant::now();
        assert_eq!(drain.start(Cause::Signal).phase, Phase::Notice);
        let started = drain.finish_notice().await;
        assert_eq!((began.elapsed(), drain.status().phase), (5 * SECOND, Phase::Ending));
        assert_eq!(drain.spread_end(&started) - began, 15 * SECOND);
        assert_eq!(drain.forced_close(&started) - began, 25 * SECOND);
        drain.begin_closing();
        assert_eq!(drain.status().phase, Phase::Closing);
    }

    #[tokio::test(start_paused = true)]
    async fn second_start_changes_only_the_cause() {
        let drain = drain();
        let first = drain.start(Cause::Operator);
        tokio::time::advance(SECOND).await;
        assert_eq!(drain.start(Cause::Operator), first);
        let signalled = drain.start(Cause::Signal);
        assert_eq!(signalled.started.map(|s| s.at), first.started.map(|s| s.at));
        assert_eq!(drain.cancel(), Err(CancelDrainError::Signalled));
    }

    #[tokio::test(start_paused = true)]
    async fn only_interrupt_skips_notice() {
        for (causes, skips) in [
            (vec![Cause::Interrupt], true),
            (vec![Cause::Operator, Cause::Interrupt], true),
            (vec![Cause::Signal], false),
            (vec![Cause::Operator], false),
            (vec![Cause::Signal, Cause::Interrupt], false),
        ] {
            let drain = drain();
            let began = Instant::now();
            // Without a drain there is no notice to skip.
            drain.skip_notice();
            for cause in &causes {
                drain.start(*cause);
            }
            let waiting = tokio::spawn({
                let drain = drain.clone();
                async move { drain.finish_notice().await }
            });
            tokio::task::yield_now().await;
            drain.skip_notice();
            waiting.await.unwrap();
            assert_eq!(began.elapsed() < SECOND, skips, "{causes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_drain_ends_nothing_and_next_has_full_notice() {
        let drain = drain();
        assert_eq!(drain.cancel(), Err(CancelDrainError::NotDraining));
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.finish_notice().await }
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
        assert_eq!(drain.cancel(), Err(CancelDrainError::TooLate));
    }
}
