//! Transports: TCP connections that speak HTTP/2, from accept to close.
//!
//! Promises: a transport is accepted, served on one worker for its whole life, and gone within a bound whatever its
//! peer does: one that is silent, stops reading, or never acknowledges cannot hold on to a descriptor.
//! The HTTP/2 protocol is hyper's and h2's; the loop around it is ours, because a server of long-lived streams
//! needs deadlines that theirs does not have. Knows nothing of rooms or messages.

mod accept;
mod call;
mod connection;
mod gate;
mod io;
mod linger;
mod listener;
mod rpcs;
mod unwritten;
mod worker;

pub use accept::{Acceptor, Refusal, TransportCensus};
pub use call::{Call, CallHandle, TransportId};
pub use connection::{Limits, Services};
pub use listener::{ListenError, Listener, open_file_limit};
pub use rpcs::Rpcs;
pub use worker::{Worker, WorkerHandle};
