//! A request on its way in: read promptly, granted by need, bounded in size and time.
//!
//! Frames that have come are taken from HTTP/2 at once, whoever reads the request and however slowly: h2 closes
//! transports whose many small frames it has to keep. What is withheld is the flow-control credit, until the service
//! takes the bytes. So a fast sender is slowed, and holds no more than the window of its stream.

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

/// Bytes before each message of gRPC: a flag, and the message's length.
const PREFIX_LEN: usize = 5;

/// Where the messages of a request begin and end.
#[derive(Default)]
struct Framing {
    prefix: [u8; PREFIX_LEN],
    have: usize,
    /// Bytes of the current message that are to come.
    rest: usize,
    /// Messages that have begun.
    messages: u64,
}

impl Framing {
    /// Follows the bytes. An error is the first message that has more than `max` bytes.
    fn follow(&mut self, bytes: &[u8], max: usize) -> Result<(), TooLong> {
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
                    return Err(TooLong { after: at, len: self.rest });
                }
            }
            at += read;
        }
        Ok(())
    }

    /// Whether a message has begun and not ended.
    fn is_within_message(&self) -> bool {
        self.have > 0 || self.rest > 0
    }
}

/// A message over the limit.
#[derive(Debug, PartialEq, Eq)]
struct TooLong {
    /// Bytes that belong to messages before it.
    after: usize,
    /// Its length.
    len: usize,
}

/// What has come and was not taken, shared by the stream and the service.
struct Buffer {
    data: BytesMut,
    /// No more comes.
    ended: bool,
    /// Why no more comes, if the request did not end by itself.
    error: Option<Status>,
    /// The service has no use for more.
    unwanted: bool,
    reader: Option<Waker>,
    credit: FlowControl,
}

impl Buffer {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The stream's side of a request.
pub(super) struct Request {
    stream: RecvStream,
    buffer: Arc<Mutex<Buffer>>,
    framing: Framing,
    message_bytes_max: usize,
    /// The whole request is one message.
    is_one: bool,
    ended: bool,
    failed: bool,
    /// Why the transport has failed it, until the call is told.
    failure: Option<Status>,
}

/// What has become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More may come, after as many messages.
    Open(u64),
    /// The message of this number has begun, and is to be complete in time.
    WithinMessage(u64),
    /// All of it has come, or no more is wanted.
    Complete,
    /// The peer has given the call up, or the transport is gone.
    Gone,
}

impl Request {
    /// Reads a request whose messages may have so many bytes each, and which may be one message only; the body is for the
    /// service.
    pub(super) fn new(mut stream: RecvStream, message_bytes_max: usize, is_one: bool) -> (Self, RequestBody) {
        let credit = stream.flow_control().clone();
        let ended = stream.is_end_stream();
        let buffer =
            Buffer { data: BytesMut::new(), ended, error: None, unwanted: false, reader: None, credit };
        let buffer = Arc::new(Mutex::new(buffer));
        let body = RequestBody(Arc::clone(&buffer));
        let framing = Framing::default();
        let request =
            Self { stream, buffer, framing, message_bytes_max, is_one, ended, failed: false, failure: None };
        (request, body)
    }

