//! The sequencer: the one writer of a room, the step between "accepted" and "appended".
//!
//! It takes everything that waits, numbers it from 1, and appends it as one segment, written once in each wire form
//! that somebody in the room speaks. Whoever owns the [`Sequencer`] has the room's turn; rooms pass it around by moving
//! a box. Knows nothing of members' wakers or lanes. A replicated order would replace this step and nothing else.

use super::budget::Account;
use super::frame::{Batch, FORMS_MAX, Frame};
use super::gather::{Moment, Past};
use super::inbox::{Inbox, Offer};
use super::log::{FRAME_BYTES_MAX, LogWriter};
use super::member::Member;
use super::position::{Epoch, Position};
use super::repeats::Repeats;
use super::segment::{Entry, Place, Segment};
use super::tally::{Tally, nanos};
use std::sync::Arc;
use std::time::Instant;

/// A turn ends after this many bytes of messages, so that one room's flood does not keep a lane from its others.
const TURN_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

pub(crate) struct Sequencer<M> {
    writer: LogWriter<M>,
    repeats: Repeats,
    /// What the keys hold of the budget.
    keys: Account,
    filling: Filling<M>,
    turn_began: Instant,
    turn_messages: u64,
    past: Past,
    /// What was appended in this turn and wants to be told when it is done.
    followed: Vec<Followed<M>>,
}

/// The segment that is being filled.
struct Filling<M> {
    entries: Vec<Entry<M>>,
    /// What the entries count for.
    bytes: usize,
    /// How many of them have a place of their own.
    placed: u64,
    is_followed: bool,
    /// Who said them; nobody said the server's own.
    from: Vec<Arc<Member>>,
    /// Who said what is not among them, as it was said before.
    repeated: Vec<Arc<Member>>,
    /// When the oldest of them was accepted.
    accepted: Instant,
}

impl<M> Filling<M> {
    fn new() -> Self {
        Self {
            entries: Vec::new(),
            bytes: 0,
            placed: 0,
            is_followed: false,
            from: Vec::new(),
            repeated: Vec::new(),
            accepted: Instant::now(),
        }
    }
}

/// Messages that want to be told when they have been broadcast.
pub(crate) enum Followed<M> {
    /// Those of a segment.
    Appended(Arc<Segment<M>>),
    /// One that repeats what was said at this offset, and is in no segment.
    Dropped(M, u64),
}

impl<M: Frame> Followed<M> {
    /// Tells each of them.
    pub(crate) fn tell(&self, epoch: Epoch, messages: u64, members: usize) {
        let tell = |message: &M, offset, repeated| {
            let position = Position { epoch, offset };
            message.broadcast(&Batch { position, repeated, messages, members });
        };
        match self {
            Self::Appended(segment) => {
                for entry in segment.entries().iter().filter(|entry| entry.message.is_followed()) {
                    let repeated = matches!(entry.place(), Place::Repeats(_));
                    tell(&entry.message, entry.offset().unwrap_or_default(), repeated);
                }
            }
            Self::Dropped(message, first) => tell(message, *first, true),
        }
    }
}

impl<M: Frame> Sequencer<M> {
    pub(crate) fn new(writer: LogWriter<M>) -> Self {
        Self {
            repeats: Repeats::within(writer.retention()),
            keys: Account::of(writer.budget()),
            writer,
            filling: Filling::new(),
            turn_began: Instant::now(),
            turn_messages: 0,
            past: Past::default(),
            followed: Vec::new(),
        }
    }

    /// Puts what waits in the inbox into the log, written in these forms.
    ///
    /// Cost: per message one encoding for each form and one count; per segment a few allocations of exact size.
    pub(crate) fn take_turn(
        &mut self,
        inbox: &Inbox<M>,
        share: usize,
        forms: [bool; FORMS_MAX],
        tally: &Tally,
    ) {
        self.turn_began = Instant::now();
        let (mut messages, mut bytes) = (0, 0);
        while bytes < TURN_BYTES_MAX {
            let Some(offer) = inbox.take() else { break };
            if messages == 0 {
                // The queue is in order: nobody has waited longer.
                let waited = self.turn_began.saturating_duration_since(offer.accepted);
                tally.inbox_wait.observe(nanos(waited), 1);
            }
            if !self.filling.entries.is_empty() && self.filling.bytes + offer.size > FRAME_BYTES_MAX {
                self.append(share, forms);
            }
            messages += 1;
            bytes += offer.size;
            self.place(offer, tally);
        }
        self.turn_messages = messages as u64;
        if messages > 0 {
            self.append(share, forms);
            inbox.release(messages, bytes);
            tally.batch_messages.observe(messages as u64, 1);
            self.repeats.trim(self.turn_began);
            if self.writer.budget().is_exceeded() {
                // As the log does: it makes room for what this turn has added.
                self.repeats.forget(2 * messages);
            }
            self.keys.set(self.repeats.held());
        }
    }

