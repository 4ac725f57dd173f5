//! What all our gRPC services answer alike: refusals (AIP-193), and pages of lists (AIP-158).

mod code;
pub mod lists;
pub mod page;

pub use code::{CODES, code_name, go_code_names};

use rand::Rng as _;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of our error reasons.
const DOMAIN: &str = "chatroom";

/// Clients that are all sent away at once come back spread over this time, and not before a second.
const RETRY_SPREAD: Duration = Duration::from_secs(4);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// When one client may come back: another time for each.
#[must_use]
pub fn retry_after() -> Duration {
    RETRY_AFTER + RETRY_SPREAD.mul_f64(rand::rng().random_range(0.0..1.0))
}

/// A refusal that names the field and what would be right.
#[must_use]
pub fn invalid(field: &str, rule: impl Into<String>) -> Status {
    let rule = rule.into();
    let details = ErrorDetails::with_bad_request_violation(field, rule.clone());
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {rule}"), details)
}

/// A refusal because what was named is not there; its reason is like `ROOM_NOT_FOUND`.
#[must_use]
pub fn not_found(what: &str, name: &str) -> Status {
    let reason = format!("{}_NOT_FOUND", what.to_uppercase());
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_resource_info(what, name, "", "it is not, or no longer, there");
    Status::with_error_details(Code::NotFound, format!("no {what} {name:?}"), details)
}

/// A refusal because the service has no such method; the words say what it has.
#[must_use]
pub fn no_such_method(words: &str) -> Status {
    refused(Code::Unimplemented, words, "NO_SUCH_METHOD", &[], None)
}

/// A refusal because no request came within this time.
#[must_use]
pub fn no_request(within: Duration) -> Status {
    refused(Code::DeadlineExceeded, format!("no request within {within:?}"), "NO_REQUEST", &[], None)
}

/// A refusal because what came is no message of the method.
#[must_use]
pub fn invalid_message(why: impl Into<String>) -> Status {
    refused(Code::Internal, why, "INVALID_MESSAGE", &[], None)
}

/// The same refusal, with a reason out of a closed list and what belongs to it.
#[must_use]
pub fn with_reason(status: &Status, reason: &str, metadata: &[(&str, String)]) -> Status {
    let mut details = status.get_error_details();
    details.set_error_info(reason, DOMAIN, owned(metadata));
    Status::with_error_details(status.code(), status.message(), details)
}

fn owned(metadata: &[(&str, String)]) -> HashMap<String, String> {
    metadata.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// A refusal for a reason out of a closed list, with what belongs to it; and when to come back, if that makes sense.
#[must_use]
pub fn refused(
    code: Code,
    message: impl Into<String>,
    reason: &str,
    metadata: &[(&str, String)],
    retry: Option<Duration>,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, owned(metadata));
    if retry.is_some() {
        details.set_retry_info(retry);
    }
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_reason_or_names_a_field() {
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
