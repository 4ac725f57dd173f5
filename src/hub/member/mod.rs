//! A member: a connection in a room, as everyone else sees it.
//!
//! The cursor itself belongs to the connection's [`crate::hub::Subscription`]; what is shared here is where that
//! cursor was last seen, the wakers, and the disconnect. Nothing here blocks, and nothing is copied per message.

pub(crate) mod disconnect;
pub(crate) mod list;

use crate::hub::ids::{ConnectionId, DisplayName};
use crate::hub::log::position::Cursor;
use crate::hub::member::disconnect::{Disconnect, DisconnectReason};
use crate::hub::member::list::Ticketed;
use crate::hub::options::ClientInfo;
use crate::hub::sync::{AtomicBool, AtomicU64, AtomicUsize, AtomicWaker, Ordering};
use std::fmt;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// How a member hears.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeliveryMode {
    /// The wire form that it speaks.
    pub(crate) form: usize,
    /// It is told who comes and goes.
    pub(crate) presence: bool,
    /// When it is too slow, messages are skipped for it; else it is disconnected.
    pub(crate) skips: bool,
    /// It begins before the tail.
    pub(crate) catches_up: bool,
}

/// A connection in a room.
pub struct Member {
    number: u64,
    who: ClientInfo,
    shard: usize,
    mode: DeliveryMode,
    /// It has not come to the tail yet: then it is not slow as long as it goes on.
    catching_up: AtomicBool,
    since: SystemTime,
    joined: Instant,
    joined_at: Cursor,
    ticket: AtomicU64,
    /// Wakes the reader: there is something in the log, or the connection has been ended.
    reader: AtomicWaker,
    /// Wakes a reader that has no room for what is in the log: the connection has been ended.
    end_waker: AtomicWaker,
    seen_segment: AtomicU64,
    seen_offset: AtomicU64,
    seen_bytes: AtomicU64,
    /// Messages that were skipped for it.
    missed: AtomicU64,
    /// When something was last said or taken, in milliseconds since it joined.
    active: AtomicU64,
    /// Whether watchers have been told that it lags.
    lagging: AtomicBool,
    published_messages: AtomicU64,
    published_bytes: AtomicU64,
    /// This connection's messages that wait in the inbox.
    waiting: AtomicUsize,
    /// Wakes the sender: its share or the inbox has room again.
    sender: AtomicWaker,
    queued_as_waiter: AtomicBool,
    /// Number of the segment that has the last message from this connection; 0 before the first.
    last_published: AtomicU64,
    finish_publishing: AtomicBool,
    disconnect: OnceLock<Disconnect>,
    /// It has left, though its room's list may show it for a moment more.
    gone: AtomicBool,
}

impl Ticketed for Member {
    fn ticket(&self) -> &AtomicU64 {
        &self.ticket
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("id", &self.who.id).finish_non_exhaustive()
    }
}

impl Member {
    pub(crate) fn new(number: u64, who: ClientInfo, shard: usize, at: Cursor, mode: DeliveryMode) -> Self {
        Self {
            number,
            who,
            shard,
            mode,
            catching_up: AtomicBool::new(mode.catches_up),
            since: SystemTime::now(),
            joined: Instant::now(),
            joined_at: at,
            ticket: AtomicU64::new(0),
            reader: AtomicWaker::new(),
            end_waker: AtomicWaker::new(),
            seen_segment: AtomicU64::new(at.segment),
            seen_offset: AtomicU64::new(at.offset),
            seen_bytes: AtomicU64::new(at.bytes),
            missed: AtomicU64::new(0),
            active: AtomicU64::new(0),
            lagging: AtomicBool::new(false),
            published_messages: AtomicU64::new(0),
            published_bytes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            sender: AtomicWaker::new(),
            queued_as_waiter: AtomicBool::new(false),
            last_published: AtomicU64::new(0),
            finish_publishing: AtomicBool::new(false),
            disconnect: OnceLock::new(),
            gone: AtomicBool::new(false),
        }
    }

