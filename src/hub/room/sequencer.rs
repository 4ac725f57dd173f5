//! The sequencer: the one writer of a room, the step between "accepted" and "appended".
//!
//! It takes everything that waits, numbers it from 1, and appends it as one segment, written once in each wire form
//! that somebody in the room speaks. Whoever owns the [`Sequencer`] has the room's turn; rooms pass it around by moving
//! a box. Knows nothing of members' wakers or shards. A replicated order would replace this step and nothing else.

use crate::hub::log::budget::Account;
use crate::hub::log::position::{Epoch, Position};
use crate::hub::log::segment::{Entry, Segment, Sequencing};
use crate::hub::log::{FRAME_BYTES_MAX, LogWriter};
use crate::hub::member::Member;
use crate::hub::payload::{BroadcastInfo, FORMS_MAX, Payload};
use crate::hub::room::dedup::IdempotencyKeys;
use crate::hub::room::inbox::{Inbox, Pending};
use crate::hub::room::linger::{LastBatch, Linger};
use crate::hub::shard::metrics::{ShardMetrics, nanos};
use std::sync::Arc;
use std::time::Instant;

/// A turn ends after this many bytes of messages, so that one room's flood does not keep a shard from its others.
const BATCH_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

pub(crate) struct Sequencer<M> {
    writer: LogWriter<M>,
    repeats: IdempotencyKeys,
    /// What the keys hold of the budget.
    keys: Account,
    open: OpenSegment<M>,
    batch_began: Instant,
    batch_messages: u64,
    past: LastBatch,
    /// What was appended in this turn and wants to be told when it is done.
    receipts: Vec<Receipts<M>>,
}

/// The segment that is being filled.
struct OpenSegment<M> {
    entries: Vec<Entry<M>>,
    /// What the entries count for.
    bytes: usize,
    /// How many of them have a place of their own.
    placed: u64,
    wants_receipt: bool,
    /// Who said them; nobody said the server's own.
    from: Vec<Arc<Member>>,
    /// Who said what is not among them, as it was said before.
    repeated: Vec<Arc<Member>>,
    /// When the oldest of them was accepted.
    accepted: Instant,
}

impl<M> OpenSegment<M> {
    fn new() -> Self {
        Self {
            entries: Vec::new(),
            bytes: 0,
            placed: 0,
            wants_receipt: false,
            from: Vec::new(),
            repeated: Vec::new(),
            accepted: Instant::now(),
        }
    }
}

/// Messages that want to be told when they have been broadcast.
pub(crate) enum Receipts<M> {
    /// Those of a segment.
    Appended(Arc<Segment<M>>),
    /// One that repeats what was said at this offset, and is in no segment.
    Dropped(M, u64),
}

impl<M: Payload> Receipts<M> {
    /// Tells each of them.
    pub(crate) fn tell(&self, epoch: Epoch, messages: u64, members: usize) {
        let tell = |message: &M, offset, repeated| {
            let position = Position { epoch, offset };
            message.on_broadcast(&BroadcastInfo { position, repeated, messages, members });
        };
        match self {
            Self::Appended(segment) => {
                for entry in segment.entries().iter().filter(|entry| entry.message.wants_receipt()) {
                    let repeated = matches!(entry.sequencing(), Sequencing::Duplicate(_));
                    tell(&entry.message, entry.offset().unwrap_or_default(), repeated);
                }
            }
            Self::Dropped(message, first) => tell(message, *first, true),
        }
    }
}

impl<M: Payload> Sequencer<M> {
    pub(crate) fn new(writer: LogWriter<M>) -> Self {
        Self {
            repeats: IdempotencyKeys::within(writer.retention()),
            keys: Account::of(writer.budget()),
            writer,
            open: OpenSegment::new(),
            batch_began: Instant::now(),
            batch_messages: 0,
            past: LastBatch::default(),
            receipts: Vec::new(),
        }
    }

