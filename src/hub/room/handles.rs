//! A connection's own two handles: the [`Publisher`] with which it says, the [`Subscription`] by which it hears.
//!
//! They may live in different tasks. The subscription is the connection: dropping it is leaving, however it came to
//! be dropped, so a connection cannot be forgotten in its room.

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

/// The message was not accepted: the connection has been ended.
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

    /// Says `message` in the room. Waits while the room's inbox, or this connection's share of it, is full;
    /// accepted messages are never dropped.
    ///
    /// # Errors
    /// [`Disconnected`] when the connection's end has been decided.
    // Not an `async fn`: that would have room for the message twice, in every connection.
    pub fn publish(&mut self, message: M) -> impl Future<Output = Result<(), Disconnected>> {
        let size = message.size();
        let (from, form) = (Some(Arc::clone(&self.member)), self.member.form());
        let mut offer = Some(Pending { from, form, message, accepted: Instant::now(), size });
        std::future::poll_fn(move |cx| self.poll_offer(cx, &mut offer))
    }

    fn poll_offer(
        &self,
        cx: &mut Context<'_>,
        offer: &mut Option<Pending<M>>,
    ) -> Poll<Result<(), Disconnected>> {
        let mut attempt = || {
            if self.member.disconnected().is_some() {
                return Poll::Ready(Err(Disconnected));
            }
            if self.member.waiting() >= self.room.share() {
                return Poll::Pending;
            }
            let Some(given) = offer.take() else {
                return Poll::Ready(Ok(()));
            };
            match self.room.offer(self.member.shard(), given) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(back) => {
                    *offer = Some(back);
                    Poll::Pending
                }
            }
        };
        if let Poll::Ready(done) = attempt() {
            return Poll::Ready(done);
        }
        self.member.sender().register(cx.waker());
        self.room.inbox().wake_on_release(&self.member);
        attempt()
    }

    /// The client will say nothing more: once it has heard its own last message, its connection ends as
    /// [`DisconnectReason::Left`].
    pub fn finish(self) {
        self.member.finish_publishing();
    }
}

/// What a subscription hands out.
#[derive(Debug)]
pub enum Next {
    /// Whole framed messages, shared with all other members if they want the same.
    Frames(Bytes),
    /// Messages that the connection does not get.
    Gap(Gap),
    /// What comes next needs this many bytes, and less room was offered.
    NoRoom(usize),
    /// The connection has ended; see [`Subscription::ending`].
    End,
}

/// Room that a gap event may take (bytes): none is handed out for less.
const GAP_ROOM: usize = 256;

/// What a look into the log found.
enum Found {
    Next(Next),
    /// Nothing is there yet.
    Nothing,
    /// Something, of which the connection wants nothing.
    Unwanted,
}

/// The hearing half of a connection: a cursor into the room's log. Dropping it is leaving the room.
pub struct Subscription<M: Payload> {
    room: Arc<Room<M>>,
    member: Arc<Member>,
    cursor: Cursor,
    view: View<M>,
    /// It can be told of messages that it does not get; else it is disconnected instead.
    gaps: bool,
    /// It has read something.
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

    /// The last message handed out; offset 0 means none before the first.
    #[must_use]
    pub fn delivered(&self) -> Position {
        Position { epoch: self.room.epoch(), offset: self.cursor.offset - 1 }
    }

    /// The disconnect, once [`Next::End`] was handed out.
    #[must_use]
    pub fn disconnected(&self) -> Option<&Disconnect> {
        self.member.disconnected()
    }

    /// The next whole messages that fit `room` bytes, or the end.
    ///
    /// [`Next::NoRoom`] leaves them in the log; then only the end of the connection wakes the task, so the caller
    /// arranges for a wake when there is more room. A connection that ends because it left first receives its own last
    /// message; one that ends because the server stops, also everything that was in its room's log when its end was
    /// decided.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Next> {
        let mut looked = self.look(room);
        // Registered before the second look: what comes after the look wakes us.
        match looked {
            Found::Nothing => {
                self.member.reader().register(cx.waker());
                looked = self.look(room);
            }
            Found::Next(Next::NoRoom(_)) => {
                // Not as a reader: every batch would wake a connection that cannot take it.
                self.member.end_waker().register(cx.waker());
                looked = self.look(room);
            }
            Found::Next(_) | Found::Unwanted => {}
        }
        match looked {
            Found::Next(next) => Poll::Ready(next),
            Found::Nothing => Poll::Pending,
            Found::Unwanted => {
                // Others have their turn before it goes on.
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

    fn look(&mut self, room: usize) -> Found {
        loop {
            let has_received_own = || self.member.has_received_own(&self.cursor);
            // Who asked for history gets it, however soon it has said all.
            let is_up_to_date = self.cursor.segment >= self.view.live_from;
            if self.member.has_finished_publishing() && is_up_to_date && has_received_own() {
                self.member.disconnect(DisconnectReason::Left, None);
            }
            if self.member.disconnected().is_some_and(|disconnect| {
                forfeits(disconnect.reason) || self.cursor.offset > disconnect.owed && has_received_own()
            }) {
                return Found::Next(Next::End);
            }
            match self.room.log().read(&self.cursor, &mut self.view, room) {
                Read::Frames(frames, next, accepted) => {
                    self.count(&next, accepted, frames.len());
                    self.cursor = next;
                    self.began = true;
                    if frames.is_empty() {
                        return Found::Unwanted;
                    }
                    return Found::Next(Next::Frames(frames));
                }
                Read::NoRoom(needed) => return Found::Next(Next::NoRoom(needed)),
                Read::Lost if self.member.mode().skips || self.gaps && !self.began => {
                    if room < GAP_ROOM {
                        return Found::Next(Next::NoRoom(GAP_ROOM));
                    }
                    if let Some(gap) = self.skip() {
                        return Found::Next(Next::Gap(gap));
                    }
                }
                Read::Lost => {
                    self.member.disconnect(DisconnectReason::SlowConsumer, None);
                    return Found::Next(Next::End);
                }
                // What it said and is not in the log yet will be, and wakes us.
                Read::Empty => {
                    self.member.mark_caught_up();
                    return Found::Nothing;
                }
            }
        }
    }

    /// Goes on at the oldest that is retained.
    fn skip(&mut self) -> Option<Gap> {
        let (epoch, oldest) = (self.room.epoch(), self.room.log().oldest());
        let at = |offset| Position { epoch, offset };
        // Also one that has read nothing was present for what was published after it joined.
        let was_present = self.began || oldest.segment > self.view.live_from;
        let reason = if was_present { GapReason::Slow } else { GapReason::Retention };
        let gap = Gap { from: at(self.cursor.offset), to: at(oldest.offset - 1), reason };
        self.cursor = oldest;
        self.member.skipped(&oldest, gap.count());
        if gap.count() == 0 {
            // What is gone took no place in the order.
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

/// Whether a connection that ends so is handed nothing more. All others first get what they are owed: their own
/// messages, which were right, and what [`Disconnect::owed`] says.
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
        // Nobody decided on an end before: the client went.
        self.member.disconnect(DisconnectReason::Cancelled, None);
        if self.member.disconnected().is_some_and(|e| e.reason == DisconnectReason::SlowConsumer) {
            // The status has told the client up to where it got everything.
            let (missed, _) = self.room.log().lag(self.cursor.offset, self.cursor.bytes);
            self.room.metrics(self.member.shard()).gap_messages.add(missed);
        }
        self.room.leave(&self.member);
    }
}
