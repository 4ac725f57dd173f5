//! One transport's life: HTTP/2 on a socket, with the deadlines around it.

use super::call::{Shared, StreamExecutor};
use super::gate;
use super::io::Socket;
use super::linger::{Exchange, Said};
use super::rpcs::{Counted, Counting, Rpcs};
use bytes::Bytes;
use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tonic::body::Body;
use tower::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A transport's bounds. Defaults and their reasons are in [`crate::config`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Calls at a time on one transport.
    pub streams: u32,
    /// Time for the HTTP/2 preface.
    pub preface_deadline: Duration,
    /// Time for the first call.
    pub first_stream_deadline: Duration,
    /// Time that bytes may wait for the socket.
    pub write_stall: Duration,
    /// HTTP/2 ping interval.
    pub keepalive_interval: Duration,
    /// Time for the answer to a ping.
    pub keepalive_timeout: Duration,
}

/// Bytes of unread input that one stream, and one transport, may send ahead. The second is large because h2
/// closes connections whose many small unread frames exceed half of it.
const STREAM_WINDOW: u32 = 64 * 1024;
const TRANSPORT_WINDOW: u32 = 1024 * 1024;
/// Bytes that one stream may have waiting to be written.
const SEND_BUFFER: usize = 64 * 1024;
const FRAME_MAX: u32 = 16 * 1024;
const HEADERS_MAX: u32 = 16 * 1024;
const HEADER_TABLE: u32 = 4 * 1024;
/// Streams reset for the peer's errors before it is sent away: the class of attack known as "`MadeYouReset`".
const ERROR_RESETS_MAX: usize = 1024;
/// After its goodbye, how long a transport may wait for its peer to close it once no call is left on it and everything
/// has been written.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(500);

type Http2<S> = http2::Connection<TokioIo<Socket>, Gated<S>, StreamExecutor>;

/// The services that calls go to; a clone for each transport.
pub trait Services:
    Service<Request<Body>, Response = Response<Self::Reply>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
    /// The body of its responses.
    type Reply: http_body::Body<Data = Bytes, Error: Into<BoxError>> + From<Body> + Send + 'static;
}

impl<S, B> Services for S
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + From<Body> + Send + 'static,
{
    type Reply = B;
}

/// Why a transport was closed by us, rather than by its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// The peer closed, or both sides were done.
    Done,
    NoPreface,
    NoCall,
    /// It was told to go, has no call left, and its peer does not close it.
    AfterGoodbye,
}

pin_project! {
    /// The future of one transport. It ends when the transport is closed.
    pub(super) struct Connection<S: Services> {
        #[pin]
        http2: Http2<S>,
        shared: Arc<Shared>,
        // The preface's deadline, then the first call's, then none.
        deadline: Option<Pin<Box<Sleep>>>,
        after_preface: Duration,
        said_goodbye: bool,
    }
}

impl<S: Services> Connection<S> {
    pub(super) fn new(
        socket: TcpStream,
        shared: Arc<Shared>,
        services: S,
        rpcs: Arc<Rpcs>,
        limits: &Limits,
    ) -> Self {
        let socket = Socket::new(socket, Arc::clone(&shared.flow), limits.write_stall);
        let mut builder = http2::Builder::new(StreamExecutor(Arc::clone(&shared)));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_local_error_reset_streams(ERROR_RESETS_MAX)
            // Calls that are dropped before we look at them ("rapid reset"). h2's 20 closes the transport of a client
            // that opens and drops calls in a loop, and with it its neighbours' calls there.
            .max_pending_accept_reset_streams(limits.streams as usize)
            .keep_alive_interval(limits.keepalive_interval)
            .keep_alive_timeout(limits.keepalive_timeout)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(TRANSPORT_WINDOW)
            .max_frame_size(FRAME_MAX)
            .max_header_list_size(HEADERS_MAX)
            .header_table_size(HEADER_TABLE)
            .max_send_buf_size(SEND_BUFFER);
        let service = Gated { services, shared: Arc::clone(&shared), rpcs };
        let after_preface = limits.first_stream_deadline;
        Self {
            http2: builder.serve_connection(TokioIo::new(socket), service),
            shared,
            deadline: Some(Box::pin(sleep(limits.preface_deadline))),
            after_preface: after_preface.saturating_sub(limits.preface_deadline),
            said_goodbye: false,
        }
    }
}

impl<S: Services> Future for Connection<S> {
    type Output = Result<Closed, hyper::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Poll::Ready(end) = this.http2.as_mut().poll(cx) {
                return Poll::Ready(end.map(|()| Closed::Done));
            }
            if this.shared.take_attention(cx) && this.shared.is_to_go() && !*this.said_goodbye {
                *this.said_goodbye = true;
                this.http2.as_mut().graceful_shutdown();
                *this.deadline = None;
                this.shared.call_attention();
                continue;
            }
            if *this.said_goodbye {
                if !this.shared.is_done() {
                    *this.deadline = None;
                    return Poll::Pending;
                }
                let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep(GOODBYE_PATIENCE)));
                return deadline.as_mut().poll(cx).map(|()| Ok(Closed::AfterGoodbye));
            }
            let Some(deadline) = this.deadline else {
                return Poll::Pending;
            };
            if this.shared.has_had_calls() {
                *this.deadline = None;
                return Poll::Pending;
            }
            if deadline.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if !this.shared.flow.has_preface() {
                return Poll::Ready(Ok(Closed::NoPreface));
            }
            match std::mem::take(this.after_preface) {
                Duration::ZERO => return Poll::Ready(Ok(Closed::NoCall)),
                rest => deadline.as_mut().reset(Instant::now() + rest),
            }
        }
    }
}

/// The services behind the gate, told of each request which call it is.
struct Gated<S> {
    services: S,
    shared: Arc<Shared>,
    rpcs: Arc<Rpcs>,
}

type Answer<B> = Result<Response<Counted<B>>, Infallible>;

impl<S: Services> hyper::service::Service<Request<Incoming>> for Gated<S> {
    type Response = Response<Counted<S::Reply>>;
    type Error = Infallible;
    type Future = Either<Ready<Answer<S::Reply>>, Counting<S::Future>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let call = self.shared.open_call();
        let state = Arc::clone(call.handle.state());
        if let Some(answer) = gate::refuse(&request) {
            let answer = answer.map(|body| Counted::of_none(S::Reply::from(body), state));
            return Either::Left(ready(Ok(answer)));
        }
        let exchange = Exchange::default();
        let rpc = self.rpcs.start(request.uri().path(), exchange.clone());
        request.extensions_mut().insert(call);
        // Ours are always ready, as tonic's `Routes` are: they clone the service they find for each call.
        let response = self.services.clone().call(request.map(|body| Body::new(Said::new(body, exchange))));
        Either::Right(Counting::new(response, rpc, state))
    }
}
