//! The operator's service: `chatroom.admin.v1`.
//!
//! Promises that no list, however long, holds up the broadcast or the control plane: everything is read from snapshots, on
//! the thread of lists ([`crate::rpc::lists`]). What changes something leaves an audit line: who, what, whom, result.
//! Knows nothing of sockets; the server tells it where it listens.

mod audit;
mod bans;
mod connections;
mod drain;
mod kick;
mod rooms;
mod service;
mod show;
mod watch;

pub use service::{About, Admin};
