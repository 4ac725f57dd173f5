//! Deduplication: the idempotency keys of recent messages, and their offsets.
//!
//! A key outlives its message when the byte limit removes the message: a client that retries after a flood must not publish
//! twice. Bounded by the log's other two limits, messages and age; and by the budget of all rooms, which removes the oldest
//! keys when a room's log has nothing more to free.

use crate::hub::log::Retention;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The keys of one room.
pub(crate) struct IdempotencyKeys {
    max: u64,
    age: Duration,
    offsets: HashMap<Arc<str>, u64>,
    /// Oldest first.
    keys: VecDeque<(Instant, Arc<str>)>,
    /// Bytes of the texts of the keys.
    texts: usize,
}

/// What is allocated beside the text of a key: reference counts.
const TEXT_OVERHEAD: usize = 2 * size_of::<usize>();

impl IdempotencyKeys {
    /// As many keys, and for as long, as these limits allow for messages.
    pub(crate) fn within(retention: &Retention) -> Self {
        let Retention { messages: max, age, .. } = *retention;
        Self { max, age, offsets: HashMap::new(), keys: VecDeque::new(), texts: 0 }
    }

    /// The offset of the message with this key, if one is known; otherwise it is known from now on, at `offset`.
    pub(crate) fn find_or_note(&mut self, key: &Arc<str>, offset: u64, now: Instant) -> Option<u64> {
        let known = self.offsets.get(key).copied();
        if known.is_none() {
            self.offsets.insert(Arc::clone(key), offset);
            self.keys.push_back((now, Arc::clone(key)));
            self.texts += key.len() + TEXT_OVERHEAD;
        }
        known
    }

    /// Forgets keys that are too old, and the oldest of too many.
    pub(crate) fn trim(&mut self, now: Instant) {
        let (max, age) = (self.max, self.age);
        let too_many = |keys: &VecDeque<_>| keys.len() as u64 > max;
        let too_old = |since: &Instant| now.saturating_duration_since(*since) > age;
        while self.keys.front().is_some_and(|(since, _)| too_many(&self.keys) || too_old(since)) {
            self.forget_oldest();
        }
        if self.keys.is_empty() {
            // A room that was busy once does not keep the memory.
            (self.offsets, self.keys) = Default::default();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.keys.pop_front() {
            self.offsets.remove(&key);
            self.texts -= key.len() + TEXT_OVERHEAD;
        }
    }

    /// Forgets so many of the oldest keys; their memory is reused for others.
    pub(crate) fn forget(&mut self, count: usize) {
        for _ in 0..count.min(self.keys.len()) {
            self.forget_oldest();
        }
    }

    /// Forgets the older half of the keys, and frees their memory; repeated, all of them.
    pub(crate) fn forget_half(&mut self) {
        self.forget(self.keys.len().div_ceil(2));
        self.offsets.shrink_to_fit();
        self.keys.shrink_to_fit();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes that are allocated for the keys. A key's text is counted here, also while its message is in the log.
    pub(crate) fn held(&self) -> u64 {
        // hashbrown: a power of two of buckets, of which 7 of 8 are filled, with a byte of control each.
        let buckets = match self.offsets.capacity() {
            0 => 0,
            full => (full * 8 / 7).next_power_of_two(),
        };
        let table = buckets * (size_of::<(Arc<str>, u64)>() + 1);
        let queue = self.keys.capacity() * size_of::<(Instant, Arc<str>)>();
        (table + queue + self.texts) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(60);

    fn at_most(messages: u64) -> IdempotencyKeys {
        IdempotencyKeys::within(&Retention { bytes: 0, messages, age: AGE })
    }

    fn key(text: &str) -> Arc<str> {
        text.into()
    }

    #[test]
    fn oldest_of_too_many_are_forgotten() {
        let (mut keys, now) = (at_most(2), Instant::now());
        assert_eq!(keys.find_or_note(&key("a"), 1, now), None);
        assert_eq!(keys.find_or_note(&key("b"), 2, now), None);
        keys.trim(now);
        assert_eq!(keys.find_or_note(&key("a"), 3, now), Some(1));
        assert_eq!(keys.find_or_note(&key("c"), 3, now), None);
        keys.trim(now);
        assert_eq!(keys.find_or_note(&key("b"), 4, now), Some(2));
        assert_eq!(keys.find_or_note(&key("a"), 4, now), None);
        assert_eq!(keys.find_or_note(&key("a"), 5, now), Some(4));
    }

    #[test]
    fn forgetting_half_frees_half_of_the_memory() {
        let (mut keys, now) = (at_most(10_000), Instant::now());
        assert_eq!(keys.held(), 0);
        for n in 0..1000 {
            keys.find_or_note(&key(&format!("{n:064}")), n, now);
        }
        let full = keys.held();
        // A text and its counts, an entry of the queue, one of a table that is at least half full.
        assert!((1000 * (80 + 32 + 25)..=1000 * (80 + 2 * 32 + 3 * 25)).contains(&full), "{full}");
        keys.forget_half();
        assert!(keys.held() <= full / 2 + 1000, "{} of {full}", keys.held());
        assert_eq!(keys.find_or_note(&key(&format!("{:064}", 499)), 1, now), None);
        assert_eq!(keys.find_or_note(&key(&format!("{:064}", 500)), 1, now), Some(500));
        while !keys.is_empty() {
            keys.forget_half();
        }
        assert_eq!(keys.held(), 0);
    }

    #[test]
    fn old_keys_are_forgotten() {
        let (mut keys, now) = (at_most(100), Instant::now());
        keys.find_or_note(&key("a"), 1, now);
        keys.find_or_note(&key("b"), 2, now + AGE);
        keys.trim(now + AGE);
        assert_eq!(keys.find_or_note(&key("a"), 3, now + AGE), Some(1));
        keys.trim(now + AGE + Duration::from_secs(1));
        assert_eq!(keys.find_or_note(&key("b"), 3, now + AGE), Some(2));
        assert_eq!(keys.find_or_note(&key("a"), 3, now + AGE), None);
        keys.trim(now + 3 * AGE);
        assert!(keys.offsets.is_empty() && keys.keys.is_empty());
    }
}
