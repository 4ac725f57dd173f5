//! Every RPC, counted as the gRPC ecosystem's dashboards expect (go-grpc-middleware's metric and label names).
//!
//! Methods are learnt from the compiled-in descriptors, so that a client cannot add a label by calling a method that
//! does not exist: those are counted together.

use super::call::State;
use super::linger::Exchange;
use super::unwritten::Unwritten;
use crate::metrics::{Counter, Distribution, Exposition, Histogram};
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::Message as _;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tonic::Code;

/// Upper bounds for handling times, in nanoseconds: 5 ms to 10 s as usual, then to an hour, as streams live long.
const HANDLING: &[u64] = &[
    5_000_000,
    25_000_000,
    100_000_000,
    500_000_000,
    2_500_000_000,
    10_000_000_000,
    60_000_000_000,
    600_000_000_000,
    3_600_000_000_000,
];

/// Codes, by number; the names are go-grpc's.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

struct Method {
    service: String,
    name: String,
    kind: &'static str,
    started: Counter,
    handled: [Counter; CODES.len()],
    seconds: Histogram,
}

impl Method {
    fn new(service: &str, name: &str, kind: &'static str) -> Self {
        Self {
            service: service.to_owned(),
            name: name.to_owned(),
            kind,
            started: Counter::default(),
            handled: std::array::from_fn(|_| Counter::default()),
            seconds: Histogram::new(HANDLING),
        }
    }
}

/// The counts of all methods of a server.
pub struct Rpcs {
    methods: Vec<Method>,
    by_path: HashMap<String, usize>,
}

impl Rpcs {
    /// Knows the methods in these encoded `FileDescriptorSet`s, and one more for all unknown ones.
    ///
    /// # Errors
    /// When one of them is no `FileDescriptorSet`.
    pub fn of(descriptors: &[&[u8]]) -> Result<Arc<Self>, prost::DecodeError> {
        let mut methods = vec![Method::new("unknown", "unknown", "unary")];
        let mut by_path = HashMap::new();
        for set in descriptors {
            for file in prost_types::FileDescriptorSet::decode(*set)?.file {
                for service in &file.service {
                    let name = format!("{}.{}", file.package(), service.name());
                    for method in &service.method {
                        let kind = match (method.client_streaming(), method.server_streaming()) {
                            (false, false) => "unary",
                            (true, false) => "client_stream",
                            (false, true) => "server_stream",
                            (true, true) => "bidi_stream",
                        };
                        by_path.entry(format!("/{name}/{}", method.name())).or_insert(methods.len());
                        methods.push(Method::new(&name, method.name(), kind));
                    }
                }
            }
        }
        Ok(Arc::new(Self { methods, by_path }))
    }

    /// A call to `path` begins.
    pub(super) fn start(self: &Arc<Self>, path: &str, exchange: Exchange) -> Rpc {
        let method = self.by_path.get(path).copied().unwrap_or_default();
        self.methods[method].started.add(1);
        Rpc { rpcs: Arc::clone(self), method, began: Instant::now(), handled: false, exchange }
    }

    /// Adds the three metrics, with a series for each method (and code) from the start: a rate over a series that
    /// appears with its first error would miss that error.
    pub fn expose(&self, to: &mut Exposition) {
        for method in &self.methods {
            let help = "RPCs that began. Equals the sum of grpc_server_handled_total over all codes when none is open.";
            to.counter("grpc_server_started_total", help, &labels(method), method.started.get());
        }
        for method in &self.methods {
            for (code, handled) in CODES.iter().zip(&method.handled) {
                let help = "RPCs that ended, by status; a call that its client gave up counts as Canceled.";
                let [kind, service, name] = labels(method);
                let labels = [("grpc_code", *code), name, service, kind];
                to.counter("grpc_server_handled_total", help, &labels, handled.get());
            }
        }
        for method in &self.methods {
            let help = "Time from the beginning of an RPC to its end; for a stream that is its whole life.";
            let read: Distribution = method.seconds.read();
            to.histogram("grpc_server_handling_seconds", help, &labels(method), &read, 1e9);
        }
    }
}

fn labels(method: &Method) -> [(&'static str, &str); 3] {
    [("grpc_type", method.kind), ("grpc_service", &method.service), ("grpc_method", &method.name)]
}

/// One call that is under way; counted as handled once, when its status is known or it is dropped.
pub(super) struct Rpc {
    rpcs: Arc<Rpcs>,
    method: usize,
    began: Instant,
    handled: bool,
    exchange: Exchange,
}

impl Rpc {
    fn ends(&mut self, code: Code) {
        if std::mem::replace(&mut self.handled, true) {
            return;
        }
        let method = &self.rpcs.methods[self.method];
        method.handled[code as usize].add(1);
        let took = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        method.seconds.observe(took, 1);
    }

    fn reads(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.ends(Code::from_bytes(code.as_bytes()));
            self.exchange.answered();
        }
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        self.ends(Code::Cancelled);
    }
}

pin_project! {
    /// A response to be, whose status will be read.
    pub(super) struct Counting<F> {
        #[pin]
        response: F,
        rpc: Option<Rpc>,
        call: Arc<State>,
    }
}

impl<F> Counting<F> {
    pub(super) fn new(response: F, rpc: Rpc, call: Arc<State>) -> Self {
        Self { response, rpc: Some(rpc), call }
    }
}

impl<F, B, E> Future for Counting<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Counted<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.response.poll(cx))?;
        let mut rpc = this.rpc.take();
        if let Some(rpc) = &mut rpc {
            rpc.reads(response.headers());
        }
        let call = Arc::clone(this.call);
        Poll::Ready(Ok(response.map(|body| Counted { body, rpc, call })))
    }
}

pin_project! {
    /// A response's body, whose trailers are read as they pass, and whose data is marked until it is written: no more is
    /// asked of it while much is on its way.
    pub(super) struct Counted<B> {
        #[pin]
        body: B,
        rpc: Option<Rpc>,
        call: Arc<State>,
    }
}

impl<B> Counted<B> {
    /// A body that belongs to no RPC.
    pub(super) fn of_none(body: B, call: Arc<State>) -> Self {
        Self { body, rpc: None, call }
    }
}

impl<B: Body<Data = Bytes>> Body for Counted<B> {
    type Data = Unwritten;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Unwritten>, B::Error>>> {
        let this = self.project();
        ready!(this.call.in_flight.poll_next(cx));
        let frame = ready!(this.body.poll_frame(cx));
        if let (Some(Ok(frame)), Some(rpc)) = (&frame, this.rpc)
            && let Some(trailers) = frame.trailers_ref()
        {
            rpc.reads(trailers);
        }
        let mark = |data| Unwritten::new(data, this.call);
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(mark))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
