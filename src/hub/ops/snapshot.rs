//! A member as seen from outside at one moment, for lists and events.

use crate::hub::ids::RoomName;
use crate::hub::log::position::{Epoch, Position};
use crate::hub::member::Member;
use std::sync::Arc;
use std::time::Duration;

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
