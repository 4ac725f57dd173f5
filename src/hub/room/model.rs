//! The hub's lock-free protocols in every interleaving of their threads, by loom
//! (`cargo test --features loom --lib hub::room::model`).
//!
//! What runs here is the real code of the [batch cycle](super::cycle), the [inbox](super::inbox), the
//! [occupancy](super::occupancy) and the [member list](crate::hub::member::list); only the primitives below it are loom's
//! (see [`crate::hub::sync`]).

use super::cycle::{BatchRoom, Cycle, Job, Round};
use super::inbox::{Inbox, Pending};
use super::linger::{LastBatch, Linger};
use super::occupancy::Occupancy;
use crate::hub::log::position::Cursor;
use crate::hub::member::list::{MemberList, Ticketed};
use crate::hub::member::{DeliveryMode, Member};
use crate::hub::options::ClientInfo;
use crate::hub::shard::queue::ShardSet;
use crate::hub::sync::{AtomicBool, AtomicU64, AtomicUsize, AtomicWaker, Ordering, SegQueue};
use crate::hub::wire_form::WireForm;
use loom::thread;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

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

    fn reads_up_to(&self, tail: &AtomicUsize, last: usize) {
        let is_there = || tail.load(Ordering::Acquire) >= last;
        loom::future::block_on(poll_fn(|cx| {
            if is_there() {
                return Poll::Ready(());
            }
            self.waker.register(cx.waker());
            if is_there() { Poll::Ready(()) } else { Poll::Pending }
        }));
    }
}

/// A shard with the members of one room.
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

/// A join that races with a broadcast: whichever comes first, the newcomer receives the message (a missed wake would
/// be a deadlock, which loom reports), and the list has it.
#[test]
fn newcomer_misses_no_wake() {
    loom::model(|| {
        let shard = Arc::new(Shard { members: MemberList::new(), tail: AtomicUsize::new(0) });
        let joining = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || {
                let reader = Reader::new();
                let is_announced = shard.members.queue_join(Arc::clone(&reader));
                assert!(is_announced);
                reader.reads_up_to(&shard.tail, 1);
            })
        };
        // The shard: a broadcast, and the job that the join announces (at any time: here until it is done).
        shard.append_and_fan_out();
        while shard.members.snapshot().is_empty() {
            shard.apply();
            thread::yield_now();
        }
        joining.join().unwrap();
        assert_eq!(shard.members.snapshot().iter().count(), 1);
    });
}

/// Two members join and one of them leaves, while the shard applies and broadcasts: none is lost, none stays for ever.
#[test]
fn joins_and_leaves_are_all_applied() {
    loom::model(|| {
        let shard = Arc::new(Shard { members: MemberList::new(), tail: AtomicUsize::new(0) });
        let announced = Arc::new(AtomicUsize::new(0));
        let passing = {
            let (shard, announced) = (Arc::clone(&shard), Arc::clone(&announced));
            thread::spawn(move || {
                let reader = Reader::new();
                let joined = shard.members.queue_join(Arc::clone(&reader));
                let left = shard.members.queue_leave(reader);
                announced.fetch_add(usize::from(joined) + usize::from(left), Ordering::AcqRel);
            })
        };
        let stays = Reader::new();
        let joined = shard.members.queue_join(Arc::clone(&stays));
        announced.fetch_add(usize::from(joined), Ordering::AcqRel);
        shard.apply();
        shard.append_and_fan_out();
        passing.join().unwrap();
        // The first change since the last apply is announced: one more apply does it all.
        assert!(announced.load(Ordering::Acquire) >= 1);
        shard.apply();
        let snapshot = shard.members.snapshot();
        let listed: Vec<_> = snapshot.iter().collect();
        assert_eq!(listed.len(), 1);
        assert!(Arc::ptr_eq(listed[0], &stays));
    });
}

/// A room as small as can be: its log is what its writer has taken from the inbox, and its members are one flag a shard.
struct ModelRoom {
    cycle: Cycle<Vec<usize>>,
    inbox: SegQueue<usize>,
    shards: Vec<SegQueue<Job<Self, Vec<usize>>>>,
    /// Members that have been woken for the current batch and have not run.
    woken: Vec<AtomicBool>,
    /// Messages whose batch is over.
    done: AtomicUsize,
}

impl ModelRoom {
    fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self {
            cycle: Cycle::new(Vec::new()),
            inbox: SegQueue::new(),
            shards: (0..shards).map(|_| SegQueue::new()).collect(),
            woken: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            done: AtomicUsize::new(0),
        })
    }

    fn publish(self: &Arc<Self>, message: usize, shard: usize) {
        self.inbox.push(message);
        Cycle::offered(self, shard);
    }

    /// Does what a shard's driver does, until so many messages have been broadcast.
    fn drive(self: &Arc<Self>, shard: usize, messages: usize) {
        let mut round = Round::new(shard);
        while self.done.load(Ordering::Acquire) < messages {
            self.run_jobs(&mut round, shard);
            thread::yield_now();
        }
    }

    fn run_jobs(self: &Arc<Self>, round: &mut Round<Self>, shard: usize) {
        while let Some(job) = self.shards[shard].pop() {
            round.start(job);
        }
        round.begin_batches();
        if round.is_fanning_out() {
            self.woken[shard].store(false, Ordering::Relaxed);
            round.finish_batches();
        }
    }

    /// What was sequenced, once all threads are done. An offer whose message was sequenced before it looked for the writer
    /// has left a job for an empty batch.
    fn log(self: &Arc<Self>) -> Vec<usize> {
        let mut rounds: Vec<_> = (0..self.shards.len()).map(Round::new).collect();
        while self.shards.iter().any(|jobs| !jobs.is_empty()) {
            rounds.iter_mut().enumerate().for_each(|(shard, round)| self.run_jobs(round, shard));
        }
        let mut log = None;
        Cycle::with_resting(self, 0, |writer| log = Some(writer.clone()));
        log.expect("the room is at rest when nothing waits")
    }
}

