//! Which clients created the rooms: a limit for each client, and the order of eviction when the registry is full.
//!
//! A client is counted by its transport and by its address; an identity can be added as a third count. For IPv6 the first 64
//! bits count, because a single host usually owns all addresses below them.
//!
//! Guarantees: creating, leaving and evicting cost O(log rooms); the tables hold only rooms that exist. The lock is
//! taken when a room is created, becomes empty or is removed, never for a broadcast.

use crate::hub::ids::RoomName;
use crate::hub::limits::CountedBy;
use crate::hub::options::{ClientInfo, network};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The owner of rooms: rooms of one owner compete with each other for eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Owner {
    Address(IpAddr),
    Transport(u64),
    Unknown,
}

/// The rooms of an owner.
#[derive(Default)]
struct Rooms {
    count: usize,
    /// Rooms that were empty when last checked, in the order in which they became empty. A room that was entered since
    /// stays listed until an eviction finds it occupied.
    empty: BTreeMap<u64, RoomName>,
}

#[derive(Default)]
struct Table {
    owners: HashMap<Owner, Rooms>,
    transports: HashMap<u64, usize>,
    /// The owners with a listed room, by how many rooms they have.
    ranked: BTreeSet<(usize, Owner)>,
    /// How many times a room has become empty.
    emptied: u64,
}

impl Table {
    /// Changes the rooms of an owner, and updates its rank.
    fn change<T>(&mut self, owner: Owner, change: impl FnOnce(&mut Rooms) -> T) -> T {
        let rooms = self.owners.entry(owner).or_default();
        self.ranked.remove(&(rooms.count, owner));
        let changed = change(rooms);
        if !rooms.empty.is_empty() {
            self.ranked.insert((rooms.count, owner));
        }
        if rooms.count == 0 {
            self.owners.remove(&owner);
        }
        changed
    }
}

/// The clients that have created rooms, and how many.
pub(crate) struct Creators {
    max: usize,
    table: Mutex<Table>,
}

impl Creators {
    /// Each client may create `max` rooms that exist at a time.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, table: Mutex::default() })
    }

    /// Counts a room that this client creates.
    ///
    /// # Errors
    /// The count that is at its maximum.
    pub(crate) fn claim(self: &Arc<Self>, who: &ClientInfo) -> Result<Claim, CountedBy> {
        let transport = who.transport;
        let owner = match (who.peer, transport) {
            (Some(peer), _) => Owner::Address(network(peer.ip())),
            (None, Some(transport)) => Owner::Transport(transport),
            (None, None) => Owner::Unknown,
        };
        let mut table = self.table.lock();
        let by_transport = transport.and_then(|transport| table.transports.get(&transport));
        if by_transport.is_some_and(|rooms| *rooms >= self.max) {
            return Err(CountedBy::Transport);
        }
        let of_owner = table.owners.get(&owner).map_or(0, |rooms| rooms.count);
        if matches!(owner, Owner::Address(_)) && of_owner >= self.max {
            return Err(CountedBy::Address);
        }
        if let Some(transport) = transport {
            *table.transports.entry(transport).or_default() += 1;
        }
        table.change(owner, |rooms| rooms.count += 1);
        let creators = Arc::clone(self);
        Ok(Claim { creators, owner, transport, emptied: AtomicU64::new(0), released: AtomicBool::new(false) })
    }

    /// The room that has been empty for longest, of the owner with most rooms. This delists it: it becomes a candidate again
    /// when it becomes empty again.
    pub(crate) fn next_to_evict(&self) -> Option<RoomName> {
        let mut table = self.table.lock();
        let (_, owner) = *table.ranked.last()?;
        table.change(owner, |rooms| rooms.empty.pop_first()).map(|(_, room)| room)
    }
}

/// One room in its creator's counts. Dropping it releases it.
pub(crate) struct Claim {
    creators: Arc<Creators>,
    owner: Owner,
    transport: Option<u64>,
    /// The number under which the room is listed as empty; 0 if it is not. Changed under the table's lock only.
    emptied: AtomicU64,
    released: AtomicBool,
}

impl Claim {
    /// Lists the room as empty from now on, if it still `is_empty`.
    pub(crate) fn mark_empty(&self, room: &RoomName, is_empty: impl FnOnce() -> bool) {
        let mut table = self.creators.table.lock();
        // Checked under the lock: of several calls the last one sees the last state.
        if self.released.load(Ordering::Relaxed) || !is_empty() {
            return;
        }
        table.emptied += 1;
        let now = table.emptied;
        let before = self.emptied.swap(now, Ordering::Relaxed);
        table.change(self.owner, |rooms| {
            rooms.empty.remove(&before);
            rooms.empty.insert(now, room.clone());
        });
    }

