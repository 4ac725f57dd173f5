//! The limits of a hub, and the refusals when one is reached.

use crate::config::{Settings, SlowRules};
use crate::hub::log;
use crate::hub::log::start::StartError;
use crate::hub::registry::creators::CountedBy;
use std::time::{Duration, SystemTime};

/// The hub's limits. The defaults and their reasons are in [`crate::config`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all rooms together.
    pub connections: usize,
    /// Connections in one room.
    pub connections_per_room: Option<usize>,
    /// Connections from one address; for IPv6, from one /64 network.
    pub connections_per_address: Option<usize>,
    /// Rooms at a time, without the lobby, whose place is reserved.
    pub rooms: usize,
    /// Rooms at a time that one client has created, by its transport and by its address.
    pub rooms_per_client: usize,
    /// How long a room outlives its last member or publisher.
    pub room_idle: Duration,
    /// What a room's log retains.
    pub retention: log::Retention,
    /// Bytes of all rooms' logs together.
    pub retention_total: u64,
    /// Messages in a room's inbox.
    pub inbox_messages: usize,
    /// Bytes of frames in a room's inbox.
    pub inbox_bytes: usize,
    /// Messages of one connection in its room's inbox.
    pub inbox_share: usize,
    /// Bytes a member may be behind the tail.
    pub lag_bytes: u64,
    /// How long the oldest message that a member has not received may wait for it.
    pub lag_age: Duration,
    /// What is done about a member that lags more.
    pub slow: SlowRules,
}

impl Default for Limits {
    /// The limits of the server's default settings.
    fn default() -> Self {
        Self::of(&Settings::default())
    }
}

impl Limits {
    /// The limits of these settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self {
            connections: settings.max_connections,
            connections_per_room: settings.max_connections_per_room,
            connections_per_address: settings.max_connections_per_address,
            rooms: settings.max_rooms,
            rooms_per_client: settings.max_rooms_per_client,
            room_idle: settings.room_idle,
            retention: log::Retention {
                bytes: settings.retention_bytes,
                messages: settings.retention_messages,
                age: settings.retention_age,
            },
            retention_total: settings.retention_total_bytes,
            inbox_messages: settings.inbox_messages,
            inbox_bytes: settings.inbox_bytes,
            inbox_share: settings.inbox_share,
            lag_bytes: settings.lag_limit_bytes,
            lag_age: settings.lag_limit_age,
            slow: settings.slow.clone(),
        }
    }
}

/// Why a client may not join or publish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The hub admits nobody any more.
    #[error("the server is stopping")]
    Closing,
    /// An operator has banned the client's address or name.
    #[error("banned by an operator for another {}{}", in_seconds(*.remaining), introduced(.reason))]
    Banned {
        /// How long the ban is still in force.
        remaining: Duration,
        /// When it ends, by the wall clock.
        until: SystemTime,
        /// The operator's reason, for the client; may be empty.
        reason: String,
    },
    /// [`Limits::connections`] is reached.
    #[error("the server has all the {0} connections it may have")]
    Connections(usize),
    /// [`Limits::connections_per_address`] is reached.
    #[error("this address has all the {0} connections it may have")]
    ConnectionsOfAddress(usize),
    /// [`Limits::connections_per_room`] is reached.
    #[error("the room has all the {0} connections it may have")]
    ConnectionsOfRoom(usize),
    /// [`Limits::rooms`] is reached, the room does not exist yet, and no room is empty.
    #[error("the server has all the {0} rooms it may have, and somebody is in each of them")]
    Rooms(usize),
    /// [`Limits::rooms_per_client`] is reached, and the room does not exist yet.
    #[error("this {by} has created all the {max} rooms it may have at a time")]
    RoomsOfClient {
        /// How many it may have.
        max: usize,
        /// Over what its rooms are counted.
        by: CountedBy,
    },
    /// It cannot start at the requested position.
    #[error("cannot begin there: {0}")]
    Start(StartError),
}

/// "9m 58s": whole seconds, rounded up, so that a client that waits this long finds the ban expired.
fn in_seconds(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0)))
}

/// The reason after a colon, if there is one.
fn introduced(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
