//! Presence: joins and leaves, as the difference between two snapshots of a room's members.
//!
//! However many members join and leave in between, a diff makes one message of bounded size. A member that joins and
//! leaves between two snapshots is in no diff.

use crate::hub::member::Member;
use crate::hub::payload::{PRESENCE_LISTED_MAX, PresenceDiff, PresenceEntry};
use crate::hub::sync::{AtomicU64, AtomicUsize, Ordering};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// For each member that a diff lists, the next diff is delayed by this time. Diffs pass through the inbox like messages,
/// and a storm of joins and leaves must not fill it.
const PAUSE_FOR_EACH: Duration = Duration::from_millis(20);

fn pause_after(diff: &PresenceDiff) -> Duration {
    PAUSE_FOR_EACH * (diff.joined.len() + diff.left.len()) as u32
}

/// Finds out what has changed since the last diff. Costs nothing while no member subscribes to presence.
#[derive(Default)]
pub(crate) struct PresenceTracker {
    /// Members that subscribe to presence.
    subscribers: AtomicUsize,
    /// The members at the last diff, in order of number; none while nobody subscribes. Only housekeeping, and the first and
    /// the last subscriber lock it, so they hardly ever wait.
    last: Mutex<Option<Vec<Arc<Member>>>>,
    /// No diff before this time, in milliseconds since the room was created.
    due: AtomicU64,
    /// How often the member lists have changed; and one more than the count that the last diff covers, or 0.
    changes: AtomicU64,
    covered: AtomicU64,
}

impl PresenceTracker {
    /// A member subscribes. The first one makes the tracker start from the members that are `present`.
    pub(crate) fn add_subscriber(&self, present: impl FnOnce() -> Vec<Arc<Member>>) {
        if self.subscribers.fetch_add(1, Ordering::AcqRel) == 0 {
            self.start(present());
        }
    }

    pub(crate) fn remove_subscriber(&self) {
        if self.subscribers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stop_if_unused();
        }
    }

    /// The member lists have changed.
    pub(crate) fn mark_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Sends what has changed since the last diff, if that is due. If `send` fails, the next diff has it.
    pub(crate) fn publish(
        &self,
        now: Duration,
        present: impl FnOnce() -> Vec<Arc<Member>>,
        send: impl FnOnce(PresenceDiff) -> bool,
    ) {
        if self.subscribers.load(Ordering::Acquire) == 0 {
            return self.stop_if_unused();
        }
        if now.as_millis() < u128::from(self.due.load(Ordering::Relaxed)) {
            return;
        }
        // Read before the lists: a change in between is covered by the next diff.
        let changes = self.changes.load(Ordering::Acquire) + 1;
        if self.covered.swap(changes, Ordering::Relaxed) == changes {
            return;
        }
        self.compare(present(), |diff| {
            let due = (now + pause_after(&diff)).as_millis() as u64;
            let is_sent = send(diff);
            if is_sent {
                self.due.store(due, Ordering::Relaxed);
            } else {
                // Differs from any count: the next look compares again.
                self.covered.store(0, Ordering::Relaxed);
            }
            is_sent
        });
    }

    fn stop_if_unused(&self) {
        let mut last = self.last.lock();
        // Under the lock: a subscriber that comes now starts the tracker after this.
        if self.subscribers.load(Ordering::Acquire) == 0 {
            *last = None;
        }
    }

    fn start(&self, mut now: Vec<Arc<Member>>) {
        now.sort_unstable_by_key(|member| member.number());
        self.last.lock().get_or_insert(now);
    }

    /// Compares with the last diff. The first one compares with the members that came before the first subscriber: it lists
    /// all members that came after it.
    fn compare(&self, mut now: Vec<Arc<Member>>, send: impl FnOnce(PresenceDiff) -> bool) {
        now.sort_unstable_by_key(|member| member.number());
        let Some(first) = now.iter().position(|member| member.mode().presence) else {
            // The subscriber is not listed yet: nobody would receive the diff.
            return;
        };
        let mut last = self.last.lock();
        let diff = difference(last.as_deref().unwrap_or(&now[..first]), &now);
        if (diff.joined_count == 0 && diff.left_count == 0) || send(diff) {
            *last = Some(now);
        }
    }
}

