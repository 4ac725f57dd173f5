//! What one client wants of a room, and how it gets what concerns only itself.
//!
//! An acknowledgement is no message of its own: it is the client's own message, met by its own cursor. So it needs no
//! queue, comes in order, and cannot be lost without a gap.

use crate::chat::said::{Said, position};
use crate::hub::{ConnectionId, Entry, Place, Position, Select, Stamp};
use crate::wire::v1::{self as api, join_response::Response};
use crate::wire::{self};
use bytes::BytesMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What one client wants.
pub(super) struct Wants {
    pub(super) me: ConnectionId,
    /// None means all.
    pub(super) kinds: Option<Box<[Box<str>]>>,
    pub(super) echo: bool,
    pub(super) presence: bool,
    /// Whether it has said something: before, nothing can be its own.
    pub(super) has_spoken: Arc<AtomicBool>,
}

impl Wants {
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

impl Select<Said> for Wants {
    fn wants_all(&self, entries: &[Entry<Said>]) -> bool {
        let is_mine = |said: &Said| self.has_spoken.load(Ordering::Acquire) && said.is_by(self.me);
        self.kinds.is_none()
            && entries.iter().all(|entry| match entry.place() {
                // Of a repetition there is nothing but its sender's acknowledgement.
                Place::Own | Place::Repeats(_) => !is_mine(&entry.message),
                Place::None => self.presence,
            })
    }

    fn pick(&mut self, entry: &Entry<Said>, stamp: &Stamp, frame: &[u8], out: &mut BytesMut) {
        let said = &entry.message;
        match entry.place() {
            Place::Own => {
                let mine = said.is_by(self.me);
                if self.wants_kind(said) && (self.echo || !mine) {
                    out.extend_from_slice(frame);
                }
                if mine {
                    acknowledge(said, stamp.position, false, out);
                }
            }
            Place::Repeats(offset) => {
                if said.is_by(self.me) {
                    acknowledge(said, Position { offset, ..stamp.position }, true, out);
                }
            }
            Place::None => {
                if self.presence {
                    out.extend_from_slice(frame);
                }
            }
        }
    }
}
