//! The drain as operators start, inspect and cancel it.

use super::show;
use crate::drain::{CancelDrainError, Drain, Phase};
use crate::hub::{Hub, Payload};
use crate::transport::TransportStats;
use crate::wire::admin as api;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The drain's current state.
pub(super) fn now<M: Payload>(drain: &Drain, hub: &Hub<M>, transports: &TransportStats) -> api::Drain {
    let status = drain.status();
    let phase = match status.phase {
        Phase::Serving => api::DrainPhase::Serving,
        Phase::Notice => api::DrainPhase::Notice,
        Phase::Ending => api::DrainPhase::Ending,
        Phase::Closing => api::DrainPhase::Closing,
    };
    api::Drain {
        phase: phase.into(),
        connections: hub.connection_stats().present() as u64,
        transports: transports.present() as u64,
        started: status.started.map(|started| show::time(started.at)),
        deadline: drain.deadline(&status).map(show::time),
    }
}

/// The status for a drain that cannot be cancelled.
pub(super) fn cancel_error(refused: CancelDrainError) -> Status {
    let subject = "chatroom.admin.v1.Drain";
    let details = ErrorDetails::with_precondition_failure_violation("DRAIN", subject, refused.to_string());
    Status::with_error_details(Code::FailedPrecondition, refused.to_string(), details)
}
