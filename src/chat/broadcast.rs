//! The response body of a subscriber, for any service: the room's shared frames, then the status as trailers.
//!
//! No message is encoded or copied here: the frames of the subscription go to HTTP/2 as they are, many messages in one
//! DATA frame.

use super::response::{open, trailers};
use super::status;
use crate::hub::{Next, Payload, Subscription, log::FRAME_BYTES_MAX};
use crate::rpc::response::Chunk;
use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame as BodyFrame};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// A subscription as the body of a gRPC response. Dropping it leaves the room.
///
/// For a service of your own: answer the call with [`Broadcast::respond`], and its client receives everything that is
/// published in the room, each message encoded once for all members. When the connection ends, so does the call, with the
/// status that gives the reason. See `examples/game`.
///
/// On tonic's own server a client that reads too slowly may see CANCELLED instead of its status: hyper hands data to
/// HTTP/2 before the peer's windows take it, and the status waits behind it. [`crate::transport`] does not.
pub struct Broadcast<M: Payload, G = ()> {
    // Before the subscription, so that it is dropped while the connection is still there.
    _guard: G,
    subscription: Subscription<M>,
    ended: bool,
}

impl<M: Payload> Broadcast<M> {
    /// The response to a call. Its head goes out at once, and tells the client that it is in the room.
    #[must_use]
    pub fn respond(subscription: Subscription<M>) -> Response<tonic::body::Body> {
        open(tonic::body::Body::new(Self::new(subscription, ())))
    }
}

impl<M: Payload, G> Broadcast<M, G> {
    pub(super) fn new(subscription: Subscription<M>, guard: G) -> Self {
        Self { _guard: guard, subscription, ended: false }
    }
}

impl<M: Payload, G: Unpin> Broadcast<M, G> {
    /// The next whole messages that fit `capacity` bytes, or the status.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>, capacity: usize) -> Poll<Chunk> {
        if self.ended {
            return Poll::Ready(Chunk::End);
        }
        self.subscription.poll_next(cx, capacity).map(|next| match next {
            Next::Frames(frames) => Chunk::Data(frames),
            Next::NeedsCapacity(needed) => Chunk::NeedsCapacity(needed),
            // The connection cannot receive gap events: its call ends instead.
            Next::Gap(_) | Next::End => {
                self.ended = true;
                Chunk::Trailers(trailers(&status::of_subscription(&self.subscription)))
            }
        })
    }
}

impl<M: Payload, G: Unpin> Body for Broadcast<M, G> {
    type Data = Bytes;
    type Error = Status;

    /// For servers that ask for data before they know how much the peer takes, such as tonic's own.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Status>>> {
        let mut capacity = FRAME_BYTES_MAX;
        loop {
            return Poll::Ready(match ready!(self.poll_chunk(cx, capacity)) {
                Chunk::Data(data) => Some(Ok(BodyFrame::data(data))),
                Chunk::Trailers(trailers) => Some(Ok(BodyFrame::trailers(trailers))),
                Chunk::NeedsCapacity(needed) => {
                    capacity = needed;
                    continue;
                }
                Chunk::End | Chunk::Failed => None,
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
