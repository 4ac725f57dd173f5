//! The hub: rooms, and the broadcast of messages to those who are in them.
//!
//! A room is a log, a connection is a cursor into it. [`Hub::join`] gives a connection its two handles;
//! everything said by any [`Publisher`] of a room reaches every [`Subscription`] of it, in one order, each message
//! framed once. Slow or dead members cost the room nothing but their cursor.
//!
//! Deliberately knows nothing of gRPC, HTTP, flags or metrics: only of messages that can [`Frame`] themselves.

mod bans;
mod census;
mod connection;
mod departure;
mod inbox;
mod lane;
pub mod log;
mod member;
mod members;
#[cfg(all(test, feature = "loom"))]
mod model;
mod names;
mod position;
mod rate;
mod room;
mod sequencer;
mod sight;
mod sync;
mod tally;
mod tend;
mod turn;

pub use bans::Banned;
pub use census::Census;
pub use connection::{Ended, Next, Publisher, Subscription};
pub use departure::{Departure, Ending};
pub use lane::{LANES_MAX, LaneId, LaneTask};
pub use member::{Abort, Introduction, Member};
pub use names::{ConnectionId, DISPLAY_NAME_MAX, DisplayName, InvalidName, ROOM_NAME_MAX, RoomName};
pub use position::{Cursor, Epoch, Position};
pub use room::Room;
pub use sight::{Event, Happening, Lag, Sight};
pub use tally::Totals;

use bans::Bans;
use bytes::BytesMut;
use inbox::Offer;
use lane::Lane;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A message that a room can carry: it writes itself as the bytes that every member receives.
pub trait Frame: Send + Sync + 'static {
    /// Bytes that [`Frame::frame`] appends.
    fn frame_len(&self) -> usize;

    /// Appends the message as it goes over the wire. Called once for each message.
    fn frame(&self, position: Position, out: &mut BytesMut);

    /// Whether [`Frame::broadcast`] is to be called. A message that is traced is kept until then; few should be.
    fn is_traced(&self) -> bool {
        false
    }

    /// Called for a traced message, once the members have been woken for its batch.
    fn broadcast(&self, _: &Batch) {}
}

/// The batch in which a message was broadcast.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// The message's own position.
    pub position: Position,
    /// Messages in the batch.
    pub messages: u64,
    /// Members of the room that were woken for it.
    pub members: usize,
}

/// The hub's bounds. Defaults and their reasons are in [`crate::config`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all rooms together.
    pub connections: usize,
    /// Rooms at a time.
    pub rooms: usize,
    /// How long a room outlives its last member.
    pub room_idle: Duration,
    /// What a room's log keeps.
    pub retention: log::Retention,
    /// Messages in a room's inbox.
    pub inbox_messages: usize,
    /// Bytes of frames in a room's inbox.
    pub inbox_bytes: usize,
    /// Messages of one connection in its room's inbox.
    pub inbox_share: usize,
    /// Bytes a member may be behind the tail.
    pub lag_bytes: u64,
    /// How long the oldest message that a member has not taken may wait for it.
    pub lag_age: Duration,
}

/// Why a connection could not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The hub takes in nobody any more.
    #[error("the server is stopping")]
    Closing,
    /// An operator has banned its address or name.
    #[error("banned by an operator")]
    Banned,
    /// [`Limits::connections`] is met.
    #[error("the server has all the {0} connections it may have")]
    Connections(usize),
    /// [`Limits::rooms`] is met, and the room does not exist yet.
    #[error("the server has all the {0} rooms it may have")]
    Rooms(usize),
}

/// The rooms of one server. Cheap to clone.
pub struct Hub<M: Frame> {
    shared: Arc<Shared<M>>,
}

impl<M: Frame> Clone for Hub<M> {
    fn clone(&self) -> Self {
        let shared = Arc::clone(&self.shared);
        Self { shared }
    }
}

struct Shared<M> {
    limits: Limits,
    lanes: Arc<[Lane<M>]>,
    census: Arc<Census>,
    /// Looked up once for each join. The broadcast path never comes here.
    rooms: RwLock<HashMap<RoomName, Arc<Room<M>>>>,
    bans: Bans,
    /// Nobody comes in any more.
    shut: AtomicBool,
    /// And everyone is dismissed.
    closed: AtomicBool,
}