fn difference(before: &[Arc<Member>], now: &[Arc<Member>]) -> PresenceDiff {
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    let (mut joined_count, mut left_count) = (0, 0);
    let add = |to: &mut Vec<_>, count: &mut usize, member: &Member| {
        *count += 1;
        if to.len() < PRESENCE_LISTED_MAX {
            to.push(PresenceEntry { id: member.id(), name: member.name().clone() });
        }
    };
    let (mut old, mut new) = (before.iter().peekable(), now.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(old), Some(new)) => old.number().cmp(&new.number()),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        match (before, after) {
            (Some(gone), None) => add(&mut left, &mut left_count, gone),
            (None, Some(new)) => add(&mut joined, &mut joined_count, new),
            _ => {}
        }
    }
    PresenceDiff { joined, left, joined_count, left_count, members: now.len() }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::hub::log::position::Cursor;
    use crate::hub::member::DeliveryMode;
    use crate::hub::options::ClientInfo;
    use crate::hub::{DisplayName, WireForm};

    /// Each is named by its number; those from 100 on subscribe to presence.
    fn members(numbers: &[u64]) -> Vec<Arc<Member>> {
        let member = |number: &u64| {
            let name = DisplayName::new(&number.to_string()).expect("a number is a name");
            let who = ClientInfo { name, ..ClientInfo::anonymous() };
            let mode =
                DeliveryMode { form: WireForm::Primary, presence: *number >= 100, ..DeliveryMode::default() };
            Arc::new(Member::new(*number, who, 0, Cursor::START, mode))
        };
        numbers.iter().map(member).collect()
    }

    fn numbers(entries: &[PresenceEntry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.name.as_str().parse().expect("it is a number")).collect()
    }

    #[test]
    fn diff_lists_joins_and_leaves() {
        let diff = difference(&members(&[1, 2, 5, 9]), &members(&[2, 3, 9, 10, 11]));
        assert_eq!((numbers(&diff.joined), numbers(&diff.left)), (vec![3, 10, 11], vec![1, 5]));
        assert_eq!((diff.joined_count, diff.left_count, diff.members), (3, 2, 5));
    }

    #[test]
    fn diff_counts_all_and_lists_some() {
        let many: Vec<u64> = (1..=10_000).collect();
        let diff = difference(&[], &members(&many));
        assert_eq!((diff.joined.len(), diff.joined_count), (PRESENCE_LISTED_MAX, 10_000));
    }

    #[test]
    fn first_diff_starts_at_the_first_subscriber() {
        let tracker = PresenceTracker::default();
        tracker.compare(members(&[1, 2]), |_| panic!("nobody subscribes"));
        tracker.compare(members(&[3, 1, 100, 102, 101]), |diff| {
            assert_eq!((numbers(&diff.joined), diff.left_count, diff.members), (vec![100, 101, 102], 0, 5));
            true
        });
        tracker.compare(members(&[1, 3, 100, 101, 102]), |_| panic!("nothing has changed"));
        tracker.stop_if_unused();
        tracker.compare(members(&[7, 103]), |diff| numbers(&diff.joined) == [103]);
    }

    #[test]
    fn failed_diff_is_in_the_next() {
        let tracker = PresenceTracker::default();
        tracker.compare(members(&[1, 100]), |diff| numbers(&diff.joined) == [100]);
        tracker.compare(members(&[1, 100, 101]), |_| false);
        tracker.compare(members(&[100, 101, 102]), |diff| {
            assert_eq!((numbers(&diff.joined), numbers(&diff.left)), (vec![101, 102], vec![1]));
            true
        });
        tracker.compare(members(&[100, 101, 102]), |_| panic!("nothing has changed"));
    }
}
