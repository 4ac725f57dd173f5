//! Messages that come again: which keys were said lately, and at which offset.
//!
//! A key outlives its message where that has made room for others: bytes bound what is retained, and whoever asks again
//! after a flood must not say it again. Bounded by the log's other two limits: messages and age.

use super::log::Retention;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The keys of one room.
pub(crate) struct Repeats {
    max: u64,
    age: Duration,
    offsets: HashMap<Arc<str>, u64>,
    /// Oldest first.
    keys: VecDeque<(Instant, Arc<str>)>,
}

impl Repeats {
    /// As many keys, and as long, as these limits have messages.
    pub(crate) fn within(retention: &Retention) -> Self {
        let Retention { messages: max, age, .. } = *retention;
        Self { max, age, offsets: HashMap::new(), keys: VecDeque::new() }
    }

    /// The offset at which a message with this key was said, if one is known; else it is known from now on, at `offset`.
    pub(crate) fn find_or_note(&mut self, key: &Arc<str>, offset: u64, now: Instant) -> Option<u64> {
        let known = self.offsets.get(key).copied();
        if known.is_none() {
            self.offsets.insert(Arc::clone(key), offset);
            self.keys.push_back((now, Arc::clone(key)));
        }
        known
    }

    /// Forgets the keys that are too old, and the oldest of too many.
    pub(crate) fn trim(&mut self, now: Instant) {
        let too_many = |keys: &VecDeque<_>| keys.len() as u64 > self.max;
        let too_old = |since: &Instant| now.saturating_duration_since(*since) > self.age;
        while self.keys.front().is_some_and(|(since, _)| too_many(&self.keys) || too_old(since))
            && let Some((_, key)) = self.keys.pop_front()
        {
            self.offsets.remove(&key);
        }
        if self.keys.is_empty() {
            // A room that was busy once is not large for ever.
            (self.offsets, self.keys) = Default::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(60);

    fn at_most(messages: u64) -> Repeats {
        Repeats::within(&Retention { bytes: 0, messages, age: AGE })
    }

    fn key(text: &str) -> Arc<str> {
        text.into()
    }

    #[test]
    fn the_oldest_of_too_many_are_forgotten() {
        let (mut repeats, now) = (at_most(2), Instant::now());
        assert_eq!(repeats.find_or_note(&key("a"), 1, now), None);
        assert_eq!(repeats.find_or_note(&key("b"), 2, now), None);
        repeats.trim(now);
        assert_eq!(repeats.find_or_note(&key("a"), 3, now), Some(1));
        assert_eq!(repeats.find_or_note(&key("c"), 3, now), None);
        repeats.trim(now);
        assert_eq!(repeats.find_or_note(&key("b"), 4, now), Some(2));
        assert_eq!(repeats.find_or_note(&key("a"), 4, now), None);
        assert_eq!(repeats.find_or_note(&key("a"), 5, now), Some(4));
    }

    #[test]
    fn a_key_is_forgotten_when_it_is_too_old() {
        let (mut repeats, now) = (at_most(100), Instant::now());
        repeats.find_or_note(&key("a"), 1, now);
        repeats.find_or_note(&key("b"), 2, now + AGE);
        repeats.trim(now + AGE);
        assert_eq!(repeats.find_or_note(&key("a"), 3, now + AGE), Some(1));
        repeats.trim(now + AGE + Duration::from_secs(1));
        assert_eq!(repeats.find_or_note(&key("b"), 3, now + AGE), Some(2));
        assert_eq!(repeats.find_or_note(&key("a"), 3, now + AGE), None);
        repeats.trim(now + 3 * AGE);
        assert!(repeats.offsets.is_empty() && repeats.keys.is_empty());
    }
}