    /// Puts what waits in the inbox into the log, written in these forms.
    ///
    /// Cost: per message one encoding for each form and one count; per segment a few allocations of exact size.
    pub(crate) fn sequence(
        &mut self,
        inbox: &Inbox<M>,
        share: usize,
        forms: [bool; FORMS_MAX],
        metrics: &ShardMetrics,
    ) {
        self.batch_began = Instant::now();
        let (mut messages, mut bytes) = (0, 0);
        while bytes < BATCH_BYTES_MAX {
            let Some(offer) = inbox.take() else { break };
            if messages == 0 {
                // The queue is in order: nobody has waited longer.
                let waited = self.batch_began.saturating_duration_since(offer.accepted);
                metrics.inbox_wait.observe(nanos(waited), 1);
            }
            if !self.open.entries.is_empty() && self.open.bytes + offer.size > FRAME_BYTES_MAX {
                self.append(share, forms);
            }
            messages += 1;
            bytes += offer.size;
            self.assign(offer, metrics);
        }
        self.batch_messages = messages as u64;
        if messages > 0 {
            self.append(share, forms);
            inbox.release(messages, bytes);
            metrics.batch_messages.observe(messages as u64, 1);
            self.repeats.trim(self.batch_began);
            if self.writer.budget().is_exceeded() {
                // As the log does: it makes room for what this turn has added.
                self.repeats.forget(2 * messages);
            }
            self.keys.set(self.repeats.held());
        }
    }

    /// Gives a message its place in the segment that is being filled.
    fn assign(&mut self, offer: Pending<M>, metrics: &ShardMetrics) {
        let Pending { from, form, mut message, accepted, size } = offer;
        if let Some(member) = &from {
            member.sequenced(size);
        }
        let open = &mut self.open;
        if open.entries.is_empty() {
            open.accepted = accepted;
        }
        let offset = self.writer.next_offset() + open.placed;
        let now = self.batch_began;
        let known = message.idempotency_key().and_then(|key| self.repeats.find_or_note(key, offset, now));
        let sequencing = match known {
            Some(first) => Sequencing::Duplicate(first),
            None if message.is_persistent() => Sequencing::Assigned,
            None => Sequencing::Ephemeral,
        };
        if let Sequencing::Duplicate(first) = sequencing
            && !message.strip_duplicate()
        {
            // Nobody looks for it: whoever asks again and again must not push out what others said.
            open.repeated.extend(from);
            if message.wants_receipt() {
                self.receipts.push(Receipts::Dropped(message, first));
            }
            return;
        }
        if sequencing == Sequencing::Assigned {
            open.placed += 1;
            metrics.published_messages[form].add(1);
            metrics.published_bytes.add(size as u64);
            metrics.message_size.observe(size as u64, 1);
        }
        if let Some(member) = from {
            member.set_last_published(self.writer.next_segment());
            open.from.push(member);
        }
        open.bytes += size;
        open.wants_receipt |= message.wants_receipt();
        open.entries.push(Entry { offset, sequencing, message });
    }

    /// When the last turn began.
    pub(crate) fn batch_began(&self) -> Instant {
        self.batch_began
    }

    /// Everyone has had its turn with the last batch.
    pub(crate) fn finish_batch(&mut self) -> LastBatch {
        self.past = LastBatch { messages: self.batch_messages, took: self.batch_began.elapsed() };
        self.past
    }

    /// How long the messages that are there wait for others.
    pub(crate) fn moment(&self) -> Linger {
        self.past.moment(Instant::now())
    }

    /// Tells this to messages of the last turn that want to be told, each once.
    pub(crate) fn take_receipts(&mut self) -> (Vec<Receipts<M>>, u64) {
        (std::mem::take(&mut self.receipts), self.batch_messages)
    }

    /// Removes what has become too old, and gives back what is kept for the next turn.
    pub(crate) fn trim(&mut self) {
        let now = Instant::now();
        self.writer.trim(now);
        self.writer.rest();
        self.repeats.trim(now);
        self.keys.set(self.repeats.held());
        if self.open.entries.is_empty() {
            self.open = OpenSegment::new();
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
        if !self.open.entries.is_empty() {
            self.append_entries(forms);
        }
        // After the append: a sender with nothing in the inbox may rely on finding all it said in the log.
        for member in self.open.from.drain(..) {
            member.appended(share);
        }
        for member in self.open.repeated.drain(..) {
            member.dropped(share);
        }
    }

    fn append_entries(&mut self, forms: [bool; FORMS_MAX]) {
        let open = &mut self.open;
        let entries = Vec::with_capacity(open.entries.len());
        let mut entries = std::mem::replace(&mut open.entries, entries);
        // The log keeps it: no more than it needs.
        entries.shrink_to_fit();
        let segment = self.writer.append(entries, forms, open.accepted, Instant::now());
        if std::mem::take(&mut open.wants_receipt) {
            self.receipts.push(Receipts::Appended(segment));
        }
        (open.bytes, open.placed) = (0, 0);
    }
}
