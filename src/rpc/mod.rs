//! What all gRPC services of the server share: statuses with details (AIP-193), and pages of lists (AIP-158).
//!
//! Deliberately does not know the services.

mod code;
#[cfg(feature = "server")]
pub mod lists;
#[cfg(feature = "server")]
pub mod page;
pub mod response;

pub use code::{CODES, code_name, go_code_names};

use rand::Rng as _;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of the reasons in `ErrorInfo`.
const DOMAIN: &str = "chatroom";

/// Clients that are disconnected together reconnect spread over this time, after [`RETRY_AFTER`].
const RETRY_SPREAD: Duration = Duration::from_secs(4);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The delay for one client's `RetryInfo`: random, so that clients do not return together.
#[must_use]
pub fn retry_after() -> Duration {
    RETRY_AFTER + RETRY_SPREAD.mul_f64(rand::rng().random_range(0.0..1.0))
}

/// `INVALID_ARGUMENT` that names the field and the rule that it breaks.
#[must_use]
pub fn invalid(field: &str, rule: impl Into<String>) -> Status {
    let rule = rule.into();
    let details = ErrorDetails::with_bad_request_violation(field, rule.clone());
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {rule}"), details)
}

/// `NOT_FOUND` for a resource, with a reason like `ROOM_NOT_FOUND`.
#[must_use]
pub fn not_found(what: &str, name: &str) -> Status {
    let reason = format!("{}_NOT_FOUND", what.to_uppercase());
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_resource_info(what, name, "", "it is not, or no longer, there");
    Status::with_error_details(Code::NotFound, format!("no {what} {name:?}"), details)
}

/// `UNIMPLEMENTED` for an unknown method; `words` name the methods that exist.
#[must_use]
pub fn no_such_method(words: &str) -> Status {
    refused(Code::Unimplemented, words, "NO_SUCH_METHOD", &[], None)
}

/// `DEADLINE_EXCEEDED` because no request arrived within this time.
#[must_use]
pub fn no_request(within: Duration) -> Status {
    refused(Code::DeadlineExceeded, format!("no request within {within:?}"), "NO_REQUEST", &[], None)
}

/// `INTERNAL` because the bytes are not a message of the method.
#[must_use]
pub fn invalid_message(why: impl Into<String>) -> Status {
    refused(Code::Internal, why, "INVALID_MESSAGE", &[], None)
}

/// The same status, with a reason from a closed list, and its metadata.
#[must_use]
pub fn with_reason(status: &Status, reason: &str, metadata: &[(&str, String)]) -> Status {
    let mut details = status.get_error_details();
    details.set_error_info(reason, DOMAIN, to_map(metadata));
    Status::with_error_details(status.code(), status.message(), details)
}

fn to_map(metadata: &[(&str, String)]) -> HashMap<String, String> {
    metadata.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// A status with a reason from a closed list and its metadata; with `RetryInfo` if a retry makes sense.
#[must_use]
pub fn refused(
    code: Code,
    message: impl Into<String>,
    reason: &str,
    metadata: &[(&str, String)],
    retry: Option<Duration>,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, to_map(metadata));
    if retry.is_some() {
        details.set_retry_info(retry);
    }
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_reason_or_names_a_field() {
        for (status, code, reason) in [
            (not_found("room", "blue"), Code::NotFound, "ROOM_NOT_FOUND"),
            (no_such_method("there is Join"), Code::Unimplemented, "NO_SUCH_METHOD"),
            (no_request(Duration::from_secs(10)), Code::DeadlineExceeded, "NO_REQUEST"),
            (invalid_message("not a request"), Code::Internal, "INVALID_MESSAGE"),
        ] {
            let info = status.get_details_error_info().expect("a reason");
            assert_eq!((status.code(), &*info.reason, &*info.domain), (code, reason, DOMAIN));
        }
        let fields = invalid("room", "is wrong").get_details_bad_request().expect("a field").field_violations;
        assert_eq!((fields.len(), &*fields[0].field), (1, "room"));
    }
}
