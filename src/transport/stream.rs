//! One call from its request to its last byte.
//!
//! ```text
//! Waiting ──► Answering ──► Sending ──► Holding ──► end
//!    │            │            │
//!    └────────────┴────────────┴──► end: reset by the peer, aborted, or stalled
//! ```
//!
//! *Waiting*: the answers before it on this transport have not been taken. *Answering*: the service has the request.
//! *Sending*: the response goes out, chunk by chunk, as the peer's windows allow. *Holding*: the response is complete and
//! the peer has not ended its request. HTTP/2 has the server reset such a stream (RFC 9113, section 8.1), balancers make a
//! CANCEL of that for their own client (`HAProxy` before 3.0), and gRPC's C core then reports CANCELLED instead of the
//! status; so the peer gets a moment to end it by itself.

use super::call::{ALL_UNREAD_ANSWERS_MAX, CallState, OpenCall, Reserved, Rest};
use super::deadlines::{Deadlines, Late};
use super::in_flight::InFlightData;
use super::methods::Rpc;
use super::request::{Progress, Request};
use super::response::{Chunk, ResponseBody};
use super::stats::{CallKind, CountedCall};
use super::timeout;
use super::windows::Grant;
use super::{Limits, Services};
use crate::rpc::{refused, retry_after};
use crate::telemetry::trace::RpcSpan;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, Response};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::body::Body;
use tonic::{Code, Status};

/// Bytes of one DATA frame's worth of messages, and of what a stream hands to HTTP/2 before others have their turn.
const TURN_BYTES: usize = 64 * 1024;

/// Bytes from which on an answer is long.
const LONG_ANSWER: usize = 64 * 1024;

