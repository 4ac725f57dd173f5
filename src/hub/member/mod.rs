//! A member: a connection in a room, as everyone else sees it.
//!
//! The cursor itself belongs to the connection's [`Subscription`](crate::hub::Subscription); shared here is where that
//! cursor was last seen, the wakers, and the disconnect. Nothing here blocks, and nothing is copied per message. Knows
//! nothing of rooms, logs or messages.

pub(crate) mod disconnect;
pub(crate) mod list;

use crate::hub::ids::{ConnectionId, DisplayName};
use crate::hub::log::position::Cursor;
use crate::hub::options::ClientInfo;
use crate::hub::sync::{AtomicBool, AtomicU64, AtomicUsize, AtomicWaker, Ordering};
use crate::hub::wire_form::WireForm;
use disconnect::{Disconnect, DisconnectReason};
use list::Ticketed;
use std::fmt;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// How a member receives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeliveryMode {
    /// Its wire form.
    pub(crate) form: WireForm,
    /// It receives presence.
    pub(crate) presence: bool,
    /// When it is too slow, messages are skipped for it; else it is disconnected.
    pub(crate) skips: bool,
    /// It starts before the tail.
    pub(crate) catches_up: bool,
}

/// A connection in a room.
pub struct Member {
    number: u64,
    client: ClientInfo,
    shard: usize,
    mode: DeliveryMode,
    /// It has not reached the tail yet: until then it counts as slow only if it makes no progress.
    catching_up: AtomicBool,
    since: SystemTime,
    joined: Instant,
    joined_at: Cursor,
    ticket: AtomicU64,
    /// Wakes the reader: there is something in the log, or the connection has been disconnected.
    reader: AtomicWaker,
    /// Wakes a reader that has no room for what is in the log: the connection has been disconnected.
    end_waker: AtomicWaker,
    seen_segment: AtomicU64,
    seen_offset: AtomicU64,
    seen_bytes: AtomicU64,
    /// Messages that were skipped for it.
    missed: AtomicU64,
    /// When something was last published or received, in milliseconds since it joined.
    active: AtomicU64,
    /// Whether its lag has been reported.
    lagging: AtomicBool,
    published_messages: AtomicU64,
    published_bytes: AtomicU64,
    /// This connection's messages in the inbox.
    pending: AtomicUsize,
    /// Wakes the publisher: its share or the inbox has room again.
    publisher_waker: AtomicWaker,
    queued_as_waiter: AtomicBool,
    /// Number of the segment that has the last message from this connection; 0 before the first.
    last_published: AtomicU64,
    finished_publishing: AtomicBool,
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
        f.debug_struct("Member").field("id", &self.client.id).finish_non_exhaustive()
    }
}

impl Member {
    pub(crate) fn new(number: u64, client: ClientInfo, shard: usize, at: Cursor, mode: DeliveryMode) -> Self {
        Self {
            number,
            client,
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
            pending: AtomicUsize::new(0),
            publisher_waker: AtomicWaker::new(),
            queued_as_waiter: AtomicBool::new(false),
            last_published: AtomicU64::new(0),
            finished_publishing: AtomicBool::new(false),
            disconnect: OnceLock::new(),
            gone: AtomicBool::new(false),
        }
    }

