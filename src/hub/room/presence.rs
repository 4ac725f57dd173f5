//! Presence: who came and went, as the difference between two looks at a room.
//!
//! However many come and go in between, a look makes one message of bounded size; who came and went again is not seen.

use crate::hub::member::Member;
use crate::hub::payload::{PRESENCE_LISTED_MAX, PresenceDiff};
use parking_lot::Mutex;
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// For each member that a diff names, the next one comes so much later: rolls are kept like what is said, and a storm
/// of joins and leaves must not push that out.
const PAUSE_FOR_EACH: Duration = Duration::from_millis(20);

/// Time that must pass after this diff until the next.
pub(crate) fn pause_after(diff: &PresenceDiff) -> Duration {
    PAUSE_FOR_EACH * (diff.joined.len() + diff.left.len()) as u32
}

/// Who was in a room at the last look, in order of number; nothing while nobody wants to know. Only housekeeping
/// looks, and the first that wants to know: the lock is hardly ever waited for.
#[derive(Default)]
pub(crate) struct PresenceTracker(Mutex<Option<Vec<Arc<Member>>>>);

impl PresenceTracker {
    /// Forgets who was there, if by now `nobody` wants to know.
    pub(crate) fn forget_if(&self, nobody: impl FnOnce() -> bool) {
        let mut last = self.0.lock();
        if nobody() {
            *last = None;
        }
    }

    /// Somebody wants to know from now on, when these are here.
    pub(crate) fn begin(&self, mut now: Vec<Arc<Member>>) {
        now.sort_unstable_by_key(|member| member.number());
        self.0.lock().get_or_insert(now);
    }

    /// Looks again. What has changed is told; if that fails, it is told at the next look. The first look compares with
    /// those who came before the first that wants to know: it misses nobody who came after that one.
    pub(crate) fn call(&self, mut now: Vec<Arc<Member>>, tell: impl FnOnce(PresenceDiff) -> bool) {
        now.sort_unstable_by_key(|member| member.number());
        let Some(first) = now.iter().position(|member| member.mode().presence) else {
            // The one that wants to know is not listed yet: nobody would hear it.
            return;
        };
        let mut last = self.0.lock();
        let diff = difference(last.as_deref().unwrap_or(&now[..first]), &now);
        if (diff.joined_count == 0 && diff.left_count == 0) || tell(diff) {
            *last = Some(now);
        }
    }
}

fn difference(before: &[Arc<Member>], now: &[Arc<Member>]) -> PresenceDiff {
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    let (mut joined_count, mut left_count) = (0, 0);
    let add = |to: &mut Vec<_>, count: &mut usize, member: &Arc<Member>| {
        *count += 1;
        if to.len() < PRESENCE_LISTED_MAX {
            to.push(Arc::clone(member));
        }
    };
    let (mut before, mut now_left) = (before.iter().peekable(), now.iter().peekable());
    loop {
        let order = match (before.peek(), now_left.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.number().cmp(&new.number()),
        };
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { now_left.next() } else { None };
        match (old, new) {
            (Some(gone), None) => add(&mut left, &mut left_count, gone),
            (None, Some(came)) => add(&mut joined, &mut joined_count, came),
            _ => {}
        }
    }
    PresenceDiff { joined, left, joined_count, left_count, members: now.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Cursor;
    use crate::hub::member::DeliveryMode;
    use crate::hub::options::ClientInfo;

    /// Those from 100 on want to know.
    fn members(numbers: &[u64]) -> Vec<Arc<Member>> {
        let who = ClientInfo::anonymous();
        let member = |number: &u64| {
            let mode = DeliveryMode { presence: *number >= 100, ..DeliveryMode::default() };
            Member::new(*number, who.clone(), 0, Cursor::START, mode)
        };
        numbers.iter().map(|number| Arc::new(member(number))).collect()
    }

    fn numbers(members: &[Arc<Member>]) -> Vec<u64> {
        members.iter().map(|member| member.number()).collect()
    }

    #[test]
    fn a_difference_has_who_came_and_who_went() {
        let diff = difference(&members(&[1, 2, 5, 9]), &members(&[2, 3, 9, 10, 11]));
        assert_eq!((numbers(&diff.joined), numbers(&diff.left)), (vec![3, 10, 11], vec![1, 5]));
        assert_eq!((diff.joined_count, diff.left_count, diff.members), (3, 2, 5));
    }

    #[test]
    fn a_storm_is_counted_and_only_some_are_named() {
        let many: Vec<u64> = (1..=10_000).collect();
        let diff = difference(&[], &members(&many));
        assert_eq!((diff.joined.len(), diff.joined_count), (PRESENCE_LISTED_MAX, 10_000));
    }

    #[test]
    fn the_first_look_tells_of_who_came_since_the_first_that_wants_to_know_itself_included() {
        let last = PresenceTracker::default();
        last.call(members(&[1, 2]), |_| panic!("nobody wants to know"));
        last.call(members(&[3, 1, 100, 102, 101]), |diff| {
            assert_eq!((numbers(&diff.joined), diff.left_count, diff.members), (vec![100, 101, 102], 0, 5));
            true
        });
        last.call(members(&[1, 3, 100, 101, 102]), |_| panic!("told already"));
        last.forget_if(|| true);
        last.call(members(&[7, 103]), |diff| numbers(&diff.joined) == [103]);
    }

    #[test]
    fn what_could_not_be_told_is_told_later() {
        let last = PresenceTracker::default();
        last.call(members(&[1, 100]), |diff| numbers(&diff.joined) == [100]);
        last.call(members(&[1, 100, 101]), |_| false);
        last.call(members(&[100, 101, 102]), |diff| {
            assert_eq!((numbers(&diff.joined), numbers(&diff.left)), (vec![101, 102], vec![1]));
            true
        });
        last.call(members(&[100, 101, 102]), |_| panic!("told already"));
    }
}
