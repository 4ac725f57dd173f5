//! The limits of a hub, and the refusals when one is reached.

use crate::config::SlowRules;
use crate::hub::log;
use crate::hub::log::start::StartError;
use std::fmt;
use std::time::{Duration, SystemTime};

/// The hub's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The limits of the server's default settings; the reasons are in [`crate::config`].
    fn default() -> Self {
        Self {
            connections: 50_000,
            connections_per_room: None,
            connections_per_address: None,
            rooms: 10_000,
            rooms_per_client: 100,
            room_idle: Duration::from_secs(60),
            retention: log::Retention { bytes: 16 << 20, messages: 65_536, age: Duration::from_secs(600) },
            retention_total: 1 << 30,
            inbox_messages: 4_096,
            inbox_bytes: 4 << 20,
            inbox_share: 256,
            lag_bytes: 1 << 20,
            lag_age: Duration::from_secs(30),
            slow: SlowRules::default(),
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

/// By what the rooms of a client are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedBy {
    /// The client's TCP connection.
    Transport,
    /// The client's address.
    Address,
}

impl fmt::Display for CountedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transport => "TCP connection",
            Self::Address => "address",
        })
    }
}

/// "9m 58s": whole seconds, rounded up, so that a client that waits this long finds the ban expired.
fn in_seconds(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0)))
}

/// The reason after a colon, if there is one.
fn introduced(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
