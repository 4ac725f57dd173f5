//! A rate limit for log lines, by callsite: a burst, then a few lines a second; the rest is counted.
//!
//! Guarantees: a line `suppressed` reports the count of suppressed lines within about a second, also when the storm is over.
//! The memory is bounded by the program's callsites, whatever clients do. Debug and trace levels are not limited, as
//! operators enable them on purpose; nor are the modules, named by the caller, whose lines clients cannot cause.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::{self, Debug, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Lines of one callsite in a burst. A rollout that makes a thousand clients reconnect is logged in full.
const BURST: f64 = 1_000.0;
/// Lines a second of one callsite after its burst.
const RATE: f64 = 5.0;
/// The interval of reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Characters of a callsite's message in reports: some messages come from other crates.
const MESSAGE_MAX: usize = 80;

/// This module is not limited, so that reports are never suppressed.
const OWN_MODULE: &str = "chatroom::telemetry";

/// Limits the log lines of each callsite.
pub(super) struct LogRateLimiter {
    callsites: Mutex<HashMap<Identifier, Callsite>>,
    /// Modules without a limit.
    unlimited: &'static [&'static str],
}

/// The token bucket of one callsite, and the count of lines that got no token.
struct Callsite {
    /// The message of its first line.
    message: String,
    target: &'static str,
    tokens: f64,
    refilled: Instant,
    suppressed: u64,
}

/// A layer that gets only the events that the limiter admits. A wrapper and not a filter: a filter that rejects single events
/// leaves tracing-subscriber 0.3 in a state that it asserts never to be in.
pub(super) struct RateLimited<L> {
    pub(super) layer: L,
    pub(super) limiter: Arc<LogRateLimiter>,
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for RateLimited<L> {
    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        if self.limiter.admits(event) {
            self.layer.on_event(event, cx);
        }
    }
}

impl LogRateLimiter {
    pub(super) fn new(unlimited: &'static [&'static str]) -> Self {
        Self { callsites: Mutex::default(), unlimited }
    }

    /// Whether the event may become a line now.
    pub(super) fn admits(&self, event: &Event<'_>) -> bool {
        self.admits_at(event, Instant::now())
    }

    fn admits_at(&self, event: &Event<'_>, now: Instant) -> bool {
        let meta = event.metadata();
        if !self.is_limited(meta) {
            return true;
        }
        let mut callsites = self.callsites.lock();
        let callsite = callsites.entry(meta.callsite()).or_insert_with(|| Callsite {
            message: message_of(event),
            target: meta.target(),
            tokens: BURST,
            refilled: now,
            suppressed: 0,
        });
        callsite.take_token(now)
    }

    fn is_limited(&self, meta: &Metadata<'_>) -> bool {
        let mut unlimited = self.unlimited.iter().chain([&OWN_MODULE]);
        *meta.level() <= Level::INFO && !unlimited.any(|module| is_within(meta.target(), module))
    }

    /// Logs the counts of lines that were suppressed since the last report.
    pub(super) fn report(&self) {
        for (cause, of, count) in self.take_suppressed() {
            tracing::warn!(count, cause, of, "suppressed");
        }
    }

    fn take_suppressed(&self) -> Vec<(String, &'static str, u64)> {
        // Collected first: the report itself is logged, and takes the same lock.
        let mut callsites = self.callsites.lock();
        let suppressed = callsites.values_mut().filter(|callsite| callsite.suppressed > 0);
        suppressed.map(|c| (c.message.clone(), c.target, std::mem::take(&mut c.suppressed))).collect()
    }

    /// Reports at intervals, forever. Runs as a task of the control plane.
    pub(super) async fn run_reports(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.report();
        }
    }
}

impl Callsite {
    /// Takes a token, or counts the line as suppressed; returns whether there was one.
    fn take_token(&mut self, now: Instant) -> bool {
        // Two threads may arrive in another order than they read the clock.
        let passed = now.saturating_duration_since(self.refilled);
        self.tokens = (self.tokens + passed.as_secs_f64() * RATE).min(BURST);
        self.refilled = self.refilled.max(now);
        let admitted = self.tokens >= 1.0;
        if admitted {
            self.tokens -= 1.0;
        } else {
            self.suppressed += 1;
        }
        admitted
    }
}