    /// The connection's id.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.client.id
    }

    /// Its number, counted from 1 since the hub was created: a later connection has a greater one.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The client's display name.
    #[must_use]
    pub fn name(&self) -> &DisplayName {
        &self.client.name
    }

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.client.peer
    }

    /// The number of the transport that carries it, if it has one.
    #[must_use]
    pub fn transport(&self) -> Option<u64> {
        self.client.transport
    }

    /// Messages that it has published, and their bytes.
    #[must_use]
    pub fn published(&self) -> (u64, u64) {
        (self.published_messages.load(Ordering::Relaxed), self.published_bytes.load(Ordering::Relaxed))
    }

    /// Messages that it has received, and their bytes.
    #[must_use]
    pub fn delivered(&self) -> (u64, u64) {
        let cursor = self.cursor();
        let missed = self.missed.load(Ordering::Relaxed);
        let messages = (cursor.offset - self.joined_at.offset).saturating_sub(missed);
        (messages, cursor.bytes - self.joined_at.bytes)
    }

    /// When it last published or received something; when it joined, if it never did.
    #[must_use]
    pub fn last_activity(&self) -> SystemTime {
        self.since + Duration::from_millis(self.active.load(Ordering::Relaxed))
    }

    /// When it joined.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// Its wire form.
    #[must_use]
    pub fn form(&self) -> WireForm {
        self.mode.form
    }

    pub(crate) fn mode(&self) -> DeliveryMode {
        self.mode
    }

    pub(crate) fn shard(&self) -> usize {
        self.shard
    }

    // The end of the connection.

    /// Why the connection ends, once that is decided.
    #[must_use]
    pub fn disconnected(&self) -> Option<&Disconnect> {
        self.disconnect.get()
    }

    /// Ends the connection. The first reason stands; true if this was the first.
    pub fn disconnect(&self, reason: DisconnectReason, detail: Option<String>) -> bool {
        self.disconnect_after(reason, detail, 0)
    }

    /// The same, but not before it has received everything up to the message at offset `owed`.
    pub(crate) fn disconnect_after(
        &self,
        reason: DisconnectReason,
        detail: Option<String>,
        owed: u64,
    ) -> bool {
        let at = Instant::now();
        let is_first = self.disconnect.set(Disconnect { reason, detail, at, owed }).is_ok();
        if is_first {
            self.reader.wake();
            self.end_waker.wake();
            self.publisher_waker.wake();
        }
        is_first
    }

    /// Aborts the call, if its client prevents it from ending.
    pub(crate) fn abort(&self) {
        if let Some(control) = &self.client.control {
            control.abort();
        }
    }

    /// Closes its transport once no call is left on it.
    pub(crate) fn close_transport_when_idle(&self) {
        if let Some(control) = &self.client.control {
            control.close_transport_when_idle();
        }
    }

    /// Stops its transport from taking more calls, and closes it once no call is left on it.
    pub(crate) fn go_away(&self) {
        if let Some(control) = &self.client.control {
            control.go_away();
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

    // The receiving side.

    pub(crate) fn reader(&self) -> &AtomicWaker {
        &self.reader
    }

    pub(crate) fn end_waker(&self) -> &AtomicWaker {
        &self.end_waker
    }

    /// Where its cursor was last seen.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor {
            segment: self.seen_segment.load(Ordering::Relaxed),
            offset: self.seen_offset.load(Ordering::Relaxed),
            bytes: self.seen_bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set_cursor(&self, cursor: &Cursor, now: Instant) {
        // Three stores, not one: observers want to know how far a reader lags, not its exact position.
        self.seen_segment.store(cursor.segment, Ordering::Relaxed);
        self.seen_offset.store(cursor.offset, Ordering::Relaxed);
        self.seen_bytes.store(cursor.bytes, Ordering::Relaxed);
        self.touch(now);
    }

    /// Its cursor was moved to here, past so many messages.
    pub(crate) fn skip_to(&self, cursor: &Cursor, messages: u64) {
        self.missed.fetch_add(messages, Ordering::Relaxed);
        self.set_cursor(cursor, Instant::now());
    }

    fn touch(&self, now: Instant) {
        let since_joined = now.saturating_duration_since(self.joined).as_millis() as u64;
        self.active.store(since_joined, Ordering::Relaxed);
    }

    /// Time since it last published or received something.
    pub(crate) fn idle(&self, now: Instant) -> Duration {
        let active = Duration::from_millis(self.active.load(Ordering::Relaxed));
        now.saturating_duration_since(self.joined + active)
    }

    pub(crate) fn is_catching_up(&self) -> bool {
        self.catching_up.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_caught_up(&self) {
        if self.is_catching_up() {
            self.catching_up.store(false, Ordering::Relaxed);
        }
    }

    /// Sets whether it lags. True if it did not lag before and does now.
    pub(crate) fn set_lagging(&self, lags: bool) -> bool {
        !self.lagging.swap(lags, Ordering::Relaxed) && lags
    }

    // The sending side.

    pub(crate) fn publisher_waker(&self) -> &AtomicWaker {
        &self.publisher_waker
    }

    /// Messages of this connection in the inbox.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// A message of this connection was put into the inbox.
    pub(crate) fn note_pending(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// The sequencer has taken a message of this connection.
    pub(crate) fn note_sequenced(&self, size: usize) {
        self.published_messages.fetch_add(1, Ordering::Relaxed);
        self.published_bytes.fetch_add(size as u64, Ordering::Relaxed);
    }

    /// The last of its messages so far will be in this segment.
    pub(crate) fn set_last_published(&self, segment: u64) {
        self.last_published.store(segment, Ordering::Release);
    }

    /// A message is in the log: it no longer counts against the share.
    pub(crate) fn release_share(&self, share: usize) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == share {
            self.publisher_waker.wake();
        }
    }

    /// The same for a duplicate that is in no log: nothing else wakes the reader.
    pub(crate) fn release_share_of_duplicate(&self, share: usize) {
        self.release_share(share);
        self.reader.wake();
    }

    /// True the first time until [`Member::wake_waiter`]: the caller queues it.
    pub(crate) fn queue_as_waiter(&self) -> bool {
        !self.queued_as_waiter.swap(true, Ordering::AcqRel)
    }

    /// The inbox has room, and the member is no longer in its queue of waiters.
    pub(crate) fn wake_waiter(&self) {
        self.queued_as_waiter.store(false, Ordering::Release);
        self.publisher_waker.wake();
    }

    /// The client will publish nothing more.
    pub(crate) fn finish_publishing(&self) {
        self.finished_publishing.store(true, Ordering::Release);
        self.reader.wake();
    }

    pub(crate) fn has_finished_publishing(&self) -> bool {
        self.finished_publishing.load(Ordering::Acquire)
    }

    /// Whether all that it has published so far is in the log, and `cursor` is past it.
    pub(crate) fn has_received_own(&self, cursor: &Cursor) -> bool {
        self.pending() == 0 && self.last_published.load(Ordering::Acquire) < cursor.segment
    }
}
