//! What one connection has heard, checked message by message.
//!
//! Promises that a message lost, heard twice, or out of its sender's order is noticed; and a digest of the order of all
//! senders' messages, which two connections of a room can compare even when one has heard more than the other.
//! A delivery costs one comparison, one multiplication, and nothing on the heap.

use super::payload::Stamp;

/// After so many messages the digest is noted, so that connections that heard different amounts can be compared.
const MARK: u64 = 1024;

/// The next number of a publisher that has not been heard, by one who came in the middle.
const UNHEARD: u32 = u32::MAX;

/// A connection's account of what it heard.
pub(super) struct Receiver {
    /// By publisher of the room.
    next: Box<[u32]>,
    heard: u64,
    digest: u64,
    marks: Vec<u64>,
    faults: Faults,
    /// Runs of numbers that were skipped: publisher, first, end.
    missing: Vec<(u32, u32, u32)>,
}

/// What must not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Numbers skipped, and not heard later.
    pub(super) lost: u64,
    /// Numbers heard again.
    pub(super) duplicates: u64,
    /// Numbers heard after later ones of the same sender.
    pub(super) overtaken: u64,
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.overtaken += other.overtaken;
    }
}

impl Receiver {
    /// One who is there before the first message.
    pub(super) fn from_the_start(publishers: usize) -> Self {
        Self::new(vec![0; publishers])
    }

    /// One who joins while messages are said: whatever it hears first of a publisher is the first.
    pub(super) fn in_the_middle(publishers: usize) -> Self {
        Self::new(vec![UNHEARD; publishers])
    }

    fn new(next: Vec<u32>) -> Self {
        let (marks, missing) = (Vec::new(), Vec::new());
        Self { next: next.into(), heard: 0, digest: 0, marks, faults: Faults::default(), missing }
    }

    /// Takes a message down; false if the room has no such publisher.
    #[inline]
    pub(super) fn hear(&mut self, stamp: Stamp) -> bool {
        let Some(next) = self.next.get_mut(stamp.slot as usize) else { return false };
        if *next == stamp.number {
            *next += 1;
        } else {
            self.hear_out_of_line(stamp);
        }
        let said = u64::from(stamp.slot) << 32 | u64::from(stamp.number);
        // The hash of rustc: order matters in it, and collisions are by chance only.
        self.digest = (self.digest.rotate_left(5) ^ said).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.heard += 1;
        if self.heard.is_multiple_of(MARK) {
            self.marks.push(self.digest);
        }
        true
    }

    #[cold]
    fn hear_out_of_line(&mut self, Stamp { slot, number }: Stamp) {
        let next = &mut self.next[slot as usize];
        if *next == UNHEARD {
            *next = number + 1;
        } else if number > *next {
            self.missing.push((slot, *next, number));
            self.faults.lost += u64::from(number - *next);
            *next = number + 1;
        } else if let Some(at) =
            self.missing.iter().position(|&(who, first, end)| who == slot && (first..end).contains(&number))
        {
            let (_, first, end) = self.missing.swap_remove(at);
            self.missing.extend(
                [(slot, first, number), (slot, number + 1, end)].into_iter().filter(|run| run.1 < run.2),
            );
            self.faults.lost -= 1;
            self.faults.overtaken += 1;
        } else {
            self.faults.duplicates += 1;
        }
    }

    /// Publisher by publisher, how many of its messages were said until the last that was heard.
    pub(super) fn reached(&self) -> impl Iterator<Item = u32> {
        self.next.iter().map(|&next| if next == UNHEARD { 0 } else { next })
    }

    /// Of a publisher that has said so many, how many are still to come.
    pub(super) fn behind(&self, slot: usize, said: u32) -> u32 {
        match self.next[slot] {
            // It may have come after the last.
            UNHEARD => 0,
            next => said.saturating_sub(next),
        }
    }

    pub(super) fn faults(&self) -> Faults {
        self.faults
    }
}

