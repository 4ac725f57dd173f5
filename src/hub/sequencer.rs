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
use super::tally::{Tally, nanos};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A turn ends after this many bytes of frames, so that one room's flood does not keep a lane from its others.
const TURN_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

pub(crate) struct Sequencer<M> {
    writer: LogWriter,
    epoch: Epoch,
    frames: BytesMut,
    /// Who said the messages of the segment that is being filled; nobody said the server's own.
    from: Vec<Option<Arc<Member>>>,
    /// When the oldest of them was accepted.
    accepted: Instant,
    turn_began: Instant,
    turn_messages: u64,
    /// Messages of this turn that want to be told when it is done.
    traced: Vec<(Position, M)>,
}

impl<M: Frame> Sequencer<M> {
    pub(crate) fn new(writer: LogWriter, epoch: Epoch) -> Self {
        let now = Instant::now();
        Self {
            writer,
            epoch,
            frames: BytesMut::new(),
            from: Vec::new(),
            accepted: now,
            turn_began: now,
            turn_messages: 0,
            traced: Vec::new(),
        }
    }

    /// Puts what waits in the inbox into the log.
    ///
    /// Cost: per message one encoding and one count; per segment one allocation of its exact size.
    pub(crate) fn take_turn(&mut self, inbox: &Inbox<M>, share: usize, tally: &Tally) {
        self.turn_began = Instant::now();
        let (mut messages, mut bytes) = (0, 0);
        while bytes < TURN_BYTES_MAX {
            let Some(offer) = inbox.take() else { break };
            if messages == 0 {
                // The queue is in order: nobody has waited longer.
                let waited = self.turn_began.saturating_duration_since(offer.accepted);
                tally.inbox_wait.observe(nanos(waited), 1);
            }
            if !self.frames.is_empty() && self.frames.len() + offer.size > FRAME_BYTES_MAX {
                self.append(share);
            }
            if self.from.is_empty() {
                self.accepted = offer.accepted;
            }
            let offset = self.writer.next_offset() + self.from.len() as u64;
            let position = Position { epoch: self.epoch, offset };
            offer.message.frame(position, &mut self.frames);
            if let Some(member) = &offer.from {
                member.sequenced(offset, offer.size);
            }
            if offer.message.is_traced() {
                self.traced.push((position, offer.message));
            }
            tally.message_size.observe(offer.size as u64, 1);
            self.from.push(offer.from);
            messages += 1;
            bytes += offer.size;
        }
        self.turn_messages = messages as u64;
        if messages > 0 {
            self.append(share);
            inbox.release(messages, bytes);
            tally.published_messages.add(messages as u64);
            tally.published_bytes.add(bytes as u64);
            tally.batch_messages.observe(messages as u64, 1);
        }
    }

    /// When the last turn began.
    pub(crate) fn turn_began(&self) -> Instant {
        self.turn_began
    }

    /// Time since the last turn began.
    pub(crate) fn turn_took(&self) -> Duration {
        self.turn_began.elapsed()
    }

    /// Messages of the last turn that want to be told, each once; and how many messages the turn had.
    pub(crate) fn take_traced(&mut self) -> (Vec<(Position, M)>, u64) {
        (std::mem::take(&mut self.traced), self.turn_messages)
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
        let messages = self.from.len() as u64;
        self.writer.append(frames, messages, self.accepted, Instant::now());
        // After the append: a sender with nothing in the inbox may rely on finding all it said in the log.
        for member in self.from.drain(..).flatten() {
            member.appended(share);
        }
    }
}
