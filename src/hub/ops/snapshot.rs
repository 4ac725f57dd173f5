//! A member as seen from outside at one moment, for lists and watchers.

use crate::hub::ids::RoomName;
use crate::hub::log::position::{Epoch, Position};
use crate::hub::member::Member;
use crate::hub::member::disconnect::DisconnectReason;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How far a member is behind the tail of its room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Messages that it has not received.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long the next of them has waited for it.
    pub time: Duration,
}

/// A member, its room, and how far behind it was.
#[derive(Clone, Debug)]
pub struct ConnectionSnapshot {
    /// The member. Its counts keep changing.
    pub member: Arc<Member>,
    /// Its room.
    pub room: RoomName,
    /// The epoch of the room's positions.
    pub epoch: Epoch,
    /// Its lag.
    pub lag: Lag,
}

impl ConnectionSnapshot {
    /// The last message that the member has received; offset 0 is before the first.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.member.cursor().offset - 1 }
    }
}

/// What happened to a connection.
#[derive(Clone, Debug)]
pub enum ConnectionEventKind {
    /// It joined.
    Joined,
    /// It left, for this reason.
    Left(DisconnectReason),
    /// It lags by more than half of its limit.
    Lagging,
    /// An operator disconnected it, for this reason.
    Kicked(String),
}

/// Something that happened to a connection.
#[derive(Clone, Debug)]
pub struct ConnectionEvent {
    /// What happened.
    pub kind: ConnectionEventKind,
    /// The connection at that moment.
    pub connection: ConnectionSnapshot,
    /// When.
    pub at: SystemTime,
}
