//! The sequencer: the one writer of a room, the step between "accepted" and "appended".
//!
//! It takes what waits, up to a quarter of a MiB, gives each message the room's next offset (the first has 1), and appends
//! it in segments of at most one frame's bytes, encoded once in each wire form that a member of the room uses. Whoever owns
//! the [`Sequencer`] may write; the [batch cycle](crate::hub::room::cycle) moves it around in a box. Does not wake the
//! room's members. A replicated order would replace this step and nothing else.

use crate::hub::log::budget::Account;
use crate::hub::log::position::{Epoch, Position};
use crate::hub::log::segment::{Entry, Segment, Sequencing};
use crate::hub::log::{FRAME_BYTES_MAX, LogWriter};
use crate::hub::member::Member;
use crate::hub::payload::{BroadcastInfo, Payload};
use crate::hub::room::dedup::IdempotencyKeys;
use crate::hub::room::inbox::{Inbox, Pending};
use crate::hub::room::linger::{LastBatch, Linger};
use crate::hub::shard::metrics::{ShardMetrics, nanos};
use crate::hub::wire_form::ByForm;
use std::sync::Arc;
use std::time::Instant;

/// A batch ends after this many bytes of messages, so that one room's flood does not keep a shard from its other rooms.
const BATCH_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

pub(crate) struct Sequencer<M> {
    writer: LogWriter<M>,
    keys: IdempotencyKeys,
    /// What the keys hold of the budget.
    keys_account: Account,
    open: OpenSegment<M>,
    batch_began: Instant,
    batch_messages: u64,
    last_batch: LastBatch,
    /// For messages of this batch that want a receipt.
    receipts: Vec<Receipt<M>>,
}

/// The segment that is being filled.
struct OpenSegment<M> {
    entries: Vec<Entry<M>>,
    /// Bytes of the entries.
    bytes: usize,
    /// How many of the entries have an offset of their own.
    assigned: u64,
    wants_receipt: bool,
    /// The publishers of the entries; the server's own messages have none.
    publishers: Vec<Arc<Member>>,
    /// The publishers of duplicates that are not among the entries.
    of_duplicates: Vec<Arc<Member>>,
    /// When the first entry was published.
    accepted: Instant,
}

impl<M> OpenSegment<M> {
    fn new() -> Self {
        Self {
            entries: Vec::new(),
            bytes: 0,
            assigned: 0,
            wants_receipt: false,
            publishers: Vec::new(),
            of_duplicates: Vec::new(),
            accepted: Instant::now(),
        }
    }
}

/// The receipts of a batch, to be sent once its members have been woken.
pub(crate) struct Receipts<M> {
    receipts: Vec<Receipt<M>>,
    /// Messages in the batch.
    messages: u64,
}

enum Receipt<M> {
    /// For those messages of a segment that want one.
    Segment(Arc<Segment<M>>),
    /// For a duplicate that is in no segment, of the message with this offset.
    Duplicate(M, u64),
}

impl<M: Payload> Receipts<M> {
    pub(crate) fn send(&self, epoch: Epoch, members: impl FnOnce() -> usize) {
        if self.receipts.is_empty() {
            return;
        }
        let (messages, members) = (self.messages, members());
        let send = |message: &M, offset, repeated| {
            let position = Position { epoch, offset };
            message.on_broadcast(&BroadcastInfo { position, repeated, messages, members });
        };
        for receipt in &self.receipts {
            match receipt {
                Receipt::Segment(segment) => {
                    for entry in segment.entries().iter().filter(|entry| entry.message.wants_receipt()) {
                        let repeated = matches!(entry.sequencing(), Sequencing::Duplicate(_));
                        send(&entry.message, entry.offset().unwrap_or_default(), repeated);
                    }
                }
                Receipt::Duplicate(message, original) => send(message, *original, true),
            }
        }
    }
}

impl<M: Payload> Sequencer<M> {
    pub(crate) fn new(writer: LogWriter<M>) -> Self {
        Self {
            keys: IdempotencyKeys::within(writer.retention()),
            keys_account: Account::of(writer.budget()),
            writer,
            open: OpenSegment::new(),
            batch_began: Instant::now(),
            batch_messages: 0,
            last_batch: LastBatch::default(),
            receipts: Vec::new(),
        }
    }

    /// Moves what waits in the inbox to the log, encoded in the forms that are `in_use`.
    ///
    /// Cost: per message one encoding for each form and one count; per segment a few allocations of exact size.
    pub(crate) fn sequence(
        &mut self,
        inbox: &Inbox<M>,
        share: usize,
        in_use: ByForm<bool>,
        metrics: &ShardMetrics,
    ) {
        self.batch_began = Instant::now();
        let (mut messages, mut bytes) = (0, 0);
        while bytes < BATCH_BYTES_MAX {
            let Some(pending) = inbox.take() else { break };
            if messages == 0 {
                // The first in the queue stands for the batch. Its time counts from the publish, and so includes a wait
                // for room in the inbox.
                let waited = self.batch_began.saturating_duration_since(pending.accepted);
                metrics.inbox_wait.observe(nanos(waited), 1);
            }
            if !self.open.entries.is_empty() && self.open.bytes + pending.size > FRAME_BYTES_MAX {
                self.append(share, in_use);
            }
            messages += 1;
            bytes += pending.size;
            self.assign(pending, metrics);
        }
        self.batch_messages = messages as u64;
        if messages > 0 {
            self.append(share, in_use);
            inbox.release(messages, bytes);
            metrics.batch_messages.observe(messages as u64, 1);
            self.keys.trim(self.batch_began);
            if self.writer.budget().is_exceeded() {
                // The keys make room for what this batch has added, and for as many more: until the budget is met again,
                // their share shrinks as the log's does.
                self.keys.forget(2 * messages);
            }
            self.keys_account.set(self.keys.held());
        }
    }

