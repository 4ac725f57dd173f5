//! A room's log: the bounded, ordered record of framed messages.
//!
//! Promises: one writer, any number of readers; a read takes no lock and never waits for the writer; what a
//! cursor reads is gap-free, or the read says [`Read::Lost`]. Bounded by bytes, messages and age.
//! Deliberately knows nothing of members, wakers or what a frame contains.
//!
//! Shape: a ring of slots, indexed by segment number. The writer fills slots and then moves `tail`; it empties
//! them from `head`. A reader that finds another segment than it asked for, or none, has fallen out of
//! retention. The ring doubles when full and shrinks when mostly empty, so an idle room costs little.

use super::position::Cursor;
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::{Bytes, BytesMut};
use crossbeam_utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the log keeps what was said; whichever bound is met first removes the oldest segment.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Bytes of frames, with [`SEGMENT_OVERHEAD`] for each segment.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
    /// Time since a segment was appended.
    pub age: Duration,
}

/// What a segment costs beside its frames: slot, reference counts, allocator headers (bytes, rounded up).
pub const SEGMENT_OVERHEAD: u64 = 192;

/// A read joins small segments into one frame up to this size (bytes): the HTTP/2 send buffer of a stream.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Segments at least this large (bytes) are handed out as they are: copying them costs more than a frame.
const COPY_BELOW: usize = 8 * 1024;

const RING_MIN: usize = 16;

/// A batch of messages, framed once, shared by all readers.
#[derive(Debug)]
pub struct Segment {
    start: Cursor,
    messages: u64,
    at: Instant,
    /// When the oldest of its messages was accepted.
    accepted: Instant,
    frames: Bytes,
}

impl Segment {
    fn end(&self) -> Cursor {
        Cursor {
            segment: self.start.segment + 1,
            offset: self.start.offset + self.messages,
            bytes: self.start.bytes + self.frames.len() as u64,
        }
    }

    fn footprint(&self) -> u64 {
        self.frames.len() as u64 + SEGMENT_OVERHEAD
    }
}

/// What a read found at a cursor.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// The cursor is at the tail.
    Empty,
    /// Whole messages, where the next read begins, and when the oldest of the messages was accepted.
    Frames(Bytes, Cursor, Instant),
    /// The cursor has fallen out of retention: what it points at is gone.
    Lost,
}

struct Ring {
    slots: Box<[ArcSwapOption<Segment>]>,
}

impl Ring {
    fn new(slots: usize) -> Self {
        Self { slots: (0..slots.next_power_of_two()).map(|_| ArcSwapOption::empty()).collect() }
    }

    fn slot(&self, segment: u64) -> &ArcSwapOption<Segment> {
        // The length is a power of two, so the mask keeps the low bits; truncation is harmless.
        &self.slots[segment as usize & (self.slots.len() - 1)]
    }
}

/// The readers' side.
pub struct Log {
    ring: ArcSwap<Ring>,
    /// Number of the next segment: all below are readable until trimmed.
    tail: CachePadded<AtomicU64>,
    /// The tail's offset and bytes; they may be a moment behind `tail`, never ahead.
    tail_offset: AtomicU64,
    tail_bytes: AtomicU64,
    /// Number of the oldest retained segment.
    head: AtomicU64,
    retained_bytes: AtomicU64,
    retained_messages: AtomicU64,
}

/// The one writer's side: whoever owns it may append.
pub struct LogWriter {
    log: Arc<Log>,
    retention: Retention,
    next: Cursor,
    head: u64,
    bytes: u64,
    messages: u64,
}

/// A new, empty log: what readers share and what the one writer owns.
#[must_use]
pub fn log(retention: Retention) -> (Arc<Log>, LogWriter) {
    let next = Cursor::START;
    let log = Arc::new(Log {
        ring: ArcSwap::from_pointee(Ring::new(RING_MIN)),
        tail: CachePadded::new(AtomicU64::new(next.segment)),
        tail_offset: AtomicU64::new(next.offset),
        tail_bytes: AtomicU64::new(next.bytes),
        head: AtomicU64::new(next.segment),
        retained_bytes: AtomicU64::new(0),
        retained_messages: AtomicU64::new(0),
    });
    let writer =
        LogWriter { log: Arc::clone(&log), retention, next, head: next.segment, bytes: 0, messages: 0 };
    (log, writer)
}

impl Log {
    /// Everything at and after `cursor` that fits one frame.
    ///
    /// One segment is handed out without a copy; several small ones are copied together, because a frame
    /// costs more than copying a few KiB.
    #[must_use]
    pub fn read(&self, cursor: &Cursor) -> Read {
        let tail = self.tail.load(Ordering::Acquire);
        if cursor.segment >= tail {
            return Read::Empty;
        }
        let ring = self.ring.load();
        let slot = ring.slot(cursor.segment).load();
        let Some(first) = slot.as_ref().filter(|s| s.start.segment == cursor.segment) else {
            return Read::Lost;
        };
        let end = first.end();
        if end.segment == tail || first.frames.len() >= COPY_BELOW {
            return Read::Frames(first.frames.clone(), end, first.accepted);
        }
        Self::join(&ring, first, tail)
    }

