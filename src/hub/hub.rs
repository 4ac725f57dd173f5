//! The hub itself: joining and publishing, and what an operator may do.

use crate::config::SlowPolicy;
use crate::hub::ids::RoomName;
use crate::hub::limits::{Limits, Refused};
use crate::hub::log::budget::Budget;
use crate::hub::log::start::{Gap, Start, StartError};
use crate::hub::member::disconnect::DisconnectReason;
use crate::hub::member::{DeliveryMode, Member};
use crate::hub::ops::bans::{Ban, BanTotals, Banned, Bans};
use crate::hub::ops::snapshot::{ConnectionEventKind, ConnectionSnapshot};
use crate::hub::ops::stats::ConnectionStats;
use crate::hub::options::{ClientInfo, SubscribeOptions};
use crate::hub::payload::Payload;
use crate::hub::registry::Rooms;
use crate::hub::room::Room;
use crate::hub::room::handles::{Publisher, Subscription};
use crate::hub::room::inbox::Pending;
use crate::hub::shard::driver::{SHARDS_MAX, Shard, ShardDriver, ShardId};
use crate::hub::shard::metrics::Totals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A connection that has joined a room.
pub struct Joined<M: Payload> {
    /// With which it says.
    pub publisher: Publisher<M>,
    /// By which it hears.
    pub subscription: Subscription<M>,
    /// What it does not get of what it asked for.
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
    pub(super) shards: Arc<[Shard<M>]>,
    pub(super) stats: Arc<ConnectionStats>,
    pub(super) rooms: Rooms<M>,
    pub(super) budget: Arc<Budget>,
    pub(super) bans: Bans,
    /// Nobody comes in any more; who waits at the door is told.
    pub(super) shut: AtomicBool,
    pub(super) shutting: Notify,
    /// And everyone is dismissed.
    pub(super) closed: AtomicBool,
}

impl<M: Payload> Hub<M> {
    /// A hub, and its shards: one for each worker thread, to be run there.
    ///
    /// # Panics
    /// When `shards` is 0 or above [`SHARDS_MAX`].
    #[must_use]
    pub fn new(limits: Limits, shards: usize) -> (Self, Vec<ShardDriver<M>>) {
        assert!((1..=SHARDS_MAX).contains(&shards), "1 to {SHARDS_MAX} shards");
        let shards: Arc<[Shard<M>]> = (0..shards).map(|_| Shard::new()).collect();
        let tasks = ShardDriver::all(&shards);
        let shared = Arc::new(Shared {
            rooms: Rooms::new(&limits),
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

    /// A hub with one shard, for a service in one's own runtime; and what drives it: members and housekeeping, as one future
    /// to spawn. Nothing is delivered unless it runs.
    pub fn single(limits: Limits) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (hub, shards) = Self::new(limits, 1);
        let housekeeping = hub.clone();
        let driver = async move {
            let shards = futures_util::future::join_all(shards.into_iter().map(ShardDriver::run));
            tokio::join!(shards, housekeeping.run_housekeeping());
        };
        (hub, driver)
    }

    /// The shard of a server with one thread, or the first of several.
    #[must_use]
    pub fn first_shard(&self) -> ShardId {
        ShardId(0)
    }

    /// Joins a room: the connection gets everything from where it begins to listen, and whatever comes from now on.
    ///
    /// # Errors
    /// [`Refused`], with the limit that is met.
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
        // After the join: who shuts the hub either sees the member in the room, or is seen here.
        if self.shared.shut.load(Ordering::SeqCst) {
            subscription.member().disconnect(DisconnectReason::Shutdown, None);
            return Err(Refused::Closing);
        }
        Ok(Joined { publisher, subscription, gap })
    }

    /// The room, with a place in it taken.
    fn enter(&self, name: &RoomName, who: &ClientInfo) -> Result<Arc<Room<M>>, Refused> {
        let Shared { limits, shards, stats, rooms, budget, shut, .. } = &*self.shared;
        if shut.load(Ordering::SeqCst) {
            return Err(Refused::Closing);
        }
        let make = |name| Room::new(name, limits, Arc::clone(shards), Arc::clone(stats), budget);
        rooms.enter(name, who, make)
    }

    /// Comes to say something without joining, in a room that is made if it is not there.
    ///
    /// # Errors
    /// [`Refused`], with the limit that is met.
    pub fn one_shot_publisher(
        &self,
        room: &RoomName,
        who: &ClientInfo,
    ) -> Result<OneShotPublisher<M>, Refused> {
        self.shared.bans.check(who)?;
        self.enter(room, who).map(|room| OneShotPublisher { room })
    }

    /// The room of this name, if it is there.
    #[must_use]
    pub fn room(&self, name: &RoomName) -> Option<Arc<Room<M>>> {
        self.shared.rooms.get(name.as_str())
    }

    /// Who came and went.
    #[must_use]
    pub fn connection_stats(&self) -> &ConnectionStats {
        &self.shared.stats
    }

    /// The rooms there are now, in order of name.
    #[must_use]
    pub fn rooms(&self) -> Vec<Arc<Room<M>>> {
        self.shared.rooms.all()
    }

    /// Up to `count` rooms whose names come after this one, in order of name. Cost: O(count + log rooms).
    #[must_use]
    pub fn rooms_after(&self, name: &str, count: usize) -> Vec<Arc<Room<M>>> {
        self.shared.rooms.after(name, count)
    }

    /// How many rooms there are now.
    #[must_use]
    pub fn room_count(&self) -> usize {
        self.shared.rooms.len()
    }

    /// Empty rooms that were removed for new ones since the hub began, because [`Limits::rooms`] was met.
    #[must_use]
    pub fn rooms_evicted(&self) -> u64 {
        self.shared.rooms.evicted_total()
    }

    /// Bytes that all rooms' logs hold now, with their idempotency keys; bounded by [`Limits::retention_total`].
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.shared.budget.held()
    }

