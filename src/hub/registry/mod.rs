//! The registry of a hub's rooms: looked up for each join, never on the broadcast path.
//!
//! Guarantees: bounded by [`Limits::rooms`] beside the lobby, whose place is reserved; a full registry evicts an empty
//! room instead of refusing a new one; a client creates only so many rooms ([`Limits::rooms_per_client`]).

pub(crate) mod creators;

use crate::hub::ids::RoomName;
use crate::hub::limits::{CountedBy, Limits, Refused};
use crate::hub::options::ClientInfo;
use crate::hub::payload::Payload;
use crate::hub::room::Room;
use crate::metrics::Counter;
use creators::Creators;
use crossbeam_queue::ArrayQueue;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Evicted rooms that wait for housekeeping to free them. Freeing a full log takes milliseconds, which a worker thread does
/// not have; beyond this number it frees them itself, so that they do not pile up.
const UNFREED_MAX: usize = 1024;

pub(crate) struct RoomRegistry<M> {
    by_name: RwLock<BTreeMap<RoomName, Arc<Room<M>>>>,
    creators: Arc<Creators>,
    max: usize,
    max_per_client: usize,
    evicted: Counter,
    unfreed: ArrayQueue<Arc<Room<M>>>,
}

impl<M: Payload> RoomRegistry<M> {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            by_name: RwLock::default(),
            creators: Creators::new(limits.rooms_per_client),
            max: limits.rooms,
            max_per_client: limits.rooms_per_client,
            evicted: Counter::default(),
            unfreed: ArrayQueue::new(UNFREED_MAX),
        }
    }

    /// The room, [entered](Room::enter); `make` makes it if it does not exist.
    pub(crate) fn enter(
        &self,
        name: &RoomName,
        who: &ClientInfo,
        make: impl FnOnce(RoomName) -> Room<M>,
    ) -> Result<Arc<Room<M>>, Refused> {
        if let Some(room) = self.by_name.read().get(name)
            && room.enter()
        {
            return Ok(Arc::clone(room));
        }
        let mut rooms = self.by_name.write();
        if let Some(room) = rooms.get(name) {
            if room.enter() {
                return Ok(Arc::clone(room));
            }
            // Retired a moment ago, and not removed yet.
            room.release_claim();
        }
        let claim = if name.is_lobby() {
            None
        } else {
            let claim = self.creators.claim(who).map_err(|by| self.too_many_of(by))?;
            let others = rooms.len() - usize::from(rooms.contains_key(RoomName::DEFAULT));
            if others >= self.max && !rooms.contains_key(name) {
                self.evict_one(&mut rooms)?;
            }
            Some(claim)
        };
        let room = Arc::new(make(name.clone()).created_by(claim));
        assert!(room.enter(), "nobody else has this room yet");
        let retired = rooms.insert(name.clone(), Arc::clone(&room));
        drop(rooms);
        if let Some(room) = retired {
            self.free_later(room);
        }
        Ok(room)
    }

    fn too_many_of(&self, by: CountedBy) -> Refused {
        Refused::RoomsOfClient { max: self.max_per_client, by }
    }

    /// Removes the room that has been empty for longest, of the creator with most rooms.
    ///
    /// Cost: O(log rooms) for each candidate. A candidate that is occupied is delisted until it is empty again, so each
    /// time that a room becomes empty pays for at most one check.
    fn evict_one(&self, rooms: &mut BTreeMap<RoomName, Arc<Room<M>>>) -> Result<(), Refused> {
        while let Some(name) = self.creators.next_to_evict() {
            if rooms.get(&name).is_some_and(|room| room.retire_if_empty())
                && let Some(room) = rooms.remove(&name)
            {
                room.release_claim();
                self.evicted.add(1);
                self.free_later(room);
                return Ok(());
            }
        }
        Err(Refused::Rooms(self.max))
    }

    fn free_later(&self, room: Arc<Room<M>>) {
        // If the queue is full, it is freed here.
        drop(self.unfreed.push(room));
    }

    /// Frees rooms that were evicted.
    pub(crate) fn free_evicted(&self) {
        while self.unfreed.pop().is_some() {}
    }

    /// Removes a room that has been retired.
    pub(crate) fn remove_retired(&self, retired: &Arc<Room<M>>) {
        let mut rooms = self.by_name.write();
        // A join may have put a new room of that name in its place.
        if rooms.get(retired.name()).is_some_and(|room| Arc::ptr_eq(room, retired)) {
            rooms.remove(retired.name());
        }
        retired.release_claim();
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Room<M>>> {
        self.by_name.read().get(name).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.read().len()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Room<M>>> {
        self.by_name.read().values().cloned().collect()
    }

    /// Up to `count` rooms whose names come after this one.
    pub(crate) fn after(&self, name: &str, count: usize) -> Vec<Arc<Room<M>>> {
        let range = (Bound::Excluded(name), Bound::Unbounded);
        self.by_name.read().range::<str, _>(range).take(count).map(|(_, room)| Arc::clone(room)).collect()
    }

    pub(crate) fn evicted_total(&self) -> u64 {
        self.evicted.get()
    }
}
