//! The ring: a room's log as readers and the writer share it.
//!
//! Guarantees: one writer, any number of readers; a read takes no lock and never waits for the writer; what a
//! cursor reads is gap-free, or the read returns [`Read::Lost`]. Bounded by bytes, messages and age.
//! Deliberately knows nothing of members, wakers or what a message contains.
//!
//! Shape: a ring of slots, indexed by segment number. The writer fills slots and then moves `tail`; it empties
//! them from `head`. A reader that finds another segment than it asked for, or none, has fallen out of
//! retention. The ring doubles when full and shrinks when mostly empty, so an idle room costs little.

use crate::hub::log::budget::{Account, Budget};
use crate::hub::log::position::{Cursor, Epoch};
use crate::hub::log::segment::{Entry, Segment};
use crate::hub::log::view::View;
use crate::hub::payload::{EventMeta, Payload};
use crate::hub::wire_form::{ByForm, WireForm};
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::{Bytes, BytesMut};
use crossbeam_utils::CachePadded;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the log retains messages; whichever limit is reached first removes the oldest segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of messages and their frames, in the forms that were in use when they were appended.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
    /// Time since a segment was appended.
    pub age: Duration,
}

/// A read joins small segments into one frame up to this size (bytes): the HTTP/2 send buffer of a stream.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Segments at least this large (bytes) are handed out as they are: copying them costs more than a frame.
pub(super) const COPY_BELOW: usize = 8 * 1024;

/// A read passes no more than this of what its view filters out (bytes): other members live on the same thread.
const PASSED_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

pub(super) const RING_MIN: usize = 16;

/// What a read found at a cursor.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// The cursor is at the tail.
    Empty,
    /// Whole messages, where the next read starts, and when the oldest of the messages was accepted. There may be no bytes,
    /// if the view filters out everything.
    Frames(Bytes, Cursor, Instant),
    /// The next message needs this many bytes, and does not fit the room that was offered.
    NeedsCapacity(usize),
    /// The cursor is out of retention: the message at it is gone.
    Lost,
}

/// Where the message with an offset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// Here, or it will be here if it is the next one.
    Found(Cursor),
    /// It is no longer retained: this is the oldest message.
    Before(Cursor),
    /// It is beyond the tail, which is this.
    Beyond(Cursor),
}

pub(super) struct Ring<M> {
    pub(super) slots: Box<[ArcSwapOption<Segment<M>>]>,
}

