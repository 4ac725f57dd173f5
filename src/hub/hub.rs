//! The hub itself: joining and publishing, and what an operator may do.

use crate::config::SlowPolicy;
use crate::hub::ids::RoomName;
use crate::hub::limits::{Limits, Refused};
use crate::hub::log::budget::Budget;
use crate::hub::log::start::{Gap, Start, StartError};
use crate::hub::member::disconnect::DisconnectReason;
use crate::hub::member::{DeliveryMode, Member};
use crate::hub::ops::bans::{Ban, BanTotals, Banned, Bans};
use crate::hub::ops::events::ConnectionEventKind;
use crate::hub::ops::snapshot::ConnectionSnapshot;
use crate::hub::ops::stats::ConnectionStats;
use crate::hub::options::{ClientInfo, SubscribeOptions};
use crate::hub::payload::Payload;
use crate::hub::registry::RoomRegistry;
use crate::hub::room::handles::{Publisher, Subscription};
use crate::hub::room::{Room, Shards};
use crate::hub::shard::driver::ShardDriver;
use crate::hub::shard::metrics::Totals;
use crate::hub::shard::queue::{SHARDS_MAX, Shard, ShardId};
use crate::hub::wire_form::WireForm;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// A connection that has joined a room.
pub struct Joined<M: Payload> {
    /// The sending half.
    pub publisher: Publisher<M>,
    /// The receiving half.
    pub subscription: Subscription<M>,
    /// Messages that it asked for and does not receive.
    pub gap: Option<Gap>,
}

/// The rooms of one server. Cheap to clone.
pub struct Hub<M: Payload> {
    pub(super) shared: Arc<Shared<M>>,
}

impl<M: Payload> Clone for Hub<M> {
    fn clone(&self) -> Self {
        let shared = Arc::clone(&self.shared);
        Self { shared }
    }
}

pub(super) struct Shared<M> {
    pub(super) limits: Limits,
    pub(super) shards: Shards<M>,
    pub(super) stats: Arc<ConnectionStats>,
    pub(super) rooms: RoomRegistry<M>,
    pub(super) budget: Arc<Budget>,
    pub(super) bans: Bans,
    /// Nobody is admitted any more; [`Hub::wait_until_shut`] returns.
    pub(super) shut: AtomicBool,
    pub(super) shutting: Notify,
    /// And every member is dismissed.
    pub(super) closed: AtomicBool,
}

impl<M: Payload> Hub<M> {
    /// A hub, and the drivers of its shards: one for each worker thread, to be run there.
    ///
    /// # Panics
    /// If `shards` is 0 or above [`SHARDS_MAX`].
    #[must_use]
    pub fn new(limits: Limits, shards: usize) -> (Self, Vec<ShardDriver<M>>) {
        assert!((1..=SHARDS_MAX).contains(&shards), "1 to {SHARDS_MAX} shards");
        let shards: Shards<M> = (0..shards).map(|_| Shard::new()).collect();
        let tasks = ShardDriver::all(&shards);
        let shared = Arc::new(Shared {
            rooms: RoomRegistry::new(&limits),
            budget: Budget::new(limits.retention_total),
            limits,
            shards,
            stats: Arc::default(),
            bans: Bans::default(),
            shut: AtomicBool::new(false),
            shutting: Notify::new(),
            closed: AtomicBool::new(false),
        });
        (Self { shared }, tasks)
    }

    /// A hub of one shard, for a service of your own, and the future that runs it: spawn it once. It delivers messages, and
    /// does the [housekeeping](Hub::run_housekeeping). Connections join on [`ShardId::default`].
    pub fn single(limits: Limits) -> (Self, impl Future<Output = ()> + Send + use<M>) {
        let (hub, mut shards) = Self::new(limits, 1);
        let (shard, housekeeping) = (shards.remove(0), hub.clone());
        let driver = async move {
            tokio::join!(shard.run(), housekeeping.run_housekeeping());
        };
        (hub, driver)
    }

