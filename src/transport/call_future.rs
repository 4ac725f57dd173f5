//! One call, from its request to the last byte of its response.
//!
//! ```text
//! Queued ──► Handling ──► Sending ──► AwaitingHalfClose ──► end
//!    │           │           │
//!    └───────────┴───────────┴──► end: reset by the peer, aborted, or stalled
//! ```
//!
//! *Queued*: there is no space for the answer until earlier ones on this transport are read. *Handling*: the service has the
//! request. *Sending*: the response is sent chunk by chunk, as the peer's windows allow. *Awaiting half-close*: the response
//! is complete, and the peer has not ended its request. HTTP/2 makes the server reset such a stream (RFC 9113, section 8.1),
//! balancers turn that into a CANCEL for their own client (`HAProxy` before 3.0), and gRPC's C core then reports CANCELLED
//! instead of the status. So the peer gets a moment to half-close by itself.

use super::answer_budget::{ALL_UNREAD_ANSWERS_MAX, AnswerReservation, PendingData};
use super::deadlines::{Deadlines, Expired};
use super::grpc_timeout;
use super::in_flight::InFlightData;
use super::limits::TransportLimits;
use super::request::{RequestProgress, RequestReader};
use super::rpc_metrics::ActiveRpc;
use super::send_windows::{Grant, SendWindows};
use super::services::Services;
use super::state::{OpenCallGuard, TransportState};
use super::stats::{CallGuard, RpcKind};
use super::stream_state::StreamState;
use crate::rpc::response::{Chunk, ResponseBody};
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

/// Bytes of messages in one DATA frame, and bytes that a stream passes to h2 before other streams take their turn.
const TURN_BYTES: usize = 64 * 1024;

/// Bytes from which an answer counts as long.
const LONG_ANSWER: usize = 64 * 1024;