impl<M> Ring<M> {
    fn new(slots: usize) -> Self {
        Self { slots: (0..slots.next_power_of_two()).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// Bytes of its slots beyond those of the smallest, which every room has.
    pub(super) fn held(&self) -> u64 {
        ((self.slots.len() - RING_MIN) * size_of::<ArcSwapOption<Segment<M>>>()) as u64
    }

    pub(super) fn slot(&self, segment: u64) -> &ArcSwapOption<Segment<M>> {
        // The length is a power of two, so the mask keeps the low bits; truncation is harmless.
        &self.slots[segment as usize & (self.slots.len() - 1)]
    }
}

/// The log as its readers see it.
pub struct Log<M> {
    epoch: Epoch,
    pub(super) ring: ArcSwap<Ring<M>>,
    /// Number of the next segment: all below are readable until trimmed.
    tail: CachePadded<AtomicU64>,
    /// The tail's offset and bytes; they may be a moment behind `tail`, never ahead.
    tail_offset: AtomicU64,
    tail_bytes: AtomicU64,
    /// Number of the oldest retained segment.
    pub(super) head: AtomicU64,
    pub(super) account: Arc<Account>,
    pub(super) retained_messages: AtomicU64,
}

/// The one writer of a log: whoever owns it may append.
pub struct LogWriter<M> {
    pub(super) log: Arc<Log<M>>,
    pub(super) retention: Retention,
    pub(super) next: Cursor,
    pub(super) head: u64,
    pub(super) bytes: u64,
    pub(super) messages: u64,
    scratch: BytesMut,
}

/// A new, empty log, and its writer.
#[must_use]
pub fn log<M: Payload>(epoch: Epoch, retention: Retention) -> (Arc<Log<M>>, LogWriter<M>) {
    log_within(epoch, retention, &Budget::new(u64::MAX))
}

/// The same, charged to a budget.
pub(crate) fn log_within<M: Payload>(
    epoch: Epoch,
    retention: Retention,
    budget: &Arc<Budget>,
) -> (Arc<Log<M>>, LogWriter<M>) {
    let next = Cursor::START;
    let log = Arc::new(Log {
        epoch,
        ring: ArcSwap::from_pointee(Ring::new(RING_MIN)),
        tail: CachePadded::new(AtomicU64::new(next.segment)),
        tail_offset: AtomicU64::new(next.offset),
        tail_bytes: AtomicU64::new(next.bytes),
        head: AtomicU64::new(next.segment),
        account: Arc::new(Account::of(budget)),
        retained_messages: AtomicU64::new(0),
    });
    let writer = LogWriter {
        log: Arc::clone(&log),
        retention,
        next,
        head: next.segment,
        bytes: 0,
        messages: 0,
        scratch: BytesMut::new(),
    };
    (log, writer)
}

impl<M: Payload> Log<M> {
    /// The epoch of its positions.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The whole messages at and after `cursor` that the view passes: as many as fit `capacity` bytes and one frame
    /// ([`FRAME_BYTES_MAX`]). A message longer than a frame is returned alone if it fits `room`.
    ///
    /// Most reads return one segment, or a slice of it, without a copy; several small segments are copied together, because a
    /// frame costs more than copying a few KiB.
    #[must_use]
    pub fn read(&self, cursor: &Cursor, view: &mut View<M>, capacity: usize) -> Read {
        let tail = self.tail.load(Ordering::Acquire);
        if cursor.segment >= tail {
            return Read::Empty;
        }
        let ring = self.ring.load();
        let slot = ring.slot(cursor.segment).load();
        let Some(first) = slot.as_ref().filter(|s| s.start.segment == cursor.segment) else {
            return Read::Lost;
        };
        if capacity == 0 {
            return Read::NeedsCapacity(1);
        }
        if view.passes_all(first) {
            let len = first.encoded(view.form).frames.len();
            let is_part = cursor.offset > first.start.offset || len > capacity;
            if is_part || len >= COPY_BELOW || first.end().segment == tail {
                return match first.slice(view.form, cursor.offset, capacity) {
                    Ok((frames, next)) => Read::Frames(frames, next, first.accepted),
                    Err(needed) => Read::NeedsCapacity(needed),
                };
            }
        }
        let mut frame = FrameBuilder::default();
        match frame.add(first, cursor.offset, view, tail, capacity) {
            Err(needed) => Read::NeedsCapacity(needed),
            // More of it is left for the next read.
            Ok(end) if end.segment == cursor.segment => Read::Frames(frame.frames(), end, first.accepted),
            Ok(end) => {
                let end = frame.add_following(&ring, end, view, tail, capacity.min(FRAME_BYTES_MAX));
                Read::Frames(frame.frames(), end, first.accepted)
            }
        }
    }

    /// Where the message with this offset is, or will be.
    #[must_use]
    pub fn seek(&self, offset: u64) -> Seek {
        loop {
            let tail = self.tail();
            if offset >= tail.offset {
                return if offset == tail.offset { Seek::Found(tail) } else { Seek::Beyond(tail) };
            }
            let ring = self.ring.load();
            let start = |segment: u64| {
                let held = ring.slot(segment).load();
                held.as_ref().filter(|s| s.start.segment == segment).map(|s| s.start)
            };
            let (mut low, mut high) = (self.head.load(Ordering::Acquire), tail.segment);
            let oldest = start(low).unwrap_or(tail);
            if low < high && oldest == tail {
                // Trimmed between the loads, or the ring was resized: try again.
                continue;
            }
            if offset < oldest.offset {
                return Seek::Before(oldest);
            }
            // The last segment that begins at or before the offset is between the two.
            while high - low > 1 {
                let middle = low.midpoint(high);
                match start(middle) {
                    Some(found) if found.offset > offset => high = middle,
                    // What has been trimmed began before everything that is left.
                    Some(_) | None => low = middle,
                }
            }
            let held = ring.slot(low).load();
            if let Some(segment) = held.as_ref().filter(|s| s.start.segment == low) {
                return Seek::Found(segment.cursor_at(offset));
            }
        }
    }

    /// The oldest retained position; the tail, if nothing is retained.
    #[must_use]
    pub fn oldest(&self) -> Cursor {
        match self.seek(0) {
            Seek::Found(cursor) | Seek::Before(cursor) | Seek::Beyond(cursor) => cursor,
        }
    }

    /// Calls `visit` for each entry from `cursor` on, until it breaks or so many segments have been visited. Returns the cursor
    /// for the next call; none if `cursor` is not retained.
    #[must_use]
    pub fn visit(
        &self,
        cursor: &Cursor,
        segments: u64,
        mut visit: impl FnMut(&Entry<M>, &EventMeta) -> ControlFlow<()>,
    ) -> Option<Cursor> {
        let tail = self.tail.load(Ordering::Acquire);
        let end = tail.min(cursor.segment.saturating_add(segments));
        let mut at = *cursor;
        while at.segment < end {
            let ring = self.ring.load();
            let held = ring.slot(at.segment).load();
            let Some(segment) = held.as_ref().filter(|s| s.start.segment == at.segment) else {
                return (at != *cursor).then_some(at);
            };
            for entry in segment.entries().iter().filter(|entry| entry.offset >= at.offset) {
                if visit(entry, &segment.meta(entry)).is_break() {
                    return Some(segment.cursor_at(entry.offset));
                }
            }
            at = segment.end();
        }
        Some(at)
    }

    /// The position of the next message. Exact at the moment of the call when called by a reader that
    /// is about to wait: everything appended later is after it.
    #[must_use]
    pub fn tail(&self) -> Cursor {
        loop {
            let segment = self.tail.load(Ordering::Acquire);
            let Some(last) = segment.checked_sub(1).filter(|s| *s >= Cursor::START.segment) else {
                return Cursor::START;
            };
            let ring = self.ring.load();
            let slot = ring.slot(last).load();
            match slot.as_ref() {
                Some(s) if s.start.segment == last => return s.end(),
                // Overtaken between the loads: try again.
                _ if self.tail.load(Ordering::Acquire) != segment => {}
                // Everything has been trimmed: no append is under way, the counters are exact.
                _ => {
                    let tail = Cursor {
                        segment,
                        offset: self.tail_offset.load(Ordering::Acquire),
                        bytes: self.tail_bytes.load(Ordering::Acquire),
                    };
                    if self.tail.load(Ordering::Acquire) == segment {
                        return tail;
                    }
                }
            }
        }
    }

    /// Messages and bytes by which a reader with these counts is behind the tail.
    #[must_use]
    pub fn lag(&self, offset: u64, bytes: u64) -> (u64, u64) {
        let messages = self.tail_offset.load(Ordering::Relaxed).saturating_sub(offset);
        let bytes = self.tail_bytes.load(Ordering::Relaxed).saturating_sub(bytes);
        (messages, bytes)
    }

    /// When the segment that a reader at `segment` reads next was appended; `None` at the tail.
    /// A segment that was trimmed is at least as old as the oldest retained one.
    #[must_use]
    pub fn waiting_since(&self, segment: u64) -> Option<Instant> {
        if segment >= self.tail.load(Ordering::Acquire) {
            return None;
        }
        let segment = segment.max(self.head.load(Ordering::Acquire));
        let ring = self.ring.load();
        ring.slot(segment).load().as_ref().map(|s| s.at)
    }

    /// Bytes that are held, in all forms that have been encoded; and messages that are retained.
    #[must_use]
    pub fn retained(&self) -> (u64, u64) {
        (self.account.held(), self.retained_messages.load(Ordering::Relaxed))
    }

    /// When the last segment was appended, if it is retained.
    pub(crate) fn last_append(&self) -> Option<Instant> {
        let tail = self.tail.load(Ordering::Acquire);
        self.waiting_since(tail.saturating_sub(1))
    }
}

impl<M: Payload> LogWriter<M> {
    /// Offset of the next message.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next.offset
    }

    /// Number of the next segment.
    #[must_use]
    pub fn next_segment(&self) -> u64 {
        self.next.segment
    }

    /// The limits of the log.
    #[must_use]
    pub fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Appends these as one segment, encoded in the forms that are `in_use`; then trims to retention. The oldest of them was
    /// accepted at `accepted`.
    pub fn append(
        &mut self,
        entries: Vec<Entry<M>>,
        in_use: ByForm<bool>,
        accepted: Instant,
        now: Instant,
    ) -> Arc<Segment<M>> {
        let account = Arc::clone(&self.log.account);
        let mut segment = Segment::new(self.next, entries, accepted, now, self.log.epoch, account);
        for form in WireForm::ALL.into_iter().filter(|form| in_use[*form]) {
            segment.encode_in(form, &mut self.scratch);
        }
        if self.scratch.capacity() > 2 * FRAME_BYTES_MAX {
            self.scratch = BytesMut::new();
        }
        segment.charge();
        self.next = segment.end();
        self.bytes += segment.footprint;
        self.messages += segment.messages;
        self.make_room();
        let ring = self.log.ring.load();
        let segment = Arc::new(segment);
        ring.slot(segment.start.segment).store(Some(Arc::clone(&segment)));
        // A reader that sees the new tail sees the slot and the ring that holds it.
        self.log.tail.store(self.next.segment, Ordering::Release);
        // After the tail: `Log::tail` relies on counters never being ahead of it.
        self.log.tail_offset.store(self.next.offset, Ordering::Release);
        self.log.tail_bytes.store(self.next.bytes, Ordering::Release);
        self.trim(now);
        if self.budget().is_exceeded() {
            // The trimmer is late: this log makes room for what it has just appended.
            self.free(segment.footprint);
        }
        segment
    }

    /// The budget to which the log's bytes are charged.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        self.log.account.budget()
    }