    /// The connection's id.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.who.id
    }

    /// Its number, counted from 1 since the hub began: who came later has a greater one.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What the client calls itself.
    #[must_use]
    pub fn name(&self) -> &DisplayName {
        &self.who.name
    }

    /// Where the client comes from.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.who.peer
    }

    /// The number of the transport that carries it, if it has one.
    #[must_use]
    pub fn transport(&self) -> Option<u64> {
        self.who.transport
    }

    /// Messages that it has said, and their bytes.
    #[must_use]
    pub fn published(&self) -> (u64, u64) {
        (self.published_messages.load(Ordering::Relaxed), self.published_bytes.load(Ordering::Relaxed))
    }

    /// Messages that it has taken, and their bytes.
    #[must_use]
    pub fn delivered(&self) -> (u64, u64) {
        let seen = self.cursor();
        let missed = self.missed.load(Ordering::Relaxed);
        let messages = (seen.offset - self.joined_at.offset).saturating_sub(missed);
        (messages, seen.bytes - self.joined_at.bytes)
    }

    /// When it last said or took something; when it joined, if it never did.
    #[must_use]
    pub fn last_activity(&self) -> SystemTime {
        self.since + Duration::from_millis(self.active.load(Ordering::Relaxed))
    }

    /// When it joined.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// The disconnect, once one has been decided.
    #[must_use]
    pub fn disconnected(&self) -> Option<&Disconnect> {
        self.disconnect.get()
    }

    /// Decides why this connection ends, and has it end. The first decision stands; true when this was it.
    pub fn disconnect(&self, reason: DisconnectReason, detail: Option<String>) -> bool {
        self.disconnect_after(reason, detail, 0)
    }

    /// The same, but not before it has been handed everything up to the message at offset `owed`.
    pub(crate) fn disconnect_after(
        &self,
        reason: DisconnectReason,
        detail: Option<String>,
        owed: u64,
    ) -> bool {
        let at = Instant::now();
        let disconnect = Disconnect { reason, detail, at, owed };
        let first = self.disconnect.set(disconnect).is_ok();
        if first {
            self.reader.wake();
            self.end_waker.wake();
            self.sender.wake();
        }
        first
    }

    /// Has its transport closed once no call is left on it.
    pub(crate) fn close_transport_when_idle(&self) {
        if let Some(abort) = &self.who.control {
            abort.close_transport_when_idle();
        }
    }

    /// Has its transport take no more calls, and close once no call is left on it.
    pub(crate) fn go_away(&self) {
        if let Some(abort) = &self.who.control {
            abort.go_away();
        }
    }

    /// Whether it has left its room, though the room's list may show it for a moment more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(crate) fn mark_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// The number of the wire form that it speaks.
    #[must_use]
    pub fn form(&self) -> usize {
        self.mode.form
    }

    pub(crate) fn mode(&self) -> DeliveryMode {
        self.mode
    }

    pub(crate) fn is_catching_up(&self) -> bool {
        self.catching_up.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_caught_up(&self) {
        if self.is_catching_up() {
            self.catching_up.store(false, Ordering::Relaxed);
        }
    }

    /// Time since it last said or took something.
    pub(crate) fn idle(&self, now: Instant) -> Duration {
        let active = Duration::from_millis(self.active.load(Ordering::Relaxed));
        now.saturating_duration_since(self.joined + active)
    }

    pub(crate) fn shard(&self) -> usize {
        self.shard
    }

    /// Ends the call by force, when its end was decided but its client does not let it end.
    pub(crate) fn abort(&self) {
        if let Some(abort) = &self.who.control {
            abort.abort();
        }
    }

    // The reader's side.

    pub(crate) fn reader(&self) -> &AtomicWaker {
        &self.reader
    }

    pub(crate) fn end_waker(&self) -> &AtomicWaker {
        &self.end_waker
    }

    pub(crate) fn set_cursor(&self, cursor: &Cursor, now: Instant) {
        // Three stores, not one: whoever looks wants to know how late a reader is, not the exact place.
        self.seen_segment.store(cursor.segment, Ordering::Relaxed);
        self.seen_offset.store(cursor.offset, Ordering::Relaxed);
        self.seen_bytes.store(cursor.bytes, Ordering::Relaxed);
        self.touch(now);
    }

    /// Its cursor was moved to here, past so many messages.
    pub(crate) fn skipped(&self, cursor: &Cursor, messages: u64) {
        self.missed.fetch_add(messages, Ordering::Relaxed);
        self.set_cursor(cursor, Instant::now());
    }

    fn touch(&self, now: Instant) {
        let since_joined = now.saturating_duration_since(self.joined).as_millis() as u64;
        self.active.store(since_joined, Ordering::Relaxed);
    }

    /// Notes whether it lags; true when that is news.
    pub(crate) fn mark_lagging(&self, lags: bool) -> bool {
        !self.lagging.swap(lags, Ordering::Relaxed) && lags
    }

    pub(crate) fn cursor(&self) -> Cursor {
        Cursor {
            segment: self.seen_segment.load(Ordering::Relaxed),
            offset: self.seen_offset.load(Ordering::Relaxed),
            bytes: self.seen_bytes.load(Ordering::Relaxed),
        }
    }

    // The sender's side.

    pub(crate) fn sender(&self) -> &AtomicWaker {
        &self.sender
    }

    /// Messages of this connection in the inbox.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    pub(crate) fn offered(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
    }

    /// The sequencer has taken a message of this connection.
    pub(crate) fn sequenced(&self, size: usize) {
        self.published_messages.fetch_add(1, Ordering::Relaxed);
        self.published_bytes.fetch_add(size as u64, Ordering::Relaxed);
    }

    /// The last of them will be in this segment.
    pub(crate) fn set_last_published(&self, segment: u64) {
        self.last_published.store(segment, Ordering::Release);
    }

    /// The message is in the log: it no longer counts against the share.
    pub(crate) fn appended(&self, share: usize) {
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == share {
            self.sender.wake();
        }
    }

    /// The same for one that is in no log: nothing else wakes the reader.
    pub(crate) fn dropped(&self, share: usize) {
        self.appended(share);
        self.reader.wake();
    }

    /// True the first time until [`Member::wake_waiter`]: the caller queues it.
    pub(crate) fn queue_as_waiter(&self) -> bool {
        !self.queued_as_waiter.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn wake_waiter(&self) {
        self.queued_as_waiter.store(false, Ordering::Release);
        self.sender.wake();
    }

    /// The client will say nothing more.
    pub(crate) fn finish_publishing(&self) {
        self.finish_publishing.store(true, Ordering::Release);
        self.reader.wake();
    }

    pub(crate) fn has_finished_publishing(&self) -> bool {
        self.finish_publishing.load(Ordering::Acquire)
    }

    /// Whether all that it has said so far is in the log, and `cursor` is past it.
    pub(crate) fn has_received_own(&self, cursor: &Cursor) -> bool {
        self.waiting() == 0 && self.last_published.load(Ordering::Acquire) < cursor.segment
    }
}
