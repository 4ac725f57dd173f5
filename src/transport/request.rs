//! Reading requests: bounded in size, and slowed by flow control.
//!
//! Received frames are taken from h2 at once, however slowly the service reads: h2 closes transports that have many small
//! unread frames. Flow-control credit returns to the peer only when the service takes the bytes. So a fast sender is
//! slowed down, and its unread bytes fit its stream's window.
//!
//! [`RequestReader`] is the transport's side, [`RequestBody`] the service's. Deliberately does not decode messages; it only
//! follows their length prefixes.

use crate::rpc::refused;
use bytes::{Bytes, BytesMut};
use h2::{FlowControl, RecvStream};
use http_body::{Body, Frame};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tonic::{Code, Status};

/// Bytes of a gRPC message's prefix: a compressed flag, and the message's length.
const PREFIX_LEN: usize = 5;

/// The boundaries of messages in a request.
#[derive(Default)]
struct MessageFraming {
    prefix: [u8; PREFIX_LEN],
    /// Bytes of the prefix that have arrived.
    have: usize,
    /// Bytes of the current message that are missing.
    rest: usize,
    /// Messages that have started.
    messages: u64,
}

impl MessageFraming {
    /// Scans the next bytes. Fails at the first message with more than `max` bytes.
    fn scan(&mut self, bytes: &[u8], max: usize) -> Result<(), MessageTooLong> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if self.rest > 0 {
                let skipped = self.rest.min(rest.len());
                self.rest -= skipped;
                at += skipped;
                continue;
            }
            let read = (PREFIX_LEN - self.have).min(rest.len());
            self.prefix[self.have..self.have + read].copy_from_slice(&rest[..read]);
            self.have += read;
            if self.have == PREFIX_LEN {
                let [_, a, b, c, d] = self.prefix;
                self.have = 0;
                self.messages += 1;
                self.rest = u32::from_be_bytes([a, b, c, d]) as usize;
                if self.rest > max {
                    return Err(MessageTooLong { after: at, len: self.rest });
                }
            }
            at += read;
        }
        Ok(())
    }

    /// Whether a message has started and is not complete.
    fn is_within_message(&self) -> bool {
        self.have > 0 || self.rest > 0
    }
}

/// A message above the limit.
#[derive(Debug, PartialEq, Eq)]
struct MessageTooLong {
    /// Bytes of complete messages before it.
    after: usize,
    /// Its length, from the prefix.
    len: usize,
}

/// The bytes between [`RequestReader`] and [`RequestBody`].
struct RequestBuffer {
    data: BytesMut,
    /// No more data will arrive.
    ended: bool,
    /// Why the request ended early, if it did.
    error: Option<Status>,
    /// The service dropped the body: further data is not stored.
    dropped: bool,
    reader: Option<Waker>,
    credit: FlowControl,
}

impl RequestBuffer {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The transport's side of a request.
pub(super) struct RequestReader {
    stream: RecvStream,
    buffer: Arc<Mutex<RequestBuffer>>,
    framing: MessageFraming,
    message_bytes_max: usize,
    /// The method takes one request message.
    single_message: bool,
    ended: bool,
    /// Further data is discarded.
    failed: bool,
    /// The status with which the transport refused the request, until the call takes it.
    failure: Option<Status>,
}

/// How much of a request has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestProgress {
    /// Between messages, after this many.
    Open(u64),
    /// Within the message of this number.
    WithinMessage(u64),
    /// It has all arrived, or the rest is discarded.
    Complete,
    /// The peer has reset the stream, or the transport is gone.
    Gone,
}

impl RequestReader {
    /// Creates both sides of a request. Each message may have up to `message_bytes_max` bytes; `single_message` is set for
    /// methods without client streaming.
    pub(super) fn new(
        mut stream: RecvStream,
        message_bytes_max: usize,
        single_message: bool,
    ) -> (Self, RequestBody) {
        let credit = stream.flow_control().clone();
        let ended = stream.is_end_stream();
        let buffer =
            RequestBuffer { data: BytesMut::new(), ended, error: None, dropped: false, reader: None, credit };
        let buffer = Arc::new(Mutex::new(buffer));
        let body = RequestBody(Arc::clone(&buffer));
        let framing = MessageFraming::default();
        let request = Self {
            stream,
            buffer,
            framing,
            message_bytes_max,
            single_message,
            ended,
            failed: false,
            failure: None,
        };
        (request, body)
    }

