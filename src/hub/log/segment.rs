//! A segment: a batch of messages in a log, and its encoded bytes.

use crate::hub::log::budget::Account;
use crate::hub::log::position::{Cursor, Epoch, Position};
use crate::hub::payload::{EventMeta, Payload};
use crate::hub::wire_form::{ByForm, WireForm};
use bytes::{Bytes, BytesMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

/// The reference counts of an [`Arc`], in bytes.
const ARC_COUNTS: usize = 2 * size_of::<usize>();

/// What [`Bytes`] allocates when they are first shared, in bytes.
const BYTES_SHARED: usize = 3 * size_of::<usize>();

/// The charge of a segment that has been trimmed: nothing more is charged for it.
const RELEASED: u64 = u64::MAX;

/// A message in a log.
#[derive(Debug)]
pub struct Entry<M> {
    /// The message's own offset, if it has one; else that of the next message.
    pub(crate) offset: u64,
    pub(crate) sequencing: Sequencing,
    /// The message.
    pub message: M,
}

/// How an entry is sequenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequencing {
    /// It has an offset of its own.
    Assigned,
    /// It is a duplicate of the message with this offset, and is not broadcast again.
    Duplicate(u64),
    /// It has no offset, and is not part of the history.
    Ephemeral,
}

impl<M> Entry<M> {
    /// How it is sequenced.
    #[must_use]
    pub fn sequencing(&self) -> Sequencing {
        self.sequencing
    }

    /// Its offset, or that of its original if it is a duplicate; none if it is ephemeral.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        match self.sequencing {
            Sequencing::Assigned => Some(self.offset),
            Sequencing::Duplicate(offset) => Some(offset),
            Sequencing::Ephemeral => None,
        }
    }
}

/// The frames of a segment's entries in one wire form.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) frames: Bytes,
    /// Where each entry's frame ends.
    ends: Box<[u32]>,
}

impl Encoded {
    /// Bytes that are allocated for it: the frames are a copy of exact size.
    fn held(&self) -> usize {
        self.frames.len() + BYTES_SHARED + size_of_val(&*self.ends)
    }

    /// Each entry's frame; empty for what the form does not have.
    pub(crate) fn each(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(&0).chain(&self.ends);
        begins.zip(&self.ends).map(|(begin, end)| &self.frames[*begin as usize..*end as usize])
    }
}

/// A batch of messages, shared by all readers.
#[derive(Debug)]
pub struct Segment<M> {
    pub(crate) start: Cursor,
    /// How many of the entries have an offset of their own.
    pub(crate) messages: u64,
    /// Bytes of these messages.
    pub(crate) bytes: u64,
    /// Bytes that it held when it was appended. Retention goes by this, so that a reader of another form does not shorten what
    /// others may read.
    pub(crate) footprint: u64,
    pub(crate) at: Instant,
    time: SystemTime,
    /// When the oldest of the entries was accepted.
    pub(crate) accepted: Instant,
    epoch: Epoch,
    entries: Vec<Entry<M>>,
    forms: ByForm<OnceLock<Encoded>>,
    /// The account of the log that it is in.
    account: Arc<Account>,
    /// What is charged for it, or [`RELEASED`].
    charged: AtomicU64,
}

impl<M: Payload> Segment<M> {
    pub(crate) fn new(
        start: Cursor,
        entries: Vec<Entry<M>>,
        accepted: Instant,
        now: Instant,
        epoch: Epoch,
        account: Arc<Account>,
    ) -> Self {
        let own = || entries.iter().filter(|entry| entry.sequencing == Sequencing::Assigned);
        let (messages, bytes) = (own().count() as u64, own().map(|e| e.message.size() as u64).sum());
        Self {
            start,
            messages,
            bytes,
            footprint: 0,
            at: now,
            time: SystemTime::now(),
            accepted,
            epoch,
            entries,
            forms: ByForm::default(),
            account,
            charged: AtomicU64::new(0),
        }
    }

    pub(crate) fn end(&self) -> Cursor {
        Cursor {
            segment: self.start.segment + 1,
            offset: self.start.offset + self.messages,
            bytes: self.start.bytes + self.bytes,
        }
    }

    /// The cursor at the message with this offset, or at the next one, in this segment.
    pub(crate) fn cursor_at(&self, offset: u64) -> Cursor {
        let before =
            self.entries.iter().filter(|e| e.sequencing == Sequencing::Assigned && e.offset < offset);
        let bytes: u64 = before.map(|e| e.message.size() as u64).sum();
        Cursor { segment: self.start.segment, offset, bytes: self.start.bytes + bytes }
    }