    fn join(ring: &Ring, first: &Segment, tail: u64) -> Read {
        let mut end = first.end();
        let mut joined: Option<BytesMut> = None;
        while end.segment < tail {
            let slot = ring.slot(end.segment).load();
            // Trimmed meanwhile: hand over what was read, the next read will say `Lost`.
            let Some(next) = slot.as_ref().filter(|s| s.start.segment == end.segment) else {
                break;
            };
            let len = joined.as_ref().map_or(first.frames.len(), BytesMut::len);
            if next.frames.len() >= COPY_BELOW || len + next.frames.len() > FRAME_BYTES_MAX {
                break;
            }
            joined
                .get_or_insert_with(|| {
                    let behind = (tail - first.start.segment) as usize * first.frames.len();
                    let mut bytes = BytesMut::with_capacity(behind.clamp(512, FRAME_BYTES_MAX));
                    bytes.extend_from_slice(&first.frames);
                    bytes
                })
                .extend_from_slice(&next.frames);
            end = next.end();
        }
        let frames = joined.map_or_else(|| first.frames.clone(), BytesMut::freeze);
        Read::Frames(frames, end, first.accepted)
    }

    /// The place of the next message to come. Exact at the moment of the call when called by a reader that
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
                // Overtaken between the loads: look again.
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

    /// How far behind the tail a reader is that has taken everything before these counts.
    #[must_use]
    pub fn lag(&self, offset: u64, bytes: u64) -> (u64, u64) {
        let messages = self.tail_offset.load(Ordering::Relaxed).saturating_sub(offset);
        let bytes = self.tail_bytes.load(Ordering::Relaxed).saturating_sub(bytes);
        (messages, bytes)
    }

    /// When the segment was appended that a reader at `segment` must read next; `None` at the tail.
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

    /// Bytes retained, with overheads; and messages retained.
    #[must_use]
    pub fn retained(&self) -> (u64, u64) {
        (self.retained_bytes.load(Ordering::Relaxed), self.retained_messages.load(Ordering::Relaxed))
    }
}

impl LogWriter {
    /// Offset that the next message will get.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next.offset
    }

    /// Appends `messages` framed messages, the oldest accepted at `accepted`, as one segment; then trims to retention.
    pub fn append(&mut self, frames: Bytes, messages: u64, accepted: Instant, now: Instant) {
        let segment = Segment { start: self.next, messages, at: now, accepted, frames };
        self.next = segment.end();
        self.bytes += segment.footprint();
        self.messages += messages;
        self.make_room();
        let ring = self.log.ring.load();
        ring.slot(segment.start.segment).store(Some(Arc::new(segment)));
        // Who sees the new tail sees the slot and the ring that holds it.
        self.log.tail.store(self.next.segment, Ordering::Release);
        // After the tail: `Log::tail` relies on counters never being ahead of it.
        self.log.tail_offset.store(self.next.offset, Ordering::Release);
        self.log.tail_bytes.store(self.next.bytes, Ordering::Release);
        self.trim(now);
    }

    /// Removes what is over a bound. The newest segment stays until it is too old, so that a single
    /// message larger than the byte bound still reaches everyone.
    pub fn trim(&mut self, now: Instant) {
        let ring = self.log.ring.load_full();
        while self.head < self.next.segment {
            let slot = ring.slot(self.head);
            let oldest = slot.load();
            let Some(oldest) = oldest.as_ref() else { break };
            let newest = self.head + 1 == self.next.segment;
            let over = self.bytes > self.retention.bytes || self.messages > self.retention.messages;
            let old = now.saturating_duration_since(oldest.at) > self.retention.age;
            if !(old || over && !newest) {
                break;
            }
            self.bytes -= oldest.footprint();
            self.messages -= oldest.messages;
            self.head += 1;
            self.log.head.store(self.head, Ordering::Release);
            slot.store(None);
        }
        self.log.retained_bytes.store(self.bytes, Ordering::Relaxed);
        self.log.retained_messages.store(self.messages, Ordering::Relaxed);
        let held = (self.next.segment - self.head) as usize;
        if ring.slots.len() > RING_MIN && held < ring.slots.len() / 8 {
            self.resize(ring.slots.len() / 4);
        }
    }

    fn make_room(&mut self) {
        let slots = self.log.ring.load().slots.len();
        // `next` has moved already: the segment to be appended counts as held.
        if (self.next.segment - self.head) as usize > slots {
            self.resize(slots * 2);
        }
    }

    /// Readers on the old ring find all they may look for there: it holds every segment below the tail
    /// they have seen, and who sees a later tail sees the new ring.
    fn resize(&mut self, slots: usize) {
        let old = self.log.ring.load_full();
        let new = Ring::new(slots.max(RING_MIN));
        for segment in self.head..self.next.segment {
            let held = old.slot(segment).load_full();
            if held.as_ref().is_some_and(|s| s.start.segment == segment) {
                new.slot(segment).store(held);
            }
        }
        self.log.ring.store(Arc::new(new));
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
