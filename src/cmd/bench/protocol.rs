//! What a protocol is to the event loop: bytes in, texts out; texts in, bytes out.
//!
//! Promises that nothing is decided per message but here and below: the loop knows no protocol, a protocol no socket.

use super::framed::Framed;
use super::http2::Http2;
use super::nats::Nats;
use super::payload::{STAMP, Text};
use super::plan::Plan;
use crate::cli::ProtocolArg;

/// Written but unsent bytes beyond which nothing more is to be published.
const BACKLOG: usize = 256 * 1024;

/// How a call, or all of a transport, came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Of what kind: what is counted.
    pub(super) kind: String,
    /// In the other side's words.
    pub(super) words: String,
}

impl Fault {
    pub(super) fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), words: String::new() }
    }
}

/// Who listens to a transport. Calls are numbered within it.
pub(super) trait Hear {
    /// The server has let the call in.
    fn joined(&mut self, call: usize);

    /// A message's text.
    fn text(&mut self, call: usize, text: &[u8]);

    /// The call is over.
    fn ended(&mut self, call: usize, fault: Fault);
}

/// One transport's protocol.
pub(super) enum Protocol {
    Http2(Box<Http2>),
    Framed(Framed),
    Nats(Nats),
}

impl Protocol {
    /// A transport that is about to connect, with its calls in these rooms.
    pub(super) fn new(plan: &Plan, rooms: &[u32]) -> Self {
        match plan.protocol {
            ProtocolArg::Hello | ProtocolArg::V1 => Self::Http2(Box::new(Http2::new(plan, rooms))),
            ProtocolArg::Framed => Self::Framed(Framed::new()),
            ProtocolArg::Nats => Self::Nats(Nats::new(rooms[0])),
        }
    }

    /// Whether the server has shown that it is there.
    pub(super) fn is_up(&self) -> bool {
        match self {
            Self::Http2(http2) => http2.is_up(),
            Self::Framed(_) => true,
            Self::Nats(nats) => nats.is_up(),
        }
    }

    /// Takes what was read.
    #[inline]
    pub(super) fn feed<H: Hear>(&mut self, bytes: &[u8], hear: &mut H) -> Result<(), Fault> {
        match self {
            Self::Http2(http2) => http2.feed(bytes, hear),
            Self::Framed(framed) => framed.feed(bytes, hear),
            Self::Nats(nats) => nats.feed(bytes, hear),
        }
    }

    /// Whether a call may publish more now: what it has said is not heaped up here.
    pub(super) fn takes_more(&self, call: usize) -> bool {
        let backlog = match self {
            Self::Http2(http2) => http2.backlog(call),
            Self::Framed(framed) => framed.out.len(),
            Self::Nats(nats) => nats.out.len(),
        };
        backlog < BACKLOG
    }

    /// Says a text; it goes out with [`Self::out`].
    pub(super) fn publish(&mut self, call: usize, text: &[u8]) {
        match self {
            Self::Http2(http2) => http2.publish(call, text),
            Self::Framed(framed) => framed.publish(text),
            Self::Nats(nats) => nats.publish(text),
        }
    }

    /// Ends a call, and begins it anew in its room; only where a transport carries several.
    pub(super) fn renew(&mut self, call: usize) {
        if let Self::Http2(http2) = self {
            http2.renew(call);
        }
    }

    /// What is to be written, as far as the other side's windows let it.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Http2(http2) => http2.out(),
            Self::Framed(framed) => &mut framed.out,
            Self::Nats(nats) => &mut nats.out,
        }
    }

    /// What the other side has last said about an end that is to come.
    pub(super) fn last_words(&self) -> Option<Fault> {
        match self {
            Self::Http2(http2) => http2.last_words(),
            Self::Framed(_) => None,
            Self::Nats(nats) => nats.last_words(),
        }
    }
}

/// A text to publish with.
pub(super) fn text(plan: &Plan) -> Text {
    debug_assert!(plan.size >= STAMP, "the flag's range begins there");
    Text::new(plan.size)
}
