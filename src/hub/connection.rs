//! A connection's own two handles: the [`Publisher`] with which it says, the [`Subscription`] by which it hears.
//!
//! They may live in different tasks. The subscription is the connection: dropping it is leaving, however it came to
//! be dropped, so a connection cannot be forgotten in its room.

use super::departure::{Departure, Ending};
use super::frame::Frame;
use super::inbox::Offer;
use super::lens::Lens;
use super::log::Read;
use super::member::Member;
use super::position::{Cursor, Position};
use super::room::Room;
use super::start::{Gap, Missing};
use super::tally::nanos;
use bytes::Bytes;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// The sending half of a connection. There is one for each, so a connection's messages have an order.
pub struct Publisher<M: Frame> {
    room: Arc<Room<M>>,
    member: Arc<Member>,
}

/// The message was not accepted: the connection has been ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection has ended")]
pub struct Ended;

impl<M: Frame> Publisher<M> {
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
    /// [`Ended`] when the connection's end has been decided.
    // Not an `async fn`: that would have room for the message twice, in every connection.
    pub fn publish(&mut self, message: M) -> impl Future<Output = Result<(), Ended>> {
        let size = message.size();
        let (from, form) = (Some(Arc::clone(&self.member)), self.member.form());
        let mut offer = Some(Offer { from, form, message, accepted: Instant::now(), size });
        std::future::poll_fn(move |cx| self.poll_offer(cx, &mut offer))
    }

