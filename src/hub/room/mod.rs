//! A room: an inbox, a log, and its members on each shard.
//!
//! Guarantees: one order for all members; offering, sequencing and fanning out take no lock and never wait for a member.
//! When a batch begins is up to the [batch cycle](cycle).

pub(crate) mod cycle;
pub(crate) mod dedup;
pub(crate) mod handles;
pub(crate) mod inbox;
pub(crate) mod linger;
#[cfg(all(test, feature = "loom"))]
mod model;
pub(crate) mod occupancy;
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
use crate::hub::payload::Payload;
use crate::hub::registry::creators::Claim;
use crate::hub::shard::metrics::{ShardMetrics, nanos};
use crate::hub::shard::queue::{Shard, ShardSet};
use crate::hub::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::hub::wire_form::{ByForm, WireForm};
use cycle::{BatchRoom, Cycle, Job};
use inbox::{Inbox, Pending};
use linger::{LastBatch, Linger};
use occupancy::Occupancy;
use presence::PresenceTracker;
use sequencer::{Receipts, Sequencer};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// All shards of a hub, by number.
pub(crate) type Shards<M> = Arc<[Shard<Job<Room<M>, Sequencer<M>>>]>;

/// One room.
pub struct Room<M> {
    name: RoomName,
    epoch: Epoch,
    log: Arc<Log<M>>,
    inbox: Inbox<M>,
    /// The share of the inbox that one connection may hold, in messages.
    share: usize,
    slow: SlowPolicy,
    /// One list of members for each shard, by number.
    members: Box<[MemberList<Member>]>,
    shards: Shards<M>,
    stats: Arc<ConnectionStats>,
    occupancy: Occupancy,
    /// Connections that have joined or are about to, without one-shot publishers; and how many there may be.
    connections: AtomicUsize,
    connections_max: usize,
    /// The room in the counts of the client that created it; the lobby is in nobody's.
    claim: Option<Claim>,
    /// How many members use each wire form.
    members_by_form: ByForm<AtomicUsize>,
    presence: PresenceTracker,
    cycle: Cycle<Sequencer<M>>,
    /// When the current batch was taken, in nanoseconds since `born`.
    batch_began: AtomicU64,
    rate: Rate,
    since: SystemTime,
    born: Instant,
    /// When the room was last exited, in milliseconds since `born`.
    emptied: AtomicU64,
}

impl<M: Payload> Room<M> {
    pub(crate) fn new(
        name: RoomName,
        limits: &Limits,
        shards: Shards<M>,
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
            members_by_form: ByForm::default(),
            presence: PresenceTracker::default(),
            cycle: Cycle::new(Sequencer::new(writer)),
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

    /// The epoch of the room's positions: it identifies this life of the room.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many members and one-shot publishers it has.
    #[must_use]
    pub fn occupancy(&self) -> usize {
        self.occupancy.count()
    }

    /// The room's log.
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

    /// The current members, in blocks of bounded size: for callers that visit all of them and pause in between. Oldest
    /// first within a shard; members that have [left](Member::is_gone) meanwhile may still be listed.
    #[must_use]
    pub fn member_blocks(&self) -> Vec<Arc<Vec<Arc<Member>>>> {
        self.members.iter().flat_map(|shard| shard.snapshot().blocks().to_vec()).collect()
    }

    /// Disconnects a member because the server stops: its transport takes no more calls, and its call ends once it has
    /// received everything that is in the log now. The caller bounds how long that may take. False if the member's
    /// disconnect was decided before.
    pub fn dismiss(&self, member: &Member) -> bool {
        if member.disconnected().is_some() {
            return false;
        }
        // First, so that the client reconnects by another transport, and so to another server.
        member.go_away();
        member.disconnect_after(DisconnectReason::Shutdown, None, self.tail().offset - 1)
    }

    /// The member as it is now.
    #[must_use]
    pub fn snapshot(&self, member: &Arc<Member>) -> ConnectionSnapshot {
        let lag = self.lag(member);
        ConnectionSnapshot { member: Arc::clone(member), room: self.name.clone(), epoch: self.epoch, lag }
    }

    /// How far the member is behind the tail of the log.
    #[must_use]
    pub fn lag(&self, member: &Member) -> Lag {
        let cursor = member.cursor();
        let (messages, bytes) = self.log.lag(cursor.offset, cursor.bytes);
        let waiting = self.log.waiting_since(cursor.segment);
        let time = waiting.map_or(Duration::ZERO, |at| at.elapsed());
        Lag { messages, bytes, time }
    }

    /// When the room was created.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// Messages published in it since it was created, and their bytes.
    #[must_use]
    pub fn published(&self) -> (u64, u64) {
        let tail = self.log.tail();
        (tail.offset - 1, tail.bytes)
    }

    /// Messages per second, averaged over about ten seconds.
    #[must_use]
    pub fn message_rate(&self) -> f64 {
        self.rate.get()
    }

    /// Updates the rate, `passed` after the last time.
    pub(crate) fn measure_rate(&self, passed: Duration) {
        self.rate.measure(self.log.tail().offset - 1, passed);
    }

    /// How many members are in its lists.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.iter().map(|shard| shard.snapshot().len()).sum()
    }

