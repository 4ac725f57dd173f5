//! The members of one room on one shard: a copy-on-write snapshot.
//!
//! Guarantees: reading the members takes no lock; a member is in the snapshot from the apply after its join to
//! the apply after its leave; [`MemberList::apply`] returns each newcomer once, so that it can be woken
//! for what it may have missed before it was listed. Joins and leaves are queued and applied together by the shard,
//! so a storm of N joins does not copy the list N times; and the list is cut into blocks of which an apply
//! copies only those it changes, so one join among 10,000 members copies a few hundred pointers.
//!
//! Knows nothing of logs, messages or tasks. One thread at a time may apply: that of the shard.

use crate::hub::sync::{ArcSwap, AtomicBool, AtomicU64, Ordering, SegQueue};
use std::sync::Arc;

/// Members in a block: with around 16,000 members, copying one block costs as much as copying the list of blocks.
const BLOCK: usize = 128;

/// An item of the list: it stores the number by which the list finds it.
pub(crate) trait Ticketed {
    /// 0 until the first apply. Only the shard that applies touches it.
    fn ticket(&self) -> &AtomicU64;
}

/// Some members, in the order in which they joined.
pub(crate) type Block<T> = Arc<Vec<Arc<T>>>;

/// The list at one moment, oldest member first.
pub(crate) struct Snapshot<T> {
    /// No block is empty; tickets ascend within and across blocks.
    blocks: Vec<Block<T>>,
}

impl<T> Snapshot<T> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.blocks.iter().flat_map(|block| block.iter())
    }

    pub(crate) fn blocks(&self) -> &[Block<T>] {
        &self.blocks
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

enum Change<T> {
    Join(Arc<T>),
    Leave(Arc<T>),
}

pub(crate) struct MemberList<T> {
    snapshot: ArcSwap<Snapshot<T>>,
    /// Joins and leaves in one queue, so that a leave cannot overtake its own join.
    /// Bounded by two entries per connection.
    changes: SegQueue<Change<T>>,
    /// Whether a change has been announced since the last apply.
    announced: AtomicBool,
    tickets: AtomicU64,
}

impl<T: Ticketed> MemberList<T> {
    pub(crate) fn new() -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(Snapshot { blocks: Vec::new() }),
            changes: SegQueue::new(),
            announced: AtomicBool::new(false),
            tickets: AtomicU64::new(0),
        }
    }

    /// Queues a join. If true, the caller must schedule an apply on the shard.
    #[must_use]
    pub(crate) fn queue_join(&self, member: Arc<T>) -> bool {
        self.change(Change::Join(member))
    }

    /// Queues the leave of a member that has joined. If true, as for [`MemberList::join`].
    #[must_use]
    pub(crate) fn queue_leave(&self, member: Arc<T>) -> bool {
        self.change(Change::Leave(member))
    }

    fn change(&self, change: Change<T>) -> bool {
        self.changes.push(change);
        !self.announced.swap(true, Ordering::AcqRel)
    }

    #[cfg(not(feature = "loom"))]
    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot<T>>> {
        self.snapshot.load()
    }

    #[cfg(feature = "loom")]
    pub(crate) fn snapshot(&self) -> Arc<Snapshot<T>> {
        self.snapshot.load()
    }

    /// Applies all queued joins and leaves to the snapshot; returns the newcomers that have not left.
    ///
    /// Cost: one block copied for each block that changes, and the list of blocks once.
    pub(crate) fn apply(&self) -> Vec<Arc<T>> {
        // Cleared before the queue is read: a change pushed after the last pop announces itself again.
        if !self.announced.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let mut joined: Vec<Option<Arc<T>>> = Vec::new();
        let mut left: Vec<u64> = Vec::new();
        let first_new = self.tickets.load(Ordering::Relaxed) + 1;
        let mut next = first_new;
        while let Some(change) = self.changes.pop() {
            match change {
                Change::Join(member) => {
                    member.ticket().store(next, Ordering::Relaxed);
                    next += 1;
                    joined.push(Some(member));
                }
                Change::Leave(member) => match member.ticket().load(Ordering::Relaxed) {
                    new if new >= first_new => joined[(new - first_new) as usize] = None,
                    old => left.push(old),
                },
            }
        }
        self.tickets.store(next - 1, Ordering::Relaxed);
        let joined: Vec<Arc<T>> = joined.into_iter().flatten().collect();
        if !(joined.is_empty() && left.is_empty()) {
            left.sort_unstable();
            let old = self.snapshot.load_full();
            let blocks = with_joined(without(&old.blocks, &left), &joined);
            self.snapshot.store(Arc::new(Snapshot { blocks }));
        }
        joined
    }
}