    fn poll_offer(&self, cx: &mut Context<'_>, offer: &mut Option<Offer<M>>) -> Poll<Result<(), Ended>> {
        let mut attempt = || {
            if self.member.ending().is_some() {
                return Poll::Ready(Err(Ended));
            }
            if self.member.waiting() >= self.room.share() {
                return Poll::Pending;
            }
            let Some(given) = offer.take() else {
                return Poll::Ready(Ok(()));
            };
            match self.room.offer(self.member.lane(), given) {
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
    /// [`Departure::Left`].
    pub fn finish(self) {
        self.member.said_all();
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
enum Looked {
    Next(Next),
    /// Nothing is there yet.
    Nothing,
    /// Something, of which the connection wants nothing.
    Unwanted,
}

/// The hearing half of a connection: a cursor into the room's log. Dropping it is leaving the room.
pub struct Subscription<M: Frame> {
    room: Arc<Room<M>>,
    member: Arc<Member>,
    cursor: Cursor,
    lens: Lens<M>,
    /// It can be told of messages that it does not get; else it is disconnected instead.
    gaps: bool,
    /// It has read something.
    began: bool,
}

impl<M: Frame> Subscription<M> {
    pub(crate) fn new(
        room: Arc<Room<M>>,
        member: Arc<Member>,
        cursor: Cursor,
        mut lens: Lens<M>,
        gaps: bool,
    ) -> Self {
        lens.live_from = room.log().tail().segment;
        Self { room, member, cursor, lens, gaps, began: false }
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

    /// The ending, once [`Next::End`] was handed out.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        self.member.ending()
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
            Looked::Nothing => {
                self.member.reader().register(cx.waker());
                looked = self.look(room);
            }
            Looked::Next(Next::NoRoom(_)) => {
                // Not as a reader: every batch would wake a connection that cannot take it.
                self.member.end_waker().register(cx.waker());
                looked = self.look(room);
            }
            Looked::Next(_) | Looked::Unwanted => {}
        }
        match looked {
            Looked::Next(next) => Poll::Ready(next),
            Looked::Nothing => Poll::Pending,
            Looked::Unwanted => {
                // Others have their turn before it goes on.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Cost per delivered frame: the time once, and adds to memory that only this thread writes.
    fn count(&self, next: &Cursor, accepted: Instant, bytes: usize) {
        let now = Instant::now();
        self.member.saw(next, now);
        let tally = self.room.tally(self.member.lane());
        tally.delivered_messages[self.lens.form].add(next.offset - self.cursor.offset);
        tally.delivered_bytes.add(bytes as u64);
        // History is late by nature.
        if !self.member.is_catching_up() {
            // Each segment in the frame, as late as the oldest of them.
            let segments = next.segment - self.cursor.segment;
            tally.broadcast_latency.observe(nanos(now.saturating_duration_since(accepted)), segments);
        }
    }

    fn look(&mut self, room: usize) -> Looked {
        loop {
            let heard_itself = || self.member.has_heard_itself(&self.cursor);
            // Who asked for history gets it, however soon it has said all.
            let is_up_to_date = self.cursor.segment >= self.lens.live_from;
            if self.member.has_said_all() && is_up_to_date && heard_itself() {
                self.member.depart(Departure::Left, None);
            }
            if self.member.ending().is_some_and(|ending| {
                forfeits(ending.departure) || self.cursor.offset > ending.owed && heard_itself()
            }) {
                return Looked::Next(Next::End);
            }
            match self.room.log().read(&self.cursor, &mut self.lens, room) {
                Read::Frames(frames, next, accepted) => {
                    self.count(&next, accepted, frames.len());
                    self.cursor = next;
                    self.began = true;
                    if frames.is_empty() {
                        return Looked::Unwanted;
                    }
                    return Looked::Next(Next::Frames(frames));
                }
                Read::NoRoom(needed) => return Looked::Next(Next::NoRoom(needed)),
                Read::Lost if self.member.manner().skips || self.gaps && !self.began => {
                    if room < GAP_ROOM {
                        return Looked::Next(Next::NoRoom(GAP_ROOM));
                    }
                    if let Some(gap) = self.skip() {
                        return Looked::Next(Next::Gap(gap));
                    }
                }
                Read::Lost => {
                    self.member.depart(Departure::SlowConsumer, None);
                    return Looked::Next(Next::End);
                }
                // What it said and is not in the log yet will be, and wakes us.
                Read::Empty => {
                    self.member.has_caught_up();
                    return Looked::Nothing;
                }
            }
        }
    }

    /// Goes on at the oldest that is retained.
    fn skip(&mut self) -> Option<Gap> {
        let (epoch, oldest) = (self.room.epoch(), self.room.log().oldest());
        let at = |offset| Position { epoch, offset };
        // Also one that has read nothing was present for what was published after it joined.
        let was_present = self.began || oldest.segment > self.lens.live_from;
        let why = if was_present { Missing::Slow } else { Missing::Retention };
        let gap = Gap { from: at(self.cursor.offset), to: at(oldest.offset - 1), why };
        self.cursor = oldest;
        self.member.skipped(&oldest, gap.count());
        if gap.count() == 0 {
            // What is gone took no place in the order.
            return None;
        }
        let tally = self.room.tally(self.member.lane());
        tally.gap_messages.add(gap.count());
        if was_present {
            tally.skips.add(1);
        }
        Some(gap)
    }
}

/// Whether a connection that ends so is handed nothing more. All others first get what they are owed: their own
/// messages, which were right, and what [`Ending::owed`] says.
fn forfeits(departure: Departure) -> bool {
    match departure {
        Departure::Cancelled | Departure::SlowConsumer | Departure::Kicked => true,
        Departure::Left
        | Departure::MessageTooLarge
        | Departure::InvalidMessage
        | Departure::RequestIncomplete
        | Departure::Shutdown => false,
    }
}

impl<M: Frame> Drop for Subscription<M> {
    fn drop(&mut self) {
        // Nobody decided on an end before: the client went.
        self.member.depart(Departure::Cancelled, None);
        if self.member.ending().is_some_and(|e| e.departure == Departure::SlowConsumer) {
            // The status has told the client up to where it got everything.
            let (missed, _) = self.room.log().lag(self.cursor.offset, self.cursor.bytes);
            self.room.tally(self.member.lane()).gap_messages.add(missed);
        }
        self.room.leave(&self.member);
    }
}
