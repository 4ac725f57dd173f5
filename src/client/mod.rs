//! A client of `chatroom.v1` that reconnects by itself.
//!
//! A [`Session`] joins a room and stays in it: if its call is lost, it opens another and resumes at its position.
//!
//! Guarantees:
//!
//! - **Receive.** Each event is delivered once and in the room's order, over any number of calls. Events that the room no
//!   longer retains, or that belong to another epoch (the server restarted), are reported as a [`Gap`] in their place.
//!   No event is lost silently.
//! - **Publish.** Each publish is sent until it is acknowledged, in order, always with the same idempotency key. The room
//!   publishes it once, as long as it remembers the key. A restarted server remembers none.
//! - **Reconnect.** A session reconnects after a broken connection, `UNAVAILABLE`, a goodbye with a time, or
//!   `RESOURCE_EXHAUSTED` with `RetryInfo` (slow consumer, server full). Delays follow [`BackoffPolicy`] and are never
//!   shorter than the server asks. Any other status ends the session with [`Error::Refused`].
//! - **Fail fast.** The first connection and the first join are tried once, so that a wrong address or room fails
//!   immediately. Afterwards a session retries for ever, unless [`BackoffPolicy::give_up_after`] is set.
//! - **Bounds.** The queues of received events and unacknowledged publishes are bounded, see [`Options`]. A caller that
//!   does not receive stops its call, see [`Receiver`].
//!
//! ```no_run
//! use chatroom::client::{Client, Error, Incoming, Join, Start};
//!
//! # async fn example() -> Result<(), Error> {
//! let client = Client::connect("127.0.0.1:50051").await?;
//! let join = Join { display_name: "ann".into(), start: Start::Last(10), ..Join::room("blue") };
//! let (publisher, mut receiver) = client.join(join).await?.split();
//! tokio::spawn(async move {
//!     let ack = publisher.publish("chat", "hi").await?;
//!     println!("published at {}", ack.position);
//!     // The last publisher is dropped here: the session ends after its own last message.
//!     Ok::<_, Error>(())
//! });
//! while let Some(incoming) = receiver.receive().await? {
//!     match incoming {
//!         Incoming::Event(event) => println!("{}: {:?}", event.position, event.text()),
//!         Incoming::Gap(gap) => println!("missed {} messages", gap.count),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! To resume in another process, store the last [`Event::position`] and pass it as [`Start::After`].

mod backoff;
#[allow(clippy::module_inception, reason = "the type that the module is named for")]
mod client;
mod connector;
mod delivery;
mod error;
mod metadata;
mod options;
mod outbox;
mod pages;
mod progress;
mod publisher;
mod retry;
mod session;
mod task;
mod types;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use backoff::BackoffPolicy;
pub use client::Client;
pub use error::Error;
pub use options::Options;
pub use pages::Pages;
pub use publisher::{Publisher, Receipt};
pub use session::{Receiver, Session};
pub use types::{
    Ack, Body, Disconnected, Event, Gap, Goodbye, HistoryItem, Incoming, InvalidPosition, Join, Member,
    Position, Presence, Reason, Room, Start, Welcome,
};
