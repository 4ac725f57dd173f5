//! The settings of a client.

use super::backoff::BackoffPolicy;
use std::time::Duration;

/// Limits and timeouts of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Timeout of a TCP connect. Default: 5 s.
    pub connect_timeout: Duration,
    /// Timeout of a unary call, and of a streaming call's first response; at most a day. Default: 10 s.
    pub response_timeout: Duration,
    /// Interval of HTTP/2 pings, also while no call is open. Default: 30 s.
    pub keepalive_interval: Duration,
    /// How long to wait for a ping's acknowledgement before the connection counts as broken. Default: 10 s.
    pub keepalive_timeout: Duration,
    /// Delays between reconnection attempts.
    pub backoff: BackoffPolicy,
    /// Received items that a session queues for the caller. Default: 1,024.
    pub events_ahead: usize,
    /// Unacknowledged publishes of a session. Default: 256, the server's default for one connection's share of an inbox.
    pub in_flight_messages: usize,
    /// Unacknowledged publishes of a session in encoded bytes. Default: 1 MiB.
    pub in_flight_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            backoff: BackoffPolicy::default(),
            events_ahead: 1024,
            in_flight_messages: 256,
            in_flight_bytes: 1 << 20,
        }
    }
}
