//! Which service a call goes to: chats straight to their room, everything else by tonic's `Routes`.
//!
//! `Routes` would do for all, but boxes each body three times over; a chat's body is polled for every frame of
//! every member.

use super::body::Reply;
use super::service::ChatRoom;
use futures_util::future::{Either, MapOk, Ready, TryFutureExt as _};
use http::{Request, Response};
use std::convert::Infallible;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

/// All services of one listener.
#[derive(Clone)]
pub struct Front {
    /// Has the calls of the contract.
    pub chat: ChatRoom,
    /// Has all others.
    pub others: Routes,
}

type Routed = MapOk<<Routes as Service<Request<Body>>>::Future, fn(Response<Body>) -> Response<Reply>>;

impl Service<Request<Body>> for Front {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Reply>, Infallible>>, Routed>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if ChatRoom::has(&request) {
            return Either::Left(self.chat.call(request));
        }
        let reply: fn(Response<Body>) -> Response<Reply> = |response| response.map(Reply::from);
        Either::Right(self.others.call(request).map_ok(reply))
    }
}
