//! The errors of the client.

use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// Why a request failed or a session ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be parsed.
    #[error("{0} is not an address like 127.0.0.1:50051")]
    Address(String),
    /// No connection to this address.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address as given.
        address: String,
        /// The transport's error.
        source: Arc<tonic::transport::Error>,
    },
    /// The server refused, and a retry would not help. The status's `ErrorInfo` has the reason.
    #[error("refused: {0}")]
    Refused(Box<Status>),
    /// The call was lost, or the server is temporarily unable: a retry may help.
    #[error("lost: {0}")]
    Lost(Box<Status>),
    /// The session did not reconnect within [`BackoffPolicy::give_up_after`](super::BackoffPolicy::give_up_after).
    #[error("gave up after {} s: {last}", after.as_secs())]
    GaveUp {
        /// How long the session retried.
        after: Duration,
        /// The status of the last attempt.
        last: Box<Status>,
    },
    /// The message exceeds the server's limit. It was not sent.
    #[error("the message is too large: {bytes} bytes encoded, the server accepts {max}")]
    TooLarge {
        /// Its encoded length.
        bytes: u64,
        /// The server's limit.
        max: u64,
    },
    /// The kind is invalid. The message was not sent.
    #[error("a kind must have 1 to 64 of A-Z a-z 0-9 . _ -")]
    Kind,
    /// The server violates the contract of `chatroom.v1`.
    #[error("the server violates its contract: {0}")]
    Contract(&'static str),
    /// The session ended before the acknowledgement. The message may have been published.
    #[error("the session has ended")]
    Ended,
}

impl Error {
    /// The server's status, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused(status) | Self::Lost(status) | Self::GaveUp { last: status, .. } => Some(status),
            _ => None,
        }
    }
}
