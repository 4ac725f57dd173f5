//! Spans: one for each sampled RPC, and below it one for each message that its client publishes.
//!
//! Guarantees: an RPC's span continues the client's trace if the request names one. A message gets a span only if its RPC is
//! sampled; otherwise it costs one check of an empty handle. Deliveries cost nothing. A span ends when its last handle is
//! dropped.
//!
//! The attributes `rpc.*`, `client.*` and `error.type` follow OpenTelemetry's stable semantic conventions for gRPC servers,
//! version 1.45; the server's own start with `chatroom.`. Deliberately does not know where spans go, or what their values
//! mean.

use crate::rpc::code_name;
use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::sync::Arc;
use tonic::Code;
use tracing::Span;
use tracing::field::{Empty, display};
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of every span here. Only spans with this target are exported.
pub(super) const TARGET: &str = "chatroom::trace";
/// The level of every span here.
pub(super) const LEVEL: LevelFilter = LevelFilter::INFO;

/// Bytes of an unknown method's path in its span.
const ORIGINAL_METHOD_MAX: usize = 256;

/// The attributes of an RPC that are known at its start.
#[derive(Clone, Copy)]
pub struct RpcInfo<'a> {
    /// The full name of the method, like `hello.ChatRoom/Chat`; `None` if the server has no such method.
    pub method: Option<&'a str>,
    /// The request's path.
    pub path: &'a str,
    /// The client's address.
    pub peer: SocketAddr,
}

/// The span of a sampled RPC. Cheap to clone. It ends when the last clone, and the last span of a message, is dropped.
#[derive(Clone)]
pub struct RpcSpan {
    // Behind a pointer, as most RPCs have no span.
    span: Arc<Span>,
}

impl RpcSpan {
    /// Begins the span of an RPC, in the trace that the request's `traceparent` names. `None` if traces are off, or the RPC is
    /// not sampled.
    #[must_use]
    pub fn begin(headers: &HeaderMap, rpc: RpcInfo<'_>) -> Option<Self> {
        // If the span is disabled, its fields are not evaluated.
        let span = tracing::info_span!(
            target: TARGET,
            parent: None,
            "rpc",
            otel.name = rpc.method.unwrap_or("grpc"),
            otel.kind = "server",
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = rpc.method.unwrap_or("_OTHER"),
            rpc.method_original = rpc.original_method(),
            rpc.response.status_code = Empty,
            error.type = Empty,
            client.address = %rpc.peer.ip(),
            client.port = i64::from(rpc.peer.port()),
            chatroom.connection.id = Empty,
            chatroom.room = Empty,
            chatroom.disconnect.reason = Empty,
        );
        if span.is_disabled() {
            return None;
        }
        let caller = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        // Must precede the first use of the span's own context, after which its parent is fixed.
        if caller.span().span_context().is_valid() && span.set_parent(caller).is_err() {
            tracing::debug!("a span began without its caller");
        }
        let sampled = span.context().span().span_context().is_sampled();
        sampled.then(|| Self { span: Arc::new(span) })
    }

    /// Records the connection that joined by this RPC, and its room.
    pub fn record_join(&self, connection: impl Display, room: impl Display) {
        self.span.record("chatroom.connection.id", display(connection));
        self.record_room(room);
    }

    /// Records the room that the RPC names.
    pub fn record_room(&self, room: impl Display) {
        self.span.record("chatroom.room", display(room));
    }

    /// Records why the connection ended.
    pub fn record_disconnect(&self, reason: &str) {
        self.span.record("chatroom.disconnect.reason", reason);
    }

    /// Records the RPC's status.
    pub fn record_status(&self, code: Code) {
        let name = code_name(code);
        self.span.record("rpc.response.status_code", name);
        if is_server_error(code) {
            self.span.record("error.type", name);
            self.span.record("otel.status_code", "ERROR");
        }
    }

    /// Runs `f` inside the span, if there is one: log lines of `f` get the span's ids.
    // Sets OpenTelemetry's context and does not enter the span: an exit would count as the span's end.
    pub fn in_scope<T>(span: Option<&Self>, f: impl FnOnce() -> T) -> T {
        let _attached = span.map(|span| span.span.context().attach());
        f()
    }

    /// Begins the span of a message that this RPC's client publishes.
    #[must_use]
    pub fn begin_message(&self) -> MessageSpan {
        let span = tracing::info_span!(
            target: TARGET,
            parent: &*self.span,
            "publish",
            otel.kind = "internal",
            chatroom.position = Empty,
            chatroom.batch.messages = Empty,
            chatroom.batch.members = Empty,
        );
        MessageSpan { span: Box::new(span) }
    }
}

impl<'a> RpcInfo<'a> {
    /// The received path, if the server has no such method.
    fn original_method(&self) -> Option<&'a str> {
        let path = self.path.trim_start_matches('/');
        self.method.is_none().then(|| path.get(..ORIGINAL_METHOD_MAX).unwrap_or(path))
    }
}

/// Whether the conventions count a status as an error of the server, and not of its client.
fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The span of a published message, from its receipt until the last member is woken.
pub struct MessageSpan {
    // Behind a pointer, as most messages have no span.
    span: Box<Span>,
}

impl MessageSpan {
    /// Records the message's position, the number of messages in its batch, and the number of members woken.
    pub fn record_broadcast(&self, position: impl Display, messages: u64, members: usize) {
        // OpenTelemetry has signed integers only.
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.span.record("chatroom.position", display(position));
        self.span.record("chatroom.batch.messages", count(messages));
        self.span.record("chatroom.batch.members", count(members as u64));
    }
}

impl fmt::Debug for MessageSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageSpan")
    }
}

/// Request metadata, for the propagator.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
