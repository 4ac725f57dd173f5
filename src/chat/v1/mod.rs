//! `chatroom.v1.ChatService`: many kinds of messages over one stream, history, resume, acknowledgements, presence.
//!
//! Nothing here keeps messages: history, resume, acknowledgements and gaps are read from the room's log by the
//! connection's own cursor.

mod body;
mod filter;
mod lists;
mod requests;
mod session;

pub(super) use body::V1Body;

use super::admission::{Admission, ClientCall};
use super::codec;
use super::metadata;
use super::response::open;
use crate::hub::RoomName;
use crate::rpc::lists::ListExecutor;
use crate::rpc::page::PageTokens;
use crate::rpc::{invalid, no_such_method, with_reason};
use crate::wire::v1::chat_service_server;
use body::JoinOutcome;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use lists::Source;
use prost::Message as ProstMessage;
use session::CallContext;
use std::sync::Arc;
use tokio::sync::oneshot;
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
    admission: Admission,
    tokens: Arc<PageTokens>,
    lists: ListExecutor,
}

impl NamedService for ChatService {
    const NAME: &'static str = chat_service_server::SERVICE_NAME;
}

/// The answer to a call.
pub(super) enum Answer {
    /// A stream, whose head goes out now.
    Stream(Response<V1Body>),
    /// One message, or a status.
    Unary(BoxFuture<'static, Response<Body>>),
}

impl ChatService {
    pub(super) fn new(admission: Admission, tokens: Arc<PageTokens>, lists: ListExecutor) -> Self {
        Self { admission, tokens, lists }
    }

    pub(super) fn call(&self, request: Request<Body>) -> Result<Answer, Status> {
        match request.uri().path() {
            JOIN => self.stream(request, session::join),
            SUBSCRIBE => self.stream(request, session::subscribe),
            PUBLISH => self.publish(request),
            LIST_EVENTS => self.list(request, lists::events),
            LIST_MEMBERS => self.list(request, lists::members),
            LIST_ROOMS => self.list(request, lists::rooms),
            _ => Err(no_such_method("chatroom.v1.ChatService has no such method")),
        }
    }

    /// The room that a call's metadata names, if it does; an error if it must and does not.
    fn named_room(&self, headers: &HeaderMap) -> Result<Option<RoomName>, Status> {
        let named = metadata::room(headers)?;
        if named.is_none() && self.admission.require_room_header {
            let rule = "is required in the metadata here, with the name of the room";
            return Err(with_reason(&invalid("chatroom-room", rule), "ROOM_HEADER_REQUIRED", &[]));
        }
        Ok(named)
    }

    fn context<B>(&self, request: &Request<B>) -> Result<CallContext, Status> {
        let named_room = self.named_room(request.headers())?;
        let call = ClientCall::of(request.extensions());
        Ok(CallContext { admission: self.admission.clone(), call, named_room })
    }

    /// Answers with a stream, whose task reads the requests.
    fn stream<Q, F>(
        &self,
        request: Request<Body>,
        task: fn(CallContext, Streaming<Q>, oneshot::Sender<JoinOutcome>) -> F,
    ) -> Result<Answer, Status>
    where
        Q: ProstMessage + Default + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let context = self.context(&request)?;
        let (parts, body) = request.into_parts();
        let requests = codec::messages(&parts.headers, body, self.admission.max_message_bytes)?;
        Ok(Answer::Stream(open(V1Body::spawn(|outcome| task(context, requests, outcome)))))
    }

    fn publish(&self, request: Request<Body>) -> Result<Answer, Status> {
        let context = Arc::new(self.context(&request)?);
        self.unary(request, |publish| async move { context.publish(publish).await })
    }

    /// Answers with a page of a list, which is made on the thread of lists.
    fn list<Q, A, F>(&self, request: Request<Body>, list: fn(Source, Q) -> F) -> Result<Answer, Status>
    where
        Q: ProstMessage + Default + 'static,
        A: ProstMessage + Default + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        self.admission.check_ban(&ClientCall::of(request.extensions()))?;
        // ListRooms is about no room.
        let is_of_room = request.uri().path() != LIST_ROOMS;
        let named_room = if is_of_room { self.named_room(request.headers())? } else { None };
        let Self { admission, tokens, lists } = self.clone();
        let source = Source { hub: admission.hub, tokens, named_room };
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
        Q: ProstMessage + Default + 'static,
        A: ProstMessage + Default + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        // Before tonic does, in its own words.
        codec::coding(request.headers())?;
        let Admission { max_message_bytes: max, hub, .. } = self.admission.clone();
        let service = service_fn(move |requests: tonic::Request<Streaming<Q>>| {
            let (answer, hub) = (answer.clone(), hub.clone());
            async move {
                let request = session::only(&mut requests.into_inner(), max, &hub).await?;
                answer(request).await.map(tonic::Response::new)
            }
        });
        Ok(Answer::Unary(Box::pin(async move {
            let codec = tonic_prost::ProstCodec::<A, Q>::default();
            let grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(max);
            let accepted = tonic::codec::CompressionEncoding::Gzip;
            grpc.accept_compressed(accepted).client_streaming(service, request).await
        })))
    }
}