    /// Joins a room, on the shard of the calling thread: the connection receives everything from its start on.
    ///
    /// # Errors
    /// [`Refused`], with the limit that is reached.
    pub fn join(
        &self,
        shard: ShardId,
        room: &RoomName,
        who: ClientInfo,
        options: SubscribeOptions<M>,
    ) -> Result<Joined<M>, Refused> {
        let Shared { limits, stats, .. } = &*self.shared;
        self.shared.bans.check(&who)?;
        stats.claim(&who, limits)?;
        let peer = who.peer;
        let room = self.enter(room, &who).inspect_err(|_| stats.release(peer))?;
        if !room.claim_connection() {
            room.exit();
            stats.release(peer);
            return Err(Refused::ConnectionsOfRoom(limits.connections_per_room.unwrap_or(usize::MAX)));
        }
        let SubscribeOptions { start, strict, view, presence, gaps } = options;
        let (cursor, gap) = start
            .find(room.log())
            .and_then(|(cursor, gap)| match gap {
                Some(gap) if strict || !gaps => Err(StartError::Missing(gap)),
                gap => Ok((cursor, gap)),
            })
            .map_err(|error| {
                room.release_connection();
                room.exit();
                stats.release(peer);
                Refused::Start(error)
            })?;
        if let Some(gap) = gap {
            room.metrics(shard.0).gap_messages.add(gap.count());
        }
        let mode = DeliveryMode {
            form: view.form,
            presence,
            skips: gaps && room.slow_policy() == SlowPolicy::Skip,
            catches_up: start != Start::Tail,
        };
        let member = Arc::new(Member::new(stats.next_number(), who, shard.0, cursor, mode));
        room.join(Arc::clone(&member));
        let publisher = Publisher::new(Arc::clone(&room), Arc::clone(&member));
        let subscription = Subscription::new(room, member, cursor, view, gaps);
        // After the join: `shut` either sees the member in the room, or is seen here.
        if self.shared.shut.load(Ordering::SeqCst) {
            subscription.member().disconnect(DisconnectReason::Shutdown, None);
            return Err(Refused::Closing);
        }
        Ok(Joined { publisher, subscription, gap })
    }

    /// The room, entered.
    fn enter(&self, name: &RoomName, who: &ClientInfo) -> Result<Arc<Room<M>>, Refused> {
        let Shared { limits, shards, stats, rooms, budget, shut, .. } = &*self.shared;
        if shut.load(Ordering::SeqCst) {
            return Err(Refused::Closing);
        }
        let make = |name| Room::new(name, limits, Arc::clone(shards), Arc::clone(stats), budget);
        rooms.enter(name, who, make)
    }

    /// A publisher for one message, by a client that does not join. Creates the room if it does not exist.
    ///
    /// # Errors
    /// [`Refused`], with the limit that is reached.
    pub fn one_shot_publisher(
        &self,
        room: &RoomName,
        who: &ClientInfo,
    ) -> Result<OneShotPublisher<M>, Refused> {
        self.shared.bans.check(who)?;
        self.enter(room, who).map(|room| OneShotPublisher { room })
    }

    /// The room of this name, if it exists.
    #[must_use]
    pub fn room(&self, name: &RoomName) -> Option<Arc<Room<M>>> {
        self.shared.rooms.get(name.as_str())
    }

    /// Counts and events of connections.
    #[must_use]
    pub fn connection_stats(&self) -> &ConnectionStats {
        &self.shared.stats
    }

    /// All rooms, in order of name.
    #[must_use]
    pub fn rooms(&self) -> Vec<Arc<Room<M>>> {
        self.shared.rooms.all()
    }

    /// Up to `count` rooms whose names come after this one, in order of name. Cost: O(count + log rooms).
    #[must_use]
    pub fn rooms_after(&self, name: &str, count: usize) -> Vec<Arc<Room<M>>> {
        self.shared.rooms.after(name, count)
    }

    /// How many rooms there are.
    #[must_use]
    pub fn room_count(&self) -> usize {
        self.shared.rooms.len()
    }

    /// Empty rooms that were removed for new ones since the hub was created, because [`Limits::rooms`] was reached.
    #[must_use]
    pub fn rooms_evicted(&self) -> u64 {
        self.shared.rooms.evicted_total()
    }

