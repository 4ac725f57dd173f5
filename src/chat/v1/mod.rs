//! `chatroom.v1.ChatService`: many kinds of messages over one stream, history, resume, acknowledgements, presence.
//!
//! Nothing here keeps messages: history, resume, acknowledgements and gaps are read from the room's log by the
//! connection's own cursor.

mod body;
mod checked;
mod lists;
mod talk;
mod wants;

pub(super) use body::V1Body;

use super::broadcast::open;
use super::codec;
use super::reply::Reply;
use super::seat::{Caller, Door};
use crate::chat::metadata;
use crate::hub::RoomName;
use crate::rpc::lists::Lists;
use crate::rpc::page::Tokens;
use crate::rpc::{invalid, no_such_method, with_reason};
use crate::wire::v1::chat_service_server;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use lists::Source;
use prost::Message;
use std::sync::Arc;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Status, Streaming};
use tower::service_fn;

const JOIN: &str = "/chatroom.v1.ChatService/Join";
const SUBSCRIBE: &str = "/chatroom.v1.ChatService/Subscribe";
const PUBLISH: &str = "/chatroom.v1.ChatService/Publish";
const LIST_EVENTS: &str = "/chatroom.v1.ChatService/ListEvents";
const LIST_MEMBERS: &str = "/chatroom.v1.ChatService/ListMembers";
const LIST_ROOMS: &str = "/chatroom.v1.ChatService/ListRooms";

/// The service for calls on one shard's thread.
#[derive(Clone)]
pub(super) struct ChatService {
    door: Door,
    tokens: Arc<Tokens>,
    lists: Lists,
}

impl NamedService for ChatService {
    const NAME: &'static str = chat_service_server::SERVICE_NAME;
}

/// What a request to the service gets: a reply at once, or when it has been answered.
pub(super) enum Answer {
    Now(Box<Result<Response<Reply>, Status>>),
    Later(BoxFuture<'static, Response<Body>>),
}

fn now(response: Response<Reply>) -> Answer {
    Answer::Now(Box::new(Ok(response)))
}

impl ChatService {
    pub(super) fn new(door: Door, tokens: Arc<Tokens>, lists: Lists) -> Self {
        Self { door, tokens, lists }
    }

    pub(super) fn call(&self, request: Request<Body>) -> Answer {
        let answer = match request.uri().path() {
            JOIN => self.join(request).map(now),
            SUBSCRIBE => self.subscribe(request).map(now),
            PUBLISH => self.publish(request),
            LIST_EVENTS => self.list(request, lists::events),
            LIST_MEMBERS => self.list(request, lists::members),
            LIST_ROOMS => self.list(request, lists::rooms),
            _ => Err(no_such_method("chatroom.v1.ChatService has no such method")),
        };
        answer.unwrap_or_else(|status| Answer::Now(Box::new(Err(status))))
    }

    /// The room that a call's metadata names, if it does and if it must.
    fn named_room(&self, headers: &HeaderMap) -> Result<Option<RoomName>, Status> {
        let named = metadata::room(headers)?;
        if named.is_none() && self.door.require_room_header {
            let rule = "is required in the metadata here, with the name of the room";
            return Err(with_reason(&invalid("chatroom-room", rule), "ROOM_HEADER_REQUIRED", &[]));
        }
        Ok(named)
    }

    fn join(&self, request: Request<Body>) -> Result<Response<Reply>, Status> {
        let (parts, body) = request.into_parts();
        let requests = codec::messages(&parts.headers, body, self.door.max_message_bytes)?;
        let named = self.named_room(&parts.headers)?;
        let caller = Caller::of(&parts.extensions);
        let body = V1Body::spawn(|tell| talk::join(self.door.clone(), caller, named, requests, tell));
        Ok(open(Reply::V1 { body }))
    }

    fn subscribe(&self, request: Request<Body>) -> Result<Response<Reply>, Status> {
        let (parts, body) = request.into_parts();
        let requests = codec::messages(&parts.headers, body, self.door.max_message_bytes)?;
        let named = self.named_room(&parts.headers)?;
        let caller = Caller::of(&parts.extensions);
        let body = V1Body::spawn(|tell| talk::subscribe(self.door.clone(), caller, named, requests, tell));
        Ok(open(Reply::V1 { body }))
    }

    fn publish(&self, request: Request<Body>) -> Result<Answer, Status> {
        let named = self.named_room(request.headers())?;
        let caller = Caller::of(request.extensions());
        let door = self.door.clone();
        self.unary(request, |publish| async move { talk::publish(&door, &caller, named, publish).await })
    }

    /// Makes a list where lists run.
    fn list<Q, A, F>(&self, request: Request<Body>, list: fn(Source, Q) -> F) -> Result<Answer, Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        self.door.check_ban(&Caller::of(request.extensions()))?;
        // Rooms are listed for all of them, so that call names none.
        let is_of_room = request.uri().path() != LIST_ROOMS;
        let named = if is_of_room { self.named_room(request.headers())? } else { None };
        let Self { door, tokens, lists } = self.clone();
        let source = Source { hub: door.hub, tokens, named };
        self.unary(request, move |query| async move { lists.run(list(source, query)).await })
    }

    /// Answers one request with one message. tonic decodes and encodes; the request is read as a stream of one, because
    /// tonic has its own words and codes for one that is too large.
    fn unary<Q, A, F>(
        &self,
        request: Request<Body>,
        answer: impl FnOnce(Q) -> F + Clone + Send + 'static,
    ) -> Result<Answer, Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        // Before tonic does, in its own words.
        codec::coding(request.headers())?;
        let Door { max_message_bytes: max, hub, .. } = self.door.clone();
        let service = service_fn(move |requests: tonic::Request<Streaming<Q>>| {
            let (answer, hub) = (answer.clone(), hub.clone());
            async move {
                let request = talk::only(&mut requests.into_inner(), max, &hub).await?;
                answer(request).await.map(tonic::Response::new)
            }
        });
        Ok(Answer::Later(Box::pin(async move {
            let codec = tonic_prost::ProstCodec::<A, Q>::default();
            let grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(max);
            let accepted = tonic::codec::CompressionEncoding::Gzip;
            grpc.accept_compressed(accepted).client_streaming(service, request).await
        })))
    }
}
