//! What a service learns about a call's transport, and how it ends the call by force.

use super::state::{TransportId, TransportState};
use super::stream_state::StreamState;
use crate::telemetry::trace::RpcSpan;
use std::net::SocketAddr;
use std::sync::Arc;

/// The call that a request belongs to. Every request carries one in its extensions.
#[derive(Clone)]
pub struct CallContext {
    /// The client's address.
    pub peer: SocketAddr,
    /// The transport that carries the call.
    pub transport: TransportId,
    /// Ends the call.
    pub handle: CallHandle,
    /// The call's span, if it is sampled.
    pub span: Option<RpcSpan>,
}

impl CallContext {
    pub(super) fn new(
        transport: &Arc<TransportState>,
        stream: &Arc<StreamState>,
        span: Option<&RpcSpan>,
    ) -> Self {
        let handle = CallHandle { transport: Arc::clone(transport), stream: Arc::clone(stream) };
        Self { peer: transport.peer, transport: transport.id, handle, span: span.cloned() }
    }
}

/// Ends a call, or its transport. Every method may be called more than once, and from any thread.
#[derive(Clone)]
pub struct CallHandle {
    transport: Arc<TransportState>,
    stream: Arc<StreamState>,
}

impl CallHandle {
    /// Resets the call's stream now, and closes its transport once no call is left on it. Data that the peer has not read is
    /// lost.
    pub fn abort(&self) {
        self.stream.abort();
        self.transport.close_when_idle();
    }

    /// Closes the transport once no call is left on it.
    pub fn close_transport_when_idle(&self) {
        self.transport.close_when_idle();
    }

    /// Sends GOAWAY: the peer opens no more calls on the transport, which closes once none is left.
    pub fn go_away(&self) {
        self.transport.go_away();
    }
}
