//! Routes each call to its service: chats straight to their room, everything else through tonic's `Routes`.
//!
//! `Routes` would do for all, but boxes each body three times over; a chat's body is polled for every frame of every member.

use super::admission::{Admission, ConnectionGuard};
use super::broadcast::Broadcast;
use super::hello::ChatRoom;
use super::message::Message;
use super::v1::{Answer, ChatService, V1Body};
use crate::hub::{Hub, ShardId};
use crate::rpc::lists::ListExecutor;
use crate::rpc::page::PageTokens;
use crate::transport::{Chunk, ResponseBody};
use futures_util::future::{BoxFuture, Either, FutureExt as _, Map, MapOk, Ready, TryFutureExt as _, ready};
use http::{Request, Response};
use pin_project_lite::pin_project;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

/// The names of the services that [`Router`] has itself.
pub const SERVICES: &[&str] = &[<ChatRoom as NamedService>::NAME, <ChatService as NamedService>::NAME];

/// All services of the chat listener, for calls on one shard's thread.
#[derive(Clone)]
pub struct Router {
    hello: ChatRoom,
    v1: ChatService,
    others: Routes,
}

/// What the chat services need.
pub struct ChatOptions {
    /// Where calls join.
    pub hub: Hub<Message>,
    /// The shard of the thread that serves the calls.
    pub shard: ShardId,
    /// Longest message, in bytes of its encoding.
    pub max_message_bytes: usize,
    /// Refuse calls of `chatroom.v1` about a room that do not name it in their metadata.
    pub require_room_header: bool,
    /// The tokens of pages.
    pub tokens: Arc<PageTokens>,
    /// Where lists run.
    pub lists: ListExecutor,
}

impl Router {
    /// The chat services, and others beside them.
    #[must_use]
    pub fn new(options: ChatOptions, others: Routes) -> Self {
        let ChatOptions { hub, shard, max_message_bytes, require_room_header, tokens, lists } = options;
        let admission = Admission { hub, shard, max_message_bytes, require_room_header };
        let hello = ChatRoom { admission: admission.clone() };
        Self { hello, v1: ChatService::new(admission, tokens, lists), others: others.prepare() }
    }
}

pin_project! {
    /// The body of any response: a chat's, without the boxes that it would need as another service's.
    #[project = RoutedProjection]
    #[allow(missing_docs, reason = "each variant is one service's body")]
    pub enum RoutedBody {
        Hello { #[pin] body: Broadcast<Message, ConnectionGuard> },
        V1 { #[pin] body: V1Body },
        Other { #[pin] body: Body },
    }
}

impl From<Body> for RoutedBody {
    fn from(body: Body) -> Self {
        Self::Other { body }
    }
}

impl ResponseBody for RoutedBody {
    fn poll_chunk(self: Pin<&mut Self>, cx: &mut Context<'_>, capacity: usize) -> Poll<Chunk> {
        match self.project() {
            RoutedProjection::Hello { body } => body.get_mut().poll_chunk(cx, capacity),
            RoutedProjection::V1 { body } => body.get_mut().poll_chunk(cx, capacity),
            RoutedProjection::Other { body } => body.poll_chunk(cx, capacity),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hello { .. } | Self::V1 { .. } => false,
            Self::Other { body } => ResponseBody::is_end_stream(body),
        }
    }

    fn handles_request_errors(&self) -> bool {
        matches!(self, Self::Hello { .. } | Self::V1 { .. })
    }
}

type Immediate = Ready<Result<Response<RoutedBody>, Infallible>>;
type Unary =
    Map<BoxFuture<'static, Response<Body>>, fn(Response<Body>) -> Result<Response<RoutedBody>, Infallible>>;
type Other = MapOk<<Routes as Service<Request<Body>>>::Future, fn(Response<Body>) -> Response<RoutedBody>>;

impl Service<Request<Body>> for Router {
    type Response = Response<RoutedBody>;
    type Error = Infallible;
    type Future = Either<Immediate, Either<Unary, Other>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let response = match path.map(|(service, _)| service) {
            Some(<ChatRoom as NamedService>::NAME) => {
                self.hello.call(request).map(|response| response.map(|body| RoutedBody::Hello { body }))
            }
            Some(<ChatService as NamedService>::NAME) => match self.v1.call(request) {
                Ok(Answer::Stream(response)) => Ok(response.map(|body| RoutedBody::V1 { body })),
                Ok(Answer::Unary(response)) => {
                    let routed: fn(Response<Body>) -> _ = |response| Ok(response.map(RoutedBody::from));
                    return Either::Right(Either::Left(response.map(routed)));
                }
                Err(status) => Err(status),
            },
            _ => {
                let routed: fn(Response<Body>) -> Response<RoutedBody> =
                    |response| response.map(RoutedBody::from);
                return Either::Right(Either::Right(self.others.call(request).map_ok(routed)));
            }
        };
        let refusal = |status: Status| status.into_http::<Body>().map(RoutedBody::from);
        Either::Left(ready(Ok(response.unwrap_or_else(refusal))))
    }
}
