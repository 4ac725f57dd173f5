//! A connection's two handles: the [`Publisher`], which sends, and the [`Subscription`], which receives.
//!
//! They may live in different tasks. The subscription is the connection: dropping it leaves the room, however it came to
//! be dropped, so that no connection can be forgotten in its room.

use crate::hub::log::Read;
use crate::hub::log::position::{Cursor, Position};
use crate::hub::log::start::{Gap, GapReason};
use crate::hub::log::view::View;
use crate::hub::member::Member;
use crate::hub::member::disconnect::{Disconnect, DisconnectReason};
use crate::hub::payload::Payload;
use crate::hub::room::Room;
use crate::hub::room::inbox::Pending;
use crate::hub::shard::metrics::nanos;
use bytes::Bytes;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// The sending half of a connection. There is one for each, so a connection's messages have an order.
pub struct Publisher<M: Payload> {
    room: Arc<Room<M>>,
    member: Arc<Member>,
}

/// The message was not accepted, because the connection has ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection has ended")]
pub struct Disconnected;

impl<M: Payload> Publisher<M> {
    pub(crate) fn new(room: Arc<Room<M>>, member: Arc<Member>) -> Self {
        Self { room, member }
    }

    /// The connection as a member of its room.
    #[must_use]
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Publishes `message` in the room. Waits while the room's inbox, or this connection's share of it, is full; an
    /// accepted message is never dropped.
    ///
    /// # Errors
    /// [`Disconnected`] if the connection has been disconnected.
    // Not an `async fn`: that would have room for the message twice, in every connection.
    pub fn publish(&mut self, message: M) -> impl Future<Output = Result<(), Disconnected>> {
        let size = message.size();
        let (from, form) = (Some(Arc::clone(&self.member)), self.member.form());
        let mut pending = Some(Pending { from, form, message, accepted: Instant::now(), size });
        std::future::poll_fn(move |cx| self.poll_offer(cx, &mut pending))
    }

    fn poll_offer(
        &self,
        cx: &mut Context<'_>,
        pending: &mut Option<Pending<M>>,
    ) -> Poll<Result<(), Disconnected>> {
        let mut attempt = || {
            if self.member.disconnected().is_some() {
                return Poll::Ready(Err(Disconnected));
            }
            if self.member.pending() >= self.room.share() {
                return Poll::Pending;
            }
            let Some(given) = pending.take() else {
                return Poll::Ready(Ok(()));
            };
            match self.room.offer(self.member.shard(), given) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(back) => {
                    *pending = Some(back);
                    Poll::Pending
                }
            }
        };
        if let Poll::Ready(done) = attempt() {
            return Poll::Ready(done);
        }
        self.member.publisher_waker().register(cx.waker());
        self.room.inbox().wake_on_release(&self.member);
        attempt()
    }

    /// The client will publish nothing more. Once it has received its own last message, the connection ends as
    /// [`DisconnectReason::Left`].
    pub fn finish(self) {
        self.member.finish_publishing();
    }
}

/// What a subscription hands out.
#[derive(Debug)]
pub enum Next {
    /// Whole encoded messages, shared with all other members that receive the same.
    Frames(Bytes),
    /// Messages that the connection does not receive.
    Gap(Gap),
    /// The next message needs this many bytes, and less room was offered.
    NeedsCapacity(usize),
    /// The connection has ended; see [`Subscription::disconnected`].
    End,
}

/// Room that a gap event may take (bytes): none is handed out for less.
const GAP_BYTES: usize = 256;

/// What a read of the log found.
enum Found {
    Next(Next),
    /// Nothing: the cursor is at the tail.
    Nothing,
    /// Only messages that the view filters out.
    Filtered,
}

/// The receiving half of a connection: a cursor into the room's log. Dropping it leaves the room.
pub struct Subscription<M: Payload> {
    room: Arc<Room<M>>,
    member: Arc<Member>,
    cursor: Cursor,
    view: View<M>,
    /// Whether the client can receive gap events; if not, it is disconnected instead.
    gaps: bool,
    /// Whether anything has been read.
    began: bool,
}

impl<M: Payload> Subscription<M> {
    pub(crate) fn new(
        room: Arc<Room<M>>,
        member: Arc<Member>,
        cursor: Cursor,
        mut view: View<M>,
        gaps: bool,
    ) -> Self {
        view.live_from = room.log().tail().segment;
        Self { room, member, cursor, view, gaps, began: false }
    }

    /// The connection as a member of its room.
    #[must_use]
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> &Arc<Room<M>> {
        &self.room
    }

    /// The last message that was handed out; offset 0 is before the first.
    #[must_use]
    pub fn delivered(&self) -> Position {
        Position { epoch: self.room.epoch(), offset: self.cursor.offset - 1 }
    }

    /// Why the connection ends, once that is decided; [`Next::End`] comes when it has received what it is owed.
    #[must_use]
    pub fn disconnected(&self) -> Option<&Disconnect> {
        self.member.disconnected()
    }

