//! How long to wait before coming back after a lost call.
//!
//! Promises that clients that were cut off together do not come back together, and that none comes back earlier than
//! its server asked it to. Knows no calls.

use rand::Rng;
use std::time::Duration;

/// No wait is longer, whoever asked for it: a wrong word must not keep a client away for ever.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Exponential back-off with full jitter: each wait is random between nothing and a ceiling, and the ceiling doubles
/// from wait to wait.
///
/// Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, March 2015, where full jitter needed
/// the fewest calls of all.
///
/// A longer wait that the server asked for (`google.rpc.RetryInfo`, `Goodbye.retry_after`) is kept. No wait is longer
/// than an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// The ceiling of the first wait after a call that went well for at least `max`. Default: 100 ms.
    pub first: Duration,
    /// The highest ceiling. Default: 30 s.
    pub max: Duration,
    /// How long to go on trying after a call was lost. Default: `None`, for ever.
    pub give_up_after: Option<Duration>,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), max: Duration::from_secs(30), give_up_after: None }
    }
}

/// The waits of one session.
#[derive(Debug)]
pub(super) struct Waits {
    rules: BackOff,
    ceiling: Duration,
}

impl Waits {
    pub(super) fn new(mut rules: BackOff) -> Self {
        rules.max = rules.max.min(WAIT_MAX);
        rules.first = rules.first.min(rules.max);
        Self { ceiling: rules.first, rules }
    }

    /// The next wait; not less than what the server `told`.
    pub(super) fn next(&mut self, told: Option<Duration>, random: &mut impl Rng) -> Duration {
        let jittered = self.ceiling.mul_f64(random.random_range(0.0..=1.0));
        self.ceiling = self.ceiling.saturating_mul(2).min(self.rules.max);
        jittered.max(told.unwrap_or_default().min(WAIT_MAX))
    }

    /// A call has ended that had gone well for so long.
    pub(super) fn had_a_call(&mut self, of: Duration) {
        if of >= self.rules.max {
            self.ceiling = self.rules.first;
        }
    }

    /// How much of this time since the loss may still be spent on waiting; `None` when it is time to give up.
    pub(super) fn allow(&self, since_lost: Duration, wait: Duration) -> Option<Duration> {
        match self.rules.give_up_after {
            Some(limit) if since_lost.saturating_add(wait) > limit => None,
            _ => Some(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(30);

    fn waits() -> Waits {
        Waits::new(BackOff::default())
    }

    #[test]
    fn no_wait_is_over_its_ceiling_and_the_ceiling_doubles_to_its_maximum() {
        for seed in 0..200 {
            let (mut waits, mut random) = (waits(), StdRng::seed_from_u64(seed));
            for n in 0..20 {
                let ceiling = FIRST.saturating_mul(1 << n).min(MAX);
                let wait = waits.next(None, &mut random);
                assert!(wait <= ceiling, "seed {seed}: wait {n} is {wait:?}, over {ceiling:?}");
            }
        }
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let mut random = StdRng::seed_from_u64(7);
        let first: Vec<_> = (0..1000).map(|_| waits().next(None, &mut random)).collect();
        for tenth in 0..10 {
            let (from, to) = (FIRST * tenth / 10, FIRST * (tenth + 1) / 10);
            let within = first.iter().filter(|wait| (from..to).contains(*wait)).count();
            assert!((50..200).contains(&within), "{within} of 1000 in the tenth {tenth}");
        }
    }

    #[test]
    fn the_servers_delay_is_a_floor_and_itself_has_a_ceiling() {
        let (mut waits, mut random) = (waits(), StdRng::seed_from_u64(7));
        let told = Duration::from_secs(5);
        assert_eq!(waits.next(Some(told), &mut random), told);
        let longer = (0..100).map(|_| waits.next(Some(told), &mut random)).collect::<Vec<_>>();
        assert!(longer.iter().all(|wait| (told..=MAX).contains(wait)), "{longer:?}");
        assert!(longer.iter().any(|wait| *wait > told), "{longer:?}");
        assert_eq!(waits.next(Some(Duration::MAX), &mut random), WAIT_MAX);
    }

    #[test]
    fn only_a_call_that_lived_begins_anew() {
        let (mut waits, mut random) = (waits(), StdRng::seed_from_u64(7));
        for _ in 0..10 {
            waits.next(None, &mut random);
        }
        waits.had_a_call(MAX / 2);
        assert_eq!(waits.ceiling, MAX);
        waits.had_a_call(MAX);
        assert_eq!(waits.ceiling, FIRST);
    }

    #[test]
    fn giving_up_is_decided_before_the_wait() {
        let limit = Duration::from_secs(10);
        let waits = Waits::new(BackOff { give_up_after: Some(limit), ..BackOff::default() });
        assert_eq!(waits.allow(Duration::from_secs(4), Duration::from_secs(6)), Some(Duration::from_secs(6)));
        assert_eq!(waits.allow(Duration::from_secs(4), Duration::from_secs(7)), None);
    }

    #[test]
    fn rules_that_make_no_sense_make_no_panic() {
        for (first, max) in [(Duration::MAX, Duration::from_millis(1)), (Duration::MAX, Duration::MAX)] {
            let mut waits = Waits::new(BackOff { first, max, give_up_after: None });
            for _ in 0..100 {
                assert!(waits.next(Some(Duration::ZERO), &mut rand::rng()) <= max.min(WAIT_MAX));
            }
        }
    }
}
