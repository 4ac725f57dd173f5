//! Which service a call goes to: chats straight to their room, everything else by tonic's `Routes`.
//!
//! `Routes` would do for all, but boxes each body three times over; a chat's body is polled for every frame of
//! every member.

use super::hello::ChatRoom;
use super::reply::Reply;
use super::said::Said;
use super::seat::Door;
use super::v1::{Answer, ChatService};
use crate::hub::{Hub, ShardId};
use crate::rpc::lists::Lists;
use crate::rpc::page::Tokens;
use futures_util::future::{BoxFuture, Either, FutureExt as _, Map, MapOk, Ready, TryFutureExt as _, ready};
use http::{Request, Response};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

/// The names of the services that [`Front`] has itself.
pub const SERVICES: &[&str] = &[<ChatRoom as NamedService>::NAME, <ChatService as NamedService>::NAME];

/// All services of the chat listener, for calls on one shard's thread.
#[derive(Clone)]
pub struct Front {
    hello: ChatRoom,
    v1: ChatService,
    others: Routes,
}

impl Front {
    /// The chat services, which join their callers to `hub` on `shard`; and others beside them.
    #[must_use]
    pub fn new(
        hub: Hub<Said>,
        shard: ShardId,
        max_message_bytes: usize,
        require_room_header: bool,
        tokens: Arc<Tokens>,
        lists: Lists,
        others: Routes,
    ) -> Self {
        let door = Door { hub, shard, max_message_bytes, require_room_header };
        Self {
            hello: ChatRoom { door: door.clone() },
            v1: ChatService::new(door, tokens, lists),
            others: others.prepare(),
        }
    }
}

type Answered = Ready<Result<Response<Reply>, Infallible>>;
type Unary =
    Map<BoxFuture<'static, Response<Body>>, fn(Response<Body>) -> Result<Response<Reply>, Infallible>>;
type Routed = MapOk<<Routes as Service<Request<Body>>>::Future, fn(Response<Body>) -> Response<Reply>>;

impl Service<Request<Body>> for Front {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Either<Answered, Either<Unary, Routed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let answer = match path.map(|(service, _)| service) {
            Some(<ChatRoom as NamedService>::NAME) => self.hello.call(request),
            Some(<ChatService as NamedService>::NAME) => match self.v1.call(request) {
                Answer::Now(answer) => *answer,
                Answer::Later(answer) => {
                    let reply: fn(Response<Body>) -> _ = |response| Ok(response.map(Reply::from));
                    return Either::Right(Either::Left(answer.map(reply)));
                }
            },
            _ => {
                let reply: fn(Response<Body>) -> Response<Reply> = |response| response.map(Reply::from);
                return Either::Right(Either::Right(self.others.call(request).map_ok(reply)));
            }
        };
        let refusal = |status: Status| status.into_http::<Body>().map(Reply::from);
        Either::Left(ready(Ok(answer.unwrap_or_else(refusal))))
    }
}