    /// Assigns an offset to a message, and adds it to the open segment.
    fn assign(&mut self, pending: Pending<M>, metrics: &ShardMetrics) {
        let Pending { from, form, mut message, accepted, size } = pending;
        if let Some(member) = &from {
            member.note_sequenced(size);
        }
        let open = &mut self.open;
        if open.entries.is_empty() {
            open.accepted = accepted;
        }
        let offset = self.writer.next_offset() + open.assigned;
        let now = self.batch_began;
        let known = message.idempotency_key().and_then(|key| self.keys.find_or_note(key, offset, now));
        let sequencing = match known {
            Some(original) => Sequencing::Duplicate(original),
            None if message.is_persistent() => Sequencing::Assigned,
            None => Sequencing::Ephemeral,
        };
        if let Sequencing::Duplicate(original) = sequencing
            && !message.strip_duplicate()
        {
            // No filter looks for it: a client that repeats itself must not push others' messages out of the log.
            open.of_duplicates.extend(from);
            if message.wants_receipt() {
                self.receipts.push(Receipt::Duplicate(message, original));
            }
            return;
        }
        if sequencing == Sequencing::Assigned {
            open.assigned += 1;
            metrics.published_messages[form].add(1);
            metrics.published_bytes.add(size as u64);
            metrics.message_size.observe(size as u64, 1);
        }
        if let Some(member) = from {
            member.set_last_published(self.writer.next_segment());
            open.publishers.push(member);
        }
        open.bytes += size;
        open.wants_receipt |= message.wants_receipt();
        open.entries.push(Entry { offset, sequencing, message });
    }

    /// When the last batch was taken from the inbox.
    pub(crate) fn batch_began(&self) -> Instant {
        self.batch_began
    }

    /// All members have run for the last batch.
    pub(crate) fn finish_batch(&mut self) -> LastBatch {
        self.last_batch = LastBatch { messages: self.batch_messages, took: self.batch_began.elapsed() };
        self.last_batch
    }

    /// How long the messages that wait now wait for others.
    pub(crate) fn linger(&self) -> Linger {
        self.last_batch.linger(Instant::now())
    }

    /// The receipts of the last batch, once.
    pub(crate) fn take_receipts(&mut self) -> Receipts<M> {
        Receipts { receipts: std::mem::take(&mut self.receipts), messages: self.batch_messages }
    }

    /// Removes what has become too old, and frees what is kept for the next batch.
    pub(crate) fn trim(&mut self) {
        let now = Instant::now();
        self.writer.trim(now);
        self.writer.rest();
        self.keys.trim(now);
        self.keys_account.set(self.keys.held());
        if self.open.entries.is_empty() {
            self.open = OpenSegment::new();
        }
    }

    /// Removes what the budget of all rooms demands: the log, oldest first, and when that is empty the keys.
    pub(crate) fn trim_to_budget(&mut self) {
        self.writer.trim_to_budget();
        while self.writer.budget().is_nearly_met() && !self.keys.is_empty() {
            self.forget_keys();
        }
    }

    fn forget_keys(&mut self) {
        let before = self.keys.held();
        self.keys.forget_half();
        let held = self.keys.held();
        self.keys_account.set(held);
        self.writer.budget().count_trimmed(before.saturating_sub(held));
    }

    fn append(&mut self, share: usize, in_use: ByForm<bool>) {
        if !self.open.entries.is_empty() {
            self.append_entries(in_use);
        }
        // After the append: a publisher with nothing in the inbox may rely on finding all its messages in the log.
        for member in self.open.publishers.drain(..) {
            member.release_share(share);
        }
        for member in self.open.of_duplicates.drain(..) {
            member.release_share_of_duplicate(share);
        }
    }

    fn append_entries(&mut self, in_use: ByForm<bool>) {
        let open = &mut self.open;
        let entries = Vec::with_capacity(open.entries.len());
        let mut entries = std::mem::replace(&mut open.entries, entries);
        // The log keeps it: no more than it needs.
        entries.shrink_to_fit();
        let segment = self.writer.append(entries, in_use, open.accepted, Instant::now());
        if std::mem::take(&mut open.wants_receipt) {
            self.receipts.push(Receipt::Segment(segment));
        }
        open.bytes = 0;
        open.assigned = 0;
    }
}
