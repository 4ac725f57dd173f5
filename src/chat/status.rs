//! The gRPC status for each ending.

use crate::hub::{Departure, Ending, InvalidName, Position, Refused};
use rand::Rng;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of our error reasons (AIP-193).
const DOMAIN: &str = "chatroom";

/// Clients that are all sent away at once come back spread over this time, and not before a second.
const RETRY_SPREAD: Duration = Duration::from_secs(4);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The status that ends a call: its reason is the departure's word, and it says up to which position
/// everything was delivered.
pub(super) fn of_ending(ending: &Ending, delivered: Position) -> Status {
    let departure = ending.departure;
    let words = |default: &str| ending.detail.clone().unwrap_or_else(|| default.to_owned());
    let (code, message, retry) = match departure {
        Departure::Left => return Status::ok(""),
        Departure::Cancelled => return Status::cancelled("the call was cancelled"),
        Departure::SlowConsumer => {
            let message = format!("too slow: {}", words("what came next is no longer retained"));
            (Code::ResourceExhausted, message, true)
        }
        Departure::MessageTooLarge => (Code::ResourceExhausted, words("the message is too large"), false),
        Departure::InvalidMessage => (Code::Internal, words("the message is invalid"), false),
        Departure::Kicked => (Code::PermissionDenied, words("removed by an operator"), false),
        Departure::Shutdown => (Code::Unavailable, words("the server is stopping"), true),
    };
    let metadata = HashMap::from([("position".to_owned(), delivered.to_string())]);
    let reason = departure.as_str().to_uppercase();
    with_details(code, message, reason, metadata, retry)
}

/// The status for a client that may not join.
pub(super) fn of_refusal(refused: &Refused) -> Status {
    let (code, reason) = match refused {
        Refused::Closing => (Code::Unavailable, "SHUTDOWN"),
        Refused::Banned => (Code::PermissionDenied, "BANNED"),
        Refused::Connections(_) => (Code::ResourceExhausted, "TOO_MANY_CONNECTIONS"),
        Refused::Rooms(_) => (Code::ResourceExhausted, "TOO_MANY_ROOMS"),
    };
    with_details(code, refused.to_string(), reason.to_owned(), HashMap::new(), code != Code::PermissionDenied)
}

/// The status for metadata that names something impossible.
pub(super) fn of_invalid_metadata(key: &str, invalid: &InvalidName) -> Status {
    let details = ErrorDetails::with_bad_request_violation(key, invalid.to_string());
    Status::with_error_details(Code::InvalidArgument, format!("{key}: {invalid}"), details)
}

fn with_details(
    code: Code,
    message: String,
    reason: String,
    metadata: HashMap<String, String>,
    retry: bool,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if retry {
        let spread = rand::rng().random_range(0.0..1.0);
        details.set_retry_info(Some(RETRY_AFTER + RETRY_SPREAD.mul_f64(spread)));
    }
    Status::with_error_details(code, message, details)
}
