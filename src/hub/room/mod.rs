//! A room: an inbox, a log, and its members on each shard.
//!
//! Promises: one order for all members; offering, sequencing and fanning out take no lock and never wait for a
//! member. At most one batch is being fanned out at a time, and the next begins when the members woken by it
//! have had their turn on *every* shard: what arrives meanwhile gathers into the next segment. That is what
//! makes batches grow with the load by themselves, without a timer and without added latency when idle.

pub(crate) mod cycle;
pub(crate) mod dedup;
pub(crate) mod handles;
pub(crate) mod inbox;
pub(crate) mod linger;
#[cfg(all(test, feature = "loom"))]
mod model;
pub(crate) mod presence;
pub(crate) mod sequencer;

use crate::config::SlowPolicy;
use crate::hub::ids::RoomName;
use crate::hub::limits::Limits;
use crate::hub::log::budget::Budget;
use crate::hub::log::position::{Cursor, Epoch};
use crate::hub::log::{Log, log_within};
use crate::hub::member::Member;
use crate::hub::member::disconnect::DisconnectReason;
use crate::hub::member::list::MemberList;
use crate::hub::ops::rate::Rate;
use crate::hub::ops::snapshot::{ConnectionSnapshot, Lag};
use crate::hub::ops::stats::ConnectionStats;
use crate::hub::payload::{FORMS_MAX, Payload};
use crate::hub::registry::creators::Claim;
use crate::hub::room::cycle::{Handoff, Occupancy};
use crate::hub::room::inbox::{Inbox, Pending};
use crate::hub::room::presence::{PresenceTracker, pause_after};
use crate::hub::room::sequencer::Sequencer;
use crate::hub::shard::driver::{Job, Shard, ShardSet};
use crate::hub::shard::metrics::{ShardMetrics, nanos};
use crate::hub::sync::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// One room.
pub struct Room<M> {
    name: RoomName,
    epoch: Epoch,
    log: Arc<Log<M>>,
    inbox: Inbox<M>,
    share: usize,
    slow: SlowPolicy,
    /// One list of members for each shard, by shard number.
    members: Box<[MemberList<Member>]>,
    shards: Arc<[Shard<M>]>,
    stats: Arc<ConnectionStats>,
    occupancy: Occupancy,
    /// Connections that are in it or about to be, visitors not counted; and how many may be.
    connections: AtomicUsize,
    connections_max: usize,
    /// The room in the counts of the client that created it; the lobby is in nobody's.
    claim: Option<Claim>,
    /// How many members speak each wire form.
    subscribers: [AtomicUsize; FORMS_MAX],
    /// How many want to know who comes and goes.
    presence_subscribers: AtomicUsize,
    presence: PresenceTracker,
    /// No diff is called before this time, in milliseconds since `born`.
    presence_due: AtomicU64,
    /// How often the lists of members have changed; and the count up to which that was told.
    changes: AtomicU64,
    changes_published: AtomicU64,
    /// Here is the sequencer while nothing waits.
    resting: Handoff<Sequencer<M>>,
    /// Here is it while a batch is being fanned out.
    fanning_out: Handoff<Sequencer<M>>,
    /// Lanes whose members have not yet had their turn with the current batch.
    shards_due: AtomicUsize,
    /// Lanes that have not yet woken their members for the current batch.
    shards_waking: AtomicUsize,
    /// When the current batch was taken, in nanoseconds since `born`.
    batch_began: AtomicU64,
    rate: Rate,
    since: SystemTime,
    born: Instant,
    /// When the last member left, in milliseconds since `born`.
    emptied: AtomicU64,
}

impl<M: Payload> Room<M> {
    pub(crate) fn new(
        name: RoomName,
        limits: &Limits,
        shards: Arc<[Shard<M>]>,
        stats: Arc<ConnectionStats>,
        budget: &Arc<Budget>,
    ) -> Self {
        let epoch = Epoch::random();
        let (log, writer) = log_within(epoch, limits.retention.clone(), budget);
        let slow = limits.slow.of(name.as_str());
        Self {
            name,
            epoch,
            log,
            inbox: Inbox::new(limits.inbox_messages, limits.inbox_bytes),
            share: limits.inbox_share,
            slow,
            members: shards.iter().map(|_| MemberList::new()).collect(),
            shards,
            stats,
            occupancy: Occupancy::empty(),
            connections: AtomicUsize::new(0),
            connections_max: limits.connections_per_room.unwrap_or(usize::MAX),
            claim: None,
            subscribers: Default::default(),
            presence_subscribers: AtomicUsize::new(0),
            presence: PresenceTracker::default(),
            presence_due: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            changes_published: AtomicU64::new(u64::MAX),
            resting: Handoff::holding(Box::new(Sequencer::new(writer))),
            fanning_out: Handoff::empty(),
            shards_due: AtomicUsize::new(0),
            shards_waking: AtomicUsize::new(0),
            batch_began: AtomicU64::new(0),
            rate: Rate::default(),
            since: SystemTime::now(),
            born: Instant::now(),
            emptied: AtomicU64::new(0),
        }
    }