    /// Bytes of all rooms' logs and idempotency keys; bounded by [`Limits::retention_total`].
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.shared.budget.held()
    }

    /// Bytes that were removed from logs since the hub was created because [`Limits::retention_total`] was nearly reached.
    #[must_use]
    pub fn log_bytes_trimmed(&self) -> u64 {
        self.shared.budget.trimmed()
    }

    /// Disconnects a member for an operator. False if its disconnect was decided before.
    pub fn kick(&self, snapshot: &ConnectionSnapshot, reason: &str) -> bool {
        let member = &snapshot.member;
        if member.disconnected().is_some() {
            return false;
        }
        // First, so that no watcher receives the leave before.
        self.connection_stats().emit(ConnectionEventKind::Kicked(reason.to_owned()), || snapshot.clone());
        let detail = Some(reason.to_owned()).filter(|detail| !detail.is_empty());
        member.close_transport_when_idle();
        member.disconnect(DisconnectReason::Kicked, detail)
    }

    /// Checks whether a client is banned; a refused attempt is counted and logged.
    ///
    /// # Errors
    /// [`Refused::Banned`].
    pub fn check_ban(&self, who: &ClientInfo) -> Result<(), Refused> {
        self.shared.bans.check(who)
    }

    /// Bans an address or a name for this long; the reason is text for the clients. False if there are too many bans.
    pub fn ban(&self, banned: Banned, duration: Duration, reason: &str) -> bool {
        self.shared.bans.add(banned, duration, reason)
    }

    /// Removes a ban. None if there is no such ban in force.
    pub fn unban(&self, banned: &Banned) -> Option<Ban> {
        self.shared.bans.remove(banned)
    }

    /// The bans in force, in no order.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        self.shared.bans.list()
    }

    /// How many bans there are, and how many attempts they have refused.
    #[must_use]
    pub fn ban_totals(&self) -> BanTotals {
        self.shared.bans.totals()
    }

    /// Publishes a message of the server in a room. False if the room's inbox is full.
    pub fn announce(&self, room: &Arc<Room<M>>, message: M) -> bool {
        room.offer_without_member(WireForm::default(), message).is_ok()
    }

    /// The sums of what all shards have counted.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::of(self.shared.shards.iter().map(Shard::metrics))
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Stops admitting clients. Connections stay.
    pub fn shut(&self) {
        self.shared.shut.store(true, Ordering::SeqCst);
        self.shared.shutting.notify_waiters();
    }

    /// Waits for [`Hub::shut`].
    pub async fn wait_until_shut(&self) {
        let mut shutting = std::pin::pin!(self.shared.shutting.notified());
        // Before the check: a later `shut` notifies us.
        shutting.as_mut().enable();
        if !self.shared.shut.load(Ordering::SeqCst) {
            shutting.await;
        }
    }

    /// All members with their rooms, in the order in which they joined.
    #[must_use]
    pub fn oldest_first(&self) -> Vec<(Arc<Room<M>>, Arc<Member>)> {
        let mut all = Vec::with_capacity(self.connection_stats().present());
        for room in self.rooms() {
            room.for_each_member(|member| all.push((Arc::clone(&room), Arc::clone(member))));
        }
        all.sort_unstable_by_key(|(_, member)| member.number());
        all
    }

    /// Stops admitting clients, and [dismisses](Room::dismiss) every member. A member that is not in its room's list yet is
    /// dismissed by the next round of [`Hub::run_housekeeping`].
    pub fn close(&self) {
        self.shut();
        self.shared.closed.store(true, Ordering::SeqCst);
        for (room, member) in self.oldest_first() {
            room.dismiss(&member);
        }
    }
}

/// A publisher for one message, of a client that has not joined.
pub struct OneShotPublisher<M: Payload> {
    room: Arc<Room<M>>,
}

impl<M: Payload> OneShotPublisher<M> {
    /// Publishes the message, which came in this wire form; or returns it if the room's inbox is full.
    ///
    /// # Errors
    /// The message.
    pub fn publish(&self, form: WireForm, message: M) -> Result<(), M> {
        self.room.offer_without_member(form, message)
    }
}

impl<M: Payload> Drop for OneShotPublisher<M> {
    fn drop(&mut self) {
        self.room.exit();
    }
}
