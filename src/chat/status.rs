//! The gRPC status for each disconnect and each refusal to let in.

use super::codec::{self, Fault};
use crate::hub::{Disconnect, DisconnectReason, Payload, Position, Refused, StartError, Subscription};
use crate::rpc::{refused, retry_after};
use std::time::Duration;
use tonic::{Code, Status};

/// When a client may come back whose connection ends so; never by itself, if there is no time.
pub(super) fn retry_of(reason: DisconnectReason) -> Option<Duration> {
    match reason {
        DisconnectReason::SlowConsumer | DisconnectReason::Shutdown => Some(retry_after()),
        DisconnectReason::Left
        | DisconnectReason::Cancelled
        | DisconnectReason::MessageTooLarge
        | DisconnectReason::InvalidMessage
        | DisconnectReason::RequestIncomplete
        | DisconnectReason::Kicked => None,
    }
}

/// The code of the status that ends a call. For an invalid message of v1 it may be another, which names the field.
fn code_of(reason: DisconnectReason) -> Code {
    match reason {
        DisconnectReason::Left => Code::Ok,
        DisconnectReason::Cancelled => Code::Cancelled,
        DisconnectReason::SlowConsumer | DisconnectReason::MessageTooLarge => Code::ResourceExhausted,
        DisconnectReason::InvalidMessage => Code::Internal,
        DisconnectReason::RequestIncomplete => Code::DeadlineExceeded,
        DisconnectReason::Kicked => Code::PermissionDenied,
        DisconnectReason::Shutdown => Code::Unavailable,
    }
}

/// The status of a call whose subscription has ended.
pub(super) fn of_subscription<M: Payload>(subscription: &Subscription<M>) -> Status {
    let Some(disconnect) = subscription.disconnected() else { return Status::ok("") };
    let retry = retry_of(disconnect.reason);
    of_disconnect(disconnect, subscription.delivered(), retry)
}

/// Why a call ends whose next request cannot be read, and the detail for its status; `None` if the client has gone.
pub(super) fn of_unreadable(request: Status, max: usize) -> Option<(DisconnectReason, String)> {
    match Fault::from(request) {
        Fault::Broken => None,
        Fault::TooLarge => Some((DisconnectReason::MessageTooLarge, codec::too_large(max))),
        Fault::Late(why) => Some((DisconnectReason::RequestIncomplete, why)),
        Fault::Invalid(why) => Some((DisconnectReason::InvalidMessage, why)),
    }
}

/// The status that ends a call: its `ErrorInfo` names the disconnect reason, and it says up to which position
/// everything was delivered, and when to come back.
pub(super) fn of_disconnect(disconnect: &Disconnect, delivered: Position, retry: Option<Duration>) -> Status {
    let reason = disconnect.reason;
    let words = |default: &str| disconnect.detail.clone().unwrap_or_else(|| default.to_owned());
    let message = match reason {
        DisconnectReason::Left => return Status::ok(""),
        DisconnectReason::Cancelled => return Status::cancelled("the call was cancelled"),
        DisconnectReason::SlowConsumer => {
            format!("too slow: {}", words("what came next is no longer retained"))
        }
        DisconnectReason::MessageTooLarge => words("the message is too large"),
        DisconnectReason::InvalidMessage => words("the message is invalid"),
        DisconnectReason::RequestIncomplete => words("the message was not complete in time"),
        DisconnectReason::Kicked => words("removed by an operator"),
        DisconnectReason::Shutdown => words("the server is stopping"),
    };
    let metadata = [("position", delivered.to_string())];
    refused(code_of(reason), message, &reason.as_str().to_uppercase(), &metadata, retry)
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
        Refused::Start(StartError::Beyond(last)) => {
            metadata.push(("last_position", last.to_string()));
            (Code::OutOfRange, "START_BEYOND", false)
        }
        Refused::Start(StartError::Missing(gap)) => {
            metadata.push(("from", gap.from.to_string()));
            metadata.push(("to", gap.to.to_string()));
            metadata.push(("why", gap.reason.as_str().to_owned()));
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