    pub(crate) fn entries(&self) -> &[Entry<M>] {
        &self.entries
    }

    pub(crate) fn meta(&self, entry: &Entry<M>) -> EventMeta {
        EventMeta { position: Position { epoch: self.epoch, offset: entry.offset }, time: self.time }
    }

    /// Encodes the entries in this form, before the segment is appended. `scratch` is reused.
    pub(crate) fn encode_in(&mut self, form: WireForm, scratch: &mut BytesMut) {
        let encoded = self.encode(form, scratch);
        self.forms[form] = OnceLock::from(encoded);
    }

    /// The entries in this form. If no member has used it so far, the first reader encodes them for all.
    pub(crate) fn encoded(&self, form: WireForm) -> &Encoded {
        self.forms[form].get_or_init(|| {
            let encoded = self.encode(form, &mut BytesMut::new());
            self.charge_more(encoded.held() as u64);
            encoded
        })
    }

    /// The frames from this offset on in one form, as many whole messages as fit `capacity` bytes, without a copy; and where
    /// that ends. Or the bytes that the first of them needs.
    ///
    /// Entries without an offset of their own go with the message that follows them.
    pub(crate) fn slice(&self, form: WireForm, from: u64, capacity: usize) -> Result<(Bytes, Cursor), usize> {
        let Encoded { frames, ends } = self.encoded(form);
        if from <= self.start.offset && frames.len() <= capacity {
            return Ok((frames.clone(), self.end()));
        }
        let first = self.entries.partition_point(|entry| entry.offset < from);
        let begin = first.checked_sub(1).map_or(0, |before| ends[before] as usize);
        if frames.len() - begin <= capacity {
            return Ok((frames.slice(begin..), self.end()));
        }
        let mut fits = None;
        for (entry, end) in self.entries.iter().zip(ends).skip(first) {
            let end = *end as usize;
            if end - begin > capacity {
                return match fits {
                    Some((end, next)) => Ok((frames.slice(begin..end), self.cursor_at(next))),
                    None => Err(self.message_end(first, ends) - begin),
                };
            }
            if entry.sequencing == Sequencing::Assigned {
                fits = Some((end, entry.offset + 1));
            }
        }
        Ok((frames.slice(begin..), self.end()))
    }

    /// Where the first message at or after entry `first` ends, with the entries before it.
    fn message_end(&self, first: usize, ends: &[u32]) -> usize {
        let own = self.entries[first..].iter().position(|entry| entry.sequencing == Sequencing::Assigned);
        let last = own.map_or(ends.len() - 1, |own| first + own);
        ends[last] as usize
    }

    fn encode(&self, form: WireForm, scratch: &mut BytesMut) -> Encoded {
        scratch.clear();
        let ends = self.entries.iter().map(|entry| {
            if !matches!(entry.sequencing, Sequencing::Duplicate(_)) {
                entry.message.encode(form, &self.meta(entry), scratch);
            }
            // A segment is far below 4 GiB: messages are limited, and so are batches.
            scratch.len() as u32
        });
        let ends = ends.collect();
        Encoded { frames: Bytes::copy_from_slice(scratch), ends }
    }

    /// Charges what it holds when it is appended.
    pub(crate) fn charge(&mut self) {
        let entries = self.entries.capacity() * size_of::<Entry<M>>();
        let messages: usize = self.entries.iter().map(|entry| entry.message.retained_bytes()).sum();
        let frames: usize = self.forms.values().filter_map(OnceLock::get).map(Encoded::held).sum();
        let held = (ARC_COUNTS + size_of::<Self>() + entries + messages + frames) as u64;
        self.account.charge(held);
        self.charged = AtomicU64::new(held);
        self.footprint = held;
    }

    /// Charges what a reader has encoded. Does not trim: the reader is in the middle of its read.
    fn charge_more(&self, bytes: u64) {
        // Before the segment's own count, so that the account is never credited for more than it was charged.
        self.account.charge(bytes);
        let more = |charged| (charged != RELEASED).then(|| charged + bytes);
        if self.charged.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            // Trimmed meanwhile: it is freed when this reader is done.
            self.account.credit(bytes);
        }
    }

    /// Releases what was charged when the segment is trimmed, and returns it.
    pub(crate) fn release(&self) -> u64 {
        let charged = self.charged.swap(RELEASED, Ordering::AcqRel);
        self.account.credit(charged);
        charged
    }
}
