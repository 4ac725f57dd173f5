//! How long messages linger before a batch begins, so that more of them are fanned out together (Kafka's `linger.ms`).
//!
//! Waking a member and writing to it costs the same for one message as for fifty: with a thousand members, a batch that
//! begins a moment too early costs thousands of frames. So the messages of a busy room wait for a small part of the time
//! that the last batch took: in the *linger*, for others to come, and before it in the *pause*, if messages came while the
//! last batch was fanned out. A room whose last batch had one message does not linger.

use std::time::{Duration, Instant};

/// The linger is the time of the last batch divided by this. It is the most that it adds to the latency; the shard's driver
/// polls that long. Publishers that wait for the last batch answer it at nearly the same moment; without a linger,
/// the first of them gets a fan-out of its own.
///
/// Measured with 1,000 members saturated, three interleaved rounds: 38 to 39 messages in a frame became 47 to 50; CPU for
/// each delivery 298, 310, 350 ns became 270, 254, 270; deliveries 2.95, 2.87, 2.57 M/s became 3.32, 3.48, 3.34; median
/// latency 17 ms became 12. With 100 members, and with twice as long a linger, nothing changed.
const LINGER_DIVISOR: u32 = 32;

/// The pause before a batch for which messages wait already is the time of the last fan-out divided by this; a shorter
/// pause than the minimum is none, because timers have milliseconds.
///
/// Measured with 1,000 members saturated, two interleaved rounds: 25 to 27 messages in a frame became 37, CPU for each
/// delivery fell by 21 and 29 %, deliveries rose by 9 and 15 %, and the median latency went up by 7 % and down by 10 %. With
/// 100 members longer frames save little, as bytes are what they cost: pauses lost a quarter of the deliveries there.
const PAUSE_DIVISOR: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_micros(500);

/// A batch that has been fanned out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastBatch {
    pub(crate) messages: u64,
    /// From taking the batch to the last shard's turn, encoding included.
    pub(crate) took: Duration,
}

impl LastBatch {
    /// The linger of messages that come after a rest, or that came during this batch and its pause.
    pub(crate) fn linger(&self, now: Instant) -> Linger {
        let is_busy = self.messages > 1;
        Linger { until: is_busy.then(|| now + self.took / LINGER_DIVISOR), enough: self.messages }
    }

    /// The pause if messages came during this batch.
    pub(crate) fn pause(&self) -> Option<Duration> {
        Some(self.took / PAUSE_DIVISOR).filter(|pause| *pause >= PAUSE_MIN)
    }
}

/// How long a batch waits for more messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linger {
    until: Option<Instant>,
    /// The linger ends early at as many messages as the last batch had.
    enough: u64,
}

impl Linger {
    /// Whether it is over with so many messages waiting.
    pub(crate) fn is_over(&self, waiting: u64) -> bool {
        waiting >= self.enough || self.until.is_none_or(|until| Instant::now() >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn single_messages_do_not_linger() {
        for messages in [0, 1] {
            let linger = LastBatch { messages, took: LONG }.linger(Instant::now());
            assert!(linger.is_over(0));
        }
    }

    #[test]
    fn linger_ends_by_messages_or_time() {
        let now = Instant::now();
        let linger = LastBatch { messages: 10, took: LONG }.linger(now);
        assert!(!linger.is_over(9) && linger.is_over(10));
        let linger = LastBatch { messages: 10, took: Duration::ZERO }.linger(now);
        assert!(linger.is_over(1));
    }

    #[test]
    fn pause_below_timer_resolution_is_none() {
        let after = |took| LastBatch { messages: 1, took }.pause();
        assert_eq!(after(PAUSE_MIN), None);
        assert_eq!(after(PAUSE_MIN * PAUSE_DIVISOR), Some(PAUSE_MIN));
    }
}
