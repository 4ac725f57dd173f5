//! The future of one transport: HTTP/2 on a socket, its calls, and its lifecycle.
//!
//! The three are sub-tasks of one task (see [`super::sub_tasks`]). A poll goes around those that were woken: the calls write
//! into h2, h2 writes into the socket and opens calls, and the lifecycle watches the clock. Deliberately does not know what
//! a call does; see [`super::call_future`].

use super::call::CallContext;
use super::call_future::{AcceptedCall, CallFuture};
use super::in_flight::InFlightData;
use super::lifecycle::{Action, CloseReason, Lifecycle};
use super::limits::TransportLimits;
use super::not_grpc;
use super::request::RequestReader;
use super::rpc_metrics::RpcMetrics;
use super::services::Services;
use super::socket::{ByteStream, Socket};
use super::state::{OpenCallGuard, TransportState};
use super::stream_state::StreamState;
use super::sub_tasks::{SubTask, SubTaskSet, SubTaskWaker};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use h2::RecvStream;
use h2::server::{self, Handshake, SendResponse};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::net::TcpStream;
use tonic::body::Body;

/// Bytes of unread request data that one stream, and one transport, may have.
const STREAM_WINDOW: u32 = 64 * 1024;
const TRANSPORT_WINDOW: u32 = 1024 * 1024;
/// h2 closes transports with many small unread frames. Here they are read in every turn, and a turn has few of them; but h2
/// also counts, forever, frames for a stream that has just ended.
const DATA_FRAME_BUDGET: usize = u32::MAX as usize;
const FRAME_MAX: u32 = 16 * 1024;
const HEADERS_MAX: u32 = 16 * 1024;
const HEADER_TABLE: u32 = 4 * 1024;
/// Streams that may be reset for the peer's errors before h2 closes the transport: the attack known as "`MadeYouReset`".
const ERROR_RESETS_MAX: usize = 1024;
/// Rounds over the sub-tasks in one poll of the task.
const ROUNDS: usize = 8;

enum Http2<I: ByteStream> {
    Handshake(Handshake<Socket<I>, InFlightData>),
    Serving(server::Connection<Socket<I>, InFlightData>),
}

/// The future of one transport. It is ready when the transport is closed.
pub(super) struct Connection<S: Services, I: ByteStream = TcpStream> {
    transport: Arc<TransportState>,
    http2: Http2<I>,
    /// Boxed: the set always has space for one more future, which would stay unused.
    calls: FuturesUnordered<Pin<Box<CallFuture<S>>>>,
    streams: HashMap<u32, Arc<StreamState>>,
    /// Calls were opened that have not been polled.
    has_new_calls: bool,
    services: S,
    metrics: Arc<RpcMetrics>,
    limits: Arc<TransportLimits>,
    lifecycle: Lifecycle,
    wakers: Wakers,
}

struct Wakers {
    calls: Waker,
    http2: Waker,
    lifecycle: Waker,
}

impl<S: Services, I: ByteStream> Connection<S, I> {
    pub(super) fn new(
        io: I,
        transport: Arc<TransportState>,
        services: S,
        metrics: Arc<RpcMetrics>,
        limits: Arc<TransportLimits>,
    ) -> Self {
        let socket = Socket::new(io, Arc::clone(&transport.socket), limits.write_stall);
        let handshake = server::Builder::new()
            .max_concurrent_streams(limits.streams)
            .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
            // Calls that are reset before they are accepted ("rapid reset"). With h2's default of 20, a client that opens and
            // drops calls in a loop loses its transport, and with it its other calls there.
            .max_pending_accept_reset_streams(limits.streams as usize)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(TRANSPORT_WINDOW)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .max_frame_size(FRAME_MAX)
            .max_header_list_size(HEADERS_MAX)
            .header_table_size(HEADER_TABLE)
            // A stream passes no more than its windows accept, which is never more than this.
            .max_send_buffer_size(limits.message_bytes + FRAME_MAX as usize)
            .handshake(socket);
        let waker = |sub_task| SubTaskWaker::waker(sub_task, &transport.sub_tasks);
        let wakers = Wakers {
            calls: waker(SubTask::Calls),
            http2: waker(SubTask::Http2),
            lifecycle: waker(SubTask::Lifecycle),
        };
        let lifecycle = Lifecycle::new(Arc::clone(&transport), Arc::clone(&limits));
        Self {
            transport,
            http2: Http2::Handshake(handshake),
            calls: FuturesUnordered::new(),
            streams: HashMap::new(),
            has_new_calls: false,
            services,
            metrics,
            limits,
            lifecycle,
            wakers,
        }
    }

