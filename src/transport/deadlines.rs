//! The deadlines of a call, with one timer for all of them.
//!
//! Guarantees: each deadline expires once, and a call that waits for none has no timer. Deliberately does not decide what an
//! expired deadline does to the call.

use super::limits::TransportLimits;
use super::request::{RequestProgress, RequestReader};
use super::rpc_metrics::ActiveRpc;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Time for the peer to half-close once it has the whole response.
const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A deadline that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// The request, or a message of it, was not complete in time.
    Request,
    /// The call did not end within its `grpc-timeout`.
    Call,
    /// The peer did not read earlier answers in time, so there was no space for this one.
    AnswerSpace,
    /// The peer took none of the data that waits for it.
    ResponseStall,
    /// The peer did not half-close although it has the response.
    HalfClose,
}

/// The part of a request that has a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timed {
    /// The whole request.
    Whole,
    /// Each message, from its first byte.
    Messages,
    /// Each message, from the end of the one before.
    NextMessage,
}

/// The deadlines of a call. Most calls wait for none of them: then there is no timer.
pub(super) struct Deadlines {
    limits: Arc<TransportLimits>,
    timed: Timed,
    /// The number of the message that is due at `request`.
    message: u64,
    request: Option<Instant>,
    call: Option<Instant>,
    answer_space: Option<Instant>,
    response_stall: Option<Instant>,
    half_close: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadlines {
    pub(super) fn new(rpc: &ActiveRpc, request: &RequestReader, limits: &Arc<TransportLimits>) -> Self {
        let timed = match (rpc.has_one_request(), rpc.limits().may_be_silent) {
            (true, _) => Timed::Whole,
            (false, true) => Timed::Messages,
            (false, false) => Timed::NextMessage,
        };
        let at = |after| Instant::now() + after;
        let is_due = timed != Timed::Messages && !request.has_ended();
        Self {
            limits: Arc::clone(limits),
            timed,
            message: 0,
            request: is_due.then(|| at(limits.request_deadline)),
            call: None,
            answer_space: None,
            response_stall: None,
            half_close: None,
            timer: None,
        }
    }

    /// Sets the deadline of the call, `timeout` from now.
    pub(super) fn set_call_timeout(&mut self, timeout: Option<Duration>) {
        self.call = timeout.map(|timeout| Instant::now() + timeout);
    }

    /// Sets or clears the deadline of the request, given how much of it has arrived.
    pub(super) fn update_request(&mut self, progress: RequestProgress) {
        match (progress, self.timed) {
            (RequestProgress::Complete | RequestProgress::Gone, _)
            | (RequestProgress::Open(_), Timed::Messages) => {
                self.request = None;
            }
            (RequestProgress::WithinMessage(message), Timed::Messages) => {
                if self.request.is_none() || message != self.message {
                    self.start_message(message);
                }
            }
            (RequestProgress::Open(messages), Timed::NextMessage) => {
                if messages != self.message {
                    self.start_message(messages);
                }
            }
            (_, Timed::Whole) | (RequestProgress::WithinMessage(_), Timed::NextMessage) => {}
        }
    }

    /// Decides whether a request fails whose deadline expired. While the service has unread data of a stream, the peer may lack
    /// the window to send more: then the deadline starts anew.
    pub(super) fn fail_or_extend_request(&mut self, has_unread_data: bool) -> bool {
        let extend = self.timed == Timed::Messages && has_unread_data;
        if extend {
            self.request = Some(Instant::now() + self.limits.request_deadline);
        }
        !extend
    }

    /// The time for a request to be complete.
    pub(super) fn request_timeout(&self) -> Duration {
        self.limits.request_deadline
    }

    /// Clears the deadline for answer space.
    pub(super) fn clear_answer_space(&mut self) {
        self.answer_space = None;
    }

    fn start_message(&mut self, message: u64) {
        self.message = message;
        self.request = Some(Instant::now() + self.limits.request_deadline);
    }

    /// Starts the deadline for answer space, unless it runs.
    pub(super) fn start_answer_space(&mut self) {
        self.answer_space.get_or_insert_with(|| Instant::now() + self.limits.request_deadline);
    }

    /// Restarts the stall deadline if data waits for the peer, else clears it.
    pub(super) fn restart_response_stall(&mut self, waiting: bool) {
        self.response_stall = waiting.then(|| Instant::now() + self.limits.response_stall);
    }

    /// Replaces all deadlines by the one for the peer's half-close.
    pub(super) fn await_half_close(&mut self) {
        self.request = None;
        self.call = None;
        self.answer_space = None;
        self.response_stall = None;
        self.half_close = Some(Instant::now() + HALF_CLOSE_TIMEOUT);
    }

    /// Ready with the next expired deadline, once for each.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Expired> {
        let all = [
            (&mut self.request, Expired::Request),
            (&mut self.call, Expired::Call),
            (&mut self.answer_space, Expired::AnswerSpace),
            (&mut self.response_stall, Expired::ResponseStall),
            (&mut self.half_close, Expired::HalfClose),
        ];
        let set = all.into_iter().filter_map(|(at, expired)| at.map(|time| (time, at, expired)));
        let Some((time, at, expired)) = set.min_by_key(|(time, ..)| *time) else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(time)));
        if timer.deadline() != time {
            timer.as_mut().reset(time);
        }
        ready!(timer.as_mut().poll(cx));
        *at = None;
        Poll::Ready(expired)
    }
}
