//! An in-memory room of `chatroom.v1` for the client's own tests: it implements the contract, breaks its connections on
//! request, and runs on tokio's paused clock, since it has no sockets.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use super::{Client, Options};
use crate::wire::v1::chat_service_server::{ChatService, ChatServiceServer};
use crate::wire::v1::{self, gap::Reason, join_request, join_response::Response as ServerMessage, start::At};
use http::Uri;
use hyper_util::rt::TokioIo;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    call_ends: broadcast::Sender<(Option<v1::Goodbye>, Status)>,
    connections: mpsc::UnboundedSender<std::io::Result<DuplexStream>>,
}

struct State {
    epoch: String,
    log: Vec<v1::Event>,
    /// How many of the oldest events are not retained.
    trimmed: usize,
    keys: HashMap<String, v1::Position>,
    /// Statuses for the next calls, one each.
    refusals: VecDeque<Status>,
    hellos: Vec<(Instant, v1::Hello)>,
    relays: Vec<AbortHandle>,
    calls: usize,
    acks_suppressed: bool,
}

impl Fake {
    pub(super) fn start() -> Self {
        let (connections, incoming) = mpsc::unbounded_channel();
        let state = State {
            epoch: "one".into(),
            log: Vec::new(),
            trimmed: 0,
            keys: HashMap::new(),
            refusals: VecDeque::new(),
            hellos: Vec::new(),
            relays: Vec::new(),
            calls: 0,
            acks_suppressed: false,
        };
        let call_ends = broadcast::channel(16).0;
        let fake =
            Self { state: Arc::new(Mutex::new(state)), changed: watch::channel(0).0, call_ends, connections };
        let incoming = tokio_stream::wrappers::UnboundedReceiverStream::new(incoming);
        let server = Server::builder().add_service(ChatServiceServer::new(fake.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        fake
    }

    pub(super) async fn client(&self, options: Options) -> Client {
        let endpoint = Endpoint::from_static("http://fake").initial_stream_window_size(65_535);
        Client::from_channel(
            endpoint.connect_with_connector(RelayConnector(self.clone())).await.unwrap(),
            options,
        )
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock().unwrap())
    }

    /// Changes the state and wakes every call.
    fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        let edited = edit(&mut self.state.lock().unwrap());
        self.changed.send_modify(|version| *version += 1);
        edited
    }

    /// Publishes an event of another member.
    pub(super) fn publish_event(&self, kind: &str, text: &str) {
        self.edit(|state| state.append(kind, Some(body(text)), "somebody", ""));
    }

    pub(super) fn publish_all(&self, texts: &[impl AsRef<str>]) {
        for text in texts {
            self.publish_event("chat", text.as_ref());
        }
    }

    /// Breaks all connections.
    pub(super) fn cut(&self) {
        self.edit(|state| state.relays.drain(..).for_each(|relay| relay.abort()));
    }

    /// Ends all calls with a goodbye and this status.
    pub(super) fn end_calls(&self, retry_after: Option<Duration>, status: Status) {
        let goodbye = v1::Goodbye {
            reason: "shutdown".into(),
            retry_after: retry_after.map(|after| after.try_into().unwrap()),
            position: Some(v1::Position { epoch: self.read(|state| state.epoch.clone()), offset: 0 }),
        };
        let _ = self.call_ends.send((Some(goodbye), status));
    }

    pub(super) fn refuse_next(&self, statuses: impl IntoIterator<Item = Status>) {
        self.edit(|state| state.refusals.extend(statuses));
    }

    /// Retains only the last `count` events.
    pub(super) fn retain_last(&self, count: usize) {
        self.edit(|state| state.trimmed = state.log.len().saturating_sub(count));
    }

    /// Behaves as if the server restarted: new epoch, empty log.
    pub(super) fn restart(&self) {
        self.edit(|state| {
            state.epoch.push('+');
            state.log.clear();
            state.keys.clear();
            state.trimmed = 0;
        });
        self.cut();
    }

    /// Accepts publishes without acknowledging them.
    pub(super) fn suppress_acks(&self, acks_suppressed: bool) {
        self.edit(|state| state.acks_suppressed = acks_suppressed);
    }

    pub(super) fn hellos(&self) -> Vec<(Instant, v1::Hello)> {
        self.read(|state| state.hellos.clone())
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.read(|state| state.log.iter().map(|event| text(event).to_owned()).collect())
    }

    pub(super) fn calls(&self) -> usize {
        self.read(|state| state.calls)
    }

    /// Waits until `holds` returns true.
    pub(super) async fn wait_until(&self, holds: impl Fn(&Self) -> bool) {
        let polling = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(3600), polling).await.expect("the condition never held");
    }
}

