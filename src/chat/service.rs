//! `hello.ChatRoom`: one call is one connection.

use super::body::{ChatBody, Reply};
use super::codec::{self, Fault};
use super::said::Said;
use super::status;
use crate::hub::{
    Abort, Departure, DisplayName, Hub, Introduction, InvalidName, LaneId, Publisher, Refused, RoomName,
};
use crate::telemetry::trace::{Connection, ConnectionSpan};
use crate::transport::{Call, CallHandle};
use crate::wire::hello::{ChatRequest, chat_room_server};
use futures_util::future::{Ready, ready};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use std::convert::Infallible;
use std::sync::Arc;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Status, Streaming};

/// The method's path, and its name in traces.
const CHAT: &str = "/hello.ChatRoom/Chat";
const METHOD: &str = "hello.ChatRoom/Chat";
/// Request metadata that chooses a room, and gives a display name.
const ROOM: &str = "chatroom-room";
const NAME: &str = "chatroom-name";

/// The service for calls on one lane's thread.
#[derive(Clone)]
pub struct ChatRoom {
    hub: Hub<Said>,
    lane: LaneId,
    max_message_bytes: usize,
}

impl ChatRoom {
    /// A service that joins its callers to `hub` on `lane`.
    #[must_use]
    pub fn new(hub: Hub<Said>, lane: LaneId, max_message_bytes: usize) -> Self {
        Self { hub, lane, max_message_bytes }
    }

    /// Joins the caller. The response's headers go out at once: then the client is in.
    fn chat(&self, request: Request<Body>) -> Result<Response<Reply>, Status> {
        let (parts, body) = request.into_parts();
        let room = metadata(&parts.headers, ROOM, RoomName::new, InvalidName::Room)?;
        let name = metadata(&parts.headers, NAME, DisplayName::new, InvalidName::Display)?;
        let messages = codec::messages(&parts.headers, body, self.max_message_bytes)?;
        let call = parts.extensions.get::<Call>();
        let who = Introduction {
            name,
            peer: call.map(|call| call.peer),
            transport: call.map(|call| call.transport.number()),
            abort: call.map(|call| Arc::new(call.handle.clone()) as Arc<dyn Abort>),
        };
        let joined = self.hub.join(self.lane, &room, who);
        let (publisher, subscription) = joined.map_err(|refused| {
            if let (Refused::Closing, Some(call)) = (&refused, call) {
                // So that the client asks again elsewhere.
                call.handle.retire_transport();
            }
            status::of_refusal(&refused)
        })?;
        let member = subscription.member();
        let about = Connection { method: METHOD, id: &member.id(), peer: member.peer(), room: &room };
        let span = ConnectionSpan::begin(&parts.headers, &about);
        tracing::info!(
            connection = %member.id(),
            peer = member.peer().map(tracing::field::display),
            room = %room,
            name = member.name().as_str(),
            trace = span.as_ref().map(|span| tracing::field::display(span.trace_id())),
            "new user"
        );
        let listener = tokio::spawn(listen(messages, publisher, span.clone(), self.max_message_bytes));
        let body = ChatBody::new(subscription, listener.abort_handle(), span);
        let mut response = Response::new(Reply::Chat { body });
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-accept-encoding", HeaderValue::from_static(codec::ACCEPTED));
        Ok(response)
    }
}

impl Abort for CallHandle {
    fn abort(&self) {
        Self::abort(self);
    }

    fn doom(&self) {
        self.doom_transport();
    }

    fn retire(&self) {
        self.retire_transport();
    }
}

/// Publishes what the client says, until it has said all, or something that it may not.
async fn listen(
    mut messages: Streaming<ChatRequest>,
    mut publisher: Publisher<Said>,
    span: Option<ConnectionSpan>,
    max: usize,
) {
    loop {
        match messages.message().await {
            Ok(Some(ChatRequest { message: text })) => {
                let said = Said::traced(text, span.as_ref().map(ConnectionSpan::message));
                // An error means that the connection has been ended: nobody listens any more.
                if publisher.publish(said).await.is_err() {
                    return;
                }
            }
            Ok(None) => return publisher.finish(),
            Err(status) => {
                let (departure, detail) = match Fault::from(status) {
                    // The response body is dropped at the same moment, and says so.
                    Fault::Broken => return,
                    Fault::TooLarge => {
                        (Departure::MessageTooLarge, format!("a message may have at most {max} bytes"))
                    }
                    Fault::Invalid(why) => (Departure::InvalidMessage, why),
                };
                publisher.member().depart(departure, Some(detail));
                return;
            }
        }
    }
}

/// A name from request metadata, or its default.
fn metadata<T: Default>(
    headers: &HeaderMap,
    key: &str,
    parse: impl Fn(&str) -> Result<T, InvalidName>,
    otherwise: InvalidName,
) -> Result<T, Status> {
    let Some(value) = headers.get(key) else {
        return Ok(T::default());
    };
    // Header values may be any bytes; names are UTF-8.
    let text = std::str::from_utf8(value.as_bytes());
    let parsed = text.map_err(|_| otherwise).and_then(parse);
    parsed.map_err(|invalid| status::of_invalid_metadata(key, &invalid))
}

impl NamedService for ChatRoom {
    const NAME: &'static str = chat_room_server::SERVICE_NAME;
}

impl ChatRoom {
    /// Whether the request is for this service.
    pub(super) fn has<B>(request: &Request<B>) -> bool {
        let path = request.uri().path().strip_prefix('/');
        let service = path.and_then(|path| path.split_once('/'));
        service.is_some_and(|(service, _)| service == Self::NAME)
    }

    /// Answers a request to the service: at once, however long the response will be.
    pub(super) fn call(&self, request: Request<Body>) -> Ready<Result<Response<Reply>, Infallible>> {
        let answer = match request.uri().path() {
            CHAT => self.chat(request),
            _ => Err(Status::unimplemented("hello.ChatRoom has one method: Chat")),
        };
        let refusal = |status: Status| status.into_http::<Body>().map(Reply::from);
        ready(Ok(answer.unwrap_or_else(refusal)))
    }
}