    /// The same room, in the counts of the client that creates it.
    pub(crate) fn created_by(self, claim: Option<Claim>) -> Self {
        Self { claim, ..self }
    }

    /// The room's name.
    #[must_use]
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    /// Which life of the room this is.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many connections are in it.
    #[must_use]
    pub fn occupancy(&self) -> usize {
        self.occupancy.count()
    }

    /// What was said in it.
    #[must_use]
    pub fn log(&self) -> &Log<M> {
        &self.log
    }

    /// Calls `visit` for each member, oldest first within a shard. Reads snapshots: nobody waits for it.
    pub fn for_each_member(&self, mut visit: impl FnMut(&Arc<Member>)) {
        for shard in &self.members {
            shard.snapshot().iter().filter(|member| !member.is_gone()).for_each(&mut visit);
        }
    }

    /// The members of this moment, in blocks of bounded size: for those who look at all of them and pause in between. Oldest
    /// first within a shard; who has [left](Member::is_gone) meanwhile may still be there.
    #[must_use]
    pub fn member_blocks(&self) -> Vec<Arc<Vec<Arc<Member>>>> {
        self.members.iter().flat_map(|shard| shard.snapshot().blocks().to_vec()).collect()
    }

    /// Ends a member's connection because the server stops: its transport takes no more calls, and it ends once it has
    /// been handed everything that the log has now. Whoever stops the server bounds how long that may take. False when
    /// its end was decided before.
    pub fn dismiss(&self, member: &Member) -> bool {
        if member.disconnected().is_some() {
            return false;
        }
        // First, so that the client comes back by another transport, and so to another server.
        member.go_away();
        member.disconnect_after(DisconnectReason::Shutdown, None, self.tail().offset - 1)
    }

    /// The member as it is now.
    #[must_use]
    pub fn snapshot(&self, member: &Arc<Member>) -> ConnectionSnapshot {
        let (lag, member) = (self.lag(member), Arc::clone(member));
        ConnectionSnapshot { member, room: self.name.clone(), epoch: self.epoch, lag }
    }

    /// How far behind the member is.
    #[must_use]
    pub fn lag(&self, member: &Member) -> Lag {
        let seen = member.cursor();
        let (messages, bytes) = self.log.lag(seen.offset, seen.bytes);
        let waiting = self.log.waiting_since(seen.segment);
        let time = waiting.map_or(Duration::ZERO, |at| at.elapsed());
        Lag { messages, bytes, time }
    }

    /// When the room began.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// Messages said in it since it began, and their bytes.
    #[must_use]
    pub fn published(&self) -> (u64, u64) {
        let tail = self.log.tail();
        (tail.offset - 1, tail.bytes)
    }

    /// Messages per second, lately.
    #[must_use]
    pub fn message_rate(&self) -> f64 {
        self.rate.get()
    }

    /// Looks at the rate again, `passed` after the last time.
    pub(crate) fn measure_rate(&self, passed: Duration) {
        self.rate.measure(self.log.tail().offset - 1, passed);
    }

    // Joining and leaving.

    /// Holds a place in the room, so that it cannot retire. False: it has retired.
    pub(crate) fn enter(&self) -> bool {
        self.occupancy.enter()
    }

    /// Claims one of the room's connections; false when all are taken. [`Room::leave`] gives it back.
    pub(crate) fn claim_connection(&self) -> bool {
        if self.connections.fetch_add(1, Ordering::AcqRel) < self.connections_max {
            return true;
        }
        self.release_connection();
        false
    }

    pub(crate) fn release_connection(&self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }

    /// Makes the member one of the room's; [`Room::enter`] and [`Room::claim_connection`] came before, [`Room::leave`] must come after.
    pub(crate) fn join(self: &Arc<Self>, member: Arc<Member>) {
        let (shard, mode) = (member.shard(), member.mode());
        self.subscribers[mode.form].fetch_add(1, Ordering::AcqRel);
        if mode.presence && self.presence_subscribers.fetch_add(1, Ordering::AcqRel) == 0 {
            self.presence.begin(self.present());
        }
        self.stats.joined(mode.form, || self.snapshot(&member));
        if self.members[shard].join(member) {
            self.shards[shard].push(Job::Members(Arc::clone(self)));
        }
    }