impl State {
    fn append(&mut self, kind: &str, body: Option<v1::Body>, from: &str, key: &str) -> v1::Position {
        let position = v1::Position { epoch: self.epoch.clone(), offset: self.log.len() as u64 + 1 };
        if !key.is_empty() {
            self.keys.insert(key.to_owned(), position.clone());
        }
        self.log.push(v1::Event {
            position: Some(position.clone()),
            time: Some(prost_types::Timestamp::default()),
            sender: Some(v1::Member { connection_id: from.to_owned(), display_name: String::new() }),
            kind: if kind.is_empty() { "chat".to_owned() } else { kind.to_owned() },
            body,
        });
        position
    }

    fn publish(&mut self, publish: v1::Publish, from: &str) -> v1::Ack {
        let v1::Publish { reference, kind, body, idempotency_key: key } = publish;
        let known = self.keys.get(&key).cloned();
        let repeated = known.is_some();
        let position = known.unwrap_or_else(|| self.append(&kind, body, from, &key));
        v1::Ack { reference, position: Some(position), repeated }
    }

    /// The offset that a new call starts after, and the gap before it.
    fn begin(&self, start: Option<v1::Start>) -> (usize, Option<v1::Gap>) {
        let at = |offset: usize| Some(v1::Position { epoch: self.epoch.clone(), offset: offset as u64 });
        let gap = |from: usize, reason: Reason| {
            let count = (self.trimmed + 1 - from) as u64;
            Some(v1::Gap { from: at(from), to: at(self.trimmed), count, reason: reason.into() })
        };
        match start.and_then(|start| start.at).unwrap_or(At::Tail(v1::start::Tail {})) {
            At::Tail(_) => (self.log.len(), None),
            At::Earliest(_) => (self.trimmed, None),
            At::Last(count) => (self.log.len().saturating_sub(count as usize).max(self.trimmed), None),
            At::After(position) if position.epoch != self.epoch => (self.trimmed, gap(1, Reason::Epoch)),
            At::After(position) => match position.offset as usize {
                sent if sent < self.trimmed => (self.trimmed, gap(sent + 1, Reason::Retention)),
                sent => (sent, None),
            },
        }
    }
}

fn text(event: &v1::Event) -> &str {
    match event.body.as_ref().and_then(|body| body.body.as_ref()) {
        Some(v1::body::Body::Text(text)) => text,
        _ => "",
    }
}

fn body(text: &str) -> v1::Body {
    v1::Body { body: Some(v1::body::Body::Text(text.to_owned())) }
}

/// Counts open calls.
struct Open(Fake);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.edit(|state| state.calls -= 1);
    }
}

type Responses = mpsc::Sender<Result<v1::JoinResponse, Status>>;

impl Fake {
    fn refusal(&self) -> Result<(), Status> {
        self.edit(|state| state.refusals.pop_front()).map_or(Ok(()), Err)
    }

    fn open(
        &self,
        hello: v1::Hello,
        requests: Option<Streaming<v1::JoinRequest>>,
    ) -> Result<ReceiverStream<Result<v1::JoinResponse, Status>>, Status> {
        self.edit(|state| state.hellos.push((Instant::now(), hello.clone())));
        self.refusal()?;
        self.edit(|state| state.calls += 1);
        let open = Open(self.clone());
        let (responses, stream) = mpsc::channel(1);
        let fake = self.clone();
        tokio::spawn(async move {
            let closed = responses.clone();
            tokio::select! {
                _ = fake.serve_call(hello, requests, responses) => {}
                () = closed.closed() => {}
            }
            drop(open);
        });
        Ok(ReceiverStream::new(stream))
    }

