//! One transport's life: HTTP/2 on a socket, its calls, and the deadlines around both.

use super::call::{Call, CallState, OpenCall, Transport};
use super::gate;
use super::in_flight::InFlightData;
use super::life::{Due, Life};
use super::methods::Methods;
use super::request::Request;
use super::response::ResponseBody;
use super::socket::Socket;
use super::stream::{NewCall, Stream};
use super::waker::{Part, PartWaker, Woken};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use h2::RecvStream;
use h2::server::{self, Handshake, SendResponse};
use http::Response;
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::body::Body;
use tower::Service;

/// A transport's bounds. Defaults and their reasons are in [`crate::config`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Calls at a time on one transport.
    pub streams: u32,
    /// Calls of each kind, unary and streaming, on all transports of a listener.
    pub calls: usize,
    /// Bytes of the longest message that a response has, with its prefix.
    pub message_bytes: usize,
    /// Time for the HTTP/2 preface.
    pub preface_deadline: Duration,
    /// Time for the first call.
    pub first_stream_deadline: Duration,
    /// Time for a unary request, and for each message of a streaming one, to be complete.
    pub request_deadline: Duration,
    /// Time in which the peer takes something of an answer that waits for it.
    pub response_stall: Duration,
    /// Time that bytes may wait for the socket.
    pub write_stall: Duration,
    /// Time without an open call.
    pub idle: Duration,
    /// HTTP/2 ping interval.
    pub keepalive_interval: Duration,
    /// Time for the answer to a ping.
    pub keepalive_timeout: Duration,
}

/// Bytes of unread input that one stream, and one transport, may send ahead.
const STREAM_WINDOW: u32 = 64 * 1024;
const TRANSPORT_WINDOW: u32 = 1024 * 1024;
/// h2 closes transports with many small unread frames. Ours are read in every turn, and few of them come in one; but h2
/// also counts, for ever, those that come for a stream that has just ended.
const DATA_FRAME_BUDGET: usize = u32::MAX as usize;
const FRAME_MAX: u32 = 16 * 1024;
const HEADERS_MAX: u32 = 16 * 1024;
const HEADER_TABLE: u32 = 4 * 1024;
/// Streams reset for the peer's errors before it is sent away: the class of attack known as "`MadeYouReset`".
const ERROR_RESETS_MAX: usize = 1024;
/// Rounds over the parts of a transport in one poll of its task.
const ROUNDS: usize = 8;

/// The services that calls go to; a clone for each transport.
pub trait Services:
    Service<http::Request<Body>, Response = Response<Self::Reply>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
    /// The body of its responses.
    type Reply: ResponseBody + From<Body>;
}

impl<S, B> Services for S
where
    S: Service<http::Request<Body>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    B: ResponseBody + From<Body>,
{
    type Reply = B;
}

/// Why a transport ended.
#[derive(Debug)]
pub(super) enum Closed {
    /// The peer closed, or both sides were done.
    Done,
    /// It did not begin to speak HTTP/2 in time.
    NoPreface,
    /// It opened no call in time.
    NoCall,
    /// It did not answer a ping.
    NoPong,
    /// It was told to go, has no call left, and its peer does not close it.
    AfterGoAway,
    /// Its socket, or what came over it.
    Failed(h2::Error),
}

enum Http2 {
    Handshake(Handshake<Socket, InFlightData>),
    Serving(server::Connection<Socket, InFlightData>),
}

/// The future of one transport. It ends when the transport is closed.
pub(super) struct Connection<S: Services> {
    transport: Arc<Transport>,
    http2: Http2,
    /// Behind pointers: the set has room for one more, which is never used.
    calls: FuturesUnordered<Pin<Box<Stream<S>>>>,
    by_id: HashMap<u32, Arc<CallState>>,
    /// Calls were opened that have not been polled.
    has_new_calls: bool,
    services: S,
    methods: Arc<Methods>,
    limits: Arc<Limits>,
    life: Life,
    wakers: Wakers,
}

struct Wakers {
    calls: Waker,
    http2: Waker,
    life: Waker,
}

impl<S: Services> Connection<S> {
    pub(super) fn new(
        socket: TcpStream,
        transport: Arc<Transport>,
        services: S,
        methods: Arc<Methods>,
        limits: Arc<Limits>,
    ) -> Self {
        let socket = Socket::new(socket, Arc::clone(&transport.flow), limits.write_stall);
        let handshake = server::Builder::new()
            .max_concurrent_streams(limits.streams)
            .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
            // Calls that are dropped before we look at them ("rapid reset"). h2's 20 closes the transport of a client
            // that opens and drops calls in a loop, and with it its neighbours' calls there.
            .max_pending_accept_reset_streams(limits.streams as usize)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(TRANSPORT_WINDOW)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .max_frame_size(FRAME_MAX)
            .max_header_list_size(HEADERS_MAX)
            .header_table_size(HEADER_TABLE)
            // What a stream hands over is within its windows, and is never more than this.
            .max_send_buffer_size(limits.message_bytes + FRAME_MAX as usize)
            .handshake(socket);
        let waker = |part| PartWaker::waker(part, &transport.parts);
        let wakers = Wakers { calls: waker(Part::Calls), http2: waker(Part::Http2), life: waker(Part::Life) };
        let life = Life::new(Arc::clone(&transport), Arc::clone(&limits));
        Self {
            transport,
            http2: Http2::Handshake(handshake),
            calls: FuturesUnordered::new(),
            by_id: HashMap::new(),
            has_new_calls: false,
            services,
            methods,
            limits,
            life,
            wakers,
        }
    }