impl<M: Frame> Hub<M> {
    /// A hub, and its lanes: one for each worker thread, to be run there.
    ///
    /// # Panics
    /// When `lanes` is 0 or above [`LANES_MAX`].
    #[must_use]
    pub fn new(limits: Limits, lanes: usize) -> (Self, Vec<LaneTask<M>>) {
        assert!((1..=LANES_MAX).contains(&lanes), "1 to {LANES_MAX} lanes");
        let lanes: Arc<[Lane<M>]> = (0..lanes).map(|_| Lane::new()).collect();
        let tasks = LaneTask::all(&lanes);
        let shared = Arc::new(Shared {
            limits,
            lanes,
            census: Arc::default(),
            rooms: RwLock::default(),
            bans: Bans::default(),
            shut: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        (Self { shared }, tasks)
    }

    /// Joins a room at its tail: the connection gets everything that is appended from now on.
    ///
    /// # Errors
    /// [`Refused`], with the limit that is met.
    pub fn join(
        &self,
        lane: LaneId,
        room: &RoomName,
        who: Introduction,
    ) -> Result<(Publisher<M>, Subscription<M>), Refused> {
        let Shared { limits, census, .. } = &*self.shared;
        if self.shared.bans.has(&who) {
            return Err(Refused::Banned);
        }
        if !census.claim(limits.connections) {
            return Err(Refused::Connections(limits.connections));
        }
        let room = self.enter(room).inspect_err(|_| census.give_back())?;
        let cursor = room.tail();
        let member = Arc::new(Member::new(census.next_number(), who, lane.0, cursor));
        room.join(Arc::clone(&member));
        let publisher = Publisher::new(Arc::clone(&room), Arc::clone(&member));
        let subscription = Subscription::new(room, member, cursor);
        // After the join: who shuts the hub either sees the member in the room, or is seen here.
        if self.shared.shut.load(Ordering::SeqCst) {
            subscription.member().depart(Departure::Shutdown, None);
            return Err(Refused::Closing);
        }
        Ok((publisher, subscription))
    }

    /// The room, with a place in it taken.
    fn enter(&self, name: &RoomName) -> Result<Arc<Room<M>>, Refused> {
        if self.shared.shut.load(Ordering::SeqCst) {
            return Err(Refused::Closing);
        }
        if let Some(room) = self.shared.rooms.read().get(name)
            && room.enter()
        {
            return Ok(Arc::clone(room));
        }
        let mut rooms = self.shared.rooms.write();
        if let Some(room) = rooms.get(name)
            && room.enter()
        {
            return Ok(Arc::clone(room));
        }
        // Not there, or retired a moment ago and not yet removed: then it is replaced.
        let max = self.shared.limits.rooms;
        if rooms.len() >= max && !rooms.contains_key(name) {
            return Err(Refused::Rooms(max));
        }
        let Shared { limits, lanes, census, .. } = &*self.shared;
        let room = Room::new(name.clone(), limits, Arc::clone(lanes), Arc::clone(census));
        let room = Arc::new(room);
        assert!(room.enter(), "nobody can have retired a room that only we know");
        rooms.insert(name.clone(), Arc::clone(&room));
        Ok(room)
    }

    /// Who came and went.
    #[must_use]
    pub fn census(&self) -> &Census {
        &self.shared.census
    }

    /// The rooms there are now, in no order.
    #[must_use]
    pub fn rooms(&self) -> Vec<Arc<Room<M>>> {
        self.shared.rooms.read().values().cloned().collect()
    }

    /// The member with this id. Looks through all of them.
    #[must_use]
    pub fn find(&self, id: ConnectionId) -> Option<Sight> {
        self.rooms().iter().find_map(|room| {
            let mut found = None;
            room.for_each_member(|member| {
                if member.id() == id {
                    found = Some(room.sight(member));
                }
            });
            found
        })
    }

    /// Ends a connection for an operator. False when its end was decided before.
    pub fn kick(&self, sight: &Sight, reason: &str) -> bool {
        let member = &sight.member;
        if member.ending().is_some() {
            return false;
        }
        // Told first, so that no watcher hears of the leave before.
        self.census().tell(Happening::Kicked(reason.to_owned()), || sight.clone());
        let words = Some(reason.to_owned()).filter(|words| !words.is_empty());
        member.doom();
        member.depart(Departure::Kicked, words)
    }

    /// Refuses whoever it names until then. False when there are too many bans already.
    pub fn ban(&self, banned: Banned, until: Instant) -> bool {
        self.shared.bans.add(banned, until)
    }

    /// Says something in a room that nobody there said. False when the room's inbox is full.
    pub fn announce(&self, room: &Arc<Room<M>>, message: M) -> bool {
        let (size, accepted) = (message.frame_len(), Instant::now());
        room.offer(0, Offer { from: None, message, accepted, size }).is_ok()
    }

    /// What all lanes have counted.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::of(self.shared.lanes.iter().map(Lane::tally))
    }

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Takes in nobody any more. Who is here stays.
    pub fn shut(&self) {
        self.shared.shut.store(true, Ordering::SeqCst);
    }

    /// Everyone who is in a room, with it, in the order in which they came.
    #[must_use]
    pub fn oldest_first(&self) -> Vec<(Arc<Room<M>>, Arc<Member>)> {
        let mut all = Vec::with_capacity(self.census().present());
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