/// The blocks without the members of these (ascending) tickets. Untouched blocks are shared, emptied ones
/// dropped, and neighbours that together half fill a block are merged.
fn without<T: Ticketed>(blocks: &[Arc<Vec<Arc<T>>>], left: &[u64]) -> Vec<Arc<Vec<Arc<T>>>> {
    let ticket = |member: &Arc<T>| member.ticket().load(Ordering::Relaxed);
    let mut kept: Vec<Arc<Vec<Arc<T>>>> = Vec::with_capacity(blocks.len() + 1);
    let mut left = left;
    for block in blocks {
        let here = block.last().map_or(0, |last| {
            let last = ticket(last);
            left.partition_point(|gone| *gone <= last)
        });
        if here == 0 {
            kept.push(Arc::clone(block));
            continue;
        }
        let (gone, rest) = left.split_at(here);
        left = rest;
        let stay = block.iter().filter(|m| gone.binary_search(&ticket(m)).is_err());
        let mut stay: Vec<Arc<T>> = stay.cloned().collect();
        match kept.last_mut() {
            _ if stay.is_empty() => {}
            Some(before) if before.len() + stay.len() <= BLOCK / 2 => {
                let mut merged = Vec::clone(before);
                merged.append(&mut stay);
                *before = Arc::new(merged);
            }
            _ => kept.push(Arc::new(stay)),
        }
    }
    kept
}

fn with_joined<T>(mut blocks: Vec<Arc<Vec<Arc<T>>>>, joined: &[Arc<T>]) -> Vec<Arc<Vec<Arc<T>>>> {
    let mut joined = joined;
    if let Some(last) = blocks.last_mut().filter(|last| last.len() < BLOCK) {
        let (fit, rest) = joined.split_at(joined.len().min(BLOCK - last.len()));
        if !fit.is_empty() {
            *last = Arc::new(last.iter().chain(fit).cloned().collect());
        }
        joined = rest;
    }
    blocks.extend(joined.chunks(BLOCK).map(|block| Arc::new(block.to_vec())));
    blocks
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Person(AtomicU64);

    impl Ticketed for Person {
        fn ticket(&self) -> &AtomicU64 {
            &self.0
        }
    }

    fn person() -> Arc<Person> {
        Arc::new(Person(AtomicU64::new(0)))
    }

    fn listed(members: &MemberList<Person>) -> Vec<*const Person> {
        members.snapshot().iter().map(Arc::as_ptr).collect()
    }

    #[test]
    fn only_the_first_change_after_an_apply_is_announced() {
        let members = MemberList::new();
        let ann = person();
        assert!(members.queue_join(ann.clone()));
        assert!(!members.queue_join(person()));
        assert_eq!(members.apply().len(), 2);
        assert!(members.queue_leave(ann));
        assert!(members.apply().is_empty());
        assert_eq!(listed(&members).len(), 1);
    }

    #[test]
    fn member_that_left_before_the_apply_is_never_listed() {
        let members = MemberList::new();
        let ann = person();
        let _ = members.queue_join(ann.clone());
        let _ = members.queue_leave(ann);
        assert!(members.apply().is_empty());
        assert!(members.snapshot().is_empty());
    }

    #[test]
    fn join_copies_one_block() {
        let members = MemberList::new();
        for _ in 0..=BLOCK * 10 {
            let _ = members.queue_join(person());
        }
        members.apply();
        let before = members.snapshot.load_full();
        let _ = members.queue_join(person());
        members.apply();
        let after = members.snapshot.load_full();
        let shared = before.blocks.iter().zip(&after.blocks);
        assert_eq!(shared.filter(|(a, b)| Arc::ptr_eq(a, b)).count(), 10);
    }

    proptest! {
        /// Against a plain list, over joins, leaves and applies in any order.
        #[test]
        fn snapshot_equals_a_plain_list(steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 1..600)) {
            let members = MemberList::new();
            let mut plain: Vec<Arc<Person>> = Vec::new();
            for (step, which) in steps {
                match step {
                    0 if !plain.is_empty() => {
                        let gone = plain.remove(which.index(plain.len()));
                        let _ = members.queue_leave(gone);
                    }
                    1 => { members.apply(); }
                    _ => {
                        plain.push(person());
                        let _ = members.queue_join(plain.last().expect("just pushed").clone());
                    }
                }
            }
            members.apply();
            let expected: Vec<_> = plain.iter().map(Arc::as_ptr).collect();
            prop_assert_eq!(listed(&members), expected);
            prop_assert!(members.snapshot.load().blocks.iter().all(|b| !b.is_empty() && b.len() <= BLOCK));
        }
    }
}