pin_project! {
    /// The future of one call. Its output is the number of the call's stream.
    pub(super) struct CallFuture<S: Services> {
        #[pin]
        stage: Stage<S>,
        io: CallIo,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<S: Services> {
        // Boxed: most of a call's life needs neither.
        Queued { queued: Option<Box<(http::Request<Body>, S)>> },
        Handling { response: Pin<Box<S::Future>> },
        Sending { #[pin] body: S::Reply },
        AwaitingHalfClose,
    }
}

/// The HTTP/2 side of a call: its stream, request, output and deadlines.
struct CallIo {
    id: u32,
    transport: Arc<TransportState>,
    stream: Arc<StreamState>,
    request: RequestReader,
    output: Output,
    /// Data of the response that is being sent in parts.
    pending: PendingData,
    /// `None` once the response is complete.
    rpc: Option<ActiveRpc>,
    deadlines: Deadlines,
    /// h2 has the call's waker, and wakes it when the peer resets the stream.
    watches_reset: bool,
    /// Space for the answer, until the service returns it.
    reservation: Option<AnswerReservation>,
    /// Count the call until the response is complete.
    guards: Option<(OpenCallGuard, CallGuard)>,
}

enum Output {
    Head(SendResponse<InFlightData>),
    Body(SendStream<InFlightData>),
}

/// Whether a call may go to its service.
enum Admission {
    Now,
    /// The call is woken when it may.
    Later,
    Never,
}

/// How a poll of a stage ends.
#[derive(PartialEq, Eq)]
enum Step {
    /// Poll the stage that is current now.
    Continue,
    /// The response is complete.
    ResponseSent,
    /// The call is over.
    Finished,
}

/// A call as the connection accepted it.
pub(super) struct AcceptedCall {
    pub(super) id: u32,
    pub(super) transport: Arc<TransportState>,
    pub(super) stream: Arc<StreamState>,
    pub(super) request: RequestReader,
    pub(super) respond: SendResponse<InFlightData>,
    pub(super) rpc: ActiveRpc,
}

impl<S: Services> Stage<S> {
    /// Whether the response ends by itself when the request is invalid or late.
    fn handles_request_errors(&self) -> bool {
        match self {
            Self::Sending { body } => body.handles_request_errors(),
            Self::Queued { .. } | Self::Handling { .. } => false,
            Self::AwaitingHalfClose => true,
        }
    }
}

impl<S: Services> CallFuture<S> {
    /// A call for the services.
    pub(super) fn new(
        services: S,
        call: AcceptedCall,
        request: http::Request<Body>,
        guards: (OpenCallGuard, CallGuard),
        limits: &Arc<TransportLimits>,
    ) -> Self {
        let mut io = CallIo::new(call, limits);
        io.deadlines.set_call_timeout(grpc_timeout::parse(request.headers()));
        io.guards = Some(guards);
        Self { stage: Stage::Queued { queued: Some(Box::new((request, services))) }, io }
    }

    /// A call above the limit of concurrent calls. It gets its status without reaching a service.
    pub(super) fn refused(call: AcceptedCall, limits: &Arc<TransportLimits>) -> Self {
        let status = too_many_calls(call.rpc.kind(), limits.calls);
        let mut io = CallIo::new(call, limits);
        // If the stream is gone already, the next poll finds out.
        io.refuse(&status);
        io.await_half_close();
        Self { stage: Stage::AwaitingHalfClose, io }
    }
}

fn too_many_calls(kind: RpcKind, max: usize) -> Status {
    let (what, reason) = match kind {
        RpcKind::Unary => ("unary calls", "TOO_MANY_CALLS"),
        RpcKind::Streaming => ("connections", "TOO_MANY_CONNECTIONS"),
    };
    let words = format!("the server has all the {max} {what} it may have");
    refused(Code::ResourceExhausted, words, reason, &[], Some(retry_after()))
}

/// The status of a call for whose answer there is no space.
fn answers_unread() -> Status {
    let words = "too many answers have not been read";
    refused(Code::ResourceExhausted, words, "ANSWERS_UNREAD", &[], Some(retry_after()))
}

impl<S: Services> Future for CallFuture<S> {
    type Output = u32;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u32> {
        let mut this = self.project();
        let io = this.io;
        io.stream.register(cx.waker());
        if io.stream.is_aborted() {
            io.reset(Reason::CANCEL);
            return io.finish();
        }
        let progress = io.request.poll_read(cx);
        if progress == RequestProgress::Gone {
            return io.finish();
        }
        io.deadlines.update_request(progress);
        loop {
            let step = match io.request.take_failure() {
                Some(status) if !this.stage.handles_request_errors() => Poll::Ready(io.refuse(&status)),
                _ => this.stage.as_mut().poll(io, cx),
            };
            let step = match step {
                Poll::Ready(step) => step,
                Poll::Pending => {
                    let expired = ready!(io.deadlines.poll(cx));
                    io.on_expired(expired)
                }
            };
            match step {
                Step::Continue => {}
                Step::ResponseSent => {
                    // Drops the response with everything that it holds.
                    this.stage.set(Stage::AwaitingHalfClose);
                    io.await_half_close();
                }
                Step::Finished => return io.finish(),
            }
        }
    }
}

impl<S: Services> Stage<S> {
    fn poll(mut self: Pin<&mut Self>, io: &mut CallIo, cx: &mut Context<'_>) -> Poll<Step> {
        match self.as_mut().project() {
            StageProjection::Queued { queued } => match io.admit() {
                Admission::Later => io.poll_reset(cx),
                Admission::Never => Poll::Ready(io.refuse(&answers_unread())),
                Admission::Now => match queued.take() {
                    None => Poll::Ready(Step::Finished),
                    Some(call) => {
                        let (request, mut services) = *call;
                        let response = Box::pin(io.in_span(|| services.call(request)));
                        self.set(Self::Handling { response });
                        Poll::Ready(Step::Continue)
                    }
                },
            },
            StageProjection::Handling { response } => match io.in_span(|| response.as_mut().poll(cx)) {
                Poll::Ready(Ok(response)) => {
                    io.reservation = None;
                    let (head, body) = response.into_parts();
                    let ends = body.is_end_stream();
                    let step = io.send_head(Response::from_parts(head, ()), ends);
                    self.set(Self::Sending { body });
                    Poll::Ready(step)
                }
                Poll::Ready(Err(never)) => match never {},
                Poll::Pending => io.poll_reset(cx),
            },
            StageProjection::Sending { body } => io.poll_send(body, cx),
            StageProjection::AwaitingHalfClose if io.request.has_ended() => Poll::Ready(Step::Finished),
            StageProjection::AwaitingHalfClose => Poll::Pending,
        }
    }
}

impl CallIo {
    fn new(call: AcceptedCall, limits: &Arc<TransportLimits>) -> Self {
        let AcceptedCall { id, transport, stream, request, respond, rpc } = call;
        Self {
            id,
            pending: PendingData::new(&transport.answers),
            deadlines: Deadlines::new(&rpc, &request, limits),
            transport,
            stream,
            request,
            output: Output::Head(respond),
            rpc: Some(rpc),
            watches_reset: false,
            reservation: None,
            guards: None,
        }
    }

    fn windows(&self) -> &SendWindows {
        &self.transport.socket.windows
    }

    /// Ends the call's future.
    fn finish(&self) -> Poll<u32> {
        self.stream.close();
        Poll::Ready(self.id)
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.output {
            Output::Head(head) => head.send_reset(reason),
            Output::Body(body) => body.send_reset(reason),
        }
    }

    /// Releases what the call holds, and waits for the peer to half-close. For when the response is complete.
    fn await_half_close(&mut self) {
        self.stream.close();
        self.rpc = None;
        self.reservation = None;
        self.guards = None;
        self.request.discard_rest();
        self.deadlines.await_half_close();
    }

    /// Runs a part of the service inside the call's span.
    fn in_span<T>(&self, f: impl FnOnce() -> T) -> T {
        RpcSpan::in_scope(self.rpc.as_ref().and_then(ActiveRpc::span), f)
    }

    fn is_unary(&self) -> bool {
        self.rpc.as_ref().is_some_and(|rpc| rpc.kind() == RpcKind::Unary)
    }

    /// Whether the call may go to its service now. A unary call reserves space for its answer first.
    fn admit(&mut self) -> Admission {
        let Some(rpc) = self.rpc.as_ref().filter(|rpc| rpc.kind() == RpcKind::Unary) else {
            return Admission::Now;
        };
        let bytes = rpc.limits().answer_bytes;
        if bytes >= LONG_ANSWER && self.transport.stats.unread_answer_bytes() >= ALL_UNREAD_ANSWERS_MAX {
            return Admission::Never;
        }
        self.reservation = self.transport.answers.reserve(&self.stream, bytes);
        if self.reservation.is_none() {
            self.deadlines.start_answer_space();
            return Admission::Later;
        }
        self.deadlines.clear_answer_space();
        Admission::Now
    }

    fn on_expired(&mut self, expired: Expired) -> Step {
        match expired {
            Expired::Request => {
                if self.deadlines.fail_or_extend_request(self.request.has_unread_data()) {
                    self.request.fail_incomplete(self.deadlines.request_timeout());
                }
                Step::Continue
            }
            Expired::Call => self.refuse(&Status::deadline_exceeded("the deadline of the call has passed")),
            Expired::AnswerSpace => self.refuse(&answers_unread()),
            Expired::ResponseStall => {
                tracing::debug!(stream = self.id, "stream reset: the peer takes nothing");
                self.reset(Reason::CANCEL);
                Step::Finished
            }
            Expired::HalfClose => Step::Finished,
        }
    }

    /// Waits for the next wake after `sent` bytes in this poll, and for a reset by the peer.
    ///
    /// h2 keeps the waker until it wakes it, so it need not be registered again with each frame. Whatever else uses it up
    /// leads to a poll that sends nothing, which registers it again.
    fn wait(&mut self, sent: usize, cx: &mut Context<'_>) -> Poll<Step> {
        if sent > 0 && self.watches_reset {
            return Poll::Pending;
        }
        self.watches_reset = true;
        self.poll_reset(cx)
    }

    /// Ready when the peer has reset the stream.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let reset = match &mut self.output {
            Output::Head(head) => head.poll_reset(cx),
            Output::Body(body) => body.poll_reset(cx),
        };
        reset.map(|_| Step::Finished)
    }

    fn send_head(&mut self, head: Response<()>, ends: bool) -> Step {
        if let Some(rpc) = &mut self.rpc {
            rpc.finish_by_headers(head.headers());
        }
        let Output::Head(respond) = &mut self.output else { return Step::Finished };
        match respond.send_response(head, ends) {
            Err(_) => Step::Finished,
            Ok(_) if ends => Step::ResponseSent,
            Ok(body) => {
                self.output = Output::Body(body);
                Step::Continue
            }
        }
    }

    /// Ends the call with a status of the transport's.
    fn refuse(&mut self, status: &Status) -> Step {
        if let Output::Head(_) = &self.output {
            let (head, _) = status.clone().into_http::<Body>().into_parts();
            return self.send_head(Response::from_parts(head, ()), true);
        }
        if !self.pending.is_empty() {
            // Trailers would cut a message in the middle.
            self.reset(Reason::CANCEL);
            return Step::Finished;
        }
        let mut trailers = HeaderMap::new();
        // The transport's statuses have no characters that a header cannot have.
        let _ = status.add_header(&mut trailers);
        self.send_trailers(trailers)
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Step {
        if let Some(rpc) = &mut self.rpc {
            rpc.finish_by_headers(&trailers);
        }
        let Output::Body(body) = &mut self.output else { return Step::Finished };
        if body.send_trailers(trailers).is_ok() { Step::ResponseSent } else { Step::Finished }
    }

    /// Passes `data` to h2. The windows accept all of it.
    fn send_data(&mut self, data: Bytes) -> Result<(), h2::Error> {
        let Output::Body(body) = &mut self.output else { return Ok(()) };
        self.transport.socket.windows.consume(&self.stream.window, data.len());
        body.send_data(InFlightData::new(data, &self.transport), false)
    }

    /// Sends what the response has, as far as the windows allow.
    fn poll_send<B: ResponseBody>(&mut self, mut body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<Step> {
        // Answers have a stall limit, and so do messages of a broadcast that are sent in parts. Other streams, such as
        // watches, hold one message at most, and may wait.
        let has_stall_limit = self.is_unary() || body.handles_request_errors();
        let mut sent = 0;
        loop {
            let blocked = self.transport.socket.is_blocked();
            let open = self.windows().available(&self.stream.window, blocked);
            if !self.pending.is_empty() {
                let needed = self.pending.len();
                let grant = match open {
                    0 => self.windows().acquire_rest(&self.stream, needed, blocked),
                    open => Grant::Now(open),
                };
                let Grant::Now(open) = grant else { return self.wait(sent, cx) };
                if sent >= TURN_BYTES {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let part = self.pending.split_to(needed.min(open).min(TURN_BYTES));
                sent += part.len();
                if self.send_data(part).is_err() {
                    return Poll::Ready(Step::Finished);
                }
                self.deadlines.restart_response_stall(has_stall_limit && !self.pending.is_empty());
                continue;
            }
            let room = open.min(TURN_BYTES - sent);
            let needed = match body.as_mut().poll_chunk(cx, room) {
                Poll::Pending => return self.wait(sent, cx),
                Poll::Ready(Chunk::Data(data)) if data.len() <= room => {
                    sent += data.len();
                    if self.send_data(data).is_err() {
                        return Poll::Ready(Step::Finished);
                    }
                    continue;
                }
                Poll::Ready(Chunk::Data(data)) => {
                    self.send_in_parts(data, has_stall_limit);
                    continue;
                }
                Poll::Ready(Chunk::NeedsCapacity(needed)) => needed,
                Poll::Ready(Chunk::Trailers(trailers)) => return Poll::Ready(self.send_trailers(trailers)),
                Poll::Ready(Chunk::End) => return Poll::Ready(self.end()),
                Poll::Ready(Chunk::Failed) => {
                    self.reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Step::Finished);
                }
            };
            if sent > 0 && needed <= open {
                // It fits, but other streams take their turn first.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if needed > open && self.windows().acquire(&self.stream, needed, blocked) == Grant::Later {
                return self.wait(sent, cx);
            }
            // As long as one frame's messages, or it is sent in parts.
            let mut needed = needed;
            loop {
                match body.as_mut().poll_chunk(cx, needed) {
                    Poll::Ready(Chunk::Data(data)) => break self.send_in_parts(data, has_stall_limit),
                    Poll::Ready(Chunk::Trailers(trailers)) => {
                        return Poll::Ready(self.send_trailers(trailers));
                    }
                    // A message without an offset goes out with the next one, whose size was not known before. Starting
                    // over would find the same for as long as the peer holds back its window update.
                    Poll::Ready(Chunk::NeedsCapacity(more)) if more > needed => needed = more,
                    Poll::Ready(_) | Poll::Pending => {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Stores data that [`CallIo::poll_send`] sends in parts.
    fn send_in_parts(&mut self, data: Bytes, has_stall_limit: bool) {
        self.pending.set(data);
        self.deadlines.restart_response_stall(has_stall_limit);
    }

    /// Ends the response without trailers.
    fn end(&mut self) -> Step {
        let Output::Body(body) = &mut self.output else { return Step::Finished };
        let empty = InFlightData::new(Bytes::new(), &self.transport);
        if body.send_data(empty, true).is_ok() { Step::ResponseSent } else { Step::Finished }
    }
}
