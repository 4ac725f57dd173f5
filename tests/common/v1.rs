//! A client of `chatroom.v1` on tonic's generated code: what any stock client sees.
//!
//! It promises that nothing waits for ever, and that a guest which does not call `next` does not read: its window fills.

use std::ops::Deref;

use chatroom::wire::v1::{
    Ack, Body, Event, Gap, Goodbye, Hello, JoinRequest, JoinResponse, Position, Presence, Publish,
    PublishRequest, Start, SubscribeRequest, SubscribeResponse, Welcome, body, chat_service_client,
    join_request::Request,
    join_response::Response,
    start::{At, Earliest, Tail},
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::{ErrorInfo, StatusExt};

use super::{PATIENCE, server::Server, within};

pub type Client = chat_service_client::ChatServiceClient<Channel>;

/// A client on a transport of its own.
pub async fn client(server: &Server) -> Client {
    let connecting = Client::connect(format!("http://{}", server.addr));
    within(PATIENCE, "a transport", connecting).await.unwrap()
}

/// A client whose window is soon full when it does not read.
pub async fn narrow_client(server: &Server) -> Client {
    let endpoint = Channel::from_shared(format!("http://{}", server.addr)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    Client::new(within(PATIENCE, "a transport", endpoint.connect()).await.unwrap())
}

pub fn hello(room: &str) -> Hello {
    Hello { room: room.to_owned(), ..Default::default() }
}

/// As `name`.
pub fn hello_of(room: &str, name: &str) -> Hello {
    Hello { display_name: name.to_owned(), ..hello(room) }
}

pub fn hello_from(room: &str, start: Start) -> Hello {
    Hello { start: Some(start), ..hello(room) }
}

fn start(at: At) -> Start {
    Start { at: Some(at), strict: false }
}

pub fn tail() -> Start {
    start(At::Tail(Tail {}))
}

pub fn earliest() -> Start {
    start(At::Earliest(Earliest {}))
}

pub fn last(count: u64) -> Start {
    start(At::Last(count))
}

pub fn after(position: &Position) -> Start {
    start(At::After(position.clone()))
}

pub fn strictly(start: Start) -> Start {
    Start { strict: true, ..start }
}

pub fn body(of: body::Body) -> Body {
    Body { body: Some(of) }
}

pub fn text(text: &str) -> Publish {
    Publish { body: Some(body(body::Body::Text(text.to_owned()))), ..Default::default() }
}

/// A text that wants an acknowledgement under its own words.
pub fn acked(words: &str) -> Publish {
    Publish { reference: words.to_owned(), ..text(words) }
}

pub fn of_kind(kind: &str, publish: Publish) -> Publish {
    Publish { kind: kind.to_owned(), ..publish }
}

pub fn keyed(key: &str, publish: Publish) -> Publish {
    Publish { idempotency_key: key.to_owned(), ..publish }
}

pub fn request(of: Request) -> JoinRequest {
    JoinRequest { request: Some(of) }
}

/// For the unary call.
pub fn publish_in(room: &str, publish: Publish) -> PublishRequest {
    let Publish { kind, body, idempotency_key, .. } = publish;
    PublishRequest { room: room.to_owned(), kind, body, idempotency_key, ..Default::default() }
}

/// The text of an event; none if it is no text.
pub fn text_of(event: &Event) -> Option<&str> {
    match event.body.as_ref()?.body.as_ref()? {
        body::Body::Text(text) => Some(text),
        _ => None,
    }
}

pub fn offset(event: &Event) -> u64 {
    event.position.as_ref().unwrap().offset
}

/// As it is written in metadata and statuses.
pub fn written(position: &Position) -> String {
    format!("{}:{}", position.epoch, position.offset)
}

pub fn reason_of(status: &Status) -> ErrorInfo {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "chatroom");
    info
}

/// `INVALID_ARGUMENT` with one violation, of this field.
#[track_caller]
pub fn is_invalid(status: &Status, field: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
    let details = status.get_details_bad_request().unwrap_or_else(|| panic!("no BadRequest: {status:?}"));
    let violations = details.field_violations;
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, [field], "{status:?}");
    assert!(!violations[0].description.is_empty() && status.message().contains(field), "{status:?}");
}

enum Responses {
    Join(Streaming<JoinResponse>),
    Subscribe(Streaming<SubscribeResponse>),
}

impl Responses {
    async fn message(&mut self) -> Result<Option<JoinResponse>, Status> {
        match self {
            Self::Join(responses) => responses.message().await,
            Self::Subscribe(responses) => {
                let response = responses.message().await?;
                // They have the same numbers.
                Ok(response.map(|r| JoinResponse::decode(&*r.encode_to_vec()).unwrap()))
            }
        }
    }
}

/// An open call, whoever is let in by it.
pub struct Call {
    published: Option<mpsc::UnboundedSender<JoinRequest>>,
    responses: Responses,
}

impl Call {
    /// Opens a Join that says nothing yet.
    pub async fn opens(client: &mut Client) -> Self {
        Self::try_opens(client).await.unwrap()
    }

    /// The same, unless it is refused at once.
    pub async fn try_opens(client: &mut Client) -> Result<Self, Status> {
        let (published, requests) = mpsc::unbounded_channel();
        let joining = client.join(UnboundedReceiverStream::new(requests));
        let responses = within(PATIENCE, "response headers", joining).await?.into_inner();
        Ok(Self { published: Some(published), responses: Responses::Join(responses) })
    }

