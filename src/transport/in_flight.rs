//! DATA that HTTP/2 has and the socket has not.

use super::state::TransportState;
use bytes::{Buf, Bytes};
use std::io::IoSlice;
use std::sync::Arc;

/// The payload of one DATA frame, from the response to the socket.
///
/// h2 drops it unsent if the stream is reset first. What is left of it then has used none of the connection window, and
/// returns to [`SendWindows`](super::send_windows::SendWindows).
pub(super) struct InFlightData {
    data: Bytes,
    transport: Arc<TransportState>,
}

impl InFlightData {
    pub(super) fn new(data: Bytes, transport: &Arc<TransportState>) -> Self {
        Self { data, transport: Arc::clone(transport) }
    }
}

impl Drop for InFlightData {
    fn drop(&mut self) {
        if self.data.has_remaining() {
            self.transport.return_unsent(self.data.remaining());
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
