//! Checks the messages that one connection receives.
//!
//! Detects lost, duplicate and reordered messages of each publisher. Keeps a digest of the order across publishers, which
//! two connections of a room can compare even if one has received more than the other. A delivery costs one comparison,
//! one multiplication and no allocation.

use super::payload::Stamp;

/// Interval of saved digests, by which connections with different amounts of messages are compared.
const MARK: u64 = 1024;

/// The next number of a publisher before its first message, for a connection that joined during the run.
const UNSEEN: u32 = u32::MAX;

/// The checks of one connection.
pub(super) struct Receiver {
    /// The next expected number, by publisher of the room.
    next: Box<[u32]>,
    received: u64,
    digest: u64,
    marks: Vec<u64>,
    errors: DeliveryErrors,
    /// Skipped ranges of numbers: publisher, first, end.
    missing: Vec<(u32, u32, u32)>,
}

/// Errors of delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DeliveryErrors {
    /// Numbers that were skipped and not received later.
    pub(super) lost: u64,
    /// Numbers received again.
    pub(super) duplicates: u64,
    /// Numbers received after later ones of the same publisher.
    pub(super) overtaken: u64,
}

impl std::ops::AddAssign for DeliveryErrors {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.overtaken += other.overtaken;
    }
}

impl Receiver {
    /// A connection that joined before the first message.
    pub(super) fn from_the_start(publishers: usize) -> Self {
        Self::new(vec![0; publishers])
    }

    /// A connection that joined during the run: any first message of a publisher is valid.
    pub(super) fn in_the_middle(publishers: usize) -> Self {
        Self::new(vec![UNSEEN; publishers])
    }

    fn new(next: Vec<u32>) -> Self {
        let marks = Vec::new();
        let missing = Vec::new();
        Self { next: next.into(), received: 0, digest: 0, marks, errors: DeliveryErrors::default(), missing }
    }

    /// Records a message; false if the room has no such publisher.
    #[inline]
    pub(super) fn record(&mut self, stamp: Stamp) -> bool {
        let Some(next) = self.next.get_mut(stamp.slot as usize) else { return false };
        if *next == stamp.number {
            *next += 1;
        } else {
            self.record_out_of_order(stamp);
        }
        let published = u64::from(stamp.slot) << 32 | u64::from(stamp.number);
        // rustc's FxHash step: it depends on the order, and collisions are unlikely.
        self.digest = (self.digest.rotate_left(5) ^ published).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.received += 1;
        if self.received.is_multiple_of(MARK) {
            self.marks.push(self.digest);
        }
        true
    }

    #[cold]
    fn record_out_of_order(&mut self, Stamp { slot, number }: Stamp) {
        let next = &mut self.next[slot as usize];
        if *next == UNSEEN {
            *next = number + 1;
        } else if number > *next {
            self.missing.push((slot, *next, number));
            self.errors.lost += u64::from(number - *next);
            *next = number + 1;
        } else if let Some(at) =
            self.missing.iter().position(|&(who, first, end)| who == slot && (first..end).contains(&number))
        {
            let (_, first, end) = self.missing.swap_remove(at);
            self.missing.extend(
                [(slot, first, number), (slot, number + 1, end)].into_iter().filter(|run| run.1 < run.2),
            );
            self.errors.lost -= 1;
            self.errors.overtaken += 1;
        } else {
            self.errors.duplicates += 1;
        }
    }

    /// By publisher, the number of messages up to the last received one.
    pub(super) fn reached(&self) -> impl Iterator<Item = u32> {
        self.next.iter().map(|&next| if next == UNSEEN { 0 } else { next })
    }

    /// How many of a publisher's `published` messages are outstanding.
    pub(super) fn behind(&self, slot: usize, published: u32) -> u32 {
        match self.next[slot] {
            // The connection may have joined after the last message.
            UNSEEN => 0,
            next => published.saturating_sub(next),
        }
    }

    pub(super) fn errors(&self) -> DeliveryErrors {
        self.errors
    }
}

/// How many different orders these connections of a room have received, over the messages that all have received; `None`
/// if there are none.
pub(super) fn orders<'a>(receivers: impl Iterator<Item = &'a Receiver> + Clone) -> Option<usize> {
    let shortest = receivers.clone().map(|receiver| receiver.received).min()?;
    let longest = receivers.clone().map(|receiver| receiver.received).max()?;
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

    fn receives(receiver: &mut Receiver, published: &[(u32, u32)]) {
        for &(slot, number) in published {
            assert!(receiver.record(Stamp { slot, number }));
        }
    }

    fn errors(published: &[(u32, u32)]) -> DeliveryErrors {
        let mut receiver = Receiver::from_the_start(2);
        receives(&mut receiver, published);
        receiver.errors()
    }

    #[test]
    fn loss_duplicates_and_reordering_are_distinguished() {
        assert_eq!(errors(&[(0, 0), (1, 0), (1, 1), (0, 1)]), DeliveryErrors::default());
        assert_eq!(errors(&[(0, 0), (0, 4)]), DeliveryErrors { lost: 3, ..DeliveryErrors::default() });
        assert_eq!(errors(&[(1, 1), (1, 0)]), DeliveryErrors { overtaken: 1, ..DeliveryErrors::default() });
        assert_eq!(errors(&[(1, 0), (1, 0)]), DeliveryErrors { duplicates: 1, ..DeliveryErrors::default() });
        let all = DeliveryErrors { lost: 1, duplicates: 1, overtaken: 1 };
        assert_eq!(
            errors(&[(0, 3), (0, 1), (0, 1), (0, 4), (0, 0), (0, 2)]),
            DeliveryErrors { lost: 0, overtaken: 3, ..all }
        );
    }

    #[test]
    fn late_joiner_is_checked_from_its_first_message() {
        let mut receiver = Receiver::in_the_middle(2);
        receives(&mut receiver, &[(0, 17), (0, 18), (0, 20)]);
        assert_eq!(receiver.errors().lost, 1);
        assert_eq!((receiver.behind(0, 23), receiver.behind(1, 9)), (2, 0));
    }

    #[test]
    fn message_of_unknown_publisher_is_refused() {
        assert!(!Receiver::from_the_start(2).record(Stamp { slot: 2, number: 0 }));
    }

    /// `count` messages of publishers 0 and 1 in turn; `swapped` exchanges two neighbours.
    fn received(count: u32, swapped: Option<u32>) -> Receiver {
        let mut published: Vec<_> = (0..count).map(|n| (n % 2, n / 2)).collect();
        if let Some(at) = swapped {
            published.swap(at as usize, at as usize + 1);
        }
        let mut receiver = Receiver::from_the_start(2);
        receives(&mut receiver, &published);
        receiver
    }

    #[test]
    fn orders_are_compared_over_common_messages() {
        let same = [received(3000, None), received(3000, None)];
        assert_eq!(orders(same.iter()), Some(1));
        let late = [received(3000, Some(2998)), received(3000, None), received(3000, None)];
        assert_eq!(orders(late.iter()), Some(2), "the very last pair");
        let longer = [received(2100, Some(100)), received(5000, None)];
        assert_eq!(orders(longer.iter()), Some(2), "one has received more");
        let shorter = [received(2100, None), received(5000, Some(4000))];
        assert_eq!(orders(shorter.iter()), Some(1), "they differ where only one has received");
        assert_eq!(orders([].into_iter()), None);
        assert_eq!(orders([received(0, None), received(5, None)].iter()), None);
    }
}