    /// Serves one call; returns `None` if the client disconnects.
    async fn serve_call(
        &self,
        hello: v1::Hello,
        mut requests: Option<Streaming<v1::JoinRequest>>,
        responses: Responses,
    ) -> Option<()> {
        let send =
            async |message| responses.send(Ok(v1::JoinResponse { response: Some(message) })).await.ok();
        let mut changed = self.changed.subscribe();
        let mut call_ends = self.call_ends.subscribe();
        let id = format!("connection {}", self.hellos().len());
        let (mut offset, gap) = self.read(|state| state.begin(hello.start));
        let epoch = self.read(|state| state.epoch.clone());
        let position = Some(v1::Position { epoch, offset: offset as u64 });
        let connection_id = id.clone();
        let welcome = v1::Welcome { connection_id, room: hello.room, position, max_message_bytes: 1000 };
        send(ServerMessage::Welcome(welcome)).await?;
        if let Some(gap) = gap {
            send(ServerMessage::Gap(gap)).await?;
        }
        let mut own_last = 0;
        let mut has_half_closed = false;
        loop {
            changed.mark_unchanged();
            for event in self.read(|state| state.log.get(offset..).unwrap_or_default().to_vec()) {
                offset += 1;
                let is_own = event.sender.as_ref().is_some_and(|sender| sender.connection_id == id);
                let is_wanted = hello.kinds.is_empty() || hello.kinds.contains(&event.kind);
                if is_wanted && !(is_own && hello.suppress_echo) {
                    send(ServerMessage::Event(event)).await?;
                }
            }
            if has_half_closed && own_last <= offset {
                let epoch = self.read(|state| state.epoch.clone());
                let position = Some(v1::Position { epoch, offset: offset as u64 });
                return send(ServerMessage::Goodbye(v1::Goodbye {
                    reason: "left".into(),
                    retry_after: None,
                    position,
                }))
                .await;
            }
            tokio::select! {
                biased;
                ending = call_ends.recv() => {
                    let (goodbye, status) = ending.ok()?;
                    if let Some(goodbye) = goodbye {
                        send(ServerMessage::Goodbye(goodbye)).await?;
                    }
                    let _ = responses.send(Err(status)).await;
                    return None;
                }
                request = next(requests.as_mut()), if !has_half_closed => match request.ok()? {
                    Some(join_request::Request::Publish(publish)) => {
                        let (ack, acks_suppressed) = self.edit(|state| (state.publish(publish, &id), state.acks_suppressed));
                        if !ack.repeated {
                            own_last = ack.position.as_ref().map_or(0, |position| position.offset as usize);
                        }
                        if !acks_suppressed {
                            send(ServerMessage::Ack(ack)).await?;
                        }
                    }
                    Some(join_request::Request::Hello(_)) => panic!("a second hello"),
                    None => has_half_closed = true,
                },
                _ = changed.changed() => {}
            }
        }
    }
}

async fn next(
    requests: Option<&mut Streaming<v1::JoinRequest>>,
) -> Result<Option<join_request::Request>, Status> {
    match requests {
        Some(requests) => Ok(requests.message().await?.and_then(|request| request.request)),
        None => std::future::pending().await,
    }
}

#[tonic::async_trait]
impl ChatService for Fake {
    type JoinStream = ReceiverStream<Result<v1::JoinResponse, Status>>;
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<v1::SubscribeResponse, Status>> + Send>>;

    async fn join(
        &self,
        request: Request<Streaming<v1::JoinRequest>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let mut requests = request.into_inner();
        let Some(join_request::Request::Hello(hello)) = next(Some(&mut requests)).await? else {
            return Err(Status::invalid_argument("no hello"));
        };
        self.open(hello, Some(requests)).map(Response::new)
    }

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        use tokio_stream::StreamExt as _;
        let v1::SubscribeRequest { room, display_name, start, kinds, presence } = request.into_inner();
        let hello = v1::Hello { room, display_name, start, kinds, presence, suppress_echo: false };
        // Both response types have the same encoding.
        let stream = self.open(hello, None)?.map(|response| {
            let bytes = prost::Message::encode_to_vec(&response?);
            Ok(<v1::SubscribeResponse as prost::Message>::decode(&bytes[..]).unwrap())
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let v1::PublishRequest { kind, body, idempotency_key, .. } = request.into_inner();
        let publish = v1::Publish { reference: String::new(), kind, body, idempotency_key };
        let ack = self.edit(|state| state.publish(publish, ""));
        // Fails after the publish, as if the response were lost.
        self.refusal()?;
        Ok(Response::new(v1::PublishResponse { position: ack.position, repeated: ack.repeated }))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        self.refusal()?;
        let request = request.into_inner();
        let token = request.page_token.parse().ok();
        Ok(Response::new(self.read(|state| {
            let (start, gap) = state.begin(request.start);
            let (from, gap) = token.map_or((start, gap), |token| (token, None));
            let to = (from + 3).min(state.log.len());
            let next_page_token = if to < state.log.len() { to.to_string() } else { String::new() };
            v1::ListEventsResponse { events: state.log[from..to].to_vec(), next_page_token, gap }
        })))
    }

    async fn list_members(
        &self,
        _: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        Err(Status::not_found("no such room"))
    }

    async fn list_rooms(
        &self,
        _: Request<v1::ListRoomsRequest>,
    ) -> Result<Response<v1::ListRoomsResponse>, Status> {
        Ok(Response::new(v1::ListRoomsResponse::default()))
    }
}

/// Connects through a relay that `cut` breaks.
struct RelayConnector(Fake);

impl tower::Service<Uri> for RelayConnector {
    type Response = TokioIo<DuplexStream>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (client, mut near) = duplex(4096);
        let (mut far, server) = duplex(4096);
        let relay = tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        self.0.edit(|state| state.relays.push(relay.abort_handle()));
        let _ = self.0.connections.send(Ok(server));
        std::future::ready(Ok(TokioIo::new(client)))
    }
}