    /// Frees the memory that is kept for the next append.
    pub(crate) fn rest(&mut self) {
        self.scratch = BytesMut::new();
    }

    fn make_room(&mut self) {
        let slots = self.log.ring.load().slots.len();
        // `next` has moved already: the segment to be appended counts as held.
        if (self.next.segment - self.head) as usize > slots {
            self.resize(slots * 2);
        }
    }

    /// Readers on the old ring find everything that they may look for there: it holds every segment below the tail that they
    /// have seen, and a reader that sees a later tail sees the new ring.
    pub(super) fn resize(&mut self, slots: usize) {
        let old = self.log.ring.load_full();
        let new = Ring::new(slots.max(RING_MIN));
        for segment in self.head..self.next.segment {
            let held = old.slot(segment).load_full();
            if held.as_ref().is_some_and(|s| s.start.segment == segment) {
                new.slot(segment).store(held);
            }
        }
        self.log.account.charge(new.held());
        self.log.ring.store(Arc::new(new));
        self.log.account.credit(old.held());
    }
}

/// Joins the messages of several segments, or of parts of one, into one frame.
#[derive(Default)]
struct FrameBuilder(BytesMut);

impl FrameBuilder {
    /// Adds the messages of a segment from this offset on that fit `room`, and returns where that ends; or the bytes that the
    /// first of them needs.
    fn add<M: Payload>(
        &mut self,
        segment: &Segment<M>,
        from: u64,
        view: &mut View<M>,
        tail: u64,
        capacity: usize,
    ) -> Result<Cursor, usize> {
        if self.0.capacity() == 0 {
            let behind = (tail - segment.start.segment) as usize * segment.encoded(view.form).frames.len();
            self.0.reserve(behind.min(capacity).clamp(512, FRAME_BYTES_MAX));
        }
        let frames = &segment.encoded(view.form).frames;
        if from <= segment.start.offset && self.0.len() + frames.len() <= capacity && view.passes_all(segment)
        {
            self.0.extend_from_slice(frames);
            return Ok(segment.end());
        }
        view.append(segment, from, capacity, &mut self.0)
    }