/// How many different orders these connections of a room have heard, of what all of them have heard; none if that is nothing.
pub(super) fn orders<'a>(receivers: impl Iterator<Item = &'a Receiver> + Clone) -> Option<usize> {
    let shortest = receivers.clone().map(|receiver| receiver.heard).min()?;
    let longest = receivers.clone().map(|receiver| receiver.heard).max()?;
    let marks = (shortest / MARK) as usize;
    let mut digests: Vec<u64> = if shortest == longest {
        receivers.map(|receiver| receiver.digest).collect()
    } else {
        receivers.filter_map(|receiver| receiver.marks.get(marks.checked_sub(1)?).copied()).collect()
    };
    digests.sort_unstable();
    digests.dedup();
    (shortest > 0 && !digests.is_empty()).then_some(digests.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(receiver: &mut Receiver, said: &[(u32, u32)]) {
        for &(slot, number) in said {
            assert!(receiver.hear(Stamp { slot, number }));
        }
    }

    fn faults(said: &[(u32, u32)]) -> Faults {
        let mut receiver = Receiver::from_the_start(2);
        hears(&mut receiver, said);
        receiver.faults()
    }

    #[test]
    fn loss_repetition_and_overtaking_are_told_apart() {
        assert_eq!(faults(&[(0, 0), (1, 0), (1, 1), (0, 1)]), Faults::default());
        assert_eq!(faults(&[(0, 0), (0, 4)]), Faults { lost: 3, ..Faults::default() });
        assert_eq!(faults(&[(1, 1), (1, 0)]), Faults { overtaken: 1, ..Faults::default() });
        assert_eq!(faults(&[(1, 0), (1, 0)]), Faults { duplicates: 1, ..Faults::default() });
        let all = Faults { lost: 1, duplicates: 1, overtaken: 1 };
        assert_eq!(
            faults(&[(0, 3), (0, 1), (0, 1), (0, 4), (0, 0), (0, 2)]),
            Faults { lost: 0, overtaken: 3, ..all }
        );
    }

    #[test]
    fn who_comes_in_the_middle_misses_nothing_from_there() {
        let mut receiver = Receiver::in_the_middle(2);
        hears(&mut receiver, &[(0, 17), (0, 18), (0, 20)]);
        assert_eq!(receiver.faults().lost, 1);
        assert_eq!((receiver.behind(0, 23), receiver.behind(1, 9)), (2, 0));
    }

    #[test]
    fn a_message_of_nobody_is_refused() {
        assert!(!Receiver::from_the_start(2).hear(Stamp { slot: 2, number: 0 }));
    }

    /// Publisher 0 and 1 in turn, `count` messages; `swapped` exchanges two neighbours.
    fn heard(count: u32, swapped: Option<u32>) -> Receiver {
        let mut said: Vec<_> = (0..count).map(|n| (n % 2, n / 2)).collect();
        if let Some(at) = swapped {
            said.swap(at as usize, at as usize + 1);
        }
        let mut receiver = Receiver::from_the_start(2);
        hears(&mut receiver, &said);
        receiver
    }

    #[test]
    fn orders_are_compared_over_what_all_have_heard() {
        let same = [heard(3000, None), heard(3000, None)];
        assert_eq!(orders(same.iter()), Some(1));
        let late = [heard(3000, Some(2998)), heard(3000, None), heard(3000, None)];
        assert_eq!(orders(late.iter()), Some(2), "the very last pair");
        let longer = [heard(2100, Some(100)), heard(5000, None)];
        assert_eq!(orders(longer.iter()), Some(2), "one has heard more");
        let shorter = [heard(2100, None), heard(5000, Some(4000))];
        assert_eq!(orders(shorter.iter()), Some(1), "they differ where only one has heard");
        assert_eq!(orders([].into_iter()), None);
        assert_eq!(orders([heard(0, None), heard(5, None)].iter()), None);
    }
}
