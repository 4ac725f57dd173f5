//! What can go wrong, and what of it a session mends by itself.

use super::types::Goodbye;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why something was not done, or why a session ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This is no address.
    #[error("{0} is not an address like 127.0.0.1:50051")]
    Address(String),
    /// Nobody answers at this address.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: Arc<tonic::transport::Error>,
    },
    /// The server refused: coming back would not help. Its reason is in the status's `ErrorInfo`.
    #[error("refused: {0}")]
    Refused(Box<Status>),
    /// The call was lost, or the server could not just then: coming back may help.
    #[error("lost: {0}")]
    Lost(Box<Status>),
    /// The session was lost, and did not come back within the time that it was given.
    #[error("gave up after {} s: {last}", after.as_secs())]
    GaveUp {
        /// How long it tried.
        after: Duration,
        /// What the last attempt met.
        last: Box<Status>,
    },
    /// The message is longer than the server takes. It was not sent.
    #[error("the message is too large: {bytes} bytes encoded, and the server takes {max}")]
    TooLarge {
        /// Its length, encoded.
        bytes: u64,
        /// The longest that the server takes.
        max: u64,
    },
    /// The kind is outside the rules. The message was not sent.
    #[error("a kind has 1 to 64 of A-Z a-z 0-9 . _ -")]
    Kind,
    /// The server sent something that its contract does not allow.
    #[error("the server breaks its contract: {0}")]
    Contract(&'static str),
    /// The session has ended before this was acknowledged. It may have been said all the same.
    #[error("the session has ended")]
    Ended,
}

impl Error {
    /// The server's status, where there is one.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused(status) | Self::Lost(status) | Self::GaveUp { last: status, .. } => Some(status),
            _ => None,
        }
    }

    /// The error for a call that ended so, and is not tried again.
    pub(super) fn of(status: Status) -> Self {
        if is_lost(&status, None) { Self::Lost(Box::new(status)) } else { Self::Refused(Box::new(status)) }
    }
}

/// Whether it is worth coming back after this.
pub(super) fn is_lost(status: &Status, goodbye: Option<&Goodbye>) -> bool {
    // A server that has said goodbye and named no time does not want this client back.
    if goodbye.is_some_and(|goodbye| goodbye.retry_after.is_none()) {
        return false;
    }
    // A status with a cause was made on this side, from what happened to the connection.
    if std::error::Error::source(status).is_some() {
        return true;
    }
    match status.code() {
        // OK is an end that nobody asked for.
        Code::Ok
        | Code::Unavailable
        | Code::Unknown
        | Code::Cancelled
        | Code::Aborted
        | Code::DeadlineExceeded => true,
        // Too slow, or a full server; but a message that is too large stays so.
        Code::ResourceExhausted => told(status, goodbye).is_some(),
        _ => false,
    }
}

/// How long the server wants this client to stay away.
pub(super) fn told(status: &Status, goodbye: Option<&Goodbye>) -> Option<Duration> {
    let retry_info = status.get_details_retry_info().and_then(|info| info.retry_delay);
    retry_info.max(goodbye.and_then(|goodbye| goodbye.retry_after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::types::Position;
    use tonic_types::ErrorDetails;

    fn with_retry(code: Code, after: u64) -> Status {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(after)));
        Status::with_error_details(code, "", details)
    }

    fn goodbye(retry_after: Option<u64>) -> Goodbye {
        let position = Position { epoch: "e".into(), offset: 1 };
        Goodbye { reason: "shutdown".into(), retry_after: retry_after.map(Duration::from_secs), position }
    }

    #[test]
    fn a_refusal_is_final_and_a_broken_connection_is_not() {
        for status in [
            Status::invalid_argument("room"),
            Status::permission_denied("kicked"),
            Status::out_of_range("not retained"),
            Status::not_found("room"),
            Status::unimplemented(""),
            Status::internal("invalid message"),
            Status::resource_exhausted("too large"),
        ] {
            assert!(!is_lost(&status, None), "{status:?}");
        }
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        for status in [
            Status::unavailable("stopping"),
            Status::unknown("?"),
            Status::from_error(Box::new(broken)),
            with_retry(Code::ResourceExhausted, 1),
        ] {
            assert!(is_lost(&status, None), "{status:?}");
        }
    }

    #[test]
    fn a_goodbye_decides_whether_to_come_back() {
        let stopping = Status::unavailable("stopping");
        assert!(!is_lost(&stopping, Some(&goodbye(None))));
        assert!(is_lost(&stopping, Some(&goodbye(Some(1)))));
        assert!(is_lost(&Status::resource_exhausted("slow"), Some(&goodbye(Some(1)))));
        assert!(!is_lost(&Status::permission_denied("banned"), Some(&goodbye(Some(1)))));
    }

    #[test]
    fn the_longer_of_two_delays_is_kept() {
        let status = with_retry(Code::Unavailable, 3);
        assert_eq!(told(&status, None), Some(Duration::from_secs(3)));
        assert_eq!(told(&status, Some(&goodbye(Some(5)))), Some(Duration::from_secs(5)));
        assert_eq!(told(&Status::unavailable(""), Some(&goodbye(Some(5)))), Some(Duration::from_secs(5)));
        assert_eq!(told(&Status::unavailable(""), None), None);
    }
}
