//! The deadlines of a call.

use super::Limits;
use super::methods::Rpc;
use super::request::{Progress, Request};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a peer may take to end its request once it has the whole response.
const HOLD: Duration = Duration::from_secs(1);

/// What was not done in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// The peer has not completed its request, or a message of it.
    Request,
    /// The call has not ended before the deadline that its client gave.
    Call,
    /// The peer has not taken the answers before this one.
    Room,
    /// The peer has taken nothing of what waits for it.
    Peer,
    /// The peer has not ended its request although it has the response.
    Hold,
}

/// What of a request is to come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// All of it.
    Whole,
    /// Each message that has begun.
    Messages,
    /// One message after the other.
    NextMessage,
}

/// The deadlines of a call. Most calls wait for none of them: then there is no timer.
pub(super) struct Deadlines {
    limits: Arc<Limits>,
    expected: Expected,
    /// The number of the message that is to be complete at `request`.
    message: u64,
    request: Option<Instant>,
    call: Option<Instant>,
    room: Option<Instant>,
    peer: Option<Instant>,
    hold: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadlines {
    pub(super) fn new(rpc: &Rpc, incoming: &Request, limits: &Arc<Limits>) -> Self {
        let expected = match (rpc.has_one_request(), rpc.limits().silence) {
            (true, _) => Expected::Whole,
            (false, true) => Expected::Messages,
            (false, false) => Expected::NextMessage,
        };
        let at = |after| Instant::now() + after;
        let is_due = expected != Expected::Messages && !incoming.has_ended();
        Self {
            limits: Arc::clone(limits),
            expected,
            message: 0,
            request: is_due.then(|| at(limits.request_deadline)),
            call: None,
            room: None,
            peer: None,
            hold: None,
            timer: None,
        }
    }

    /// The client waits for the call to end for so long.
    pub(super) fn call_until(&mut self, timeout: Option<Duration>) {
        self.call = timeout.map(|timeout| Instant::now() + timeout);
    }

    pub(super) fn request_is(&mut self, progress: Progress) {
        match (progress, self.expected) {
            (Progress::Complete | Progress::Gone, _) | (Progress::Open(_), Expected::Messages) => {
                self.request = None;
            }
            (Progress::WithinMessage(message), Expected::Messages) => {
                if self.request.is_none() || message != self.message {
                    self.expect(message);
                }
            }
            (Progress::Open(messages), Expected::NextMessage) => {
                if messages != self.message {
                    self.expect(messages);
                }
            }
            (_, Expected::Whole) | (Progress::WithinMessage(_), Expected::NextMessage) => {}
        }
    }

    /// The request is late: true if it fails for that. What the service has not granted is not the peer's to send.
    pub(super) fn request_is_late(&mut self, waits_for_service: bool) -> bool {
        let is_excused = self.expected == Expected::Messages && waits_for_service;
        if is_excused {
            self.request = Some(Instant::now() + self.limits.request_deadline);
        }
        !is_excused
    }

    /// Time for a request to be complete.
    pub(super) fn request_time(&self) -> Duration {
        self.limits.request_deadline
    }

    /// There is room for the answer.
    pub(super) fn has_room(&mut self) {
        self.room = None;
    }

    fn expect(&mut self, message: u64) {
        self.message = message;
        self.request = Some(Instant::now() + self.limits.request_deadline);
    }

    /// The peer takes the answers before this one in time, or there is none.
    pub(super) fn wait_for_room(&mut self) {
        self.room.get_or_insert_with(|| Instant::now() + self.limits.request_deadline);
    }

    /// The peer has taken something, and whether more waits for it.
    pub(super) fn peer_moves(&mut self, more: bool) {
        self.peer = more.then(|| Instant::now() + self.limits.response_stall);
    }

    /// Only the end of the request is waited for.
    pub(super) fn hold(&mut self) {
        self.request = None;
        self.call = None;
        self.room = None;
        self.peer = None;
        self.hold = Some(Instant::now() + HOLD);
    }

    /// Ready with what is late, once for each deadline.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        let all = [
            (&mut self.request, Late::Request),
            (&mut self.call, Late::Call),
            (&mut self.room, Late::Room),
            (&mut self.peer, Late::Peer),
            (&mut self.hold, Late::Hold),
        ];
        let set = all.into_iter().filter_map(|(at, late)| at.map(|time| (time, at, late)));
        let Some((time, at, late)) = set.min_by_key(|(time, ..)| *time) else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(time)));
        if timer.deadline() != time {
            timer.as_mut().reset(time);
        }
        ready!(timer.as_mut().poll(cx));
        *at = None;
        Poll::Ready(late)
    }
}