    pub fn sends(&self, request: JoinRequest) {
        // Fails only if the call is over, which the next read tells better.
        let _ = self.published.as_ref().expect("not yet half-closed").send(request);
    }

    pub fn publishes(&self, publish: Publish) {
        self.sends(request(Request::Publish(publish)));
    }

    pub fn half_closes(&mut self) {
        self.published = None;
    }

    /// The next response, or how the call ended.
    pub async fn try_next(&mut self) -> Result<Response, Status> {
        match within(PATIENCE, "a response", self.responses.message()).await? {
            Some(response) => Ok(response.response.expect("one of them")),
            None => Err(Status::ok("")),
        }
    }

    pub async fn next(&mut self) -> Response {
        let next = self.try_next().await;
        next.unwrap_or_else(|status| panic!("the call ended: {status:?}"))
    }

    pub async fn is_welcome(&mut self) -> Welcome {
        match self.next().await {
            Response::Welcome(welcome) => welcome,
            other => panic!("no welcome: {other:?}"),
        }
    }

    pub async fn event(&mut self) -> Event {
        match self.next().await {
            Response::Event(event) => event,
            other => panic!("no event: {other:?}"),
        }
    }

    /// The next response is an event with this text.
    #[track_caller]
    pub fn receives(&mut self, words: &str) -> impl Future<Output = Event> {
        let caller = std::panic::Location::caller();
        async move {
            let event = self.event().await;
            assert_eq!(text_of(&event), Some(words), "at {caller}");
            event
        }
    }

    pub async fn ack(&mut self) -> Ack {
        match self.next().await {
            Response::Ack(ack) => ack,
            other => panic!("no acknowledgement: {other:?}"),
        }
    }

    pub async fn gap(&mut self) -> Gap {
        match self.next().await {
            Response::Gap(gap) => gap,
            other => panic!("no gap: {other:?}"),
        }
    }

    pub async fn presence(&mut self) -> Presence {
        match self.next().await {
            Response::Presence(presence) => presence,
            other => panic!("no presence: {other:?}"),
        }
    }

    /// The next response is the goodbye, and the last; with the status.
    pub async fn ends(&mut self) -> (Goodbye, Status) {
        match self.next().await {
            Response::Goodbye(goodbye) => (goodbye, self.is_over().await),
            other => panic!("no goodbye: {other:?}"),
        }
    }

    /// The call ends without another response.
    pub async fn is_over(&mut self) -> Status {
        match self.try_next().await {
            Err(status) => status,
            Ok(response) => panic!("not the end: {response:?}"),
        }
    }

    /// Everything until the call ends, and its status.
    pub async fn receives_rest(&mut self) -> (Vec<Response>, Status) {
        let mut received = Vec::new();
        loop {
            match self.try_next().await {
                Ok(response) => received.push(response),
                Err(status) => return (received, status),
            }
        }
    }
}

/// A client that is in a room.
pub struct Guest {
    pub call: Call,
    pub welcome: Welcome,
}

impl Guest {
    /// On a transport of its own.
    pub async fn joins(server: &Server, hello: Hello) -> Self {
        Self::joins_by(&mut client(server).await, hello).await
    }

    pub async fn joins_by(client: &mut Client, hello: Hello) -> Self {
        let mut call = Call::opens(client).await;
        call.sends(request(Request::Hello(hello)));
        let welcome = call.is_welcome().await;
        Self { call, welcome }
    }

    pub async fn subscribes(server: &Server, request: SubscribeRequest) -> Self {
        let mut client = client(server).await;
        let subscribing = client.subscribe(request);
        let responses = within(PATIENCE, "response headers", subscribing).await.unwrap().into_inner();
        let mut call = Call { published: None, responses: Responses::Subscribe(responses) };
        let welcome = call.is_welcome().await;
        Self { call, welcome }
    }

    pub fn id(&self) -> &str {
        &self.welcome.connection_id
    }

    /// Everything after this is heard.
    pub fn position(&self) -> &Position {
        self.welcome.position.as_ref().unwrap()
    }

    /// Says a text and hears it: then it has its place.
    pub async fn publish_and_receive(&mut self, words: &str) -> Event {
        self.call.publishes(text(words));
        self.call.receives(words).await
    }

    /// Half-closes; hears its goodbye, and OK.
    pub async fn leaves(mut self) -> Goodbye {
        self.call.half_closes();
        let (goodbye, status) = self.call.ends().await;
        assert_eq!((goodbye.reason.as_str(), status.code()), ("left", Code::Ok), "{status:?}");
        goodbye
    }
}

/// What would be refused: hello, then how the call ends, if it never gets a welcome.
pub async fn refusal(server: &Server, hello: Hello) -> Status {
    match Call::try_opens(&mut client(server).await).await {
        Err(status) => status,
        Ok(mut call) => {
            call.sends(request(Request::Hello(hello)));
            call.is_over().await
        }
    }
}

impl Deref for Guest {
    type Target = Call;

    fn deref(&self) -> &Call {
        &self.call
    }
}

impl std::ops::DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Call {
        &mut self.call
    }
}
