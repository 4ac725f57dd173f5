//! A client of `chatroom.v1` that outlives its connections.
//!
//! A [`Session`] joins a room and stays there: when its call is lost it makes another and goes on where it was.
//!
//! What it promises:
//!
//! - **Hearing.** Each event is handed over once and in the room's order, over as many calls as it takes. What the room
//!   does not retain any more by then, or said in another life (a server that was restarted), is reported as a [`Gap`]
//!   at its place. Nothing is missed silently.
//! - **Saying.** Each publish is sent until it is acknowledged, in order, always with the same idempotency key: it is
//!   said once, as long as the room knows the key. A server that was restarted knows none.
//! - **Coming back.** After a broken connection, `UNAVAILABLE`, a goodbye that names a time, or `RESOURCE_EXHAUSTED`
//!   with `RetryInfo` (too slow, server full), with exponential back-off and full jitter ([`BackOff`]), never earlier
//!   than the server asked. Any other status ends the session with [`Error::Refused`].
//! - **Failing fast.** The first connection and the first join are tried once, so that a wrong address or room is known
//!   at once. From then on a session comes back for ever, unless [`BackOff::give_up_after`] is set.
//! - **Bounds.** What waits for the caller or for acknowledgement is bounded, see [`Options`]. A caller that does not
//!   take what it hears stops its call, see [`Receiver`].
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
//!     println!("said at {}", ack.position);
//!     // The last publisher is dropped here: the session ends when it has heard itself.
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
//! To go on in another process, keep the last [`Event::position`] and begin with [`Start::After`].

mod back_off;
mod call;
mod caller;
mod error;
mod metadata;
mod outbox;
mod pages;
mod place;
mod publisher;
mod session;
mod task;
mod types;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use back_off::BackOff;
pub use error::Error;
pub use pages::{Pages, Past};
pub use publisher::{Publisher, Receipt};
pub use session::{Receiver, Session};
pub use types::{
    Ack, Body, Disconnected, Event, Gap, Goodbye, Incoming, InvalidPosition, Join, Member, Position,
    Presence, Reason, Room, Start, Welcome,
};

use crate::wire::v1;
use crate::wire::v1::chat_service_client::ChatServiceClient;
use back_off::Waits;
use call::{Opener, RESPONSE_MAX_BYTES, Way};
use caller::Caller;
use error::{is_lost, told};
use metadata::in_room;
use outbox::Outbox;
use place::Place;
use publisher::{checked_kind, fresh_key};
use std::sync::Arc;
use std::time::Duration;
use task::Task;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// What the server may send of one call while the caller does not take it, in bytes; and of all calls. Small enough
/// that a caller that is behind leaves the others of its connection their share.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// So that a deadline can be reckoned from whatever the options say.
const ANSWER_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Limits and times of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long to try to connect to an address. Default: 5 s.
    pub connect_timeout: Duration,
    /// How long a call may take to begin, and one that has a single answer in all; at most a day. Default:
    /// 10 s.
    pub answer_timeout: Duration,
    /// How often to ask the server whether it is there, by an HTTP/2 ping, also while no call is open. Default: 30 s.
    pub keepalive_interval: Duration,
    /// How long to wait for its answer; then the connection is taken for broken. Default: 10 s.
    pub keepalive_timeout: Duration,
    /// When a session comes back.
    pub back_off: BackOff,
    /// How much a session hands over ahead of what the caller takes, in events and the like. Default: 1,024.
    pub events_ahead: usize,
    /// How many publishes of a session may wait for acknowledgement. Default: 256, as many as a server takes in at once
    /// from one connection by its own default.
    pub in_flight_messages: usize,
    /// The same in bytes, encoded. Default: 1 MiB.
    pub in_flight_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            back_off: BackOff::default(),
            events_ahead: 1024,
            in_flight_messages: 256,
            in_flight_bytes: 1 << 20,
        }
    }
}

/// A connection to a server. Clones, and all sessions that come from them, share it; when it breaks, the next call makes
/// another.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    options: Options,
}

impl Client {
    /// Connects to `host:port` or a URL, with the default options.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Connect`].
    pub async fn connect(address: &str) -> Result<Self, Error> {
        Self::connect_with(address, Options::default()).await
    }