    /// What is done about members that are too slow.
    pub(crate) fn slow_policy(&self) -> SlowPolicy {
        self.slow
    }

    // Joining and leaving.

    /// Enters the room, so that it cannot retire until [`Room::exit`]. False if it is retired.
    pub(crate) fn enter(&self) -> bool {
        self.occupancy.enter()
    }

    /// Undoes [`Room::enter`].
    pub(crate) fn exit(&self) {
        let emptied = self.born.elapsed().as_millis() as u64;
        self.emptied.store(emptied, Ordering::Relaxed);
        if self.occupancy.leave()
            && let Some(claim) = &self.claim
        {
            claim.mark_empty(&self.name, || self.occupancy.count() == 0);
        }
    }

    /// Claims one of the room's connections; false if all are taken. [`Room::leave`] releases it.
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

    /// Adds a member. The caller has called [`Room::enter`] and [`Room::claim_connection`], and calls [`Room::leave`] later.
    pub(crate) fn join(self: &Arc<Self>, member: Arc<Member>) {
        let (shard, mode) = (member.shard(), member.mode());
        self.members_by_form[mode.form].fetch_add(1, Ordering::AcqRel);
        if mode.presence {
            self.presence.add_subscriber(|| self.present());
        }
        self.stats.joined(mode.form, || self.snapshot(&member));
        if self.members[shard].queue_join(member) {
            self.push(shard, Job::ApplyMembers(Arc::clone(self)));
        }
    }

    /// Takes a member out of the room: at once for those who ask, and out of its shard's list soon.
    pub(crate) fn leave(self: &Arc<Self>, member: &Arc<Member>) {
        // Before the event is emitted: a watcher that has seen the end must not find the member again.
        member.mark_gone();
        if let Some(disconnect) = member.disconnected() {
            self.stats.disconnected(member, disconnect.reason, || self.snapshot(member));
        }
        let shard = member.shard();
        if self.members[shard].queue_leave(Arc::clone(member)) {
            self.push(shard, Job::ApplyMembers(Arc::clone(self)));
        }
        self.release_connection();
        let mode = member.mode();
        self.members_by_form[mode.form].fetch_sub(1, Ordering::AcqRel);
        if mode.presence {
            self.presence.remove_subscriber();
        }
        self.exit();
    }

    /// Removes the room from the counts of the client that created it.
    pub(crate) fn release_claim(&self) {
        if let Some(claim) = &self.claim {
            claim.release();
        }
    }

    /// Retires the room if it has been empty for `idle`; then nobody can enter it.
    pub(crate) fn retire_if_idle(&self, idle: Duration) -> bool {
        let emptied = Duration::from_millis(self.emptied.load(Ordering::Relaxed));
        let long_enough = self.born.elapsed().saturating_sub(emptied) >= idle;
        self.occupancy.count() == 0 && long_enough && self.occupancy.retire()
    }

    /// Retires the room if it is empty.
    pub(crate) fn retire_if_empty(&self) -> bool {
        self.occupancy.retire()
    }

    /// Publishes joins and leaves since the last time to the members that subscribe to presence.
    pub(crate) fn publish_presence(self: &Arc<Self>) {
        self.presence.publish(
            self.born.elapsed(),
            || self.present(),
            |diff| {
                M::presence(&diff)
                    .is_none_or(|message| self.offer_without_member(WireForm::default(), message).is_ok())
            },
        );
    }

