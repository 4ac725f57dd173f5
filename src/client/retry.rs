//! Which ends of a call a session recovers from by itself, and when.

use super::error::Error;
use super::types::Goodbye;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The error of a call that ended with `status` and is not retried.
pub(super) fn final_error(status: Status) -> Error {
    if is_retryable(&status, None) { Error::Lost(Box::new(status)) } else { Error::Refused(Box::new(status)) }
}

/// Whether a retry may succeed after this end of a call.
pub(super) fn is_retryable(status: &Status, goodbye: Option<&Goodbye>) -> bool {
    // A goodbye without a time asks the client to stay away.
    if goodbye.is_some_and(|goodbye| goodbye.retry_after.is_none()) {
        return false;
    }
    // A status with a source was made by the client's own transport, from an error of the connection.
    if std::error::Error::source(status).is_some() {
        return true;
    }
    match status.code() {
        // OK is an end that the session did not ask for.
        Code::Ok
        | Code::Unavailable
        | Code::Unknown
        | Code::Cancelled
        | Code::Aborted
        | Code::DeadlineExceeded => true,
        // With a delay: slow consumer, or server full. Without: a message that is too large stays too large.
        Code::ResourceExhausted => retry_delay(status, goodbye).is_some(),
        _ => false,
    }
}

/// How long the server asks the client to wait before its next attempt.
pub(super) fn retry_delay(status: &Status, goodbye: Option<&Goodbye>) -> Option<Duration> {
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
    fn refusals_are_final_and_broken_connections_are_retried() {
        for status in [
            Status::invalid_argument("room"),
            Status::permission_denied("kicked"),
            Status::out_of_range("not retained"),
            Status::not_found("room"),
            Status::unimplemented(""),
            Status::internal("invalid message"),
            Status::resource_exhausted("too large"),
        ] {
            assert!(!is_retryable(&status, None), "{status:?}");
        }
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        for status in [
            Status::unavailable("stopping"),
            Status::unknown("?"),
            Status::from_error(Box::new(broken)),
            with_retry(Code::ResourceExhausted, 1),
        ] {
            assert!(is_retryable(&status, None), "{status:?}");
        }
    }

    #[test]
    fn goodbye_decides_whether_to_retry() {
        let stopping = Status::unavailable("stopping");
        assert!(!is_retryable(&stopping, Some(&goodbye(None))));
        assert!(is_retryable(&stopping, Some(&goodbye(Some(1)))));
        assert!(is_retryable(&Status::resource_exhausted("slow"), Some(&goodbye(Some(1)))));
        assert!(!is_retryable(&Status::permission_denied("banned"), Some(&goodbye(Some(1)))));
    }

    #[test]
    fn longer_of_two_retry_delays_applies() {
        let status = with_retry(Code::Unavailable, 3);
        assert_eq!(retry_delay(&status, None), Some(Duration::from_secs(3)));
        assert_eq!(retry_delay(&status, Some(&goodbye(Some(5)))), Some(Duration::from_secs(5)));
        assert_eq!(
            retry_delay(&Status::unavailable(""), Some(&goodbye(Some(5)))),
            Some(Duration::from_secs(5))
        );
        assert_eq!(retry_delay(&Status::unavailable(""), None), None);
    }
}
