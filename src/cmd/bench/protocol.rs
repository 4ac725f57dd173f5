//! The interface between the event loop and the protocols: bytes to texts, and texts to bytes.
//!
//! The loop does not know protocols, and a protocol does not know sockets.

use super::call_handler::{CallError, CallHandler};
use super::framed::Framed;
use super::http2::Http2;
use super::nats::Nats;
use super::payload::{STAMP, Text};
use super::plan::Plan;
use crate::cli::ProtocolArg;

/// Unsent bytes above which a call does not publish.
const BACKLOG: usize = 256 * 1024;

/// One transport's protocol.
pub(super) enum Protocol {
    Http2(Box<Http2>),
    Framed(Framed),
    Nats(Nats),
}

impl Protocol {
    /// The protocol of a new transport with calls in these rooms.
    pub(super) fn new(plan: &Plan, rooms: &[u32]) -> Self {
        match plan.protocol {
            ProtocolArg::Hello | ProtocolArg::V1 => Self::Http2(Box::new(Http2::new(plan, rooms))),
            ProtocolArg::Framed => Self::Framed(Framed::new()),
            ProtocolArg::Nats => Self::Nats(Nats::new(rooms[0])),
        }
    }

    /// Whether the server has responded.
    pub(super) fn is_up(&self) -> bool {
        match self {
            Self::Http2(http2) => http2.is_up(),
            Self::Framed(_) => true,
            Self::Nats(nats) => nats.is_up(),
        }
    }

    /// Handles bytes from the server.
    #[inline]
    pub(super) fn feed<H: CallHandler>(&mut self, bytes: &[u8], handler: &mut H) -> Result<(), CallError> {
        match self {
            Self::Http2(http2) => http2.feed(bytes, handler),
            Self::Framed(framed) => framed.feed(bytes, handler),
            Self::Nats(nats) => nats.feed(bytes, handler),
        }
    }

    /// Whether a call may publish: its backlog is below the limit.
    pub(super) fn can_publish(&self, call: usize) -> bool {
        let backlog = match self {
            Self::Http2(http2) => http2.backlog(call),
            Self::Framed(framed) => framed.out.len(),
            Self::Nats(nats) => nats.out.len(),
        };
        backlog < BACKLOG
    }

    /// Queues a text; [`Self::out`] sends it.
    pub(super) fn publish(&mut self, call: usize, text: &[u8]) {
        match self {
            Self::Http2(http2) => http2.publish(call, text),
            Self::Framed(framed) => framed.publish(text),
            Self::Nats(nats) => nats.publish(text),
        }
    }

    /// Ends a call and starts it again in its room; only for transports with several calls.
    pub(super) fn renew(&mut self, call: usize) {
        if let Self::Http2(http2) = self {
            http2.renew(call);
        }
    }

    /// The bytes to write, as far as the server's windows allow.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Http2(http2) => http2.out(),
            Self::Framed(framed) => &mut framed.out,
            Self::Nats(nats) => &mut nats.out,
        }
    }

    /// The error that the server announced before closing the transport, if any.
    pub(super) fn pending_error(&self) -> Option<CallError> {
        match self {
            Self::Http2(http2) => http2.pending_error(),
            Self::Framed(_) => None,
            Self::Nats(nats) => nats.pending_error(),
        }
    }
}

/// A text buffer for this run.
pub(super) fn text(plan: &Plan) -> Text {
    debug_assert!(plan.size >= STAMP, "the flag's range begins there");
    Text::new(plan.size)
}
