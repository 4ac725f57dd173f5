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
mod connector;
mod delivery;
mod error;
mod metadata;
mod outbox;
mod pages;
mod progress;
mod publisher;
mod session;
mod task;
mod types;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use backoff::BackoffPolicy;
pub use error::Error;
pub use pages::{HistoryItem, Pages};
pub use publisher::{Publisher, Receipt};
pub use session::{Receiver, Session};
pub use types::{
    Ack, Body, Disconnected, Event, Gap, Goodbye, Incoming, InvalidPosition, Join, Member, Position,
    Presence, Reason, Room, Start, Welcome,
};

use crate::wire::v1;
use crate::wire::v1::chat_service_client::ChatServiceClient;
use backoff::Backoff;
use connector::{CallKind, Connector, RESPONSE_MAX_BYTES};
use delivery::Delivery;
use error::{is_retryable, retry_delay};
use metadata::in_room;
use outbox::Outbox;
use progress::Progress;
use publisher::{new_idempotency_key, validate_kind};
use std::sync::Arc;
use std::time::Duration;
use task::Task;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// Flow-control windows in bytes, of one call and of the connection. A call's window is small, so that a caller that
/// does not receive leaves room for the other calls on the connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Upper bound of `response_timeout`, so that adding it to the clock cannot overflow.
const RESPONSE_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Limits and timeouts of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Timeout of a TCP connect. Default: 5 s.
    pub connect_timeout: Duration,
    /// Timeout of a unary call, and of a streaming call's first response; at most a day. Default: 10 s.
    pub response_timeout: Duration,
    /// Interval of HTTP/2 pings, also while no call is open. Default: 30 s.
    pub keepalive_interval: Duration,
    /// How long to wait for a ping's acknowledgement before the connection counts as broken. Default: 10 s.
    pub keepalive_timeout: Duration,
    /// Delays between reconnection attempts.
    pub backoff: BackoffPolicy,
    /// Received items that a session queues for the caller. Default: 1,024.
    pub events_ahead: usize,
    /// Unacknowledged publishes of a session. Default: 256, the server's default for one connection's share of an inbox.
    pub in_flight_messages: usize,
    /// Unacknowledged publishes of a session in encoded bytes. Default: 1 MiB.
    pub in_flight_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            backoff: BackoffPolicy::default(),
            events_ahead: 1024,
            in_flight_messages: 256,
            in_flight_bytes: 1 << 20,
        }
    }
}

/// A connection to a server. Clones and their sessions share it; after it breaks, the next call opens another.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    options: Options,
}

impl Client {
    /// Connects to `host:port` or a URL with default options.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Connect`].
    pub async fn connect(address: &str) -> Result<Self, Error> {
        Self::connect_with(address, Options::default()).await
    }

