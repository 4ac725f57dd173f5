//! A connection to a server, and its calls.

use super::backoff::Backoff;
use super::connector::{CallKind, Connector, RESPONSE_MAX_BYTES};
use super::delivery::Delivery;
use super::error::Error;
use super::metadata::in_room;
use super::options::Options;
use super::outbox::Outbox;
use super::pages::{Page, Pages};
use super::progress::Progress;
use super::publisher::{Publisher, new_idempotency_key, validate_kind};
use super::retry::{final_error, is_retryable, retry_delay};
use super::session::{Receiver, Session};
use super::task::Task;
use super::types::{Ack, Body, Event, Gap, HistoryItem, Join, Member, Room, Start};
use crate::wire::v1;
use crate::wire::v1::chat_service_client::ChatServiceClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// Flow-control windows in bytes, of one call and of the connection. A call's window is small, so that a caller that
/// does not receive leaves room for the other calls on the connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Upper bound of `response_timeout`, so that adding it to the clock cannot overflow.
const RESPONSE_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Members or rooms per page: the server's maximum, so that there are few pages.
const PAGE_SIZE: i32 = 1000;

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
        let call = connector.clone().open(join.clone()).await.map_err(final_error)?;
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
                return Err(final_error(status));
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
        event_pages(self.clone(), query)
    }

    /// The members of a room, oldest first.
    pub fn list_members(&self, room: &str) -> Pages<Member> {
        member_pages(self.clone(), room.to_owned())
    }

    /// The rooms, ordered by name.
    pub fn list_rooms(&self) -> Pages<Room> {
        room_pages(self.clone())
    }

    /// Runs one unary RPC within `response_timeout`.
    async fn unary<T>(
        &self,
        rpc: impl AsyncFnOnce(RpcClient) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        self.unary_until(self.deadline(), rpc).await.map_err(final_error)
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

fn event_pages(client: Client, query: v1::ListEventsRequest) -> Pages<HistoryItem> {
    Pages::new(move |page_token| {
        let client = client.clone();
        let request = in_room(&query.room, v1::ListEventsRequest { page_token, ..query.clone() });
        async move {
            let page = client.unary(async |mut service| service.list_events(request).await).await?;
            let gap = page.gap.map(|gap| Gap::try_from(gap).map(HistoryItem::Gap));
            let events = page.events.into_iter().map(|event| Event::try_from(event).map(HistoryItem::Event));
            Ok(Page {
                items: gap.into_iter().chain(events).collect::<Result<_, _>>()?,
                next: page.next_page_token,
            })
        }
    })
}

fn member_pages(client: Client, room: String) -> Pages<Member> {
    Pages::new(move |page_token| {
        let query = v1::ListMembersRequest { room: room.clone(), page_size: PAGE_SIZE, page_token };
        let query = in_room(&room, query);
        let client = client.clone();
        async move {
            let page = client.unary(async |mut service| service.list_members(query).await).await?;
            Ok(Page { items: page.members.into(), next: page.next_page_token })
        }
    })
}

fn room_pages(client: Client) -> Pages<Room> {
    Pages::new(move |page_token| {
        let client = client.clone();
        let query = v1::ListRoomsRequest { page_size: PAGE_SIZE, page_token };
        async move {
            let page = client.unary(async |mut service| service.list_rooms(query).await).await?;
            let rooms = page.rooms.into_iter().map(Room::try_from).collect::<Result<_, _>>()?;
            Ok(Page { items: rooms, next: page.next_page_token })
        }
    })
}
