//! Data on its way to the peer: known from the moment a response hands it over until its last byte is written.
//!
//! A call has ended for us as soon as its last frame is queued. Its client may be slow: before a transport is closed, what
//! is queued must have gone. And HTTP/2's windows bound bytes, not frames: it spends a multiple of a short message on
//! the frame around it, so that a call's frames are bounded here.

use super::call::State;
use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// Frames of one call that may be on their way. One is, as a rule: what a slow client has not taken gathers in the log,
/// and is one frame when there is room.
const IN_FLIGHT_MAX: usize = 16;
/// How few there must be until a response that met the bound is asked for more.
const RESUME_AT: usize = IN_FLIGHT_MAX / 2;

/// The frames of one call that are on their way.
#[derive(Default)]
pub(super) struct InFlight {
    frames: AtomicUsize,
    response: AtomicWaker,
}

impl InFlight {
    /// Ready when there may be one more.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        self.response.register(cx.waker());
        // Frames that were written before the waker was there woke nobody.
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn has_room(&self) -> bool {
        self.frames.load(Ordering::Acquire) < IN_FLIGHT_MAX
    }

    fn more(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    fn less(&self) {
        if self.frames.fetch_sub(1, Ordering::AcqRel) == RESUME_AT + 1 {
            self.response.wake();
        }
    }
}

/// The data of one frame. HTTP/2 drops it when it has been written, or when its stream was reset.
pub(super) struct Unwritten {
    data: Bytes,
    /// Dropped with it.
    _mark: Mark,
}

impl Unwritten {
    pub(super) fn new(data: Bytes, call: &Arc<State>) -> Self {
        call.transport.has_more_to_write();
        call.in_flight.more();
        Self { data, _mark: Mark(Arc::clone(call)) }
    }
}

struct Mark(Arc<State>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.in_flight.less();
        self.0.transport.has_less_to_write();
    }
}

impl Buf for Unwritten {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.data.copy_to_bytes(len)
    }
}