impl BatchRoom for ModelRoom {
    type Writer = Vec<usize>;
    type Receipts = ();

    fn cycle(&self) -> &Cycle<Vec<usize>> {
        &self.cycle
    }

    fn push(&self, shard: usize, job: Job<Self, Vec<usize>>) {
        self.shards[shard].push(job);
    }

    fn push_later(&self, _: Duration, shard: usize, job: Job<Self, Vec<usize>>) {
        self.push(shard, job);
    }

    fn has_pending(&self) -> bool {
        !self.inbox.is_empty()
    }

    fn pending(&self) -> u64 {
        self.inbox.len() as u64
    }

    fn linger(&self, _: &Vec<usize>) -> Linger {
        LastBatch::default().linger(Instant::now())
    }

    fn sequence(&self, log: &mut Vec<usize>, _: usize) {
        let is_woken = |woken: &AtomicBool| woken.load(Ordering::Relaxed);
        assert!(!self.woken.iter().any(is_woken), "the members of the last batch have not run");
        while let Some(message) = self.inbox.pop() {
            log.push(message);
        }
    }

    fn populated_shards(&self) -> ShardSet {
        (0..self.shards.len()).collect()
    }

    fn wake_members(&self, shard: usize) {
        self.woken[shard].store(true, Ordering::Relaxed);
    }

    fn fan_out_done(&self, _: usize) {}

    fn send_receipts(&self, (): ()) {}

    fn batch_done(&self, log: &mut Vec<usize>) -> LastBatch {
        self.done.store(log.len(), Ordering::Release);
        LastBatch::default()
    }

    fn apply_members(&self, _: usize) {}
}

/// Two publishers, while a shard sequences, fans out and rests: every message is broadcast once.
#[test]
fn every_offered_message_is_sequenced_once() {
    loom::model(|| {
        let room = ModelRoom::new(1);
        let other = {
            let room = Arc::clone(&room);
            thread::spawn(move || room.publish(1, 0))
        };
        room.publish(2, 0);
        room.drive(0, 2);
        other.join().unwrap();
        let mut log = room.log();
        log.sort_unstable();
        assert_eq!(log, [1, 2]);
    });
}

/// Two shards, with a publisher on each: a batch begins when the members of the last one have run on both.
#[test]
fn next_batch_waits_for_all_shards() {
    // Bounded: two drivers that poll make the number of interleavings explode.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let room = ModelRoom::new(2);
        let other = {
            let room = Arc::clone(&room);
            thread::spawn(move || {
                room.publish(1, 1);
                room.drive(1, 2);
            })
        };
        room.publish(2, 0);
        room.drive(0, 2);
        other.join().unwrap();
        let mut log = room.log();
        log.sort_unstable();
        assert_eq!(log, [1, 2]);
    });
}

/// Housekeeping that uses the writer of a resting room, while a message is published: the message is broadcast.
#[test]
fn housekeeping_delays_no_message() {
    loom::model(|| {
        let room = ModelRoom::new(1);
        let housekeeping = {
            let room = Arc::clone(&room);
            thread::spawn(move || Cycle::with_resting(&room, 0, |_| ()))
        };
        room.publish(1, 0);
        room.drive(0, 1);
        housekeeping.join().unwrap();
        assert_eq!(room.log(), [1]);
    });
}

/// A join that races with the retirement of an idle room, and with the last member's leave: a member keeps its room
/// alive, and a retired room stays retired.
#[test]
fn retired_room_has_no_member() {
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

/// A publisher that finds the inbox full, and the sequencer that makes room at that moment: the publisher is woken.
#[test]
fn publisher_waiting_for_the_inbox_is_woken() {
    loom::model(|| {
        let who = ClientInfo::anonymous();
        let member = Arc::new(Member::new(1, who, 0, Cursor::START, DeliveryMode::default()));
        let inbox = Arc::new(Inbox::new(1, 1000));
        let pending = |message| Pending {
            from: Some(Arc::clone(&member)),
            form: WireForm::Primary,
            message,
            accepted: Instant::now(),
            size: 10,
        };
        assert!(inbox.offer(pending(1)).is_ok());
        let sequencer = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                let taken = inbox.take().expect("one was offered");
                inbox.release(1, taken.size);
            })
        };
        let mut second = Some(pending(2));
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
            member.publisher_waker().register(cx.waker());
            inbox.wake_on_release(&member);
            attempt()
        }));
        sequencer.join().unwrap();
    });
}
