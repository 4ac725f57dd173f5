//! The gRPC side of chatting: requests become messages of the hub, the hub's frames become responses.
//!
//! Promises the contract of `hello.ChatRoom` to every client that speaks it, and `chatroom.v1` to those who want more;
//! both share rooms and their order. Statuses are chosen here, at the edge. Knows nothing of sockets or threads.

mod broadcast;
mod codec;
mod front;
mod hello;
mod metadata;
mod proto;
mod reply;
mod said;
mod seat;
mod status;
mod v1;

pub use broadcast::Broadcast;
pub use front::{Front, SERVICES};
pub use proto::Proto;
pub use reply::Reply;
pub use said::Said;
