//! The metrics and the span of every RPC. Metric and label names are those of go-grpc-middleware, which the gRPC ecosystem's
//! dashboards expect.
//!
//! Guarantees: each RPC is counted as started once and as handled once. The methods come from the compiled-in descriptors, so
//! a client cannot add a label value by calling a method that does not exist: unknown methods share one set of counts.

use super::stats::RpcKind;
use crate::metrics::{Counter, Exposition, Histogram, HistogramSnapshot};
use crate::rpc::{CODES, go_code_names};
use crate::telemetry::trace::{self, RpcSpan};
use http::HeaderMap;
use prost::Message as _;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tonic::Code;

/// Upper bounds of handling times, in nanoseconds: the usual 5 ms to 10 s, then up to an hour, as streams last long.
const HANDLING_BOUNDS: &[u64] = &[
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

/// The index of the counts of unknown methods.
const UNKNOWN: usize = 0;

/// The bounds of a method's calls.
#[derive(Clone, Copy, Debug)]
pub struct MethodLimits {
    /// The longest request message, in bytes.
    pub request_bytes: usize,
    /// The longest answer of a unary method, in bytes; an estimate, for reserving space.
    pub answer_bytes: usize,
    /// Whether a client that streams requests may pause between them for any time.
    pub may_be_silent: bool,
}

struct Method {
    service: String,
    name: String,
    /// Like `hello.ChatRoom/Chat`.
    full_name: String,
    kind: &'static str,
    limits: MethodLimits,
    started: Counter,
    handled: [Counter; CODES],
    seconds: Histogram,
}

impl Method {
    fn new(service: &str, name: &str, kind: &'static str, limits: MethodLimits) -> Self {
        Self {
            service: service.to_owned(),
            name: name.to_owned(),
            full_name: format!("{service}/{name}"),
            kind,
            limits,
            started: Counter::default(),
            handled: std::array::from_fn(|_| Counter::default()),
            seconds: Histogram::new(HANDLING_BOUNDS),
        }
    }
}

/// All methods of a server, with their limits and counts.
pub struct RpcMetrics {
    methods: Vec<Method>,
    by_path: HashMap<String, usize>,
}

impl RpcMetrics {
    /// Registers the methods of these encoded `FileDescriptorSet`s, and one more for all unknown methods. `limits` maps the
    /// names of a service and of its method to the method's bounds.
    ///
    /// # Errors
    /// When one of the sets cannot be decoded.
    pub fn from_descriptors(
        descriptors: &[&[u8]],
        limits: impl Fn(&str, &str) -> MethodLimits,
    ) -> Result<Arc<Self>, prost::DecodeError> {
        let mut methods = vec![Method::new("unknown", "unknown", "unary", limits("", ""))];
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
                        methods.push(Method::new(&name, method.name(), kind, limits(&name, method.name())));
                    }
                }
            }
        }
        Ok(Arc::new(Self { methods, by_path }))
    }

    /// Counts a call as started, and begins its span.
    pub(super) fn start(self: &Arc<Self>, path: &str, headers: &HeaderMap, peer: SocketAddr) -> ActiveRpc {
        let known = self.by_path.get(path).copied();
        let method = known.unwrap_or(UNKNOWN);
        self.methods[method].started.add(1);
        let name = known.map(|method| &*self.methods[method].full_name);
        let span = RpcSpan::begin(headers, trace::RpcInfo { method: name, path, peer });
        ActiveRpc { metrics: Arc::clone(self), method, began: Instant::now(), span, handled: false }
    }

    /// Adds the three metrics. Every method (and code) has a series from the start: a rate over a series that appears with
    /// its first error would miss that error.
    pub fn expose(&self, to: &mut Exposition) {
        for method in &self.methods {
            let help = "RPCs that began. Equals the sum of grpc_server_handled_total over all codes when none is open.";
            to.counter("grpc_server_started_total", help, &labels(method), method.started.get());
        }
        for method in &self.methods {
            for (code, handled) in go_code_names().zip(&method.handled) {
                let help = "RPCs that ended, by status; a call that its client gave up counts as Canceled.";
                let [kind, service, name] = labels(method);
                let labels = [("grpc_code", code), name, service, kind];
                to.counter("grpc_server_handled_total", help, &labels, handled.get());
            }
        }
        for method in &self.methods {
            let help = "Time from the beginning of an RPC to its end; for a stream that is its whole life.";
            let snapshot: HistogramSnapshot = method.seconds.snapshot();
            to.histogram("grpc_server_handling_seconds", help, &labels(method), &snapshot, 1e9);
        }
    }
}

fn labels(method: &Method) -> [(&'static str, &str); 3] {
    [("grpc_type", method.kind), ("grpc_service", &method.service), ("grpc_method", &method.name)]
}

/// A call in progress. Counted as handled once: when its status is known, or as cancelled when dropped before.
pub(super) struct ActiveRpc {
    metrics: Arc<RpcMetrics>,
    method: usize,
    began: Instant,
    span: Option<RpcSpan>,
    handled: bool,
}

impl ActiveRpc {
    fn method(&self) -> &Method {
        &self.metrics.methods[self.method]
    }

    pub(super) fn kind(&self) -> RpcKind {
        if self.method().kind == "unary" { RpcKind::Unary } else { RpcKind::Streaming }
    }

    /// Whether the method takes one request message.
    pub(super) fn has_one_request(&self) -> bool {
        matches!(self.method().kind, "unary" | "server_stream")
    }

    pub(super) fn limits(&self) -> MethodLimits {
        self.method().limits
    }

    /// The call's span, if it is sampled.
    pub(super) fn span(&self) -> Option<&RpcSpan> {
        self.span.as_ref()
    }

    fn finish(&mut self, code: Code) {
        if std::mem::replace(&mut self.handled, true) {
            return;
        }
        if let Some(span) = &self.span {
            span.record_status(code);
        }
        let method = self.method();
        method.handled[code as usize].add(1);
        let took = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        method.seconds.observe(took, 1);
    }

    /// Finishes the call if these headers or trailers have its status.
    pub(super) fn finish_by_headers(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.finish(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for ActiveRpc {
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}