    /// The next whole messages that fit `capacity` bytes, or the end.
    ///
    /// [`Next::NeedsCapacity`] leaves them in the log; then only the end of the connection wakes the task, so the caller
    /// arranges for a wake when there is more room. A connection that ends because the client left first receives its own
    /// last message; one that ends because the server stops also receives everything that was in the log when its
    /// disconnect was decided.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, capacity: usize) -> Poll<Next> {
        let mut found = self.read(capacity);
        // Registered before the second read: what comes after that wakes us.
        match found {
            Found::Nothing => {
                self.member.reader().register(cx.waker());
                found = self.read(capacity);
            }
            Found::Next(Next::NeedsCapacity(_)) => {
                // Not as a reader: every batch would wake a connection that cannot take it.
                self.member.end_waker().register(cx.waker());
                found = self.read(capacity);
            }
            Found::Next(_) | Found::Filtered => {}
        }
        match found {
            Found::Next(next) => Poll::Ready(next),
            Found::Nothing => Poll::Pending,
            Found::Filtered => {
                // Other tasks run before this goes on.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Cost per delivered frame: the time once, and adds to memory that only this thread writes.
    fn count(&self, next: &Cursor, accepted: Instant, bytes: usize) {
        let now = Instant::now();
        self.member.set_cursor(next, now);
        let metrics = self.room.metrics(self.member.shard());
        metrics.delivered_messages[self.view.form].add(next.offset - self.cursor.offset);
        metrics.delivered_bytes.add(bytes as u64);
        // History is late by nature.
        if !self.member.is_catching_up() {
            // Each segment in the frame, as late as the oldest of them.
            let segments = next.segment - self.cursor.segment;
            metrics.broadcast_latency.observe(nanos(now.saturating_duration_since(accepted)), segments);
        }
    }

    fn read(&mut self, capacity: usize) -> Found {
        loop {
            let has_received_own = || self.member.has_received_own(&self.cursor);
            // A client that asked for history receives it, however soon it has finished publishing.
            let is_live = self.cursor.segment >= self.view.live_from;
            if self.member.has_finished_publishing() && is_live && has_received_own() {
                self.member.disconnect(DisconnectReason::Left, None);
            }
            if self.member.disconnected().is_some_and(|disconnect| {
                forfeits(disconnect.reason) || self.cursor.offset > disconnect.owed && has_received_own()
            }) {
                return Found::Next(Next::End);
            }
            match self.room.log().read(&self.cursor, &mut self.view, capacity) {
                Read::Frames(frames, next, accepted) => {
                    self.count(&next, accepted, frames.len());
                    self.cursor = next;
                    self.began = true;
                    if frames.is_empty() {
                        return Found::Filtered;
                    }
                    return Found::Next(Next::Frames(frames));
                }
                Read::NeedsCapacity(needed) => return Found::Next(Next::NeedsCapacity(needed)),
                Read::Lost if self.member.mode().skips || self.gaps && !self.began => {
                    if capacity < GAP_BYTES {
                        return Found::Next(Next::NeedsCapacity(GAP_BYTES));
                    }
                    if let Some(gap) = self.skip() {
                        return Found::Next(Next::Gap(gap));
                    }
                }
                Read::Lost => {
                    self.member.disconnect(DisconnectReason::SlowConsumer, None);
                    return Found::Next(Next::End);
                }
                // The client's own messages that are not in the log yet will be, and wake us.
                Read::Empty => {
                    self.member.mark_caught_up();
                    return Found::Nothing;
                }
            }
        }
    }

    /// Moves the cursor to the oldest retained message.
    fn skip(&mut self) -> Option<Gap> {
        let (epoch, oldest) = (self.room.epoch(), self.room.log().oldest());
        let at = |offset| Position { epoch, offset };
        // A member that has read nothing was still present for what was published after it joined.
        let was_present = self.began || oldest.segment > self.view.live_from;
        let reason = if was_present { GapReason::Slow } else { GapReason::Retention };
        let gap = Gap { from: at(self.cursor.offset), to: at(oldest.offset - 1), reason };
        self.cursor = oldest;
        self.member.skip_to(&oldest, gap.count());
        if gap.count() == 0 {
            // Only ephemeral messages are gone.
            return None;
        }
        let metrics = self.room.metrics(self.member.shard());
        metrics.gap_messages.add(gap.count());
        if was_present {
            metrics.skips.add(1);
        }
        Some(gap)
    }
}

/// Whether a connection that ends for this reason receives nothing more. All others first receive what they are owed: their
/// own messages, which were valid, and everything up to [`Disconnect::owed`].
fn forfeits(reason: DisconnectReason) -> bool {
    match reason {
        DisconnectReason::Cancelled | DisconnectReason::SlowConsumer | DisconnectReason::Kicked => true,
        DisconnectReason::Left
        | DisconnectReason::MessageTooLarge
        | DisconnectReason::InvalidMessage
        | DisconnectReason::RequestIncomplete
        | DisconnectReason::Shutdown => false,
    }
}

impl<M: Payload> Drop for Subscription<M> {
    fn drop(&mut self) {
        // If no disconnect was decided before, the client has cancelled.
        self.member.disconnect(DisconnectReason::Cancelled, None);
        if self.member.disconnected().is_some_and(|e| e.reason == DisconnectReason::SlowConsumer) {
            // The status has reported the position up to which the client received everything.
            let (missed, _) = self.room.log().lag(self.cursor.offset, self.cursor.bytes);
            self.room.metrics(self.member.shard()).gap_messages.add(missed);
        }
        self.room.leave(&self.member);
    }
}
