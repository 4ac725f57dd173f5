//! The response body of a chat call: the room's shared frames, then the status as trailers.
//!
//! No message is encoded or copied here: what the subscription hands out goes to HTTP/2 as it is, many messages to
//! one DATA frame.

use super::said::Said;
use super::status;
use crate::hub::{Departure, Next, Subscription};
use crate::telemetry::trace::ConnectionSpan;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::AbortHandle;
use tonic::Status;

/// A chat call's response body.
pub struct ChatBody {
    subscription: Subscription<Said>,
    /// The task that reads what this client says.
    listener: AbortHandle,
    span: Option<ConnectionSpan>,
    ended: bool,
}

impl ChatBody {
    pub(super) fn new(
        subscription: Subscription<Said>,
        listener: AbortHandle,
        span: Option<ConnectionSpan>,
    ) -> Self {
        Self { subscription, listener, span, ended: false }
    }

    fn trailers(&self) -> HeaderMap {
        let delivered = self.subscription.delivered();
        let ending = self.subscription.ending();
        let status = ending.map_or_else(|| Status::ok(""), |e| status::of_ending(e, delivered));
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            // Some words in it cannot be a header: the code is what matters.
            trailers.clear();
            let code = http::HeaderValue::from(status.code() as i32);
            trailers.insert(Status::GRPC_STATUS, code);
        }
        trailers
    }
}

impl Body for ChatBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.subscription.poll_next(cx).map(|next| {
            Some(Ok(match next {
                Next::Frames(frames) => Frame::data(frames),
                Next::End => {
                    self.ended = true;
                    Frame::trailers(self.trailers())
                }
            }))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

pin_project! {
    /// The body of any response: a chat's, without the boxes that it would need as another service's.
    #[project = ReplyProjection]
    #[allow(missing_docs, reason = "the variants are what they are called")]
    pub enum Reply {
        Chat { #[pin] body: ChatBody },
        Other { #[pin] body: tonic::body::Body },
    }
}

impl From<tonic::body::Body> for Reply {
    fn from(body: tonic::body::Body) -> Self {
        Self::Other { body }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.project() {
            ReplyProjection::Chat { body } => body.poll_frame(cx),
            ReplyProjection::Other { body } => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Chat { body } => body.is_end_stream(),
            Self::Other { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Chat { body } => body.size_hint(),
            Self::Other { body } => body.size_hint(),
        }
    }
}

impl Drop for ChatBody {
    fn drop(&mut self) {
        self.listener.abort();
        let member = self.subscription.member();
        // If nobody has decided on an end, the client has gone.
        member.depart(Departure::Cancelled, None);
        let reason = member.ending().map(|ending| ending.departure.as_str());
        if let (Some(span), Some(reason)) = (&self.span, reason) {
            span.departed(reason);
        }
        tracing::info!(
            connection = %member.id(),
            room = %self.subscription.room().name(),
            reason,
            "user left"
        );
    }
}
