//! Transports: TCP connections that carry HTTP/2, from accept to close.
//!
//! A worker thread owns each transport for its whole life. One task serves a transport: h2 speaks the protocol, and the loop
//! around it adds the deadlines and the turns that long-lived streams need and stock servers lack.
//!
//! Guarantees: every transport closes within a bound, whatever its peer does. A peer that is silent, stops reading, or never
//! acknowledges cannot hold a descriptor. A response takes from its source only what the peer's flow-control windows accept
//! now, so its status can be sent at any time.
//!
//! Deliberately does not know rooms, messages, or any service by name.

mod accept;
mod answer_budget;
mod call;
mod call_future;
mod connection;
mod deadlines;
mod frame_rate;
mod frames;
mod grpc_timeout;
mod in_flight;
mod lifecycle;
mod limits;
mod listener;
mod not_grpc;
mod request;
mod rpc_metrics;
mod send_windows;
mod services;
mod socket;
mod state;
mod stats;
mod stream_state;
mod sub_tasks;
#[cfg(test)]
mod tests;
mod worker;

pub use crate::rpc::response::{Chunk, ResponseBody};
pub use accept::Acceptor;
pub use call::{CallContext, CallHandle};
pub use limits::TransportLimits;
pub use listener::{ListenError, Listener, configure_socket, raise_open_file_limit};
pub use rpc_metrics::{MethodLimits, RpcMetrics};
pub use services::Services;
pub use state::TransportId;
pub use stats::{Refusal, TransportStats};
pub use worker::{Worker, WorkerHandle};
