//! What a room can carry.

use crate::hub::ids::{ConnectionId, DisplayName};
use crate::hub::log::position::Position;
use crate::hub::wire_form::WireForm;
use bytes::BytesMut;
use std::sync::Arc;
use std::time::SystemTime;

/// A message that a room can carry: it encodes itself as the bytes that every member receives.
///
/// A simple message implements [`size`](Payload::size) and [`encode`](Payload::encode); the other methods have defaults,
/// and serve messages with idempotency keys, receipts or presence.
///
/// Members of one room may use different [wire forms](WireForm). A message is encoded once for each form that a member
/// of its room uses, whatever the number of members.
pub trait Payload: Send + Sync + Sized + 'static {
    /// The message's size in bytes, as limits and lag count it.
    fn size(&self) -> usize;

    /// Appends the encoded message, including gRPC's 5-byte prefix if the receiver expects it. A message that does not
    /// exist in this form appends nothing.
    fn encode(&self, form: WireForm, meta: &EventMeta, out: &mut BytesMut);

    /// Heap bytes that the message owns, by capacity. The log's memory budget counts them; encoded frames are counted
    /// separately.
    fn retained_bytes(&self) -> usize {
        self.size()
    }

    /// Whether the message gets an offset and is part of the room's history. An ephemeral message reaches the members
    /// that are present when it is broadcast, and nobody later.
    fn is_persistent(&self) -> bool {
        true
    }

    /// Identifies a message that may be published more than once: while the room knows the key, later messages with it
    /// are duplicates and are not broadcast. A room knows as many keys, and for as long, as it retains messages; it keeps
    /// them even when the byte limit has removed the messages themselves.
    fn idempotency_key(&self) -> Option<&Arc<str>> {
        None
    }

    /// Called for a duplicate, which may drop its content. Returns whether it stays in the log, so that the
    /// [`Filter`](crate::hub::Filter) of its publisher finds it there. A receipt is sent in either case.
    fn strip_duplicate(&mut self) -> bool {
        false
    }

    /// Whether [`Payload::on_broadcast`] is called.
    fn wants_receipt(&self) -> bool {
        false
    }

    /// Called once for a message that wants a receipt, after the members on the shard that sequenced it have been woken.
    fn on_broadcast(&self, _: &BroadcastInfo) {}

    /// The message that reports joins and leaves to the members that asked for presence, if there is such a message.
    fn presence(_: &PresenceDiff) -> Option<Self> {
        None
    }
}

/// What the room adds to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventMeta {
    /// The message's position; for an ephemeral message, that of the next persistent one.
    pub position: Position,
    /// When the message was appended to the log.
    pub time: SystemTime,
}

/// How a message was broadcast.
#[derive(Clone, Copy, Debug)]
pub struct BroadcastInfo {
    /// The message's position; for a duplicate, the position of the original.
    pub position: Position,
    /// Whether the message is a duplicate, and was not broadcast again.
    pub repeated: bool,
    /// Messages in the batch.
    pub messages: u64,
    /// Members of the room when the batch was broadcast.
    pub members: usize,
}

/// Joins and leaves since the last diff.
#[derive(Debug)]
pub struct PresenceDiff {
    /// Members that joined; at most [`PRESENCE_LISTED_MAX`] of them.
    pub joined: Vec<PresenceEntry>,
    /// Members that left; at most [`PRESENCE_LISTED_MAX`] of them.
    pub left: Vec<PresenceEntry>,
    /// How many joined.
    pub joined_count: usize,
    /// How many left.
    pub left_count: usize,
    /// How many are present now.
    pub members: usize,
}

/// A member that a [`PresenceDiff`] lists.
#[derive(Clone, Debug)]
pub struct PresenceEntry {
    /// The connection's id.
    pub id: ConnectionId,
    /// The client's display name.
    pub name: DisplayName,
}

/// Most members that a presence diff lists; it counts all. A storm of joins must not make a message as large as the room.
pub const PRESENCE_LISTED_MAX: usize = 100;
