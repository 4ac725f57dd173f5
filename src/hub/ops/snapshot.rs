//! A member as seen from outside at one moment: what lists show and watchers are told.

use crate::hub::ids::RoomName;
use crate::hub::log::position::{Epoch, Position};
use crate::hub::member::Member;
use crate::hub::member::disconnect::DisconnectReason;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How far a member is behind the tail of its room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Messages it has not taken.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long the next of them has been waiting for it.
    pub time: Duration,
}

/// A member, its room, and how far behind it was.
#[derive(Clone, Debug)]
pub struct ConnectionSnapshot {
    /// The member. What it counts goes on changing.
    pub member: Arc<Member>,
    /// Its room.
    pub room: RoomName,
    /// Which life of the room.
    pub epoch: Epoch,
    /// How far behind.
    pub lag: Lag,
}

impl ConnectionSnapshot {
    /// The last message that was handed to the member; offset 0 is before the first.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.member.cursor().offset - 1 }
    }
}

/// What happens to connections.
#[derive(Clone, Debug)]
pub enum ConnectionEventKind {
    /// It joined.
    Joined,
    /// It left, for this reason.
    Left(DisconnectReason),
    /// It is over half of what it may be behind.
    Lagging,
    /// An operator ended it, with these words.
    Kicked(String),
}

/// Something that happened to a connection.
#[derive(Clone, Debug)]
pub struct ConnectionEvent {
    /// What.
    pub kind: ConnectionEventKind,
    /// To whom.
    pub connection: ConnectionSnapshot,
    /// When.
    pub at: SystemTime,
}
