//! The spans: one for each connection that is sampled, and below it one for each message it publishes.
//!
//! Promises: a connection's span continues the caller's trace if the request says which; a message gets a span only if
//! its connection is sampled, so with traces off, or a connection not sampled, a message costs one look at an empty
//! handle. Nothing is ever done per delivered message. A span ends when its handle is dropped.
//!
//! The attributes `rpc.*`, `client.*` and `error.type` are those of OpenTelemetry's stable semantic conventions for gRPC
//! servers, version 1.45; ours begin with `chatroom.`. Does not know where spans go, nor what the values in them mean.

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::sync::Arc;
use tracing::Span;
use tracing::field::{Empty, display};
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of every span here: what has it is exported, and nothing else is.
pub(super) const TARGET: &str = "chatroom::trace";
/// The level of every span here.
pub(super) const LEVEL: LevelFilter = LevelFilter::INFO;

/// What a connection's span says from the start.
pub struct Connection<'a> {
    /// The method called, like `hello.ChatRoom/Chat`.
    pub method: &'static str,
    /// The connection's id.
    pub id: &'a dyn Display,
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// The room it is in.
    pub room: &'a dyn Display,
}

/// A sampled connection's span. Cheap to clone; it ends with its last clone and its last message's span.
#[derive(Clone)]
pub struct ConnectionSpan {
    // Behind a pointer, because most connections have none.
    span: Arc<Span>,
}

impl ConnectionSpan {
    /// Begins the span of a connection, in the trace that its request's `traceparent` names. None, when traces are off
    /// or this one is not sampled.
    #[must_use]
    pub fn begin(headers: &HeaderMap, connection: &Connection<'_>) -> Option<Self> {
        // Its fields are not looked at when nobody wants the span.
        let span = tracing::info_span!(
            target: TARGET,
            parent: None,
            "connection",
            otel.name = connection.method,
            otel.kind = "server",
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = connection.method,
            rpc.response.status_code = Empty,
            error.type = Empty,
            client.address = connection.peer.map(|peer| display(peer.ip())),
            client.port = connection.peer.map(|peer| i64::from(peer.port())),
            chatroom.connection.id = %connection.id,
            chatroom.room = %connection.room,
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

    /// Does this inside the span, if there is one: log lines have its ids.
    // By OpenTelemetry's context and not by entering the span: leaving that again would be taken for its end.
    pub fn in_scope<T>(span: Option<&Self>, f: impl FnOnce() -> T) -> T {
        let _attached = span.map(|span| span.span.context().attach());
        f()
    }

    /// Begins the span of a message that this connection publishes.
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

    /// Records why the connection ended, and with which status if that is known.
    pub fn ended(&self, reason: &str, status: Option<StatusCode>) {
        self.span.record("chatroom.disconnect.reason", reason);
        let Some(StatusCode { name, is_server_error }) = status else { return };
        self.span.record("rpc.response.status_code", name);
        if is_server_error {
            self.span.record("error.type", name);
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

/// The status that ended a call, as spans have it.
#[derive(Clone, Copy, Debug)]
pub struct StatusCode {
    /// Like `RESOURCE_EXHAUSTED`.
    pub name: &'static str,
    /// Whether the conventions count it as an error of a server's span: not those that a client causes.
    pub is_server_error: bool,
}

/// A published message's span: from the offer, which may wait for room, to the last member woken.
pub struct MessageSpan {
    // Behind a pointer, because most messages have none.
    span: Box<Span>,
}

impl MessageSpan {
    /// Says where the message stands in its room, how many went with it, and how many members were woken.
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