    /// Whether the peer has half-closed the stream.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes the received data from h2.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> RequestProgress {
        while !self.ended {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => self.receive(&data),
                Poll::Ready(Some(Err(_))) => {
                    self.fail(Status::cancelled("the call was cancelled"));
                    return RequestProgress::Gone;
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    let mut buffer = self.buffer.lock();
                    buffer.ended = true;
                    buffer.wake();
                }
                Poll::Pending if self.failed => return RequestProgress::Complete,
                Poll::Pending if self.framing.is_within_message() => {
                    return RequestProgress::WithinMessage(self.framing.messages);
                }
                Poll::Pending => return RequestProgress::Open(self.framing.messages),
            }
        }
        RequestProgress::Complete
    }

    fn receive(&mut self, data: &Bytes) {
        if self.failed {
            return self.discard(data.len());
        }
        if let Err(MessageTooLong { after, len }) = self.framing.scan(data, self.message_bytes_max) {
            // The messages before it are valid.
            self.store(&data[..after]);
            let max = self.message_bytes_max;
            let words = format!("a message may have at most {max} bytes, not {len}");
            self.refuse(refused(Code::ResourceExhausted, words, "MESSAGE_TOO_LARGE", &[], None));
            return self.discard(data.len() - after);
        }
        if self.single_message && self.framing.messages > 1 {
            // gRPC's code for it (its status codes, "request cardinality violation").
            let words = "the method takes one request, not several";
            self.refuse(refused(Code::Unimplemented, words, "ONE_REQUEST_ONLY", &[], None));
            return self.discard(data.len());
        }
        self.store(data);
    }

    /// Stores data for the service.
    fn store(&mut self, data: &[u8]) {
        let mut buffer = self.buffer.lock();
        if buffer.dropped {
            // No credit is returned: at most a window of it can arrive.
            return;
        }
        // Copied, as requests are small: a slice would keep alive everything that was read together with it.
        buffer.data.extend_from_slice(data);
        buffer.wake();
    }

    /// Discards data, and returns its credit to the peer.
    fn discard(&mut self, bytes: usize) {
        // It was received, and not released before.
        let _ = self.stream.flow_control().release_capacity(bytes);
    }

    /// Fails the request because of what the peer sent, or did not send.
    fn refuse(&mut self, status: Status) {
        self.failure = Some(status.clone());
        self.fail(status);
    }

    /// Takes the status with which the transport refused the request. `None` if there is none, or it was taken before.
    pub(super) fn take_failure(&mut self) -> Option<Status> {
        self.failure.take()
    }

    /// Ends the service's side with an error, and discards the data that still arrives.
    fn fail(&mut self, status: Status) {
        self.failed = true;
        let mut buffer = self.buffer.lock();
        if !buffer.ended {
            buffer.ended = true;
            buffer.error = Some(status);
            buffer.wake();
        }
    }

    /// Whether the service has not taken all received data.
    pub(super) fn has_unread_data(&self) -> bool {
        !self.buffer.lock().data.is_empty()
    }

    /// Fails the request because it was not complete within this time.
    pub(super) fn fail_incomplete(&mut self, within: Duration) {
        let words = format!("the request was not complete within {within:?}");
        self.refuse(refused(Code::DeadlineExceeded, words, "REQUEST_INCOMPLETE", &[], None));
    }

    /// Discards the rest of the request, so that the peer can finish sending it. For when the response is complete.
    pub(super) fn discard_rest(&mut self) {
        self.failed = true;
        let mut buffer = self.buffer.lock();
        buffer.data = BytesMut::new();
        let unreleased = buffer.credit.used_capacity();
        let _ = buffer.credit.release_capacity(unreleased);
    }
}

/// The service's side of a request.
pub(super) struct RequestBody(Arc<Mutex<RequestBuffer>>);

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut buffer = self.0.lock();
        if !buffer.data.is_empty() {
            let data = buffer.data.split().freeze();
            // An error means that the stream is gone; the next poll reports it.
            let _ = buffer.credit.release_capacity(data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if buffer.ended {
            return Poll::Ready(buffer.error.take().map(Err));
        }
        buffer.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let buffer = self.0.lock();
        buffer.ended && buffer.data.is_empty() && buffer.error.is_none()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut buffer = self.0.lock();
        buffer.dropped = true;
        buffer.reader = None;
        buffer.data = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(len: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(len.to_be_bytes());
        bytes.resize(PREFIX_LEN + len as usize, 7);
        bytes
    }

    proptest! {
        #[test]
        fn framing_finds_message_ends_in_any_chunking(
            lens in prop::collection::vec(0u32..50, 1..20),
            cut in 1usize..20,
        ) {
            let mut framing = MessageFraming::default();
            let bytes: Vec<u8> = lens.iter().flat_map(|len| message(*len)).collect();
            let mut ends = vec![0];
            for len in &lens {
                ends.push(ends[ends.len() - 1] + PREFIX_LEN + *len as usize);
            }
            let mut at = 0;
            for piece in bytes.chunks(cut) {
                prop_assert_eq!(framing.scan(piece, 50), Ok(()));
                at += piece.len();
                prop_assert_eq!(framing.is_within_message(), !ends.contains(&at));
            }
        }
    }

    #[test]
    fn message_above_limit_is_found_by_its_prefix() {
        let mut framing = MessageFraming::default();
        assert_eq!(framing.scan(&message(10), 10), Ok(()));
        let mut bytes = message(3);
        bytes.extend([0, 0xff, 0xff, 0xff, 0xff]);
        let too_long = MessageTooLong { after: PREFIX_LEN + 3, len: u32::MAX as usize };
        assert_eq!(framing.scan(&bytes, 10), Err(too_long));
    }
}