pin_project! {
    /// The future of one call; it returns the number of its stream.
    pub(super) struct Stream<S: Services> {
        #[pin]
        stage: Stage<S>,
        exchange: Exchange,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<S: Services> {
        // Behind pointers what most of a call's life does not need.
        Waiting { waiting: Option<Box<(http::Request<Body>, S)>> },
        Answering { response: Pin<Box<S::Future>> },
        Sending { #[pin] body: S::Reply },
        Holding,
    }
}

/// What the stages of a call have in common.
struct Exchange {
    id: u32,
    state: Arc<CallState>,
    request: Request,
    output: Output,
    rest: Rest,
    rpc: Option<Rpc>,
    deadlines: Deadlines,
    /// HTTP/2 wakes the call when the peer resets it.
    watches_reset: bool,
    /// Room for the answer, until it is there.
    reserved: Option<Reserved>,
    /// Both until the response is complete.
    open: Option<(OpenCall, CountedCall)>,
}

enum Output {
    Head(SendResponse<InFlightData>),
    Body(SendStream<InFlightData>),
}

/// Whether a service may have a call.
enum Begin {
    Now,
    /// The call is woken when it may.
    Later,
    Never,
}

/// How a poll of a stage ends.
#[derive(PartialEq, Eq)]
enum Step {
    /// To the next stage.
    Next,
    /// The response is complete.
    Sent,
    /// The call is over, however it ended.
    Over,
}

/// The refusal of a call whose answer there is no room for.
fn answers_unread() -> Status {
    let words = "too many answers have not been read";
    refused(Code::ResourceExhausted, words, "ANSWERS_UNREAD", &[], Some(retry_after()))
}

impl<S: Services> Stage<S> {
    /// Whether the response ends by itself when the request is wrong or late.
    fn minds_request(&self) -> bool {
        match self {
            Self::Sending { body } => body.minds_request(),
            Self::Waiting { .. } | Self::Answering { .. } => false,
            Self::Holding => true,
        }
    }
}

impl<S: Services> Stream<S> {
    /// A call for the services.
    pub(super) fn new(
        services: S,
        call: NewCall,
        request: http::Request<Body>,
        open: (OpenCall, CountedCall),
        limits: &Arc<Limits>,
    ) -> Self {
        let mut exchange = Exchange::new(call, limits);
        exchange.deadlines.call_until(timeout::of(request.headers()));
        exchange.open = Some(open);
        Self { stage: Stage::Waiting { waiting: Some(Box::new((request, services))) }, exchange }
    }

    /// A call beyond those that there may be.
    pub(super) fn refused(call: NewCall, limits: &Arc<Limits>) -> Self {
        let status = too_many_calls(call.rpc.kind(), limits.calls);
        let mut exchange = Exchange::new(call, limits);
        // If the stream is gone already, that is found next.
        exchange.refuse(&status);
        exchange.hold();
        Self { stage: Stage::Holding, exchange }
    }
}

fn too_many_calls(kind: CallKind, max: usize) -> Status {
    let (what, reason) = match kind {
        CallKind::Unary => ("unary calls", "TOO_MANY_CALLS"),
        CallKind::Stream => ("connections", "TOO_MANY_CONNECTIONS"),
    };
    let words = format!("the server has all the {max} {what} it may have");
    refused(Code::ResourceExhausted, words, reason, &[], Some(retry_after()))
}

/// A call as the transport hands it over.
pub(super) struct NewCall {
    pub(super) id: u32,
    pub(super) state: Arc<CallState>,
    pub(super) request: Request,
    pub(super) respond: SendResponse<InFlightData>,
    pub(super) rpc: Rpc,
}

impl<S: Services> Future for Stream<S> {
    type Output = u32;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u32> {
        let mut this = self.project();
        let exchange = this.exchange;
        exchange.state.register(cx.waker());
        if exchange.state.is_aborted() {
            exchange.reset(Reason::CANCEL);
            return exchange.is_over();
        }
        let progress = exchange.request.poll(cx);
        if progress == Progress::Gone {
            return exchange.is_over();
        }
        exchange.deadlines.request_is(progress);
        loop {
            if let Some(status) = exchange.request.take_failure()
                && !this.stage.minds_request()
            {
                if exchange.refuse(&status) == Step::Over {
                    return exchange.is_over();
                }
                this.stage.set(Stage::Holding);
                exchange.hold();
            }
            let step = match this.stage.as_mut().project() {
                StageProjection::Waiting { waiting } => match exchange.begin() {
                    Begin::Later => exchange.poll_reset(cx),
                    Begin::Never => Poll::Ready(exchange.refuse(&answers_unread())),
                    Begin::Now => match waiting.take() {
                        None => Poll::Ready(Step::Over),
                        Some(begins) => {
                            let (request, mut services) = *begins;
                            let response = Box::pin(exchange.in_span(|| services.call(request)));
                            this.stage.set(Stage::Answering { response });
                            Poll::Ready(Step::Next)
                        }
                    },
                },
                StageProjection::Answering { response } => {
                    match exchange.in_span(|| response.as_mut().poll(cx)) {
                        Poll::Ready(Ok(response)) => {
                            exchange.reserved = None;
                            let (head, body) = response.into_parts();
                            let ends = body.is_end_stream();
                            let step = exchange.send_head(Response::from_parts(head, ()), ends);
                            this.stage.set(Stage::Sending { body });
                            Poll::Ready(step)
                        }
                        Poll::Ready(Err(never)) => match never {},
                        Poll::Pending => exchange.poll_reset(cx),
                    }
                }
                StageProjection::Sending { body } => exchange.poll_send(body, cx),
                StageProjection::Holding if exchange.request.has_ended() => Poll::Ready(Step::Over),
                StageProjection::Holding => Poll::Pending,
            };
            match step {
                Poll::Ready(Step::Next) => {}
                Poll::Ready(Step::Sent) => {
                    // Drops the response, and with it whatever it held.
                    this.stage.set(Stage::Holding);
                    exchange.hold();
                }
                Poll::Ready(Step::Over) => return exchange.is_over(),
                Poll::Pending => match ready!(exchange.deadlines.poll(cx)) {
                    Late::Request => exchange.request_is_late(),
                    Late::Call => {
                        let status = Status::deadline_exceeded("the deadline of the call has passed");
                        if exchange.refuse(&status) == Step::Over {
                            return exchange.is_over();
                        }
                        this.stage.set(Stage::Holding);
                        exchange.hold();
                    }
                    Late::Room => {
                        if exchange.refuse(&answers_unread()) == Step::Over {
                            return exchange.is_over();
                        }
                        this.stage.set(Stage::Holding);
                        exchange.hold();
                    }
                    Late::Peer => {
                        tracing::debug!(stream = exchange.id, "stream reset: the peer takes nothing");
                        exchange.reset(Reason::CANCEL);
                        return exchange.is_over();
                    }
                    Late::Hold => return exchange.is_over(),
                },
            }
        }
    }
}

impl Exchange {
    fn new(call: NewCall, limits: &Arc<Limits>) -> Self {
        let NewCall { id, state, request, respond, rpc } = call;
        Self {
            id,
            rest: Rest::new(&state.transport),
            deadlines: Deadlines::new(&rpc, &request, limits),
            state,
            request,
            output: Output::Head(respond),
            rpc: Some(rpc),
            watches_reset: false,
            reserved: None,
            open: None,
        }
    }

    fn is_over(&self) -> Poll<u32> {
        self.state.close();
        Poll::Ready(self.id)
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.output {
            Output::Head(head) => head.send_reset(reason),
            Output::Body(body) => body.send_reset(reason),
        }
    }

    /// The response is complete: the call is no longer open, but the request may be.
    fn hold(&mut self) {
        self.state.close();
        self.rpc = None;
        self.reserved = None;
        self.open = None;
        self.request.hold();
        self.deadlines.hold();
    }

    /// Runs a part of the service inside the call's span.
    fn in_span<T>(&self, f: impl FnOnce() -> T) -> T {
        RpcSpan::in_scope(self.rpc.as_ref().and_then(Rpc::span), f)
    }

    fn is_unary(&self) -> bool {
        self.rpc.as_ref().is_some_and(|rpc| rpc.kind() == CallKind::Unary)
    }

    /// Whether the service may have the call now. An answer in one piece needs room.
    fn begin(&mut self) -> Begin {
        let Some(rpc) = self.rpc.as_ref().filter(|rpc| rpc.kind() == CallKind::Unary) else {
            return Begin::Now;
        };
        let bytes = rpc.limits().answer_bytes;
        let transport = &self.state.transport;
        if bytes >= LONG_ANSWER && transport.census.unread_answer_bytes() >= ALL_UNREAD_ANSWERS_MAX {
            return Begin::Never;
        }
        self.reserved = transport.reserve(&self.state, bytes);
        if self.reserved.is_none() {
            self.deadlines.wait_for_room();
            return Begin::Later;
        }
        self.deadlines.has_room();
        Begin::Now
    }

    fn request_is_late(&mut self) {
        if self.deadlines.request_is_late(self.request.waits_for_service()) {
            self.request.fail_late(self.deadlines.request_time());
        }
    }

    /// Waits for what comes after so many bytes were `sent`, or for the peer to give up the call.
    ///
    /// HTTP/2 keeps the waker until then, so that it need not be left again with each frame; whatever else uses it up wakes
    /// a poll that sends nothing.
    fn wait(&mut self, sent: usize, cx: &mut Context<'_>) -> Poll<Step> {
        if sent > 0 && self.watches_reset {
            return Poll::Pending;
        }
        self.watches_reset = true;
        self.poll_reset(cx)
    }

    /// Whether the peer has given up the call.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let reset = match &mut self.output {
            Output::Head(head) => head.poll_reset(cx),
            Output::Body(body) => body.poll_reset(cx),
        };
        reset.map(|_| Step::Over)
    }

    fn send_head(&mut self, head: Response<()>, ends: bool) -> Step {
        if let Some(rpc) = &mut self.rpc {
            rpc.read(head.headers());
        }
        let Output::Head(respond) = &mut self.output else { return Step::Over };
        match respond.send_response(head, ends) {
            Err(_) => Step::Over,
            Ok(_) if ends => Step::Sent,
            Ok(body) => {
                self.output = Output::Body(body);
                Step::Next
            }
        }
    }

    /// Ends the call with a status of our own.
    fn refuse(&mut self, status: &Status) -> Step {
        if let Output::Head(_) = &self.output {
            let (head, _) = status.clone().into_http::<Body>().into_parts();
            return self.send_head(Response::from_parts(head, ()), true);
        }
        if !self.rest.is_empty() {
            // Trailers would come in the middle of a message.
            self.reset(Reason::CANCEL);
            return Step::Over;
        }
        let mut trailers = HeaderMap::new();
        // It has no words that could not be a header.
        let _ = status.add_header(&mut trailers);
        self.send_trailers(trailers)
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Step {
        if let Some(rpc) = &mut self.rpc {
            rpc.read(&trailers);
        }
        let Output::Body(body) = &mut self.output else { return Step::Over };
        if body.send_trailers(trailers).is_ok() { Step::Sent } else { Step::Over }
    }

    /// Hands `data` over, which the windows take at once.
    fn send_data(&mut self, data: Bytes) -> Result<(), h2::Error> {
        let Output::Body(body) = &mut self.output else { return Ok(()) };
        self.state.transport.flow.windows.take(&self.state.window, data.len());
        body.send_data(self.state.in_flight(data), false)
    }

    /// Sends what the response has and the windows take.
    fn poll_send<B: ResponseBody>(&mut self, mut body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<Step> {
        let state = Arc::clone(&self.state);
        let (windows, flow) = (&state.transport.flow.windows, &state.transport.flow);
        // An answer is taken in time, and so is a message of a broadcast that is sent in parts; other streams, such as
        // watches, hold one message at most and may wait.
        let in_time = self.is_unary() || body.minds_request();
        let mut sent = 0;
        loop {
            let blocked = flow.is_blocked();
            let open = windows.room(&state.window, blocked);
            if !self.rest.is_empty() {
                let needed = self.rest.len();
                let now =
                    if open > 0 { Grant::Now(open) } else { windows.ask_for_rest(&state, needed, blocked) };
                let Grant::Now(open) = now else { return self.wait(sent, cx) };
                if sent >= TURN_BYTES {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let part = self.rest.split_to(self.rest.len().min(open).min(TURN_BYTES));
                sent += part.len();
                if self.send_data(part).is_err() {
                    return Poll::Ready(Step::Over);
                }
                self.deadlines.peer_moves(in_time && !self.rest.is_empty());
                continue;
            }
            let room = open.min(TURN_BYTES - sent);
            let needed = match body.as_mut().poll_chunk(cx, room) {
                Poll::Pending => return self.wait(sent, cx),
                Poll::Ready(Chunk::Data(data)) if data.len() <= room => {
                    sent += data.len();
                    if self.send_data(data).is_err() {
                        return Poll::Ready(Step::Over);
                    }
                    continue;
                }
                Poll::Ready(Chunk::Data(data)) => {
                    self.keep(data, in_time);
                    continue;
                }
                Poll::Ready(Chunk::NoRoom(needed)) => needed,
                Poll::Ready(Chunk::Trailers(trailers)) => return Poll::Ready(self.send_trailers(trailers)),
                Poll::Ready(Chunk::End) => return Poll::Ready(self.end()),
                Poll::Ready(Chunk::Failed) => {
                    self.reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Step::Over);
                }
            };
            if sent > 0 && needed <= open {
                // It fits, but others have their turn first.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if needed > open && windows.ask(&state, needed, blocked) == Grant::Later {
                return self.wait(sent, cx);
            }
            // As long as one frame's worth, or it goes out in parts.
            match body.as_mut().poll_chunk(cx, needed) {
                Poll::Ready(Chunk::Data(data)) => self.keep(data, in_time),
                Poll::Ready(Chunk::Trailers(trailers)) => return Poll::Ready(self.send_trailers(trailers)),
                // It needs more than it said: ask again for that.
                Poll::Ready(_) | Poll::Pending => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Keeps data that is sent in parts.
    fn keep(&mut self, data: Bytes, in_time: bool) {
        self.rest.set(data);
        self.deadlines.peer_moves(in_time);
    }

    /// Ends the response without trailers.
    fn end(&mut self) -> Step {
        let nothing = self.state.in_flight(Bytes::new());
        let Output::Body(body) = &mut self.output else { return Step::Over };
        if body.send_data(nothing, true).is_ok() { Step::Sent } else { Step::Over }
    }
}
