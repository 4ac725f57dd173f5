//! The gRPC side of chatting: requests become messages of the hub, the hub's frames become responses.
//!
//! Promises the contract of `hello.ChatRoom` to every client that speaks it. Statuses are chosen here, at the edge.
//! Knows nothing of sockets or threads.

mod body;
mod codec;
mod front;
mod said;
mod service;
mod status;

pub use body::{ChatBody, Reply};
pub use front::Front;
pub use said::Said;
pub use service::ChatRoom;
