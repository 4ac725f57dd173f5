//! One transport over a pipe, with an h2 client at the other end and the clock paused.

use super::connection::Connection;
use super::lifecycle::CloseReason;
use super::limits::TransportLimits;
use super::rpc_metrics::{MethodLimits, RpcMetrics};
use super::socket::ByteStream;
use super::state::TransportState;
use super::stats::TransportStats;
use super::{CallContext, CallHandle};
use crate::rpc::response::{Chunk, ResponseBody};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use parking_lot::Mutex;
use prost::Message as _;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

const UNARY: &str = "/test.Test/Unary";
const STREAM: &str = "/test.Test/Stream";
const GROWING: &str = "/test.Test/Growing";
const PIPE_BYTES: usize = 1024 * 1024;
const MESSAGE: &[u8] = &[0, 0, 0, 0, 3, 1, 2, 3];
const CHUNK_BYTES: usize = 1024;
/// The window of a stream that its client never opens wider.
const WINDOW: usize = 65_535;

fn limits() -> TransportLimits {
    TransportLimits {
        streams: 10,
        calls: 10,
        message_bytes: 1024,
        preface_deadline: Duration::from_secs(10),
        first_stream_deadline: Duration::from_secs(30),
        request_deadline: Duration::from_secs(20),
        response_stall: Duration::from_secs(10),
        write_stall: Duration::from_secs(10),
        idle: Duration::from_secs(300),
        keepalive_interval: Duration::from_secs(30),
        keepalive_timeout: Duration::from_secs(10),
    }
}

fn metrics() -> Arc<RpcMetrics> {
    let method = |name: &str, streaming| prost_types::MethodDescriptorProto {
        name: Some(name.to_owned()),
        client_streaming: Some(streaming),
        server_streaming: Some(streaming),
        ..Default::default()
    };
    let service = prost_types::ServiceDescriptorProto {
        name: Some("Test".to_owned()),
        method: vec![method("Unary", false), method("Stream", true), method("Growing", true)],
        ..Default::default()
    };
    let file = prost_types::FileDescriptorProto {
        package: Some("test".to_owned()),
        service: vec![service],
        ..Default::default()
    };
    let set = prost_types::FileDescriptorSet { file: vec![file] }.encode_to_vec();
    let limits =
        |_: &str, _: &str| MethodLimits { request_bytes: 1024, answer_bytes: 1024, may_be_silent: true };
    RpcMetrics::from_descriptors(&[&set], limits).unwrap()
}

impl ByteStream for DuplexStream {
    fn reset_on_close(&self) {}
}

/// `Unary` responds with OK once it has read the request; `Stream` sends data until [`Transport::stop_stream`]; `Growing`
/// sends one message, which needs more than it says at first.
#[derive(Clone, Default)]
struct TestService {
    handle: Arc<Mutex<Option<CallHandle>>>,
    stop: Arc<Mutex<Option<oneshot::Sender<()>>>>,
}

impl Service<Request<Body>> for TestService {
    type Response = Response<TestBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let context = request.extensions().get::<CallContext>().expect("every request has one");
        *self.handle.lock() = Some(context.handle.clone());
        if request.uri().path() == STREAM {
            let (stop, stopped) = oneshot::channel();
            *self.stop.lock() = Some(stop);
            return std::future::ready(Ok(Response::new(TestBody::Endless(stopped)))).boxed();
        }
        if request.uri().path() == GROWING {
            return std::future::ready(Ok(Response::new(TestBody::Growing { polls: 0, sent: false })))
                .boxed();
        }
        async move {
            let body = request.body_mut();
            while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {}
            Ok(Status::ok("").into_http::<Body>().map(TestBody::Tonic))
        }
        .boxed()
    }
}

enum TestBody {
    Tonic(Body),
    /// Data without end, then a status as soon as the channel is used.
    Endless(oneshot::Receiver<()>),
    /// One message, larger than the peer's window and larger than it says at first, then a status.
    Growing {
        polls: usize,
        sent: bool,
    },
}

impl From<Body> for TestBody {
    fn from(body: Body) -> Self {
        Self::Tonic(body)
    }
}

