//! What a room can carry.

use crate::hub::log::position::Position;
use crate::hub::member::Member;
use bytes::BytesMut;
use std::sync::Arc;
use std::time::SystemTime;

/// Most wire forms that a message can have.
pub const FORMS_MAX: usize = 2;

/// A message that a room can carry: it writes itself as the bytes that every member receives.
///
/// A room's members may speak different wire forms of the same messages. Each form of a message is written once, and
/// only when somebody in its room speaks it.
pub trait Payload: Send + Sync + Sized + 'static {
    /// Bytes that the message counts for: limits, and lag.
    fn size(&self) -> usize;

    /// Bytes that the message itself has allocated, at their capacity. Its frames are counted apart, as they are written.
    fn retained_bytes(&self) -> usize {
        self.size()
    }

    /// Appends the message as it goes over the wire in this form, a number below [`FORMS_MAX`]. What cannot be said in
    /// the form appends nothing.
    fn encode(&self, form: usize, meta: &EventMeta, out: &mut BytesMut);

    /// Whether it takes a place in the room's order. What does not is shown at its moment to those who are there, and is
    /// no part of the room's history.
    fn is_persistent(&self) -> bool {
        true
    }

    /// Tells that a message is the same as an earlier one: as long as the room knows the key, this is not said again. It
    /// knows as many keys, and as long, as it retains messages; it has them, too, when bytes have bounded these.
    fn idempotency_key(&self) -> Option<&Arc<str>> {
        None
    }

    /// It repeats an earlier message and is not said: what it says may be forgotten. Whether its sender looks for it in
    /// the log all the same. It stays receipts.
    fn strip_duplicate(&mut self) -> bool {
        false
    }

    /// Whether [`Payload::broadcast`] is to be called.
    fn wants_receipt(&self) -> bool {
        false
    }

    /// Called for a receipts message, once the members have been woken for its batch.
    fn on_broadcast(&self, _: &BroadcastInfo) {}

    /// The message that tells members who asked for it who came and went; none if there is no such message.
    fn presence(_: &PresenceDiff) -> Option<Self> {
        None
    }
}

/// What the room adds to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventMeta {
    /// Its place; for a message without one, that of the next.
    pub position: Position,
    /// When it got it.
    pub time: SystemTime,
}

/// The batch in which a message was broadcast.
#[derive(Clone, Copy, Debug)]
pub struct BroadcastInfo {
    /// The message's own position; that of the first one for a message that was said before.
    pub position: Position,
    /// It was said before, and not again.
    pub repeated: bool,
    /// Messages in the batch.
    pub messages: u64,
    /// MemberList of the room that were woken for it.
    pub members: usize,
}

/// Who came and went since the last diff.
#[derive(Debug)]
pub struct PresenceDiff {
    /// Who came; at most [`PRESENCE_LISTED_MAX`] of them.
    pub joined: Vec<Arc<Member>>,
    /// Who went; at most [`PRESENCE_LISTED_MAX`] of them.
    pub left: Vec<Arc<Member>>,
    /// How many came.
    pub joined_count: usize,
    /// How many went.
    pub left_count: usize,
    /// How many are here now.
    pub members: usize,
}

/// Most members that a diff names; it counts all. A storm of joins must not become a message as large as the room.
pub const PRESENCE_LISTED_MAX: usize = 100;
