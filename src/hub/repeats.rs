//! Messages that come again: which keys the retained part of a log has, and at which offset.
//!
//! Bounded by the log's retention: a key goes with its message.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The keys of one room.
#[derive(Default)]
pub(crate) struct Repeats {
    offsets: HashMap<Arc<str>, u64>,
    /// In order of offset.
    keys: VecDeque<(u64, Arc<str>)>,
}

impl Repeats {
    /// The offset at which a message with this key was said, if one is known; else it is known from now on, at `offset`.
    pub(crate) fn find_or_note(&mut self, key: &Arc<str>, offset: u64) -> Option<u64> {
        let known = self.offsets.get(key).copied();
        if known.is_none() {
            self.offsets.insert(Arc::clone(key), offset);
            self.keys.push_back((offset, Arc::clone(key)));
        }
        known
    }

    /// Forgets the keys of messages before this offset.
    pub(crate) fn forget_before(&mut self, oldest: u64) {
        while self.keys.front().is_some_and(|(offset, _)| *offset < oldest)
            && let Some((_, key)) = self.keys.pop_front()
        {
            self.offsets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_as_long_as_its_message_is_retained() {
        let mut repeats = Repeats::default();
        let key = |text: &str| Arc::<str>::from(text);
        assert_eq!(repeats.find_or_note(&key("a"), 1), None);
        assert_eq!(repeats.find_or_note(&key("b"), 2), None);
        assert_eq!(repeats.find_or_note(&key("a"), 3), Some(1));
        repeats.forget_before(2);
        assert_eq!(repeats.find_or_note(&key("b"), 3), Some(2));
        assert_eq!(repeats.find_or_note(&key("a"), 3), None);
        assert_eq!(repeats.find_or_note(&key("a"), 4), Some(3));
        repeats.forget_before(100);
        assert!(repeats.offsets.is_empty() && repeats.keys.is_empty());
    }
}