impl ResponseBody for TestBody {
    fn poll_chunk(self: Pin<&mut Self>, cx: &mut Context<'_>, room: usize) -> Poll<Chunk> {
        match self.get_mut() {
            Self::Tonic(body) => ResponseBody::poll_chunk(Pin::new(body), cx, room),
            Self::Growing { polls, sent } => {
                *polls += 1;
                assert!(*polls < 100, "the transport polls without end");
                if *sent {
                    let status = HeaderValue::from(Code::Ok as i32);
                    return Poll::Ready(Chunk::Trailers(HeaderMap::from_iter([(
                        Status::GRPC_STATUS,
                        status,
                    )])));
                }
                if room < 2 * WINDOW {
                    let needed = if room > WINDOW { 2 * WINDOW } else { WINDOW + 1 };
                    return Poll::Ready(Chunk::NeedsCapacity(needed));
                }
                *sent = true;
                Poll::Ready(Chunk::Data(vec![0; 2 * WINDOW].into()))
            }
            Self::Endless(stopped) => match stopped.poll_unpin(cx) {
                Poll::Ready(_) => {
                    let status = HeaderValue::from(Code::ResourceExhausted as i32);
                    Poll::Ready(Chunk::Trailers(HeaderMap::from_iter([(Status::GRPC_STATUS, status)])))
                }
                Poll::Pending if room < CHUNK_BYTES => Poll::Ready(Chunk::NeedsCapacity(CHUNK_BYTES)),
                Poll::Pending => Poll::Ready(Chunk::Data(vec![0; CHUNK_BYTES].into())),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Tonic(body) if ResponseBody::is_end_stream(body))
    }
}

struct Transport {
    state: Arc<TransportState>,
    service: TestService,
    served: JoinHandle<CloseReason>,
}

impl Transport {
    /// Serves one end of a pipe; returns the other.
    fn serve(limits: TransportLimits) -> (Self, DuplexStream) {
        let (io, peer_io) = tokio::io::duplex(PIPE_BYTES);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let state = Arc::new(TransportState::new(peer, Arc::new(TransportStats::default())));
        let service = TestService::default();
        let connection =
            Connection::new(io, Arc::clone(&state), service.clone(), metrics(), Arc::new(limits));
        let served = tokio::spawn(connection);
        (Self { state, service, served }, peer_io)
    }

    async fn with_client(limits: TransportLimits) -> (Self, Client) {
        let (transport, io) = Self::serve(limits);
        let (requests, connection) = h2::client::handshake(io).await.unwrap();
        tokio::spawn(connection);
        (transport, Client(requests))
    }

