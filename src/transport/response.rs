//! What a response sends: chunks that fit the room that the peer's windows leave now.
//!
//! An `http_body::Body` hands out data without knowing how much of it the peer takes. What does not fit then waits in
//! HTTP/2, and the status behind it. A [`ResponseBody`] is offered the room first, so that a broadcast leaves in its log
//! what a slow peer cannot take, and its status can be sent at any time.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::body::Body;

/// What a response has for its peer next.
#[derive(Debug)]
pub enum Chunk {
    /// Data. What exceeds the room that was offered is sent in parts, and the status waits behind it.
    Data(Bytes),
    /// What comes next needs this many bytes of room; it stays where it is.
    NoRoom(usize),
    /// The trailers, which end the response.
    Trailers(HeaderMap),
    /// The response ends without trailers.
    End,
    /// The response cannot go on: its stream is reset.
    Failed,
}

/// A response body that is told how much room there is.
pub trait ResponseBody: Send + 'static {
    /// The next chunk, with at most `room` bytes of data if it can be cut there. After [`Chunk::NoRoom`] the caller asks
    /// again when there is more room, or when the task is woken.
    fn poll_chunk(self: Pin<&mut Self>, cx: &mut Context<'_>, room: usize) -> Poll<Chunk>;

    /// Whether nothing will come.
    fn is_end_stream(&self) -> bool {
        false
    }

    /// Whether it ends by itself, with a status of its own, when the request turns out to be wrong or late. Else the
    /// transport ends it with its own.
    fn minds_request(&self) -> bool {
        false
    }
}

/// Answers of tonic's services: data of any size, sent in parts.
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