    /// Removes the room from the counts, because it no longer exists.
    pub(crate) fn release(&self) {
        let mut table = self.creators.table.lock();
        if self.released.swap(true, Ordering::Relaxed) {
            return;
        }
        let emptied = self.emptied.load(Ordering::Relaxed);
        table.change(self.owner, |rooms| {
            rooms.empty.remove(&emptied);
            rooms.count -= 1;
        });
        if let Some(transport) = self.transport
            && let Some(rooms) = table.transports.get_mut(&transport)
        {
            *rooms -= 1;
            if *rooms == 0 {
                table.transports.remove(&transport);
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn client(address: &str, transport: u64) -> ClientInfo {
        let peer = SocketAddr::new(address.parse().unwrap(), 1000);
        ClientInfo { peer: Some(peer), transport: Some(transport), ..ClientInfo::anonymous() }
    }

    fn name(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    fn is_unused(creators: &Creators) -> bool {
        let table = creators.table.lock();
        table.owners.is_empty() && table.transports.is_empty() && table.ranked.is_empty()
    }

    #[test]
    fn cap_counts_transport_and_address() {
        let creators = Creators::new(2);
        let first = creators.claim(&client("10.0.0.1", 1)).unwrap();
        let _second = creators.claim(&client("10.0.0.1", 1)).unwrap();
        assert_eq!(creators.claim(&client("10.0.0.1", 1)).err(), Some(CountedBy::Transport));
        assert_eq!(creators.claim(&client("10.0.0.1", 2)).err(), Some(CountedBy::Address));
        assert!(creators.claim(&client("10.0.0.2", 3)).is_ok());
        drop(first);
        assert!(creators.claim(&client("10.0.0.1", 2)).is_ok());
        // Behind a proxy, only the transport may be known.
        let of_transport = ClientInfo { transport: Some(9), ..ClientInfo::anonymous() };
        let _both = [creators.claim(&of_transport).unwrap(), creators.claim(&of_transport).unwrap()];
        assert_eq!(creators.claim(&of_transport).err(), Some(CountedBy::Transport));
    }

    #[test]
    fn ipv6_counts_by_network() {
        let creators = Creators::new(1);
        let _first = creators.claim(&client("2001:db8:0:1::1", 1)).unwrap();
        assert_eq!(creators.claim(&client("2001:db8:0:1:ffff::2", 2)).err(), Some(CountedBy::Address));
        assert!(creators.claim(&client("2001:db8:0:2::1", 3)).is_ok());
        let _v4 = creators.claim(&client("10.0.0.1", 4)).unwrap();
        assert_eq!(creators.claim(&client("::ffff:10.0.0.1", 5)).err(), Some(CountedBy::Address));
    }

    #[test]
    fn tables_are_empty_when_all_rooms_are_gone() {
        let creators = Creators::new(10);
        for _ in 0..2 {
            let claims: Vec<Claim> = (0..20_u8)
                .map(|n| creators.claim(&client(&format!("10.0.0.{}", n % 4), n.into())).unwrap())
                .collect();
            for claim in &claims {
                claim.mark_empty(&name("blue"), || true);
            }
            claims[0].release();
            claims[0].mark_empty(&name("blue"), || true);
            drop(claims);
            assert!(is_unused(&creators));
            assert_eq!(creators.next_to_evict(), None);
        }
    }

    #[test]
    fn longest_empty_of_the_largest_creator_is_evicted_first() {
        let creators = Creators::new(10);
        let claim = |address| creators.claim(&client(address, 1)).unwrap();
        let (old, a, b, c) = (claim("10.0.0.1"), claim("10.0.0.2"), claim("10.0.0.2"), claim("10.0.0.2"));
        old.mark_empty(&name("old"), || true);
        a.mark_empty(&name("a"), || true);
        b.mark_empty(&name("b"), || true);
        // Occupied, so not listed.
        c.mark_empty(&name("c"), || false);
        // Entered and left since: it has been empty for a shorter time.
        a.mark_empty(&name("a"), || true);
        let mut evicted = Vec::new();
        while let Some(room) = creators.next_to_evict() {
            evicted.push(room.to_string());
        }
        assert_eq!(evicted, ["b", "a", "old"]);
    }
}