    /// Whether the peer has ended it.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes what has come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        while !self.ended {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => self.take(&data),
                Poll::Ready(Some(Err(_))) => {
                    self.fail(Status::cancelled("the call was cancelled"));
                    return Progress::Gone;
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    let mut buffer = self.buffer.lock();
                    buffer.ended = true;
                    buffer.wake();
                }
                Poll::Pending if self.failed => return Progress::Complete,
                Poll::Pending if self.framing.is_within_message() => {
                    return Progress::WithinMessage(self.framing.messages);
                }
                Poll::Pending => return Progress::Open(self.framing.messages),
            }
        }
        Progress::Complete
    }

    fn take(&mut self, data: &Bytes) {
        if self.failed {
            return self.discard(data.len());
        }
        if let Err(TooLong { after, len }) = self.framing.follow(data, self.message_bytes_max) {
            // What came before it was right.
            self.keep(&data[..after]);
            let max = self.message_bytes_max;
            let words = format!("a message may have at most {max} bytes, not {len}");
            self.refuse(refused(Code::ResourceExhausted, words, "MESSAGE_TOO_LARGE", &[], None));
            return self.discard(data.len() - after);
        }
        if self.is_one && self.framing.messages > 1 {
            // gRPC's code for it (its status codes, "request cardinality violation").
            let words = "the method takes one request, not several";
            self.refuse(refused(Code::Unimplemented, words, "ONE_REQUEST_ONLY", &[], None));
            return self.discard(data.len());
        }
        self.keep(data);
    }

    /// Keeps it for the service.
    fn keep(&mut self, data: &[u8]) {
        let mut buffer = self.buffer.lock();
        if buffer.unwanted {
            // Without credit: a window's worth may come, and no more.
            return;
        }
        // Copied, as it is little as a rule: a slice would hold on to all that was read with it.
        buffer.data.extend_from_slice(data);
        buffer.wake();
    }

    /// Lets the peer send as much again.
    fn discard(&mut self, bytes: usize) {
        // It was received and not released before.
        let _ = self.stream.flow_control().release_capacity(bytes);
    }

    /// Fails it for what the peer did or did not send.
    fn refuse(&mut self, status: Status) {
        self.failure = Some(status.clone());
        self.fail(status);
    }

    /// Why the transport has failed the request, once.
    pub(super) fn take_failure(&mut self) -> Option<Status> {
        self.failure.take()
    }

    /// Has the service find an error where the rest of the request should be; what comes from now on is discarded.
    fn fail(&mut self, status: Status) {
        self.failed = true;
        let mut buffer = self.buffer.lock();
        if !buffer.ended {
            buffer.ended = true;
            buffer.error = Some(status);
            buffer.wake();
        }
    }

    /// Whether the service has not taken what is there.
    pub(super) fn waits_for_service(&self) -> bool {
        !self.buffer.lock().data.is_empty()
    }

    /// The request was not complete in time.
    pub(super) fn fail_late(&mut self, within: Duration) {
        let words = format!("the request was not complete within {within:?}");
        self.refuse(refused(Code::DeadlineExceeded, words, "REQUEST_INCOMPLETE", &[], None));
    }

    /// The response is complete: reads what still comes, and lets the peer end its request by itself.
    pub(super) fn hold(&mut self) {
        self.failed = true;
        let mut buffer = self.buffer.lock();
        buffer.data = BytesMut::new();
        let held = buffer.credit.used_capacity();
        let _ = buffer.credit.release_capacity(held);
    }
}

/// The service's side of a request.
pub(super) struct RequestBody(Arc<Mutex<Buffer>>);

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut buffer = self.0.lock();
        if !buffer.data.is_empty() {
            let data = buffer.data.split().freeze();
            // An error means that the stream is gone, which the next poll finds.
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
        buffer.unwanted = true;
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
        fn framing_knows_the_ends_of_messages_however_they_are_cut(
            lens in prop::collection::vec(0u32..50, 1..20),
            cut in 1usize..20,
        ) {
            let mut framing = Framing::default();
            let bytes: Vec<u8> = lens.iter().flat_map(|len| message(*len)).collect();
            let mut ends = vec![0];
            for len in &lens {
                ends.push(ends[ends.len() - 1] + PREFIX_LEN + *len as usize);
            }
            let mut at = 0;
            for piece in bytes.chunks(cut) {
                prop_assert_eq!(framing.follow(piece, 50), Ok(()));
                at += piece.len();
                prop_assert_eq!(framing.is_within_message(), !ends.contains(&at));
            }
        }
    }

    #[test]
    fn a_message_over_the_limit_is_found_by_its_prefix() {
        let mut framing = Framing::default();
        assert_eq!(framing.follow(&message(10), 10), Ok(()));
        let mut bytes = message(3);
        bytes.extend([0, 0xff, 0xff, 0xff, 0xff]);
        let too_long = TooLong { after: PREFIX_LEN + 3, len: u32::MAX as usize };
        assert_eq!(framing.follow(&bytes, 10), Err(too_long));
    }
}
