//! `hello.ChatRoom`: one call is one connection.

use super::broadcast::{Broadcast, open};
use super::codec::{self, Fault};
use super::metadata;
use super::reply::Reply;
use super::said::{HELLO, Said, Sender};
use super::seat::{Admitted, Caller, Door};
use crate::hub::{DisconnectReason, Publisher, SubscribeOptions, View};
use crate::rpc::no_such_method;
use crate::telemetry::trace::RpcSpan;
use crate::wire::hello::{ChatRequest, chat_room_server};
use crate::wire::v1::body::Body as Words;
use http::{Request, Response};
use std::sync::Arc;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Status, Streaming};

const CHAT: &str = "/hello.ChatRoom/Chat";

/// The service for calls on one shard's thread.
#[derive(Clone)]
pub(super) struct ChatRoom {
    pub(super) door: Door,
}

impl NamedService for ChatRoom {
    const NAME: &'static str = chat_room_server::SERVICE_NAME;
}

impl ChatRoom {
    /// Answers a request to the service: at once, however long the response will be.
    pub(super) fn call(&self, request: Request<Body>) -> Result<Response<Reply>, Status> {
        match request.uri().path() {
            CHAT => self.chat(request),
            _ => Err(no_such_method("hello.ChatRoom has one method: Chat")),
        }
    }

    /// Joins the caller. The response's headers go out at once: then the client is in.
    fn chat(&self, request: Request<Body>) -> Result<Response<Reply>, Status> {
        let (parts, body) = request.into_parts();
        let max = self.door.max_message_bytes;
        let messages = codec::messages::<ChatRequest>(&parts.headers, body, max)?;
        let room = metadata::room(&parts.headers)?.unwrap_or_default();
        let name = metadata::display_name(&parts.headers)?;
        let start = metadata::start(&parts.headers)?;
        let caller = Caller::of(&parts.extensions);
        let options =
            SubscribeOptions { start, strict: true, view: View::all(HELLO), presence: false, gaps: false };
        let who = caller.client_info(name);
        let Admitted { publisher, subscription, mut seat, span, .. } =
            self.door.admit(&caller, &room, who, options)?;
        let listener = tokio::spawn(listen(messages, publisher, span, max));
        seat.listener = Some(listener.abort_handle());
        Ok(open(Reply::Hello { body: Broadcast::new(subscription, seat) }))
    }
}

/// Publishes what the client says, until it has said all, or something that it may not.
// Not an `async fn`: that would have room for each argument twice, in every connection.
fn listen(
    mut messages: Streaming<ChatRequest>,
    mut publisher: Publisher<Said>,
    span: Option<RpcSpan>,
    max: usize,
) -> impl Future<Output = ()> {
    let member = Arc::clone(publisher.member());
    let sender = Sender::new(Some(member.id()), member.name());
    async move {
        loop {
            match messages.message().await {
                Ok(Some(ChatRequest { message: text })) => {
                    let said = Said::by(&sender, Words::Text(text));
                    let said = said.traced(span.as_ref().map(RpcSpan::message));
                    // An error means that the connection has been ended: nobody listens any more.
                    if publisher.publish(said).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return publisher.finish(),
                Err(status) => {
                    let (reason, detail) = match Fault::from(status) {
                        // The response body is dropped at the same moment, and says so.
                        Fault::Broken => return,
                        Fault::TooLarge => (DisconnectReason::MessageTooLarge, codec::too_large(max)),
                        Fault::Late(why) => (DisconnectReason::RequestIncomplete, why),
                        Fault::Invalid(why) => (DisconnectReason::InvalidMessage, why),
                    };
                    member.disconnect(reason, Some(detail));
                    return;
                }
            }
        }
    }
}
