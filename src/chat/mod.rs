//! The gRPC services of chatting: requests become messages of the hub, and the hub's frames become responses.
//!
//! Guarantees the contract of `hello.ChatRoom` to every client that speaks it, and `chatroom.v1` to new ones; both share
//! rooms and their order. Statuses are chosen here, at the edge. Knows nothing of sockets and threads.

#[cfg(feature = "server")]
mod admission;
mod broadcast;
mod codec;
#[cfg(feature = "server")]
mod hello;
#[cfg(feature = "server")]
mod message;
#[cfg(feature = "server")]
mod metadata;
mod proto;
mod response;
#[cfg(feature = "server")]
mod router;
mod service;
mod status;
#[cfg(feature = "server")]
mod v1;

pub use broadcast::Broadcast;
#[cfg(feature = "server")]
pub use message::Message;
pub use proto::Proto;
#[cfg(feature = "server")]
pub use router::{ChatOptions, RoutedBody, Router, SERVICES};
pub use service::{BroadcastMethod, BroadcastService, BroadcastStream};
