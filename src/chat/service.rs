//! Broadcasting in a gRPC service of your own: whatever a client of the method sends, all clients of it receive.
//!
//! [`BroadcastService`] is a whole service with one method, and sends each message encoded once for all clients.
//! [`BroadcastStream`] is the response of a method in a service that tonic generated; there each message is decoded and
//! encoded for each client, which is what generated code can do, and costs accordingly. Both end a call with the same
//! statuses.

use super::broadcast::Broadcast;
use super::codec;
use super::proto::Proto;
use super::response::open;
use super::status;
use crate::hub::{
    ClientInfo, Hub, Joined, Next, Publisher, RoomName, ShardId, SubscribeOptions, Subscription, WireForm,
};
use crate::rpc::no_such_method;
use crate::wire::PREFIX_LEN;
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Request, Response};
use prost::Message;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Status, Streaming};

/// Longest message of a client unless it is set: fan-out multiplies it.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Bytes that a [`BroadcastStream`] takes from the log at a time, at least one message.
const CHUNK_BYTES: usize = 16 * 1024;

/// A bidirectional method whose clients receive each other's messages, like
/// `service Game { rpc Play(stream Event) returns (stream Event); }`.
pub trait BroadcastMethod: Send + Sync + 'static {
    /// The full name of the service, like `game.Game`.
    const SERVICE: &'static str;
    /// The name of its method, like `Play`.
    const METHOD: &'static str;
    /// What clients send and receive. A `oneof` carries many types in one order.
    type Message: Message + Default + 'static;

    /// The room that a call joins, by its metadata; one room for all unless this says otherwise.
    ///
    /// # Errors
    /// The status of a call that may not join any.
    fn room(_metadata: &HeaderMap) -> Result<RoomName, Status> {
        Ok(RoomName::default())
    }
}

/// A service with one [`BroadcastMethod`], for tonic's server or any other that takes its services.
///
/// On tonic's own server a client that reads too slowly may see CANCELLED instead of its status, see [`Broadcast`].
pub struct BroadcastService<S: BroadcastMethod> {
    hub: Hub<Proto<S::Message>>,
    shard: ShardId,
    message_bytes_max: usize,
    method: PhantomData<S>,
}

impl<S: BroadcastMethod> Clone for BroadcastService<S> {
    fn clone(&self) -> Self {
        let Self { shard, message_bytes_max, method, .. } = *self;
        Self { hub: self.hub.clone(), shard, message_bytes_max, method }
    }
}

impl<S: BroadcastMethod> BroadcastService<S> {
    /// The service, whose calls join this hub on its first shard.
    #[must_use]
    pub fn new(hub: Hub<Proto<S::Message>>) -> Self {
        Self { hub, shard: ShardId::default(), message_bytes_max: MESSAGE_BYTES_MAX, method: PhantomData }
    }

    /// With another limit for the messages of clients than 64 KiB, in bytes of their encoding.
    #[must_use]
    pub fn max_message_bytes(self, max: usize) -> Self {
        Self { message_bytes_max: max, ..self }
    }

    fn call(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let method = request.uri().path().rsplit('/').next();
        if method != Some(S::METHOD) {
            return Err(no_such_method(&format!("{} has one method: {}", S::SERVICE, S::METHOD)));
        }
        let (parts, body) = request.into_parts();
        let requests = codec::messages(&parts.headers, body, self.message_bytes_max)?;
        let room = S::room(&parts.headers)?;
        let (subscription, reader) = join(&self.hub, self.shard, &room, requests, self.message_bytes_max)?;
        Ok(open(Body::new(Broadcast::new(subscription, reader))))
    }
}

impl<S: BroadcastMethod> NamedService for BroadcastService<S> {
    const NAME: &'static str = S::SERVICE;
}

impl<S: BroadcastMethod> Service<Request<Body>> for BroadcastService<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(Self::call(self, request).unwrap_or_else(Status::into_http)))
    }
}

/// Everything that is published in a room, as the response stream of a generated service's method. Dropping it leaves the
/// room.
///
/// Each message is decoded here and encoded again by tonic, once for each client: for what that costs with many clients,
/// [`BroadcastService`] is the better choice.
pub struct BroadcastStream<T: Message + Default + 'static> {
    // Before the subscription, so that it is dropped while the connection is still there.
    _reader: AbortOnDropHandle<()>,
    subscription: Subscription<Proto<T>>,
    frames: Bytes,
    has_ended: bool,
}

impl<T: Message + Default + 'static> BroadcastStream<T> {
    /// Joins a room and publishes the client's requests there.
    ///
    /// # Errors
    /// The status of a client that is not let in, like `RESOURCE_EXHAUSTED` at a limit.
    pub fn join(
        hub: &Hub<Proto<T>>,
        room: &RoomName,
        requests: Streaming<T>,
    ) -> Result<tonic::Response<Self>, Status> {
        // The limit is that of the generated server.
        let (subscription, reader) = join(hub, ShardId::default(), room, requests, usize::MAX)?;
        let stream = Self { _reader: reader, subscription, frames: Bytes::new(), has_ended: false };
        Ok(tonic::Response::new(stream))
    }
}

impl<T: Message + Default + 'static> futures_util::Stream for BroadcastStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut capacity = CHUNK_BYTES;
        loop {
            if let Some(prefix) = self.frames.first_chunk::<PREFIX_LEN>() {
                let [_, a, b, c, d] = *prefix;
                let len = u32::from_be_bytes([a, b, c, d]) as usize;
                self.frames.advance(PREFIX_LEN);
                let message = self.frames.split_to(len);
                // The hub has encoded it.
                return Poll::Ready(Some(T::decode(message).map_err(|e| Status::internal(e.to_string()))));
            }
            if self.has_ended {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.subscription.poll_next(cx, capacity)) {
                Next::Frames(frames) => self.frames = frames,
                Next::NeedsCapacity(needed) => capacity = needed,
                Next::Gap(_) | Next::End => {
                    self.has_ended = true;
                    let status = status::of_subscription(&self.subscription);
                    return Poll::Ready((status.code() != tonic::Code::Ok).then_some(Err(status)));
                }
            }
        }
    }
}

type JoinedClient<T> = (Subscription<Proto<T>>, AbortOnDropHandle<()>);

/// Joins a room; a task publishes the client's requests there.
fn join<T: Message + Default + 'static>(
    hub: &Hub<Proto<T>>,
    shard: ShardId,
    room: &RoomName,
    requests: Streaming<T>,
    max: usize,
) -> Result<JoinedClient<T>, Status> {
    let joined = hub.join(shard, room, ClientInfo::anonymous(), SubscribeOptions::live(WireForm::Primary));
    let Joined { publisher, subscription, .. } = joined.map_err(|refusal| status::of_refusal(&refusal))?;
    let reader = AbortOnDropHandle::new(tokio::spawn(publish_all(requests, publisher, max)));
    Ok((subscription, reader))
}

/// Publishes a client's requests until it half-closes.
async fn publish_all<T: Message + Default + 'static>(
    mut requests: Streaming<T>,
    mut publisher: Publisher<Proto<T>>,
    max: usize,
) {
    loop {
        match requests.message().await {
            Ok(Some(message)) => {
                // An error means that the connection has ended.
                if publisher.publish(Proto(message)).await.is_err() {
                    return;
                }
            }
            Ok(None) => return publisher.finish(),
            Err(status) => {
                if let Some((reason, detail)) = status::of_unreadable(status, max) {
                    publisher.member().disconnect(reason, Some(detail));
                }
                return;
            }
        }
    }
}