    fn present(&self) -> Vec<Arc<Member>> {
        let mut present = Vec::with_capacity(self.occupancy());
        self.for_each_member(|member| present.push(Arc::clone(member)));
        present
    }

    // The broadcast path.

    /// The metrics of a shard.
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

    /// Puts a message into the inbox and schedules a batch on `shard`; or returns it if the inbox is full.
    pub(crate) fn offer(self: &Arc<Self>, shard: usize, pending: Pending<M>) -> Result<(), Pending<M>> {
        self.inbox.offer(pending)?;
        Cycle::offered(self, shard);
        Ok(())
    }

    /// Offers a message that no member publishes; or returns it if the inbox is full.
    pub(crate) fn offer_without_member(self: &Arc<Self>, form: WireForm, message: M) -> Result<(), M> {
        let (size, accepted) = (message.size(), Instant::now());
        let offered = self.offer(0, Pending { from: None, form, message, accepted, size });
        offered.map_err(|back| back.message)
    }

    /// Housekeeping: removes what is too old from the log, if the room is at rest; else the next append does it.
    pub(crate) fn trim(self: &Arc<Self>) {
        Cycle::with_resting(self, 0, Sequencer::trim);
    }

    /// Removes from the log what the budget of all rooms demands, if the room is at rest: a room that is busy is not the
    /// idlest.
    pub(crate) fn trim_to_budget(self: &Arc<Self>) {
        Cycle::with_resting(self, 0, Sequencer::trim_to_budget);
    }

    /// The position after the last message.
    pub(crate) fn tail(&self) -> Cursor {
        self.log.tail()
    }
}

impl<M: Payload> BatchRoom for Room<M> {
    type Writer = Sequencer<M>;
    type Receipts = Receipts<M>;

    fn cycle(&self) -> &Cycle<Sequencer<M>> {
        &self.cycle
    }

    fn push(&self, shard: usize, job: Job<Self, Sequencer<M>>) {
        self.shards[shard].push(job);
    }

    fn push_later(&self, pause: Duration, shard: usize, job: Job<Self, Sequencer<M>>) {
        let shards = Arc::clone(&self.shards);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            shards[shard].push(job);
        });
    }

    fn has_pending(&self) -> bool {
        !self.inbox.is_empty()
    }

    fn pending(&self) -> u64 {
        self.inbox.messages()
    }

    fn linger(&self, sequencer: &Sequencer<M>) -> Linger {
        sequencer.linger()
    }

    fn sequence(&self, sequencer: &mut Sequencer<M>, shard: usize) -> Receipts<M> {
        let in_use = ByForm::from_fn(|form| self.members_by_form[form].load(Ordering::Acquire) > 0);
        sequencer.sequence(&self.inbox, self.share, in_use, self.metrics(shard));
        let began = sequencer.batch_began().saturating_duration_since(self.born);
        self.batch_began.store(nanos(began), Ordering::Relaxed);
        sequencer.take_receipts()
    }

    fn populated_shards(&self) -> ShardSet {
        (0..self.shards.len()).filter(|shard| !self.members[*shard].snapshot().is_empty()).collect()
    }

    /// Each member reads the log from its own cursor when it runs.
    ///
    /// Cost per member: one waker taken and one task queued on this very thread. No allocation, no copy.
    fn wake_members(&self, shard: usize) {
        for member in self.members[shard].snapshot().iter() {
            member.reader().wake();
        }
    }

    fn fan_out_done(&self, shard: usize) {
        let began = Duration::from_nanos(self.batch_began.load(Ordering::Relaxed));
        self.metrics(shard).fanout.observe(nanos(self.born.elapsed().saturating_sub(began)), 1);
    }

    fn send_receipts(&self, receipts: Receipts<M>) {
        receipts.send(self.epoch, || self.occupancy());
    }

    fn batch_done(&self, sequencer: &mut Sequencer<M>) -> LastBatch {
        sequencer.finish_batch()
    }

    /// A newcomer is woken: what was appended before it was listed did not wake it.
    fn apply_members(&self, shard: usize) {
        for newcomer in self.members[shard].apply() {
            newcomer.reader().wake();
        }
        self.presence.mark_changed();
    }
}
