//! What one client wants of a room, and how it gets what concerns only itself.
//!
//! An acknowledgement is no message of its own: it is the client's own message, met by its own cursor. So it needs no
//! queue, comes in order, and cannot be lost without a gap.

use crate::chat::said::{Said, position};
use crate::hub::{ConnectionId, Entry, EventMeta, Filter, Position, Sequencing};
use crate::wire::v1::{self as api, join_response::Response};
use crate::wire::{self};
use bytes::BytesMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What one client wants.
pub(super) struct KindFilter {
    pub(super) me: ConnectionId,
    /// None means all.
    pub(super) kinds: Option<Box<[Box<str>]>>,
    pub(super) echo: bool,
    pub(super) presence: bool,
    /// Whether it has said something: before, nothing can be its own.
    pub(super) has_spoken: Arc<AtomicBool>,
}

impl KindFilter {
    fn wants_kind(&self, said: &Said) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| **kind == *said.kind()))
    }
}

/// Appends the acknowledgement of what was said, if one is wanted.
fn acknowledge(said: &Said, at: Position, repeated: bool, out: &mut BytesMut) {
    if !said.reference().is_empty() {
        let reference = said.reference().to_owned();
        let ack = api::Ack { reference, position: Some(position(at)), repeated };
        wire::frame(&api::JoinResponse { response: Some(Response::Ack(ack)) }, out);
    }
}

impl Filter<Said> for KindFilter {
    fn passes_all(&self, entries: &[Entry<Said>]) -> bool {
        let is_mine = |said: &Said| self.has_spoken.load(Ordering::Acquire) && said.is_by(self.me);
        self.kinds.is_none()
            && entries.iter().all(|entry| match entry.sequencing() {
                // Of a repetition there is nothing but its sender's acknowledgement.
                Sequencing::Assigned | Sequencing::Duplicate(_) => !is_mine(&entry.message),
                Sequencing::Ephemeral => self.presence,
            })
    }

    fn append(&mut self, entry: &Entry<Said>, meta: &EventMeta, frame: &[u8], out: &mut BytesMut) {
        let said = &entry.message;
        match entry.sequencing() {
            Sequencing::Assigned => {
                let mine = said.is_by(self.me);
                if self.wants_kind(said) && (self.echo || !mine) {
                    out.extend_from_slice(frame);
                }
                if mine {
                    acknowledge(said, meta.position, false, out);
                }
            }
            Sequencing::Duplicate(offset) => {
                if said.is_by(self.me) {
                    acknowledge(said, Position { offset, ..meta.position }, true, out);
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
