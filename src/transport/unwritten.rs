//! Data on its way to the peer: known from the moment a response hands it over until its last byte is written.
//!
//! A call has ended for us as soon as its last frame is queued. Its client may be slow: before a transport is closed, what
//! is queued must have gone.

use super::call::Shared;
use bytes::{Buf, Bytes};
use std::io::IoSlice;
use std::sync::Arc;

/// The data of one frame. HTTP/2 drops it when it has been written, or when its stream was reset.
pub(super) struct Unwritten {
    data: Bytes,
    /// Dropped with it.
    _mark: Mark,
}

impl Unwritten {
    pub(super) fn new(data: Bytes, transport: &Arc<Shared>) -> Self {
        transport.has_more_to_write();
        Self { data, _mark: Mark(Arc::clone(transport)) }
    }
}

struct Mark(Arc<Shared>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.has_less_to_write();
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
