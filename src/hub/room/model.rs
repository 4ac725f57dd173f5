//! The hub's protocols in every interleaving of their threads, by loom (`cargo test --features loom --lib hub::room::model`).
//!
//! What runs here is the real code of [`crate::hub::member::list`], [`crate::hub::room::cycle`] and [`crate::hub::room::inbox`]; only the primitives
//! below it are loom's (see [`crate::hub::sync`]).

use crate::hub::member::list::{MemberList, Ticketed};
use crate::hub::room::cycle::{Handoff, Occupancy};
use crate::hub::sync::{AtomicU64, AtomicUsize, AtomicWaker, Ordering, SegQueue};
use loom::thread;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

/// A member that waits for the tail of a log, as a subscription does: look, register, look again.
struct Reader {
    ticket: AtomicU64,
    waker: AtomicWaker,
}

impl Ticketed for Reader {
    fn ticket(&self) -> &AtomicU64 {
        &self.ticket
    }
}

impl Reader {
    fn new() -> Arc<Self> {
        Arc::new(Self { ticket: AtomicU64::new(0), waker: AtomicWaker::new() })
    }

    fn hears_up_to(&self, tail: &AtomicUsize, last: usize) {
        let heard = || tail.load(Ordering::Acquire) >= last;
        loom::future::block_on(poll_fn(|cx| {
            if heard() {
                return Poll::Ready(());
            }
            self.waker.register(cx.waker());
            if heard() { Poll::Ready(()) } else { Poll::Pending }
        }));
    }
}

/// A shard with one room: what it does for each turn, in the order that it does it.
struct Shard {
    members: MemberList<Reader>,
    tail: AtomicUsize,
}

impl Shard {
    fn apply(&self) {
        for newcomer in self.members.apply() {
            newcomer.waker.wake();
        }
    }

    fn append_and_fan_out(&self) {
        self.tail.fetch_add(1, Ordering::Release);
        for member in self.members.snapshot().iter() {
            member.waker.wake();
        }
    }
}

/// A join that races with a broadcast: whichever comes first, the newcomer hears the message (a missed wake would
/// be a deadlock, which loom reports), and the list has it.
#[test]
fn a_newcomer_misses_no_wake() {
    loom::model(|| {
        let shard = Arc::new(Shard { members: MemberList::new(), tail: AtomicUsize::new(0) });
        let joining = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || {
                let reader = Reader::new();
                let tell_lane = shard.members.join(Arc::clone(&reader));
                assert!(tell_lane);
                reader.hears_up_to(&shard.tail, 1);
            })
        };
        // The shard: a broadcast, and the turn it was told of (at any time: here until it is done).
        shard.append_and_fan_out();
        while shard.members.snapshot().is_empty() {
            shard.apply();
            thread::yield_now();
        }
        joining.join().unwrap();
        assert_eq!(shard.members.snapshot().iter().count(), 1);
    });
}

/// Two come and one of them goes, while the shard applies and broadcasts: nobody is lost, nobody stays for ever.
#[test]
fn joins_and_leaves_are_all_applied() {
    loom::model(|| {
        let shard = Arc::new(Shard { members: MemberList::new(), tail: AtomicUsize::new(0) });
        let told = Arc::new(AtomicUsize::new(0));
        let passing = {
            let (shard, told) = (Arc::clone(&shard), Arc::clone(&told));
            thread::spawn(move || {
                let reader = Reader::new();
                let joined = shard.members.join(Arc::clone(&reader));
                let left = shard.members.leave(reader);
                told.fetch_add(usize::from(joined) + usize::from(left), Ordering::AcqRel);
            })
        };
        let stays = Reader::new();
        let joined = shard.members.join(Arc::clone(&stays));
        told.fetch_add(usize::from(joined), Ordering::AcqRel);
        shard.apply();
        shard.append_and_fan_out();
        passing.join().unwrap();
        // Whoever made the first change since the last apply has told the shard: one more turn does it all.
        assert!(told.load(Ordering::Acquire) >= 1);
        shard.apply();
        let snapshot = shard.members.snapshot();
        let listed: Vec<_> = snapshot.iter().collect();
        assert_eq!(listed.len(), 1);
        assert!(Arc::ptr_eq(listed[0], &stays));
    });
}

/// Two senders offer while the turn is taken, used and parked: every offer is sequenced, none twice, and never do
/// two act at once.
#[test]
fn every_offer_finds_somebody_to_sequence_it() {
    struct Room {
        inbox: SegQueue<usize>,
        resting: Handoff<Vec<usize>>,
    }
    impl Room {
        fn offer(&self, message: usize) {
            self.inbox.push(message);
            // As in `Room::offer`, `Room::sequence` and `Room::rest`, with the shard's part done at once.
            while let Some(mut log) = self.resting.take() {
                while let Some(next) = self.inbox.pop() {
                    log.push(next);
                }
                self.resting.park(log);
                if self.inbox.is_empty() {
                    break;
                }
            }
        }
    }
    loom::model(|| {
        let room = Arc::new(Room { inbox: SegQueue::new(), resting: Handoff::holding(Box::default()) });
        let other = {
            let room = Arc::clone(&room);
            thread::spawn(move || room.offer(1))
        };
        room.offer(2);
        other.join().unwrap();
        let mut log = room.resting.take().expect("the turn is parked when nobody offers");
        log.sort_unstable();
        assert_eq!(*log, [1, 2]);
    });
}

/// A join races with the retirement of an idle room, and with the last member's leave: whoever got in is never in
/// a retired room, and a retired room stays so.
#[test]
fn nobody_is_in_a_retired_room() {
    loom::model(|| {
        let occupancy = Arc::new(Occupancy::empty());
        let joins = {
            let occupancy = Arc::clone(&occupancy);
            thread::spawn(move || {
                let entered = occupancy.enter();
                if entered {
                    assert!(!occupancy.retire(), "retired with somebody in it");
                    let _ = occupancy.leave();
                }
                entered
            })
        };
        let retired = occupancy.retire();
        let entered = joins.join().unwrap();
        assert!(retired || entered, "one of the two must win");
        assert_eq!(retired, !occupancy.enter());
    });
}

/// A sender that finds the inbox full, and the sequencer that makes room at that moment: the sender is woken.
#[test]
fn a_sender_that_waits_for_room_is_woken() {
    use crate::hub::log::position::Cursor;
    use crate::hub::member::{DeliveryMode, Member};
    use crate::hub::options::ClientInfo;
    use crate::hub::room::inbox::{Inbox, Pending};

    loom::model(|| {
        let who = ClientInfo::anonymous();
        let member = Arc::new(Member::new(1, who, 0, Cursor::START, DeliveryMode::default()));
        let inbox = Arc::new(Inbox::new(1, 1000));
        let offer = |message| Pending {
            from: Some(Arc::clone(&member)),
            form: 0,
            message,
            accepted: Instant::now(),
            size: 10,
        };
        assert!(inbox.offer(offer(1)).is_ok());
        let sequencer = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                let taken = inbox.take().expect("one was offered");
                inbox.release(1, taken.size);
            })
        };
        let mut second = Some(offer(2));
        loom::future::block_on(poll_fn(|cx| {
            let mut attempt = || match inbox.offer(second.take().expect("until it is taken")) {
                Ok(()) => Poll::Ready(()),
                Err(back) => {
                    second = Some(back);
                    Poll::Pending
                }
            };
            if attempt().is_ready() {
                return Poll::Ready(());
            }
            member.sender().register(cx.waker());
            inbox.wake_on_release(&member);
            attempt()
        }));
        sequencer.join().unwrap();
    });
}
