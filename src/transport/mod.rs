//! Transports: TCP connections that speak HTTP/2, from accept to close.
//!
//! Guarantees: a transport is accepted, served on one worker for its whole life, and gone within a bound whatever its
//! peer does: one that is silent, stops reading, or never acknowledges cannot hold on to a descriptor. A response takes
//! from its source only what the peer's windows take now, so that its status can be sent at any time.
//! The protocol is h2's; the loop around it is ours, because a server of long-lived streams needs deadlines and turns that
//! stock servers do not have. Does not know rooms or messages.

mod accept;
mod call;
mod connection;
mod deadlines;
mod frames;
mod gate;
mod in_flight;
mod life;
mod listener;
mod methods;
mod pace;
mod request;
mod response;
mod socket;
mod stats;
mod stream;
mod timeout;
mod waker;
mod windows;
mod worker;

pub use accept::Acceptor;
pub use call::{Call, CallHandle, TransportId};
pub use connection::{Limits, Services};
pub use listener::{ListenError, Listener, open_file_limit, prepare};
pub use methods::{MethodLimits, Methods};
pub use response::{Chunk, ResponseBody};
pub use stats::{Refusal, TransportCensus};
pub use worker::{Worker, WorkerHandle};