    /// Polls the sub-tasks that were woken, until none is.
    fn poll_rounds(&mut self, task: &Waker) -> Poll<CloseReason> {
        let sub_tasks = Arc::clone(&self.transport.sub_tasks);
        for _ in 0..ROUNDS {
            let Some(woken) = sub_tasks.take_woken() else { return Poll::Pending };
            if woken.has(SubTask::Calls) {
                self.poll_calls();
                if std::mem::take(&mut self.has_new_calls) {
                    // Other tasks of this thread run before the responses are written: what a call started there, such as
                    // a join, is then done.
                    sub_tasks.yield_now(woken.without(SubTask::Calls), task);
                    return Poll::Pending;
                }
            }
            // The calls' data wakes HTTP/2, which is polled next anyway.
            if sub_tasks.clear_wake(SubTask::Http2) || woken.has(SubTask::Http2) {
                if let Poll::Ready(reason) = self.poll_http2() {
                    return Poll::Ready(reason);
                }
                let socket = &self.transport.socket;
                socket.windows.apply_updates(&self.streams);
                if socket.start_next_turn() {
                    // The calls process what was read, then other tasks run, and then the rest is read.
                    self.poll_calls();
                    sub_tasks.yield_now(woken.without(SubTask::Calls).with(SubTask::Http2), task);
                    return Poll::Pending;
                }
            }
            let socket = &self.transport.socket;
            socket.windows.wake_queued(socket.is_blocked());
            if woken.has(SubTask::Lifecycle)
                && let Poll::Ready(reason) = self.poll_lifecycle()
            {
                return Poll::Ready(reason);
            }
        }
        sub_tasks.yield_now(SubTaskSet::NONE, task);
        Poll::Pending
    }

    fn poll_calls(&mut self) {
        let mut cx = Context::from_waker(&self.wakers.calls);
        while let Poll::Ready(Some(id)) = self.calls.poll_next_unpin(&mut cx) {
            self.streams.remove(&id);
        }
    }

    fn poll_http2(&mut self) -> Poll<CloseReason> {
        loop {
            let mut cx = Context::from_waker(&self.wakers.http2);
            let accepted = match &mut self.http2 {
                Http2::Handshake(handshake) => match Pin::new(handshake).poll(&mut cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(CloseReason::Failed(error)),
                    Poll::Ready(Ok(mut connection)) => {
                        self.lifecycle.start_keepalive(connection.ping_pong());
                        self.http2 = Http2::Serving(connection);
                        continue;
                    }
                },
                Http2::Serving(connection) => match connection.poll_accept(&mut cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return Poll::Ready(CloseReason::Done),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(CloseReason::Failed(error)),
                    Poll::Ready(Some(Ok(accepted))) => accepted,
                },
            };
            let (request, respond) = accepted;
            self.open_call(request, respond);
        }
    }

    fn open_call(&mut self, request: http::Request<RecvStream>, mut respond: SendResponse<InFlightData>) {
        if let Some(response) = not_grpc::reject(&request) {
            // An error means that the stream is gone already.
            let _ = respond.send_response(response, true);
            return;
        }
        let transport = &self.transport;
        let rpc = self.metrics.start(request.uri().path(), request.headers(), transport.peer);
        let id = respond.stream_id().as_u32();
        let stream = Arc::new(StreamState::default());
        let (head, incoming) = request.into_parts();
        let (reader, body) = RequestReader::new(incoming, rpc.limits().request_bytes, rpc.has_one_request());
        self.streams.insert(id, Arc::clone(&stream));
        let mut request = http::Request::from_parts(head, Body::new(body));
        request.extensions_mut().insert(CallContext::new(transport, &stream, rpc.span()));
        let guard = transport.stats.open_call(rpc.kind(), self.limits.calls);
        let transport = Arc::clone(transport);
        let call = AcceptedCall { id, transport, stream, request: reader, respond, rpc };
        let future = match guard {
            None => CallFuture::refused(call, &self.limits),
            Some(guard) => {
                let guards = (OpenCallGuard::new(&self.transport), guard);
                CallFuture::new(self.services.clone(), call, request, guards, &self.limits)
            }
        };
        self.calls.push(Box::pin(future));
        self.has_new_calls = true;
        self.transport.sub_tasks.wake(SubTask::Calls);
    }

    fn poll_lifecycle(&mut self) -> Poll<CloseReason> {
        loop {
            let mut cx = Context::from_waker(&self.wakers.lifecycle);
            match self.lifecycle.poll(&mut cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Action::Close(reason)) => return Poll::Ready(reason),
                Poll::Ready(Action::SendGoAway) => match &mut self.http2 {
                    Http2::Serving(connection) => {
                        connection.graceful_shutdown();
                        self.transport.sub_tasks.wake(SubTask::Http2);
                    }
                    // There is no HTTP/2 yet that could send it.
                    Http2::Handshake(_) => return Poll::Ready(CloseReason::AfterGoAway),
                },
            }
        }
    }
}

impl<S: Services, I: ByteStream> Future for Connection<S, I> {
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.transport.sub_tasks.begin_poll(cx.waker());
        self.poll_rounds(cx.waker())
    }
}

// No field is pinned in place: the calls are boxed.
impl<S: Services, I: ByteStream> Unpin for Connection<S, I> {}
