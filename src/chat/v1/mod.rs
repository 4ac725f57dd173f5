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
use super::said::Said;
use super::seat::{Caller, Door};
use crate::hub::Hub;
use crate::rpc::lists::Lists;
use crate::rpc::no_such_method;
use crate::rpc::page::Tokens;
use crate::wire::v1::chat_service_server;
use futures_util::future::BoxFuture;
use http::{Request, Response};
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

/// The service for calls on one lane's thread.
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

impl Answer {
    fn refuse(status: Status) -> Self {
        Self::Now(Box::new(Err(status)))
    }
}

impl ChatService {
    pub(super) fn new(door: Door, tokens: Arc<Tokens>, lists: Lists) -> Self {
        Self { door, tokens, lists }
    }

    pub(super) fn call(&self, request: Request<Body>) -> Answer {
        let door = self.door.clone();
        match request.uri().path() {
            JOIN => Answer::Now(Box::new(self.join(request))),
            SUBSCRIBE => Answer::Now(Box::new(self.subscribe(request))),
            PUBLISH => {
                let peer = Caller::of("chatroom.v1.ChatService/Publish", &request);
                self.unary(request, |publish| async move { talk::publish(&door, &peer, publish).await })
            }
            LIST_EVENTS | LIST_MEMBERS | LIST_ROOMS => match door.check_ban(&Caller::of("", &request)) {
                Ok(()) => self.any_list(request),
                Err(banned) => Answer::refuse(banned),
            },
            _ => Answer::refuse(no_such_method("chatroom.v1.ChatService has no such method")),
        }
    }

    fn any_list(&self, request: Request<Body>) -> Answer {
        match request.uri().path() {
            LIST_EVENTS => self.list(request, lists::events),
            LIST_MEMBERS => self.list(request, lists::members),
            _ => self.list(request, lists::rooms),
        }
    }

    /// Has a list made where lists run.
    fn list<Q, A, F>(&self, request: Request<Body>, list: fn(Hub<Said>, Arc<Tokens>, Q) -> F) -> Answer
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let Self { door, tokens, lists } = self.clone();
        self.unary(request, move |query| async move { lists.run(list(door.hub, tokens, query)).await })
    }

    fn join(&self, request: Request<Body>) -> Result<Response<Reply>, Status> {
        let (parts, body) = request.into_parts();
        let requests = codec::messages(&parts.headers, body, self.door.max_message_bytes)?;
        let caller = Caller::new("chatroom.v1.ChatService/Join", parts);
        let body = V1Body::spawn(|tell| talk::join(self.door.clone(), caller, requests, tell));
        Ok(open(Reply::V1 { body }))
    }

    fn subscribe(&self, request: Request<Body>) -> Result<Response<Reply>, Status> {
        let (parts, body) = request.into_parts();
        let requests = codec::messages(&parts.headers, body, self.door.max_message_bytes)?;
        let caller = Caller::new("chatroom.v1.ChatService/Subscribe", parts);
        let body = V1Body::spawn(|tell| talk::subscribe(self.door.clone(), caller, requests, tell));
        Ok(open(Reply::V1 { body }))
    }

    /// Has tonic decode the request and encode the answer. The request is read as a stream of one, because tonic has its
    /// own words and codes for one that is too large.
    fn unary<Q, A, F>(
        &self,
        request: Request<Body>,
        answer: impl FnOnce(Q) -> F + Clone + Send + 'static,
    ) -> Answer
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        // Before tonic does, in its own words.
        if let Err(status) = codec::coding(request.headers()) {
            return Answer::refuse(status);
        }
        let Door { max_message_bytes: max, hub, .. } = self.door.clone();
        let service = service_fn(move |requests: tonic::Request<Streaming<Q>>| {
            let (answer, hub) = (answer.clone(), hub.clone());
            async move {
                let request = talk::first(&mut requests.into_inner(), max, &hub).await?;
                answer(request).await.map(tonic::Response::new)
            }
        });
        Answer::Later(Box::pin(async move {
            let codec = tonic_prost::ProstCodec::<A, Q>::default();
            let grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(max);
            let accepted = tonic::codec::CompressionEncoding::Gzip;
            grpc.accept_compressed(accepted).client_streaming(service, request).await
        }))
    }
}
