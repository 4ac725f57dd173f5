//! Every RPC: its span, and its counts as the gRPC ecosystem's dashboards expect them (go-grpc-middleware's metric and label
//! names).
//!
//! Methods are learnt from the compiled-in descriptors, so that a client cannot add a label by calling a method that
//! does not exist: those are counted together.

use super::stats::CallKind;
use crate::metrics::{Counter, Distribution, Exposition, Histogram};
use crate::rpc::{CODES, go_code_names};
use crate::telemetry::trace::{self, RpcSpan};
use http::HeaderMap;
use prost::Message as _;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
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

/// Where the counts of unknown methods are.
const UNKNOWN: usize = 0;

/// What bounds the calls of a method.
#[derive(Clone, Copy, Debug)]
pub struct MethodLimits {
    /// Bytes that each message of a request may have.
    pub request_bytes: usize,
    /// Bytes that an answer in one piece may have, about.
    pub answer_bytes: usize,
    /// A client that streams requests may be silent between them.
    pub silence: bool,
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
            seconds: Histogram::new(HANDLING),
        }
    }
}

/// All methods of a server: how they are called, and their counts.
pub struct Methods {
    methods: Vec<Method>,
    by_path: HashMap<String, usize>,
}

impl Methods {
    /// Knows the methods in these encoded `FileDescriptorSet`s, and one more for all unknown ones. `limits` gives
    /// what bounds the calls of a service's method, by their names.
    ///
    /// # Errors
    /// When one of them is no `FileDescriptorSet`.
    pub fn of(
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

    /// A call begins.
    pub(super) fn start(self: &Arc<Self>, path: &str, headers: &HeaderMap, peer: SocketAddr) -> Rpc {
        let known = self.by_path.get(path).copied();
        let method = known.unwrap_or(UNKNOWN);
        self.methods[method].started.add(1);
        let name = known.map(|method| &*self.methods[method].full_name);
        let span = RpcSpan::begin(headers, trace::Rpc { method: name, path, peer });
        Rpc { methods: Arc::clone(self), method, began: Instant::now(), span, handled: false }
    }

    /// Adds the three metrics, with a series for each method (and code) from the start: a rate over a series that
    /// appears with its first error would miss that error.
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
    methods: Arc<Methods>,
    method: usize,
    began: Instant,
    span: Option<RpcSpan>,
    handled: bool,
}

impl Rpc {
    fn method(&self) -> &Method {
        &self.methods.methods[self.method]
    }

    pub(super) fn kind(&self) -> CallKind {
        if self.method().kind == "unary" { CallKind::Unary } else { CallKind::Stream }
    }

    /// Whether the whole request is one message.
    pub(super) fn has_one_request(&self) -> bool {
        matches!(self.method().kind, "unary" | "server_stream")
    }

    pub(super) fn limits(&self) -> MethodLimits {
        self.method().limits
    }

    /// The span, if the call is sampled.
    pub(super) fn span(&self) -> Option<&RpcSpan> {
        self.span.as_ref()
    }

    fn ends(&mut self, code: Code) {
        if std::mem::replace(&mut self.handled, true) {
            return;
        }
        if let Some(span) = &self.span {
            span.ended(code);
        }
        let method = self.method();
        method.handled[code as usize].add(1);
        let took = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        method.seconds.observe(took, 1);
    }

    /// Reads the status, if it is in these headers.
    pub(super) fn read(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.ends(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        self.ends(Code::Cancelled);
    }
}
