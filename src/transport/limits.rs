//! The bounds of a transport and of its calls.

use std::time::Duration;

/// Bounds of a transport. Defaults and their reasons are in [`crate::config`].
#[derive(Clone, Debug)]
pub struct TransportLimits {
    /// Concurrent calls on one transport (`SETTINGS_MAX_CONCURRENT_STREAMS`).
    pub streams: u32,
    /// Concurrent calls of each kind, unary and streaming, on all transports of a listener.
    pub calls: usize,
    /// Bytes of the longest message in a response, with its gRPC prefix.
    pub message_bytes: usize,
    /// Time from accept to the complete HTTP/2 preface.
    pub preface_deadline: Duration,
    /// Time from accept to the first call.
    pub first_stream_deadline: Duration,
    /// Time for a unary request, and for each message of a streaming one, to be complete.
    pub request_deadline: Duration,
    /// Time within which the peer must take some bytes of an answer that waits for it.
    pub response_stall: Duration,
    /// Time that bytes may wait for the socket to accept them.
    pub write_stall: Duration,
    /// Time without an open call before the transport is closed.
    pub idle: Duration,
    /// Time without received bytes before a PING is sent.
    pub keepalive_interval: Duration,
    /// Time for the PING to be acknowledged.
    pub keepalive_timeout: Duration,
}