    /// Gives a message its place in the segment that is being filled.
    fn place(&mut self, offer: Offer<M>, tally: &Tally) {
        let Offer { from, form, mut message, accepted, size } = offer;
        if let Some(member) = &from {
            member.sequenced(size);
        }
        let filling = &mut self.filling;
        if filling.entries.is_empty() {
            filling.accepted = accepted;
        }
        let offset = self.writer.next_offset() + filling.placed;
        let now = self.turn_began;
        let known = message.key().and_then(|key| self.repeats.find_or_note(key, offset, now));
        let place = match known {
            Some(first) => Place::Repeats(first),
            None if message.is_placed() => Place::Own,
            None => Place::None,
        };
        if let Place::Repeats(first) = place
            && !message.forget()
        {
            // Nobody looks for it: whoever asks again and again must not push out what others said.
            filling.repeated.extend(from);
            if message.is_followed() {
                self.followed.push(Followed::Dropped(message, first));
            }
            return;
        }
        if place == Place::Own {
            filling.placed += 1;
            tally.published_messages[form].add(1);
            tally.published_bytes.add(size as u64);
            tally.message_size.observe(size as u64, 1);
        }
        if let Some(member) = from {
            member.hears_itself_in(self.writer.next_segment());
            filling.from.push(member);
        }
        filling.bytes += size;
        filling.is_followed |= message.is_followed();
        filling.entries.push(Entry { offset, place, message });
    }

    /// When the last turn began.
    pub(crate) fn turn_began(&self) -> Instant {
        self.turn_began
    }

    /// Everyone has had its turn with the last batch.
    pub(crate) fn turn_is_over(&mut self) -> Past {
        self.past = Past { messages: self.turn_messages, took: self.turn_began.elapsed() };
        self.past
    }

    /// How long the messages that are there wait for others.
    pub(crate) fn moment(&self) -> Moment {
        self.past.moment(Instant::now())
    }

    /// Tells this to messages of the last turn that want to be told, each once.
    pub(crate) fn take_followed(&mut self) -> (Vec<Followed<M>>, u64) {
        (std::mem::take(&mut self.followed), self.turn_messages)
    }

    /// Removes what has become too old, and gives back what is kept for the next turn.
    pub(crate) fn trim(&mut self) {
        let now = Instant::now();
        self.writer.trim(now);
        self.writer.rest();
        self.repeats.trim(now);
        self.keys.set(self.repeats.held());
        if self.filling.entries.is_empty() {
            self.filling = Filling::new();
        }
    }

    /// Removes what the budget of all rooms demands: the log, oldest first, and when that is empty the keys.
    pub(crate) fn trim_to_budget(&mut self) {
        self.writer.trim_to_budget();
        while self.writer.budget().is_nearly_met() && !self.repeats.is_empty() {
            self.forget_keys();
        }
    }

    fn forget_keys(&mut self) {
        let before = self.repeats.held();
        self.repeats.forget_half();
        let held = self.repeats.held();
        self.keys.set(held);
        self.writer.budget().count_trimmed(before.saturating_sub(held));
    }

    fn append(&mut self, share: usize, forms: [bool; FORMS_MAX]) {
        if !self.filling.entries.is_empty() {
            self.append_entries(forms);
        }
        // After the append: a sender with nothing in the inbox may rely on finding all it said in the log.
        for member in self.filling.from.drain(..) {
            member.appended(share);
        }
        for member in self.filling.repeated.drain(..) {
            member.dropped(share);
        }
    }

    fn append_entries(&mut self, forms: [bool; FORMS_MAX]) {
        let filling = &mut self.filling;
        let entries = Vec::with_capacity(filling.entries.len());
        let mut entries = std::mem::replace(&mut filling.entries, entries);
        // The log keeps it: no more than it needs.
        entries.shrink_to_fit();
        let segment = self.writer.append(entries, forms, filling.accepted, Instant::now());
        if std::mem::take(&mut filling.is_followed) {
            self.followed.push(Followed::Appended(segment));
        }
        (filling.bytes, filling.placed) = (0, 0);
    }
}