    /// Makes an endless response end with its status.
    fn stop_stream(&self) {
        self.service.stop.lock().take().expect("a stream was opened").send(()).unwrap();
    }
}

struct Client(SendRequest<Bytes>);

impl Client {
    async fn call(&mut self, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
        std::future::poll_fn(|cx| self.0.poll_ready(cx)).await.unwrap();
        let request = Request::post(format!("http://test{path}"));
        let request = request.header("content-type", "application/grpc").body(()).unwrap();
        self.0.send_request(request, false).unwrap()
    }
}

/// Reads a response without ever opening the flow-control windows; returns its status.
async fn status(response: ResponseFuture) -> Code {
    let (head, mut body) = response.await.unwrap().into_parts();
    if let Some(code) = head.headers.get(Status::GRPC_STATUS) {
        return Code::from_bytes(code.as_bytes());
    }
    while let Some(data) = body.data().await {
        data.unwrap();
    }
    let trailers = body.trailers().await.unwrap().expect("a status");
    Code::from_bytes(trailers[Status::GRPC_STATUS].as_bytes())
}

#[tokio::test(start_paused = true)]
async fn unary_call_gets_its_status() {
    let (_transport, mut client) = Transport::with_client(limits()).await;
    let (response, mut request) = client.call(UNARY).await;
    request.send_data(MESSAGE.into(), true).unwrap();
    assert_eq!(status(response).await, Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn call_above_limit_of_its_kind_is_refused() {
    let (transport, mut client) = Transport::with_client(TransportLimits { calls: 1, ..limits() }).await;
    let (first, _first) = client.call(STREAM).await;
    first.await.unwrap();
    let (second, _second) = client.call(STREAM).await;
    assert_eq!(status(second).await, Code::ResourceExhausted);
    let (unary, mut request) = client.call(UNARY).await;
    request.send_data(MESSAGE.into(), true).unwrap();
    assert_eq!(status(unary).await, Code::Ok, "unary calls have a limit of their own");
    assert_eq!((transport.state.stats.calls(), transport.state.stats.calls_refused_total()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn incomplete_request_meets_its_deadline() {
    let (_transport, mut client) = Transport::with_client(limits()).await;
    let began = Instant::now();
    let (response, mut request) = client.call(UNARY).await;
    request.send_data(MESSAGE[..4].into(), false).unwrap();
    assert_eq!(status(response).await, Code::DeadlineExceeded);
    assert_eq!(began.elapsed().as_secs(), limits().request_deadline.as_secs());
}

#[tokio::test(start_paused = true)]
async fn second_request_of_unary_call_is_refused() {
    let (_transport, mut client) = Transport::with_client(limits()).await;
    let (response, mut request) = client.call(UNARY).await;
    request.send_data([MESSAGE, MESSAGE].concat().into(), false).unwrap();
    assert_eq!(status(response).await, Code::Unimplemented);
}

#[tokio::test(start_paused = true)]
async fn stalled_reader_gets_its_status() {
    let (transport, mut client) = Transport::with_client(limits()).await;
    let (response, _request) = client.call(STREAM).await;
    // The window of 64 KiB is full, and the client never opens it again.
    tokio::time::sleep(Duration::from_secs(60)).await;
    transport.stop_stream();
    assert_eq!(status(response).await, Code::ResourceExhausted);
}

#[tokio::test(start_paused = true)]
async fn message_that_needs_more_than_it_said_is_sent_in_parts() {
    let (_transport, mut client) = Transport::with_client(limits()).await;
    let (response, _request) = client.call(GROWING).await;
    let mut body = response.await.unwrap().into_body();
    let mut received = 0;
    while let Some(data) = body.data().await {
        let len = data.unwrap().len();
        received += len;
        body.flow_control().release_capacity(len).unwrap();
    }
    assert_eq!(received, 2 * WINDOW);
    let trailers = body.trailers().await.unwrap().expect("a status");
    assert_eq!(Code::from_bytes(trailers[Status::GRPC_STATUS].as_bytes()), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn go_away_lets_open_calls_end() {
    let (transport, mut client) = Transport::with_client(limits()).await;
    let (response, _request) = client.call(STREAM).await;
    let response = response.await.unwrap();
    transport.state.go_away();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!transport.served.is_finished());
    let refused = std::future::poll_fn(|cx| client.0.poll_ready(cx)).await;
    assert!(refused.is_err(), "GOAWAY allows no new call");
    transport.stop_stream();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        data.unwrap();
    }
    assert!(matches!(transport.served.await.unwrap(), CloseReason::Done | CloseReason::AfterGoAway));
}

#[tokio::test(start_paused = true)]
async fn abort_resets_the_stream_and_closes_the_transport() {
    let (transport, mut client) = Transport::with_client(limits()).await;
    let (response, _request) = client.call(STREAM).await;
    let mut body = response.await.unwrap().into_body();
    transport.service.handle.lock().as_ref().expect("a call").abort();
    let error = loop {
        match body.data().await.expect("a reset") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    transport.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn request_that_is_not_grpc_is_rejected() {
    let (_transport, mut client) = Transport::with_client(limits()).await;
    std::future::poll_fn(|cx| client.0.poll_ready(cx)).await.unwrap();
    let request = Request::builder().method(Method::GET).uri("http://test/").body(()).unwrap();
    let (response, _) = client.0.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(start_paused = true)]
async fn silent_peer_is_closed_at_the_preface_deadline() {
    let (transport, _silent) = Transport::serve(limits());
    let began = Instant::now();
    assert!(matches!(transport.served.await.unwrap(), CloseReason::NoPreface));
    assert_eq!(began.elapsed().as_secs(), limits().preface_deadline.as_secs());
}

#[tokio::test(start_paused = true)]
async fn transport_without_calls_is_closed() {
    let (transport, _client) = Transport::with_client(limits()).await;
    assert!(matches!(transport.served.await.unwrap(), CloseReason::NoCall));
}

#[tokio::test(start_paused = true)]
async fn idle_transport_is_closed() {
    let (transport, mut client) = Transport::with_client(limits()).await;
    let (response, mut request) = client.call(UNARY).await;
    request.send_data(MESSAGE.into(), true).unwrap();
    status(response).await;
    let began = Instant::now();
    transport.served.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), limits().idle.as_secs());
}
