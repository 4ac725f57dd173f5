//! The spans: one for each RPC that is sampled, and below it one for each message that its client publishes.
//!
//! Guarantees: an RPC's span continues the caller's trace if the request names one; a message gets a span only if its RPC
//! is sampled, so with traces off, or an RPC not sampled, a message costs one look at an empty handle. Nothing is done per
//! delivered message. A span ends when its last handle is dropped.
//!
//! The attributes `rpc.*`, `client.*` and `error.type` are those of OpenTelemetry's stable semantic conventions for gRPC
//! servers, version 1.45; ours begin with `chatroom.`. Does not know where spans go, nor what the values in them mean.

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

/// The target of every span here: what has it is exported, and nothing else is.
pub(super) const TARGET: &str = "chatroom::trace";
/// The level of every span here.
pub(super) const LEVEL: LevelFilter = LevelFilter::INFO;

/// Bytes of an unknown method's path that a span shows.
const ORIGINAL_MAX: usize = 256;

/// What an RPC's span has from the start.
#[derive(Clone, Copy)]
pub struct Rpc<'a> {
    /// The full name of the method, like `hello.ChatRoom/Chat`; `None` if the server has no such method.
    pub method: Option<&'a str>,
    /// The request's path.
    pub path: &'a str,
    /// The client's address.
    pub peer: SocketAddr,
}

/// A sampled RPC's span. Cheap to clone; it ends with its last clone and its last message's span.
#[derive(Clone)]
pub struct RpcSpan {
    // Behind a pointer, because most RPCs have none.
    span: Arc<Span>,
}

impl RpcSpan {
    /// Begins the span of an RPC, in the trace that its request's `traceparent` names. `None` if traces are off or this
    /// one is not sampled.
    #[must_use]
    pub fn begin(headers: &HeaderMap, rpc: Rpc<'_>) -> Option<Self> {
        // Its fields are not evaluated when nobody wants the span.
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
        // Before anything asks for the span's own context: it is then too late to choose a parent.
        if caller.span().span_context().is_valid() && span.set_parent(caller).is_err() {
            tracing::debug!("a span began without its caller");
        }
        let sampled = span.context().span().span_context().is_sampled();
        sampled.then(|| Self { span: Arc::new(span) })
    }

    /// Records the connection that the RPC has become, and its room.
    pub fn joined(&self, connection: impl Display, room: impl Display) {
        self.span.record("chatroom.connection.id", display(connection));
        self.in_room(room);
    }

    /// Records the room that the RPC is about.
    pub fn in_room(&self, room: impl Display) {
        self.span.record("chatroom.room", display(room));
    }

    /// Records why the connection ended.
    pub fn disconnected(&self, reason: &str) {
        self.span.record("chatroom.disconnect.reason", reason);
    }

    /// Records the status that ended the RPC.
    pub fn ended(&self, code: Code) {
        let name = code_name(code);
        self.span.record("rpc.response.status_code", name);
        if is_server_error(code) {
            self.span.record("error.type", name);
            self.span.record("otel.status_code", "ERROR");
        }
    }

    /// Runs `f` inside the span, if there is one: its log lines have the span's ids.
    // By OpenTelemetry's context and not by entering the span: leaving that again would be taken for its end.
    pub fn in_scope<T>(span: Option<&Self>, f: impl FnOnce() -> T) -> T {
        let _attached = span.map(|span| span.span.context().attach());
        f()
    }

    /// Begins the span of a message that this RPC's client publishes.
    #[must_use]
    pub fn message(&self) -> MessageSpan {
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

impl<'a> Rpc<'a> {
    /// The path as it came, for a method that the server does not have.
    fn original_method(&self) -> Option<&'a str> {
        let path = self.path.trim_start_matches('/');
        self.method.is_none().then(|| path.get(..ORIGINAL_MAX).unwrap_or(path))
    }
}

/// Whether the conventions count a status as an error of the server's span: not those that a client causes.
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

/// A published message's span: from the offer, which may wait for room, to the last member woken.
pub struct MessageSpan {
    // Behind a pointer, because most messages have none.
    span: Box<Span>,
}

impl MessageSpan {
    /// Records the message's position in its room, how many messages went with it, and how many members were woken.
    pub fn broadcast(&self, position: impl Display, messages: u64, members: usize) {
        // Signed, because that is the only integer that OpenTelemetry has.
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

/// Request metadata, as the propagator reads it.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
