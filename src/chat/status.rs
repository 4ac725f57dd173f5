//! The gRPC status for each ending and each refusal to let in.

use crate::hub::{Departure, Ending, NoStart, Position, Refused};
use crate::rpc::{refused, retry_after};
use std::time::Duration;
use tonic::{Code, Status};

/// When a client may come back whose connection ends so; never by itself, if there is no time.
pub(super) fn retry_of(departure: Departure) -> Option<Duration> {
    match departure {
        Departure::SlowConsumer | Departure::Shutdown => Some(retry_after()),
        Departure::Left
        | Departure::Cancelled
        | Departure::MessageTooLarge
        | Departure::InvalidMessage
        | Departure::RequestIncomplete
        | Departure::Kicked => None,
    }
}

/// The code of the status that ends a call. For an invalid message of v1 it may be another, which names the field.
fn code_of(departure: Departure) -> Code {
    match departure {
        Departure::Left => Code::Ok,
        Departure::Cancelled => Code::Cancelled,
        Departure::SlowConsumer | Departure::MessageTooLarge => Code::ResourceExhausted,
        Departure::InvalidMessage => Code::Internal,
        Departure::RequestIncomplete => Code::DeadlineExceeded,
        Departure::Kicked => Code::PermissionDenied,
        Departure::Shutdown => Code::Unavailable,
    }
}

/// The status that ends a call: its reason is the departure's word, and it says up to which position
/// everything was delivered, and when to come back.
pub(super) fn of_ending(ending: &Ending, delivered: Position, retry: Option<Duration>) -> Status {
    let departure = ending.departure;
    let words = |default: &str| ending.detail.clone().unwrap_or_else(|| default.to_owned());
    let message = match departure {
        Departure::Left => return Status::ok(""),
        Departure::Cancelled => return Status::cancelled("the call was cancelled"),
        Departure::SlowConsumer => {
            format!("too slow: {}", words("what came next is no longer retained"))
        }
        Departure::MessageTooLarge => words("the message is too large"),
        Departure::InvalidMessage => words("the message is invalid"),
        Departure::RequestIncomplete => words("the message was not complete in time"),
        Departure::Kicked => words("removed by an operator"),
        Departure::Shutdown => words("the server is stopping"),
    };
    let metadata = [("position", delivered.to_string())];
    refused(code_of(departure), message, &departure.as_str().to_uppercase(), &metadata, retry)
}

/// The status for a client that may not join.
pub(super) fn of_refusal(refusal: &Refused) -> Status {
    let mut metadata = Vec::new();
    let (code, reason, retry) = match refusal {
        Refused::Closing => (Code::Unavailable, "SHUTDOWN", true),
        Refused::Banned { until, .. } => {
            metadata.push(("until", humantime::format_rfc3339_seconds(*until).to_string()));
            (Code::PermissionDenied, "BANNED", false)
        }
        Refused::Connections(_) | Refused::ConnectionsOfAddress(_) => {
            (Code::ResourceExhausted, "TOO_MANY_CONNECTIONS", true)
        }
        Refused::ConnectionsOfRoom(_) => (Code::ResourceExhausted, "ROOM_FULL", true),
        Refused::Rooms(_) | Refused::RoomsOfClient { .. } => {
            (Code::ResourceExhausted, "TOO_MANY_ROOMS", true)
        }
        Refused::Start(NoStart::Beyond(last)) => {
            metadata.push(("last_position", last.to_string()));
            (Code::OutOfRange, "START_BEYOND", false)
        }
        Refused::Start(NoStart::Missing(gap)) => {
            metadata.push(("from", gap.from.to_string()));
            metadata.push(("to", gap.to.to_string()));
            metadata.push(("why", gap.why.as_str().to_owned()));
            (Code::OutOfRange, "START_NOT_RETAINED", false)
        }
    };
    let retry = match refusal {
        // Before that, no attempt succeeds.
        Refused::Banned { remaining, .. } => Some(*remaining),
        _ => retry.then(retry_after),
    };
    refused(code, refusal.to_string(), reason, &metadata, retry)
}
