//! Delays between reconnection attempts.
//!
//! Guarantees that clients disconnected together do not reconnect together, and that no client reconnects earlier than
//! its server asked. Does not know about calls.

use rand::Rng;
use std::time::Duration;

/// Longest delay, whoever asks for it: a wrong value from a server must not keep a client away for ever.
const DELAY_MAX: Duration = Duration::from_secs(3600);

/// Exponential backoff with full jitter: each delay is random between zero and a ceiling, and the ceiling doubles with
/// each attempt.
///
/// Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, March 2015, where full jitter needs
/// the fewest calls of all variants.
///
/// A longer delay from the server (`google.rpc.RetryInfo`, `Goodbye.retry_after`) takes precedence. No delay exceeds one
/// hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// Ceiling of the first delay after a call that lasted at least `max`. Default: 100 ms.
    pub first: Duration,
    /// Highest ceiling. Default: 30 s.
    pub max: Duration,
    /// How long to retry after a lost call. Default: `None`, for ever.
    pub give_up_after: Option<Duration>,
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), max: Duration::from_secs(30), give_up_after: None }
    }
}

/// The backoff state of one session.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: BackoffPolicy,
    ceiling: Duration,
}

impl Backoff {
    pub(super) fn new(mut policy: BackoffPolicy) -> Self {
        policy.max = policy.max.min(DELAY_MAX);
        policy.first = policy.first.min(policy.max);
        Self { ceiling: policy.first, policy }
    }

    /// The next delay; at least the server's `retry_after`.
    pub(super) fn next_delay(&mut self, retry_after: Option<Duration>, random: &mut impl Rng) -> Duration {
        let jittered = self.ceiling.mul_f64(random.random_range(0.0..=1.0));
        self.ceiling = self.ceiling.saturating_mul(2).min(self.policy.max);
        jittered.max(retry_after.unwrap_or_default().min(DELAY_MAX))
    }

    /// Records a call that ended after `lifetime`; a long one resets the ceiling.
    pub(super) fn record_call(&mut self, lifetime: Duration) {
        if lifetime >= self.policy.max {
            self.ceiling = self.policy.first;
        }
    }

    /// Returns `delay` if it ends within `give_up_after` of the loss; `None` if it is time to give up.
    pub(super) fn allow(&self, since_lost: Duration, delay: Duration) -> Option<Duration> {
        match self.policy.give_up_after {
            Some(limit) if since_lost.saturating_add(delay) > limit => None,
            _ => Some(delay),
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

    fn backoff() -> Backoff {
        Backoff::new(BackoffPolicy::default())
    }

    #[test]
    fn delay_stays_below_doubling_ceiling() {
        for seed in 0..200 {
            let mut backoff = backoff();
            let mut random = StdRng::seed_from_u64(seed);
            for n in 0..20 {
                let ceiling = FIRST.saturating_mul(1 << n).min(MAX);
                let delay = backoff.next_delay(None, &mut random);
                assert!(delay <= ceiling, "seed {seed}: delay {n} is {delay:?}, over {ceiling:?}");
            }
        }
    }

    #[test]
    fn delays_cover_the_whole_range() {
        let mut random = StdRng::seed_from_u64(7);
        let first: Vec<_> = (0..1000).map(|_| backoff().next_delay(None, &mut random)).collect();
        for tenth in 0..10 {
            let from = FIRST * tenth / 10;
            let to = FIRST * (tenth + 1) / 10;
            let within = first.iter().filter(|delay| (from..to).contains(*delay)).count();
            assert!((50..200).contains(&within), "{within} of 1000 in the tenth {tenth}");
        }
    }

    #[test]
    fn server_delay_is_a_bounded_minimum() {
        let mut backoff = backoff();
        let mut random = StdRng::seed_from_u64(7);
        let retry_after = Duration::from_secs(5);
        assert_eq!(backoff.next_delay(Some(retry_after), &mut random), retry_after);
        let longer = (0..100).map(|_| backoff.next_delay(Some(retry_after), &mut random)).collect::<Vec<_>>();
        assert!(longer.iter().all(|delay| (retry_after..=MAX).contains(delay)), "{longer:?}");
        assert!(longer.iter().any(|delay| *delay > retry_after), "{longer:?}");
        assert_eq!(backoff.next_delay(Some(Duration::MAX), &mut random), DELAY_MAX);
    }

    #[test]
    fn long_call_resets_the_ceiling() {
        let mut backoff = backoff();
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..10 {
            backoff.next_delay(None, &mut random);
        }
        backoff.record_call(MAX / 2);
        assert_eq!(backoff.ceiling, MAX);
        backoff.record_call(MAX);
        assert_eq!(backoff.ceiling, FIRST);
    }

    #[test]
    fn gives_up_before_a_delay_past_the_limit() {
        let limit = Duration::from_secs(10);
        let backoff = Backoff::new(BackoffPolicy { give_up_after: Some(limit), ..BackoffPolicy::default() });
        assert_eq!(
            backoff.allow(Duration::from_secs(4), Duration::from_secs(6)),
            Some(Duration::from_secs(6))
        );
        assert_eq!(backoff.allow(Duration::from_secs(4), Duration::from_secs(7)), None);
    }

    #[test]
    fn contradictory_policy_does_not_panic() {
        for (first, max) in [(Duration::MAX, Duration::from_millis(1)), (Duration::MAX, Duration::MAX)] {
            let mut backoff = Backoff::new(BackoffPolicy { first, max, give_up_after: None });
            for _ in 0..100 {
                assert!(backoff.next_delay(Some(Duration::ZERO), &mut rand::rng()) <= max.min(DELAY_MAX));
            }
        }
    }
}
