//! The operator's service: `chatroom.admin.v1`.
//!
//! Promises that no list, however long, holds up the broadcast: everything is read from snapshots, on the control plane's
//! thread. What changes something leaves an audit line: who, what, whom, result.
//! Knows nothing of sockets; the server tells it where it listens.

mod connections;
mod drain;
mod kick;
mod page;
mod rooms;
mod service;
mod show;
mod watch;

pub use service::{About, Admin};

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

/// A refusal that names the field and what would be right (AIP-193).
fn invalid(field: &str, rule: impl Into<String>) -> Status {
    let rule = rule.into();
    let details = ErrorDetails::with_bad_request_violation(field, rule.clone());
    Status::with_error_details(tonic::Code::InvalidArgument, format!("{field}: {rule}"), details)
}

/// A refusal because what was named is not there.
fn not_found(what: &str, name: &str) -> Status {
    let details = ErrorDetails::with_resource_info(what, name, "", "it is not, or no longer, there");
    Status::with_error_details(tonic::Code::NotFound, format!("no {what} {name:?}"), details)
}