    /// Bytes that were removed from logs since the hub began because [`Limits::retention_total`] was nearly met.
    #[must_use]
    pub fn log_bytes_trimmed(&self) -> u64 {
        self.shared.budget.trimmed()
    }

    /// Ends a connection for an operator. False when its end was decided before.
    pub fn kick(&self, snapshot: &ConnectionSnapshot, reason: &str) -> bool {
        let member = &snapshot.member;
        if member.disconnected().is_some() {
            return false;
        }
        // Told first, so that no watcher hears of the leave before.
        self.connection_stats().emit(ConnectionEventKind::Kicked(reason.to_owned()), || snapshot.clone());
        let words = Some(reason.to_owned()).filter(|words| !words.is_empty());
        member.close_transport_when_idle();
        member.disconnect(DisconnectReason::Kicked, words)
    }

    /// Whether a client may come in, or is banned; a refused attempt is counted and logged.
    ///
    /// # Errors
    /// [`Refused::Banned`].
    pub fn check_ban(&self, who: &ClientInfo) -> Result<(), Refused> {
        self.shared.bans.check(who)
    }

    /// Refuses clients that this names, for this long; the reason is text for them. False if there are too many bans.
    pub fn ban(&self, banned: Banned, duration: Duration, reason: &str) -> bool {
        self.shared.bans.add(banned, duration, reason)
    }

    /// Ends a ban before its time. None if there is no such ban in force.
    pub fn unban(&self, banned: &Banned) -> Option<Ban> {
        self.shared.bans.remove(banned)
    }

    /// The bans in force, in no order.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        self.shared.bans.list()
    }

    /// How many bans there are, and how many attempts they refused.
    #[must_use]
    pub fn ban_totals(&self) -> BanTotals {
        self.shared.bans.totals()
    }

    /// Says something in a room that nobody there said. False when the room's inbox is full.
    pub fn announce(&self, room: &Arc<Room<M>>, message: M) -> bool {
        let (size, accepted) = (message.size(), Instant::now());
        room.offer(0, Pending { from: None, form: 0, message, accepted, size }).is_ok()
    }

    /// What all shards have counted.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::of(self.shared.shards.iter().map(Shard::metrics))
    }

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Takes in nobody any more. Who is here stays.
    pub fn shut(&self) {
        self.shared.shut.store(true, Ordering::SeqCst);
        self.shared.shutting.notify_waiters();
    }

    /// Waits until the hub takes in nobody any more.
    pub async fn wait_until_shut(&self) {
        let mut told = std::pin::pin!(self.shared.shutting.notified());
        // Before the look: who shuts the hub later tells us.
        told.as_mut().enable();
        if !self.shared.shut.load(Ordering::SeqCst) {
            told.await;
        }
    }

    /// Everyone who is in a room, with it, in the order in which they came.
    #[must_use]
    pub fn oldest_first(&self) -> Vec<(Arc<Room<M>>, Arc<Member>)> {
        let mut all = Vec::with_capacity(self.connection_stats().present());
        for room in self.rooms() {
            room.for_each_member(|member| all.push((Arc::clone(&room), Arc::clone(member))));
        }
        all.sort_unstable_by_key(|(_, member)| member.number());
        all
    }

    /// Takes in nobody any more, and [dismisses](Room::dismiss) everyone. A connection whose join is not in its room's
    /// list yet is dismissed by the next look of [`Hub::tend`].
    pub fn close(&self) {
        self.shut();
        self.shared.closed.store(true, Ordering::SeqCst);
        for (room, member) in self.oldest_first() {
            room.dismiss(&member);
        }
    }
}

/// Somebody who says something in a room and does not stay.
pub struct OneShotPublisher<M: Payload> {
    room: Arc<Room<M>>,
}

impl<M: Payload> OneShotPublisher<M> {
    /// Says it, as what came in this wire form; or gives it back when the room's inbox is full.
    ///
    /// # Errors
    /// The message.
    pub fn publish(&self, form: usize, message: M) -> Result<(), M> {
        let (size, accepted) = (message.size(), Instant::now());
        let offered = self.room.offer(0, Pending { from: None, form, message, accepted, size });
        offered.map_err(|back| back.message)
    }
}

impl<M: Payload> Drop for OneShotPublisher<M> {
    fn drop(&mut self) {
        self.room.exit();
    }
}