    pub(crate) fn leave(self: &Arc<Self>, member: &Arc<Member>) {
        // Before anybody is told: who has seen the end must not find the member again.
        member.mark_gone();
        if let Some(disconnect) = member.disconnected() {
            self.stats.disconnected(member, disconnect.reason, || self.snapshot(member));
        }
        let shard = member.shard();
        if self.members[shard].leave(Arc::clone(member)) {
            self.shards[shard].push(Job::Members(Arc::clone(self)));
        }
        self.release_connection();
        let mode = member.mode();
        self.subscribers[mode.form].fetch_sub(1, Ordering::AcqRel);
        if mode.presence && self.presence_subscribers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.presence.forget_if(|| self.presence_subscribers.load(Ordering::Acquire) == 0);
        }
        self.exit();
    }

    /// Gives up a place that [`Room::enter`] has taken.
    pub(crate) fn exit(&self) {
        let emptied = self.born.elapsed().as_millis() as u64;
        self.emptied.store(emptied, Ordering::Relaxed);
        if self.occupancy.leave()
            && let Some(claim) = &self.claim
        {
            claim.mark_empty(&self.name, || self.occupancy.count() == 0);
        }
    }

    /// Takes the room out of the counts of the client that created it.
    pub(crate) fn release_claim(&self) {
        if let Some(claim) = &self.claim {
            claim.release();
        }
    }

    /// What is done about members that are too slow.
    pub(crate) fn slow_policy(&self) -> SlowPolicy {
        self.slow
    }

    /// Tells those who want to know who came and went since the last time.
    pub(crate) fn publish_presence(self: &Arc<Self>) {
        let now = self.born.elapsed();
        let is_early = now.as_millis() < u128::from(self.presence_due.load(Ordering::Relaxed));
        let nobody = || self.presence_subscribers.load(Ordering::Acquire) == 0;
        if nobody() {
            return self.presence.forget_if(nobody);
        }
        if is_early {
            return;
        }
        // Looked at before the list: what changes meanwhile is seen next time.
        let changes = self.changes.load(Ordering::Acquire);
        if self.changes_published.swap(changes, Ordering::Relaxed) == changes {
            return;
        }
        self.presence.call(self.present(), |diff| {
            let Some(message) = M::presence(&diff) else { return true };
            let next = (now + pause_after(&diff)).as_millis() as u64;
            let (accepted, size) = (Instant::now(), message.size());
            let told = self.offer(0, Pending { from: None, form: 0, message, accepted, size }).is_ok();
            if told {
                self.presence_due.store(next, Ordering::Relaxed);
            } else {
                // Not equal to any count that comes: the next look tells it.
                self.changes_published.store(u64::MAX, Ordering::Relaxed);
            }
            told
        });
    }

    fn present(&self) -> Vec<Arc<Member>> {
        let mut present = Vec::with_capacity(self.occupancy());
        self.for_each_member(|member| present.push(Arc::clone(member)));
        present
    }

    /// How many members are in its lists.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.iter().map(|shard| shard.snapshot().len()).sum()
    }

    /// Retires the room if nobody has been in it for `idle`; then it takes in nobody any more.
    pub(crate) fn retire_if_idle(&self, idle: Duration) -> bool {
        let emptied = Duration::from_millis(self.emptied.load(Ordering::Relaxed));
        let long_enough = self.born.elapsed().saturating_sub(emptied) >= idle;
        self.occupancy.count() == 0 && long_enough && self.occupancy.retire()
    }

    /// Retires the room if nobody is in it now, member or visitor.
    pub(crate) fn retire_if_empty(&self) -> bool {
        self.occupancy.retire()
    }

    // The broadcast path.

    /// What is counted on a shard.
    pub(crate) fn metrics(&self, shard: usize) -> &ShardMetrics {
        self.shards[shard].metrics()
    }

    /// The share of the inbox that one connection may hold, in messages.
    pub(crate) fn share(&self) -> usize {
        self.share
    }

    pub(crate) fn inbox(&self) -> &Inbox<M> {
        &self.inbox
    }

    /// Takes a message in, and has a shard sequence it; or hands it back when the inbox is full.
    pub(crate) fn offer(self: &Arc<Self>, shard: usize, offer: Pending<M>) -> Result<(), Pending<M>> {
        self.inbox.offer(offer)?;
        // If the turn is out, whoever has it looks into the inbox after giving it back.
        if let Some(sequencer) = self.resting.take() {
            self.shards[shard].push(Job::Sequence(Arc::clone(self), sequencer));
        }
        Ok(())
    }

    /// Sequences what waits, fans out to the members on this shard, and has the other shards do so.
    /// The shard that runs this then owes a [`Room::finish_batch`], as does each shard it told.
    pub(crate) fn sequence(self: &Arc<Self>, mut sequencer: Box<Sequencer<M>>, shard: usize) {
        let forms = std::array::from_fn(|form| self.subscribers[form].load(Ordering::Acquire) > 0);
        sequencer.sequence(&self.inbox, self.share, forms, self.metrics(shard));
        let (receipts, messages) = sequencer.take_receipts();
        let began = sequencer.batch_began().saturating_duration_since(self.born);
        self.batch_began.store(nanos(began), Ordering::Relaxed);
        // Read once: the count must be of those that are told. A shard whose first member comes later wakes
        // that newcomer by itself; one whose last member has left finishes all the same.
        let others = |l: &usize| *l != shard && !self.members[*l].snapshot().is_empty();
        let others: ShardSet = (0..self.shards.len()).filter(others).collect();
        // In place before anybody can be the last to finish.
        self.shards_waking.store(others.len() + 1, Ordering::Release);
        self.shards_due.store(others.len() + 1, Ordering::Release);
        self.fanning_out.park(sequencer);
        for other in others.iter() {
            self.shards[other].push(Job::FanOut(Arc::clone(self)));
        }
        self.fan_out(shard);
        for receipts in receipts {
            receipts.tell(self.epoch, messages, self.occupancy());
        }
    }

    /// Wakes this shard's members: each reads the log from its own cursor when it runs.
    ///
    /// Cost per member: one waker taken and one task queued on this very thread. No allocation, no copy.
    pub(crate) fn fan_out(&self, shard: usize) {
        for member in self.members[shard].snapshot().iter() {
            member.reader().wake();
        }
        if self.shards_waking.fetch_sub(1, Ordering::AcqRel) == 1 {
            let began = Duration::from_nanos(self.batch_began.load(Ordering::Relaxed));
            self.metrics(shard).fanout.observe(nanos(self.born.elapsed().saturating_sub(began)), 1);
        }
    }

    /// This shard's members have had their turn with the current batch. The last shard to say so takes the
    /// sequencer on: to the next batch if something waits, to rest if nothing does.
    pub(crate) fn finish_batch(self: &Arc<Self>, shard: usize) {
        if self.shards_due.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(sequencer) = self.fanning_out.take()
        {
            self.next_or_rest(sequencer, shard);
        }
    }

    fn next_or_rest(self: &Arc<Self>, mut sequencer: Box<Sequencer<M>>, shard: usize) {
        let past = sequencer.finish_batch();
        if self.inbox.is_empty() {
            return self.rest(sequencer, shard);
        }
        let turn = Job::Sequence(Arc::clone(self), sequencer);
        match past.pause() {
            None => self.shards[shard].push(turn),
            Some(pause) => {
                let shards = Arc::clone(&self.shards);
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    shards[shard].push(turn);
                });
            }
        }
    }

    fn rest(self: &Arc<Self>, sequencer: Box<Sequencer<M>>, shard: usize) {
        self.resting.park(sequencer);
        // Who offered while the turn was out found nothing to take: look again, now that there is.
        if !self.inbox.is_empty()
            && let Some(sequencer) = self.resting.take()
        {
            self.shards[shard].push(Job::Sequence(Arc::clone(self), sequencer));
        }
    }

    /// Brings joins and leaves of this shard into the list. A newcomer is woken: what was appended while it
    /// waited to be listed did not wake it.
    pub(crate) fn apply_members(&self, shard: usize) {
        for newcomer in self.members[shard].apply() {
            newcomer.reader().wake();
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Housekeeping: removes what is too old from the log, if nothing is being sequenced (else the next
    /// append does it).
    pub(crate) fn trim(self: &Arc<Self>) {
        if let Some(mut sequencer) = self.resting.take() {
            sequencer.trim();
            self.rest(sequencer, 0);
        }
    }

    /// Removes from the log what the budget of all rooms demands, if nothing is being sequenced: a room that is busy is
    /// not the idlest.
    pub(crate) fn trim_to_budget(self: &Arc<Self>) {
        if let Some(mut sequencer) = self.resting.take() {
            sequencer.trim_to_budget();
            self.rest(sequencer, 0);
        }
    }

    /// The place after the last message.
    pub(crate) fn tail(&self) -> Cursor {
        self.log.tail()
    }
}
