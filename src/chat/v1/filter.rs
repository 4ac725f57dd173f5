//! What one client receives of a room's log, and its acknowledgements.
//!
//! An acknowledgement is not a message of its own: the client's cursor reaches the client's own message, and the filter
//! appends the acknowledgement there. So acknowledgements need no queue, come in order, and cannot be lost without a gap.

use crate::chat::message::{Message, position};
use crate::hub::{ConnectionId, Entry, EventMeta, Filter, Position, Sequencing};
use crate::wire::v1::{self as api, join_response::Response};
use crate::wire::{self};
use bytes::BytesMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Passes the kinds of messages that one client asked for.
pub(super) struct KindFilter {
    pub(super) me: ConnectionId,
    /// `None` passes all kinds.
    pub(super) kinds: Option<Box<[Box<str>]>>,
    /// Pass the client's own messages.
    pub(super) echo: bool,
    pub(super) presence: bool,
    /// Whether the client has published: before that, no message can be its own.
    pub(super) has_published: Arc<AtomicBool>,
}

impl KindFilter {
    fn passes_kind(&self, message: &Message) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| **kind == *message.kind()))
    }
}

/// Appends the acknowledgement of a message, if its sender asked for one by a reference.
fn acknowledge(message: &Message, at: Position, repeated: bool, out: &mut BytesMut) {
    if !message.reference().is_empty() {
        let reference = message.reference().to_owned();
        let ack = api::Ack { reference, position: Some(position(at)), repeated };
        wire::frame(&api::JoinResponse { response: Some(Response::Ack(ack)) }, out);
    }
}

impl Filter<Message> for KindFilter {
    fn passes_all(&self, entries: &[Entry<Message>]) -> bool {
        let is_mine =
            |message: &Message| self.has_published.load(Ordering::Acquire) && message.is_from(self.me);
        self.kinds.is_none()
            && entries.iter().all(|entry| match entry.sequencing() {
                // A duplicate has only its sender's acknowledgement.
                Sequencing::Assigned | Sequencing::Duplicate(_) => !is_mine(&entry.message),
                Sequencing::Ephemeral => self.presence,
            })
    }

    fn append(&mut self, entry: &Entry<Message>, meta: &EventMeta, frame: &[u8], out: &mut BytesMut) {
        let message = &entry.message;
        match entry.sequencing() {
            Sequencing::Assigned => {
                let is_mine = message.is_from(self.me);
                if self.passes_kind(message) && (self.echo || !is_mine) {
                    out.extend_from_slice(frame);
                }
                if is_mine {
                    acknowledge(message, meta.position, false, out);
                }
            }
            Sequencing::Duplicate(offset) => {
                if message.is_from(self.me) {
                    acknowledge(message, Position { offset, ..meta.position }, true, out);
                }
            }
            Sequencing::Ephemeral => {
                if self.presence {
                    out.extend_from_slice(frame);
                }
            }
        }
    }
}
