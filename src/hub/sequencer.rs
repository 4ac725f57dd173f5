//! The sequencer: the one writer of a room, the step between "accepted" and "appended".
//!
//! It takes everything that waits, numbers it from 1, frames each message once, and appends the batch as one
//! segment. Whoever owns the [`Sequencer`] has the room's turn; rooms pass it around by moving a box.
//! Knows nothing of members' wakers or lanes. A replicated order would replace this step and nothing else.

use super::Frame;
use super::inbox::Inbox;
use super::log::{FRAME_BYTES_MAX, LogWriter};
use super::member::Member;
use super::position::{Epoch, Position};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A turn ends after this many bytes of frames, so that one room's flood does not keep a lane from its others.
const TURN_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

pub(crate) struct Sequencer {
    writer: LogWriter,
    epoch: Epoch,
    frames: BytesMut,
    in_batch: Vec<Arc<Member>>,
    turn_began: Instant,
}

impl Sequencer {
    pub(crate) fn new(writer: LogWriter, epoch: Epoch) -> Self {
        Self { writer, epoch, frames: BytesMut::new(), in_batch: Vec::new(), turn_began: Instant::now() }
    }

    /// Puts what waits in the inbox into the log. Returns how many messages that were.
    ///
    /// Cost: per message one encoding; per segment one allocation of its exact size.
    pub(crate) fn take_turn<M: Frame>(&mut self, inbox: &Inbox<M>, share: usize) -> usize {
        self.turn_began = Instant::now();
        let mut messages = 0;
        let mut bytes = 0;
        while bytes < TURN_BYTES_MAX {
            let Some(offer) = inbox.take() else { break };
            if !self.frames.is_empty() && self.frames.len() + offer.size > FRAME_BYTES_MAX {
                self.append(share);
            }
            let offset = self.writer.next_offset() + self.in_batch.len() as u64;
            let epoch = self.epoch;
            offer.message.frame(Position { epoch, offset }, &mut self.frames);
            offer.from.sequenced(offset);
            self.in_batch.push(offer.from);
            messages += 1;
            bytes += offer.size;
        }
        if messages > 0 {
            self.append(share);
            inbox.release(messages, bytes);
        }
        messages
    }

    /// Time since the last turn began.
    pub(crate) fn turn_took(&self) -> Duration {
        self.turn_began.elapsed()
    }

    /// Removes what has become too old.
    pub(crate) fn trim(&mut self) {
        self.writer.trim(Instant::now());
    }

    fn append(&mut self, share: usize) {
        let frames = Bytes::copy_from_slice(&self.frames);
        self.frames.clear();
        if self.frames.capacity() > 2 * FRAME_BYTES_MAX {
            self.frames = BytesMut::new();
        }
        let messages = self.in_batch.len() as u64;
        self.writer.append(frames, messages, Instant::now());
        // After the append: a sender with nothing in the inbox may rely on finding all it said in the log.
        for member in self.in_batch.drain(..) {
            member.appended(share);
        }
    }
}
