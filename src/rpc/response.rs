//! Response bodies that know how much the peer accepts.
//!
//! An `http_body::Body` returns data of any size. What exceeds the peer's windows then waits in HTTP/2, and the status waits
//! behind it. A [`ResponseBody`] gets the available window with each poll, so a broadcast leaves in its log what a slow peer
//! cannot take, and its status can be sent at any time.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::body::Body;

/// The next part of a response.
#[derive(Debug)]
pub enum Chunk {
    /// Data. If it exceeds the `capacity` of the poll, it is sent in parts, and the status waits behind it.
    Data(Bytes),
    /// The next data needs this many bytes of room, and stays in its source.
    NeedsCapacity(usize),
    /// The trailers. They end the response.
    Trailers(HeaderMap),
    /// The response ends without trailers.
    End,
    /// The response failed: its stream is reset.
    Failed,
}

/// A response body that is polled with the room in the peer's windows.
pub trait ResponseBody: Send + 'static {
    /// Polls for the next chunk, with at most `capacity` bytes of data if it can be cut there. After [`Chunk::NeedsCapacity`] the caller
    /// polls again when there is more room, or when the task is woken.
    fn poll_chunk(self: Pin<&mut Self>, cx: &mut Context<'_>, capacity: usize) -> Poll<Chunk>;

    /// Whether the response has ended.
    fn is_end_stream(&self) -> bool {
        false
    }

    /// Whether the body itself ends with a status when the request is invalid or late. Otherwise the transport ends the
    /// call with one.
    fn handles_request_errors(&self) -> bool {
        false
    }
}

/// Bodies of tonic's services: data of any size, sent in parts.
impl ResponseBody for Body {
    fn poll_chunk(mut self: Pin<&mut Self>, cx: &mut Context<'_>, _: usize) -> Poll<Chunk> {
        loop {
            let frame = match ready!(self.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(Chunk::End),
                Some(Err(error)) => {
                    tracing::debug!(%error, "a response failed");
                    return Poll::Ready(Chunk::Failed);
                }
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Chunk::Data(data)),
                Err(other) => {
                    if let Ok(trailers) = other.into_trailers() {
                        return Poll::Ready(Chunk::Trailers(trailers));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(self)
    }
}
