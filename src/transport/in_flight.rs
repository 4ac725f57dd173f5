//! Data on its way through HTTP/2.

use super::call::Transport;
use bytes::{Buf, Bytes};
use std::io::IoSlice;
use std::sync::Arc;

/// The data of one frame, from when a response hands it over until it is written. If its stream is reset before, HTTP/2
/// drops it: then what is left of it has not used up the transport's window.
pub(super) struct InFlightData {
    data: Bytes,
    transport: Arc<Transport>,
}

impl InFlightData {
    pub(super) fn new(data: Bytes, transport: &Arc<Transport>) -> Self {
        Self { data, transport: Arc::clone(transport) }
    }
}

impl Drop for InFlightData {
    fn drop(&mut self) {
        if self.data.has_remaining() {
            self.transport.returns_unsent(self.data.remaining());
        }
    }
}

impl Buf for InFlightData {
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