    /// Connects to `host:port` or a URL.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Connect`].
    pub async fn connect_with(address: &str, options: Options) -> Result<Self, Error> {
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(url)
            .ok()
            .filter(|endpoint| endpoint.uri().authority().is_some())
            .ok_or_else(|| Error::Address(address.to_owned()))?
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout)
            .keep_alive_while_idle(true);
        let cannot = |error| Error::Connect { address: address.to_owned(), source: Arc::new(error) };
        Ok(Self::from_channel(endpoint.connect().await.map_err(cannot)?, options))
    }

    /// A client over the caller's own channel, for example with TLS. The channel then determines the connect and keepalive
    /// timeouts.
    #[must_use]
    pub fn from_channel(channel: Channel, options: Options) -> Self {
        Self { channel, options }
    }

    /// Joins a room to publish and receive. Must be called within a tokio runtime, which runs the session's task.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Lost`]: the first join is not retried.
    pub async fn join(&self, join: Join) -> Result<Session, Error> {
        let (publisher, receiver) = self.open_session(join, CallKind::Join).await?;
        Ok(Session::new(publisher, receiver))
    }

    /// Subscribes to a room without publishing. `suppress_echo` has no effect.
    ///
    /// # Errors
    /// As [`Client::join`].
    pub async fn subscribe(&self, join: Join) -> Result<Receiver, Error> {
        let join = Join { suppress_echo: false, ..join };
        let (_, receiver) = self.open_session(join, CallKind::Subscribe).await?;
        Ok(receiver)
    }

    async fn open_session(&self, join: Join, kind: CallKind) -> Result<(Publisher, Receiver), Error> {
        let connector = Connector { channel: self.channel.clone(), kind, options: self.options.clone() };
        let call = connector.clone().open(join.clone()).await.map_err(Error::from_status)?;
        let (publisher, queue, shared) = Publisher::new(&self.options);
        let (receiver, sender) = Receiver::new(&call, &self.options);
        let mut outbox = Outbox::new(queue, shared);
        outbox.begin_call(call.welcome.max_message_bytes);
        let task = Task {
            connector,
            progress: Progress::new(join, &call.welcome),
            delivery: Delivery::new(sender),
            outbox,
            backoff: Backoff::new(self.options.backoff.clone()),
        };
        tokio::spawn(task.run(call));
        Ok((publisher, receiver))
    }

    /// Publishes one message in a room without joining it, and returns its position. If the call is lost or the room is
    /// busy, retries with the same idempotency key until `response_timeout` has passed.
    ///
    /// # Errors
    /// [`Error::Kind`]; [`Error::Refused`], also for a message that is too large; [`Error::Lost`], in which case the
    /// message may have been published.
    pub async fn publish(
        &self,
        room: &str,
        display_name: &str,
        kind: &str,
        body: impl Into<Body>,
    ) -> Result<Ack, Error> {
        let request = v1::PublishRequest {
            room: room.to_owned(),
            display_name: display_name.to_owned(),
            kind: validate_kind(kind.to_owned())?,
            body: Some(body.into().into()),
            idempotency_key: new_idempotency_key(),
        };
        let deadline = self.deadline();
        let mut backoff = Backoff::new(self.options.backoff.clone());
        loop {
            let attempt =
                async |mut service: RpcClient| service.publish(in_room(room, request.clone())).await;
            let status = match self.unary_until(deadline, attempt).await {
                Ok(response) => return Ack::new(response.position, response.repeated),
                Err(status) => status,
            };
            let wait = backoff.next_delay(retry_delay(&status, None), &mut rand::rng());
            if !is_retryable(&status, None) || Instant::now() + wait >= deadline {
                return Err(Error::from_status(status));
            }
            sleep(wait).await;
        }
    }

    /// The retained events of a room from `start` on, oldest first; none for [`Start::Tail`]. An empty `kinds` selects all.
    /// Ends at the tail as of the last page's fetch.
    pub fn list_events(&self, room: &str, start: &Start, kinds: &[String]) -> Pages<HistoryItem> {
        let query = v1::ListEventsRequest {
            room: room.to_owned(),
            start: Some(start.to_wire(false)),
            kinds: kinds.to_vec(),
            page_size: 1000,
            page_token: String::new(),
        };
        pages::events(self.clone(), query)
    }

    /// The members of a room, oldest first.
    pub fn list_members(&self, room: &str) -> Pages<Member> {
        pages::members(self.clone(), room.to_owned())
    }

    /// The rooms, ordered by name.
    pub fn list_rooms(&self) -> Pages<Room> {
        pages::rooms(self.clone())
    }

    /// Runs one unary RPC within `response_timeout`.
    async fn unary<T>(
        &self,
        rpc: impl AsyncFnOnce(RpcClient) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        self.unary_until(self.deadline(), rpc).await.map_err(Error::from_status)
    }

    async fn unary_until<T>(
        &self,
        deadline: Instant,
        rpc: impl AsyncFnOnce(RpcClient) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let service =
            ChatServiceClient::new(self.channel.clone()).max_decoding_message_size(RESPONSE_MAX_BYTES);
        match timeout_at(deadline, rpc(service)).await {
            Ok(response) => response.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no response in time")),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.options.response_timeout.min(RESPONSE_TIMEOUT_MAX)
    }
}

type RpcClient = ChatServiceClient<Channel>;
