//! The bodies of all responses, and the status as trailers.

use super::broadcast::Broadcast;
use super::said::Said;
use super::seat::Seat;
use super::v1::V1Body;
use crate::transport::{Chunk, ResponseBody};
use http::{HeaderMap, HeaderValue};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;

pin_project! {
    /// The body of any response: a chat's, without the boxes that it would need as another service's.
    #[project = ReplyProjection]
    #[allow(missing_docs, reason = "the variants are what they are called")]
    pub enum Reply {
        Hello { #[pin] body: Broadcast<Said, Seat> },
        V1 { #[pin] body: V1Body },
        Other { #[pin] body: tonic::body::Body },
    }
}

impl From<tonic::body::Body> for Reply {
    fn from(body: tonic::body::Body) -> Self {
        Self::Other { body }
    }
}

impl ResponseBody for Reply {
    fn poll_chunk(self: Pin<&mut Self>, cx: &mut Context<'_>, room: usize) -> Poll<Chunk> {
        match self.project() {
            ReplyProjection::Hello { body } => body.get_mut().poll_chunk(cx, room),
            ReplyProjection::V1 { body } => body.get_mut().poll_chunk(cx, room),
            ReplyProjection::Other { body } => body.poll_chunk(cx, room),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hello { .. } | Self::V1 { .. } => false,
            Self::Other { body } => ResponseBody::is_end_stream(body),
        }
    }

    fn minds_request(&self) -> bool {
        matches!(self, Self::Hello { .. } | Self::V1 { .. })
    }
}

pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Some words in it cannot be a header: the code is what matters.
        trailers.clear();
        let code = HeaderValue::from(status.code() as i32);
        trailers.insert(Status::GRPC_STATUS, code);
    }
    trailers
}