    /// Polls what was woken, until nothing is.
    fn rounds(&mut self, task: &Waker) -> Poll<Closed> {
        let parts = Arc::clone(&self.transport.parts);
        for _ in 0..ROUNDS {
            let Some(woken) = parts.next() else { return Poll::Pending };
            if woken.has(Part::Calls) {
                self.poll_calls();
                if std::mem::take(&mut self.has_new_calls) {
                    // Whatever a call has set in motion on this thread, such as a join, is done before its response goes out.
                    parts.yield_now(woken.without(Part::Calls), task);
                    return Poll::Pending;
                }
            }
            // What the calls have handed over wakes HTTP/2, which is polled now anyway.
            if parts.take(Part::Http2) || woken.has(Part::Http2) {
                if let Poll::Ready(closed) = self.poll_http2() {
                    return Poll::Ready(closed);
                }
                let Transport { flow, .. } = &*self.transport;
                flow.windows.apply(&self.by_id);
                if flow.begin_turn() {
                    // The calls take what has come, then others have their turn, and then the rest is read.
                    self.poll_calls();
                    parts.yield_now(woken.without(Part::Calls).with(Part::Http2), task);
                    return Poll::Pending;
                }
            }
            self.transport.flow.windows.advance(self.transport.flow.is_blocked());
            if woken.has(Part::Life)
                && let Poll::Ready(closed) = self.poll_life()
            {
                return Poll::Ready(closed);
            }
        }
        parts.yield_now(Woken::NONE, task);
        Poll::Pending
    }

    fn poll_calls(&mut self) {
        let mut cx = Context::from_waker(&self.wakers.calls);
        while let Poll::Ready(Some(id)) = self.calls.poll_next_unpin(&mut cx) {
            self.by_id.remove(&id);
        }
    }

    fn poll_http2(&mut self) -> Poll<Closed> {
        loop {
            let mut cx = Context::from_waker(&self.wakers.http2);
            let accepted = match &mut self.http2 {
                Http2::Handshake(handshake) => match Pin::new(handshake).poll(&mut cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Closed::Failed(error)),
                    Poll::Ready(Ok(mut connection)) => {
                        self.life.serves(connection.ping_pong());
                        self.http2 = Http2::Serving(connection);
                        continue;
                    }
                },
                Http2::Serving(connection) => match connection.poll_accept(&mut cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return Poll::Ready(Closed::Done),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Closed::Failed(error)),
                    Poll::Ready(Some(Ok(accepted))) => accepted,
                },
            };
            let (request, respond) = accepted;
            self.open_call(request, respond);
        }
    }

    fn open_call(&mut self, request: http::Request<RecvStream>, mut respond: SendResponse<InFlightData>) {
        if let Some(answer) = gate::refuse(&request) {
            // An error means that the stream is gone already.
            let _ = respond.send_response(answer, true);
            return;
        }
        let rpc = self.methods.start(request.uri().path(), request.headers(), self.transport.peer);
        let id = respond.stream_id().as_u32();
        let state = CallState::new(&self.transport);
        let (head, incoming) = request.into_parts();
        let (incoming, body) = Request::new(incoming, rpc.limits().request_bytes, rpc.has_one_request());
        self.by_id.insert(id, Arc::clone(&state));
        let counted = self.transport.census.open_call(rpc.kind(), self.limits.calls);
        let call = NewCall { id, state: Arc::clone(&state), request: incoming, respond, rpc };
        let stream = match counted {
            None => Stream::refused(call, &self.limits),
            Some(counted) => {
                let mut request = http::Request::from_parts(head, Body::new(body));
                request.extensions_mut().insert(Call::new(&state, call.rpc.span()));
                let open = (OpenCall::new(&self.transport), counted);
                Stream::new(self.services.clone(), call, request, open, &self.limits)
            }
        };
        self.calls.push(Box::pin(stream));
        self.has_new_calls = true;
        self.transport.parts.wake(Part::Calls);
    }

    fn poll_life(&mut self) -> Poll<Closed> {
        loop {
            let mut cx = Context::from_waker(&self.wakers.life);
            match self.life.poll(&mut cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Due::Close(closed)) => return Poll::Ready(closed),
                Poll::Ready(Due::GoAway) => match &mut self.http2 {
                    Http2::Serving(connection) => {
                        connection.graceful_shutdown();
                        self.transport.parts.wake(Part::Http2);
                    }
                    // It has not even begun.
                    Http2::Handshake(_) => return Poll::Ready(Closed::AfterGoAway),
                },
            }
        }
    }
}

impl<S: Services> Future for Connection<S> {
    type Output = Closed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closed> {
        self.transport.parts.begin(cx.waker());
        self.rounds(cx.waker())
    }
}

// Nothing in it is pinned in place: the calls are behind pointers.
impl<S: Services> Unpin for Connection<S> {}
