//! A bound on log lines: each cause may burst, then gets a few lines a second; the rest is counted and told.
//!
//! A cause is a place in the code that logs, so there are as many as the program has, whatever clients do. Promises: what
//! was suppressed is told as one line `suppressed` with its count, within about a second, also when the storm is over.
//! Not limited: what operators asked for at debug level or finer, and the modules where clients cause nothing, which
//! whoever starts this names.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::{self, Debug, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Lines that one cause may have at once: a rollout that brings a thousand clients back is logged in full.
const BURST: f64 = 1_000.0;
/// Lines a second that one cause has beyond its burst.
const RATE: f64 = 5.0;
/// How often is told what was suppressed.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Characters of a cause's words: some messages come from other crates.
const CAUSE_MAX: usize = 80;

/// The reports of this very module, first of all.
const OWN: &str = "chatroom::telemetry";

pub(super) struct Limiter {
    causes: Mutex<HashMap<Identifier, Cause>>,
    /// Modules that log without a limit.
    unlimited: &'static [&'static str],
}

/// One place that logs: a token bucket, and what did not get a token.
struct Cause {
    words: String,
    target: &'static str,
    tokens: f64,
    refilled: Instant,
    suppressed: u64,
}

/// A layer that gets only the events that the limiter admits. Around the layer, not in its filter: a filter that turns
/// events away one by one leaves tracing-subscriber 0.3 in a state that it asserts never to be in.
pub(super) struct Limited<L> {
    pub(super) layer: L,
    pub(super) limiter: Arc<Limiter>,
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for Limited<L> {
    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        if self.limiter.admits(event) {
            self.layer.on_event(event, cx);
        }
    }
}

impl Limiter {
    pub(super) fn new(unlimited: &'static [&'static str]) -> Self {
        Self { causes: Mutex::default(), unlimited }
    }

    /// Whether the event may become a line now.
    pub(super) fn admits(&self, event: &Event<'_>) -> bool {
        self.admits_at(event, Instant::now())
    }

    fn admits_at(&self, event: &Event<'_>, now: Instant) -> bool {
        let meta = event.metadata();
        if !self.limits(meta) {
            return true;
        }
        let mut causes = self.causes.lock();
        let cause = causes.entry(meta.callsite()).or_insert_with(|| Cause {
            words: words(event),
            target: meta.target(),
            tokens: BURST,
            refilled: now,
            suppressed: 0,
        });
        cause.admits(now)
    }

    fn limits(&self, meta: &Metadata<'_>) -> bool {
        let mut unlimited = self.unlimited.iter().chain([&OWN]);
        *meta.level() <= Level::INFO && !unlimited.any(|module| is_within(meta.target(), module))
    }

    /// Tells what was suppressed since the last time.
    pub(super) fn report(&self) {
        for (cause, of, count) in self.take_suppressed() {
            tracing::warn!(count, cause, of, "suppressed");
        }
    }

    fn take_suppressed(&self) -> Vec<(String, &'static str, u64)> {
        // Collected first: telling is logging, which comes back here.
        let mut causes = self.causes.lock();
        let suppressed = causes.values_mut().filter(|cause| cause.suppressed > 0);
        suppressed.map(|c| (c.words.clone(), c.target, std::mem::take(&mut c.suppressed))).collect()
    }

    /// To be run as a task, on a thread that has time.
    pub(super) async fn report_for_ever(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.report();
        }
    }
}

impl Cause {
    fn admits(&mut self, now: Instant) -> bool {
        // Two threads may come here in another order than they read the clock.
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

/// Whether a target is the module or below it.
fn is_within(target: &str, module: &str) -> bool {
    target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The event's message, which is where it comes from in words.
fn words(event: &Event<'_>) -> String {
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Full is an error to `write!`, and what was written so far is what we want.
            let _ = write!(Bounded(&mut self.0), "{value:?}");
        }
    }
}

struct Bounded<'a>(&'a mut String);

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = CAUSE_MAX.saturating_sub(self.0.chars().count());
        self.0.extend(text.chars().take(left));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    /// Asks the limiter for each event, at a time of the test's choice, and counts the answers.
    struct Asks {
        limiter: Arc<Limiter>,
        now: Arc<Mutex<Instant>>,
        admitted: Arc<Mutex<u64>>,
    }

    impl<S: Subscriber> Layer<S> for Asks {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let now = *self.now.lock();
            if self.limiter.admits_at(event, now) {
                *self.admitted.lock() += 1;
            }
        }
    }

    struct Stage {
        limiter: Arc<Limiter>,
        now: Arc<Mutex<Instant>>,
        admitted: Arc<Mutex<u64>>,
        #[expect(dead_code, reason = "held for its drop")]
        in_force: tracing::subscriber::DefaultGuard,
        // After it, so that it is dropped later.
        #[expect(dead_code, reason = "held for its drop")]
        alone: parking_lot::MutexGuard<'static, ()>,
    }

    impl Stage {
        fn set() -> Self {
            let alone = crate::telemetry::SUBSCRIBER_TESTS.lock();
            let limiter = Arc::new(Limiter::new(&["our::server", "our::operators"]));
            let now = Arc::new(Mutex::new(Instant::now()));
            let admitted = Arc::<Mutex<u64>>::default();
            let asks = Asks { limiter: limiter.clone(), now: now.clone(), admitted: admitted.clone() };
            let subscriber = tracing_subscriber::registry().with(asks);
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
            self.limiter.take_suppressed().into_iter().map(|(words, _, count)| (words, count)).collect()
        }
    }

    fn attack(times: u64) {
        for n in 0..times {
            tracing::info!(target: "elsewhere", n, "new user");
        }
    }

    #[test]
    fn a_burst_is_logged_and_what_exceeds_it_is_counted() {
        let stage = Stage::set();
        attack(1_300);
        assert_eq!(stage.admitted(), 1_000);
        assert_eq!(stage.suppressed(), [("new user".to_owned(), 300)]);
        assert_eq!(stage.suppressed(), [], "each is told once");
    }

    #[test]
    fn a_storm_that_goes_on_gets_a_few_lines_a_second() {
        let stage = Stage::set();
        attack(1_000);
        stage.admitted();
        for _ in 0..10 {
            stage.pass(Duration::from_secs(1));
            attack(500);
        }
        assert_eq!(stage.admitted(), 50);
        assert_eq!(stage.suppressed(), [("new user".to_owned(), 4_950)]);
    }

    #[test]
    fn one_cause_does_not_use_up_what_another_may_log() {
        let stage = Stage::set();
        attack(2_000);
        stage.admitted();
        tracing::warn!(target: "our::servers", "cannot accept");
        assert_eq!(stage.admitted(), 1);
    }

    #[test]
    fn modules_where_clients_cause_nothing_and_debugging_are_not_limited() {
        let stage = Stage::set();
        for _ in 0..1_500 {
            tracing::info!(target: "our::server", "stopping");
            tracing::info!(target: "our::operators::audit", "kick");
            tracing::debug!(target: "elsewhere", "transport closed");
        }
        assert_eq!(stage.admitted(), 4_500);
        assert_eq!(stage.suppressed(), []);
    }

    #[test]
    fn a_cause_has_a_bounded_number_of_words() {
        let stage = Stage::set();
        for _ in 0..1_001 {
            tracing::info!(target: "elsewhere", "{}", "ü".repeat(1_000));
        }
        assert_eq!(stage.suppressed(), [("ü".repeat(CAUSE_MAX), 1)]);
    }
}
