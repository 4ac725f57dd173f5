//! The operator's service: `chatroom.admin.v1`.
//!
//! No list, however long, delays the broadcast or the control plane: lists read snapshots on a thread of their own
//! ([`crate::rpc::lists`]). Every change writes an audit line with operator, action, target and result. Does not know about
//! sockets; the server passes its addresses in.

mod audit;
mod bans;
mod connections;
mod drain;
mod kick;
mod rooms;
mod service;
mod show;
mod watch;

pub use service::{Admin, ServerDescription};