/// Whether a target is the module, or below it.
fn is_within(target: &str, module: &str) -> bool {
    target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The event's message, shortened. It identifies the callsite to people.
fn message_of(event: &Event<'_>) -> String {
    let mut message = MessageVisitor(String::new());
    event.record(&mut message);
    message.0
}

struct MessageVisitor(String);

impl Visit for MessageVisitor {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // The writer never fails.
            let _ = write!(TruncatingWriter(&mut self.0), "{value:?}");
        }
    }
}

struct TruncatingWriter<'a>(&'a mut String);

impl fmt::Write for TruncatingWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = MESSAGE_MAX.saturating_sub(self.0.chars().count());
        self.0.extend(text.chars().take(left));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    /// Asks the limiter about each event, at the test's time, and counts the admitted ones.
    struct CountingLayer {
        limiter: Arc<LogRateLimiter>,
        now: Arc<Mutex<Instant>>,
        admitted: Arc<Mutex<u64>>,
    }

    impl<S: Subscriber> Layer<S> for CountingLayer {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let now = *self.now.lock();
            if self.limiter.admits_at(event, now) {
                *self.admitted.lock() += 1;
            }
        }
    }

    struct TestLimiter {
        limiter: Arc<LogRateLimiter>,
        now: Arc<Mutex<Instant>>,
        admitted: Arc<Mutex<u64>>,
        #[expect(dead_code, reason = "held for its drop")]
        in_force: tracing::subscriber::DefaultGuard,
        // After it, so that it is dropped later.
        #[expect(dead_code, reason = "held for its drop")]
        alone: parking_lot::MutexGuard<'static, ()>,
    }

    impl TestLimiter {
        fn new() -> Self {
            let alone = crate::telemetry::SUBSCRIBER_TESTS.lock();
            let limiter = Arc::new(LogRateLimiter::new(&["our::server", "our::operators"]));
            let now = Arc::new(Mutex::new(Instant::now()));
            let admitted = Arc::<Mutex<u64>>::default();
            let layer =
                CountingLayer { limiter: limiter.clone(), now: now.clone(), admitted: admitted.clone() };
            let subscriber = tracing_subscriber::registry().with(layer);
            let in_force = tracing::subscriber::set_default(subscriber);
            Self { limiter, now, admitted, in_force, alone }
        }

        fn pass(&self, time: Duration) {
            *self.now.lock() += time;
        }

        fn admitted(&self) -> u64 {
            std::mem::take(&mut *self.admitted.lock())
        }

        fn suppressed(&self) -> Vec<(String, u64)> {
            self.limiter.take_suppressed().into_iter().map(|(message, _, count)| (message, count)).collect()
        }
    }

    fn attack(times: u64) {
        for n in 0..times {
            tracing::info!(target: "elsewhere", n, "new user");
        }
    }

    #[test]
    fn burst_is_logged_and_excess_counted() {
        let test = TestLimiter::new();
        attack(1_300);
        assert_eq!(test.admitted(), 1_000);
        assert_eq!(test.suppressed(), [("new user".to_owned(), 300)]);
        assert_eq!(test.suppressed(), [], "each is reported once");
    }

    #[test]
    fn long_storm_gets_few_lines_a_second() {
        let test = TestLimiter::new();
        attack(1_000);
        test.admitted();
        for _ in 0..10 {
            test.pass(Duration::from_secs(1));
            attack(500);
        }
        assert_eq!(test.admitted(), 50);
        assert_eq!(test.suppressed(), [("new user".to_owned(), 4_950)]);
    }

    #[test]
    fn callsites_have_separate_budgets() {
        let test = TestLimiter::new();
        attack(2_000);
        test.admitted();
        tracing::warn!(target: "our::servers", "cannot accept");
        assert_eq!(test.admitted(), 1);
    }

    #[test]
    fn unlimited_modules_and_debug_are_not_limited() {
        let test = TestLimiter::new();
        for _ in 0..1_500 {
            tracing::info!(target: "our::server", "stopping");
            tracing::info!(target: "our::operators::audit", "kick");
            tracing::debug!(target: "elsewhere", "transport closed");
        }
        assert_eq!(test.admitted(), 4_500);
        assert_eq!(test.suppressed(), []);
    }

    #[test]
    fn reported_message_is_truncated() {
        let test = TestLimiter::new();
        for _ in 0..1_001 {
            tracing::info!(target: "elsewhere", "{}", "ü".repeat(1_000));
        }
        assert_eq!(test.suppressed(), [("ü".repeat(MESSAGE_MAX), 1)]);
    }
}