    /// Adds the segments from `end` on, as long as they are small and fit `room`; returns where that ends.
    fn add_following<M: Payload>(
        &mut self,
        ring: &Ring<M>,
        mut end: Cursor,
        view: &mut View<M>,
        tail: u64,
        capacity: usize,
    ) -> Cursor {
        let mut passed = 0;
        while end.segment < tail && passed < PASSED_BYTES_MAX {
            let slot = ring.slot(end.segment).load();
            // Trimmed meanwhile: return what was read; the next read returns `Lost`.
            let Some(next) = slot.as_ref().filter(|s| s.start.segment == end.segment) else {
                break;
            };
            let more = next.encoded(view.form).frames.len();
            if more >= COPY_BELOW || self.0.len() + more > capacity {
                break;
            }
            passed += more;
            match self.add(next, end.offset, view, tail, capacity) {
                Ok(taken) if taken.segment > end.segment => end = taken,
                // Acknowledgements take more than their messages: the rest of the segment is for the next read.
                Ok(taken) => return taken,
                Err(_) => break,
            }
        }
        end
    }

    /// In no more than about twice the memory they need: what a view leaves of many messages may wait long for a slow reader,
    /// and is counted there by its length.
    fn frames(self) -> Bytes {
        if self.0.len() < self.0.capacity() / 2 {
            return Bytes::copy_from_slice(&self.0);
        }
        self.0.freeze()
    }
}
