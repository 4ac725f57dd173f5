//! `hello.ChatRoom`: one call is one connection.

use super::admission::{Admission, Admitted, ClientCall, ConnectionGuard};
use super::broadcast::Broadcast;
use super::codec;
use super::message::{HELLO, Message, Sender};
use super::metadata;
use super::response::open;
use super::status;
use crate::hub::{Publisher, SubscribeOptions, View};
use crate::rpc::no_such_method;
use crate::telemetry::trace::RpcSpan;
use crate::wire::hello::{ChatRequest, chat_room_server};
use crate::wire::v1::body::Body as Content;
use http::{Request, Response};
use std::sync::Arc;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Status, Streaming};

const CHAT: &str = "/hello.ChatRoom/Chat";

/// The response body of a call.
type ChatBody = Broadcast<Message, ConnectionGuard>;

/// The service for calls on one shard's thread.
#[derive(Clone)]
pub(super) struct ChatRoom {
    pub(super) admission: Admission,
}

impl NamedService for ChatRoom {
    const NAME: &'static str = chat_room_server::SERVICE_NAME;
}

impl ChatRoom {
    /// Answers a request to the service at once, however long the response will be.
    pub(super) fn call(&self, request: Request<Body>) -> Result<Response<ChatBody>, Status> {
        match request.uri().path() {
            CHAT => self.chat(request),
            _ => Err(no_such_method("hello.ChatRoom has one method: Chat")),
        }
    }

    /// Joins the client. Its response headers go out at once: they tell it that it is in the room.
    fn chat(&self, request: Request<Body>) -> Result<Response<ChatBody>, Status> {
        let (parts, body) = request.into_parts();
        let max = self.admission.max_message_bytes;
        let requests = codec::messages::<ChatRequest>(&parts.headers, body, max)?;
        let room = metadata::room(&parts.headers)?.unwrap_or_default();
        let name = metadata::display_name(&parts.headers)?;
        let start = metadata::start(&parts.headers)?;
        let call = ClientCall::of(&parts.extensions);
        let options =
            SubscribeOptions { start, strict: true, view: View::all(HELLO), presence: false, gaps: false };
        let client = call.client_info(name);
        let Admitted { publisher, subscription, mut guard, span, .. } =
            self.admission.admit(&call, &room, client, options)?;
        let reader = tokio::spawn(read(requests, publisher, span, max));
        guard.reader = Some(reader.abort_handle());
        Ok(open(Broadcast::new(subscription, guard)))
    }
}

/// Publishes the client's messages until it half-closes or sends an invalid one.
// Not an `async fn`: each argument would take its room twice in every connection.
fn read(
    mut requests: Streaming<ChatRequest>,
    mut publisher: Publisher<Message>,
    span: Option<RpcSpan>,
    max: usize,
) -> impl Future<Output = ()> {
    let member = Arc::clone(publisher.member());
    let sender = Sender::new(Some(member.id()), member.name());
    async move {
        loop {
            match requests.message().await {
                Ok(Some(ChatRequest { message: text })) => {
                    let message = Message::from_sender(&sender, Content::Text(text));
                    let message = message.with_span(span.as_ref().map(RpcSpan::begin_message));
                    // An error means that the connection has ended.
                    if publisher.publish(message).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return publisher.finish(),
                Err(status) => {
                    // If the client has gone, the response body is dropped at the same moment, and leaves the room.
                    if let Some((reason, detail)) = status::of_unreadable(status, max) {
                        member.disconnect(reason, Some(detail));
                    }
                    return;
                }
            }
        }
    }
}
