//! The audit line of every action that changes something: operator, action, target and result.

use crate::telemetry::trace::RpcSpan;
use crate::transport::CallContext;
use crate::wire::admin as api;
use std::time::Duration;
use tonic::{Request, Status};

/// The fields of an audit line, except the result.
#[derive(Default)]
pub(super) struct AuditRecord<'a> {
    /// The operator.
    pub(super) who: Operator,
    /// The action, as a verb.
    pub(super) action: &'static str,
    /// The target.
    pub(super) whom: &'a str,
    /// The operator's reason; empty without one.
    pub(super) reason: &'a str,
    /// The duration of a temporary action.
    pub(super) duration: Option<Duration>,
}

impl AuditRecord<'_> {
    /// Writes the line; `result` describes what was done.
    pub(super) fn log<T>(&self, done: &Result<T, Status>, result: impl FnOnce(&T) -> String) {
        let result = match done {
            Ok(done) => result(done),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        let Self { action, whom, .. } = self;
        let who = &self.who.address;
        let reason = Some(self.reason).filter(|reason| !reason.is_empty());
        let duration = self.duration.map(|duration| humantime::format_duration(duration).to_string());
        // Explicitly, because lists and kicks run on another thread.
        RpcSpan::in_scope(self.who.span.as_ref(), || {
            tracing::info!(who, action, whom, reason, duration, result, "audit");
        });
    }
}

/// The sender of a request.
#[derive(Default)]
pub(super) struct Operator {
    address: String,
    /// The span of the request, if it is sampled.
    span: Option<RpcSpan>,
}

/// The sender of this request.
pub(super) fn operator<T>(request: &Request<T>) -> Operator {
    match request.extensions().get::<CallContext>() {
        Some(call) => Operator { address: call.peer.to_string(), span: call.span.clone() },
        None => Operator { address: "unknown".to_owned(), span: None },
    }
}

/// A filter as short text.
pub(super) fn describe(filter: &api::ConnectionFilter) -> String {
    let lag = Some(filter.min_lag_messages).filter(|lag| *lag > 0).map(|lag| lag.to_string());
    let lag = lag.unwrap_or_default();
    let api = api::Api::try_from(filter.api).unwrap_or_default();
    let api = if api == api::Api::Unspecified { "" } else { api.as_str_name() };
    let room = ("room", &*filter.room);
    let given = [room, ("peer", &filter.peer), ("name", &filter.name), ("api", api), ("min_lag", &lag)];
    let given = given.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}