    /// Connects with these options.
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
        Ok(Self::over(endpoint.connect().await.map_err(cannot)?, options))
    }

    /// A client over a channel of the caller's, with TLS for example; the connection's own times are
    /// the channel's then.
    #[must_use]
    pub fn over(channel: Channel, options: Options) -> Self {
        Self { channel, options }
    }

    /// Joins a room, to say and to hear. Must be called within a tokio runtime, where the session's task then lives.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Lost`]: this first time is not repeated.
    pub async fn join(&self, join: Join) -> Result<Session, Error> {
        let (publisher, receiver) = self.begin(join, Way::Join).await?;
        Ok(Session::new(publisher, receiver))
    }

    /// Listens to a room without being able to say anything. `suppress_echo` has no meaning here.
    ///
    /// # Errors
    /// As [`Client::join`].
    pub async fn subscribe(&self, join: Join) -> Result<Receiver, Error> {
        let join = Join { suppress_echo: false, ..join };
        let (_, receiver) = self.begin(join, Way::Subscribe).await?;
        Ok(receiver)
    }

    async fn begin(&self, join: Join, way: Way) -> Result<(Publisher, Receiver), Error> {
        let opener = Opener { channel: self.channel.clone(), way, options: self.options.clone() };
        let call = opener.clone().open(join.clone()).await.map_err(Error::of)?;
        let (publisher, said, shared) = Publisher::new(&self.options);
        let (receiver, handed) = Receiver::new(&call, &self.options);
        let mut outbox = Outbox::new(said, shared);
        outbox.start_over(call.welcome.max_message_bytes);
        let task = Task {
            opener,
            place: Place::new(join, &call.welcome),
            caller: Caller::new(handed),
            outbox,
            waits: Waits::new(self.options.back_off.clone()),
        };
        tokio::spawn(task.run(call));
        Ok((publisher, receiver))
    }

    /// Says one thing in a room without joining it, and tells its position. When the call is lost or the room is busy,
    /// it is tried again until `answer_timeout` has passed, with the same idempotency key.
    ///
    /// # Errors
    /// [`Error::Kind`]; [`Error::Refused`], also for a message that is too large; [`Error::Lost`], and then it may have
    /// been said all the same.
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
            kind: checked_kind(kind.to_owned())?,
            body: Some(body.into().into()),
            idempotency_key: fresh_key(),
        };
        let (deadline, mut waits) = (self.deadline(), Waits::new(self.options.back_off.clone()));
        loop {
            let attempt = async |mut service: Service| service.publish(in_room(room, request.clone())).await;
            let status = match self.ask_until(deadline, attempt).await {
                Ok(said) => return Ack::new(said.position, said.repeated),
                Err(status) => status,
            };
            let wait = waits.next(told(&status, None), &mut rand::rng());
            if !is_lost(&status, None) || Instant::now() + wait >= deadline {
                return Err(Error::of(status));
            }
            sleep(wait).await;
        }
    }

    /// What a room retains, oldest first, from `start` on; [`Start::Tail`] has nothing. Only of these kinds, or of all
    /// if there are none. Ends at what was the tail when its last page was fetched.
    pub fn list_events(&self, room: &str, start: &Start, kinds: &[String]) -> Pages<Past> {
        let query = v1::ListEventsRequest {
            room: room.to_owned(),
            start: Some(start.to_wire(false)),
            kinds: kinds.to_vec(),
            page_size: 1000,
            page_token: String::new(),
        };
        pages::events(self.clone(), query)
    }

    /// Who is in a room, oldest first.
    pub fn list_members(&self, room: &str) -> Pages<Member> {
        pages::members(self.clone(), room.to_owned())
    }

    /// The rooms, in order of name.
    pub fn list_rooms(&self) -> Pages<Room> {
        pages::rooms(self.clone())
    }

    /// One question and its answer.
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(Service) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        self.ask_until(self.deadline(), question).await.map_err(Error::of)
    }

    async fn ask_until<T>(
        &self,
        deadline: Instant,
        question: impl AsyncFnOnce(Service) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let service =
            ChatServiceClient::new(self.channel.clone()).max_decoding_message_size(RESPONSE_MAX_BYTES);
        match timeout_at(deadline, question(service)).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.options.answer_timeout.min(ANSWER_TIMEOUT_MAX)
    }
}

type Service = ChatServiceClient<Channel>;
