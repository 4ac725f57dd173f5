//! What is said in a room.

use crate::hub::{Batch, Frame, Position};
use crate::telemetry::trace::MessageSpan;
use crate::wire;
use bytes::BytesMut;

/// A text that somebody said.
#[derive(Debug)]
pub struct Said {
    /// The text, as the client sent it.
    pub text: String,
    /// Ends when the message has been broadcast.
    span: Option<MessageSpan>,
}

impl Said {
    /// A text that nobody traces.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self::traced(text, None)
    }

    /// A text whose way to the members is traced, if there is a span.
    pub(super) fn traced(text: String, span: Option<MessageSpan>) -> Self {
        Self { text, span }
    }
}

impl Frame for Said {
    fn frame_len(&self) -> usize {
        wire::text_frame_len(self.text.len())
    }

    fn frame(&self, _position: Position, out: &mut BytesMut) {
        wire::frame_text(&self.text, out);
    }

    fn is_traced(&self) -> bool {
        self.span.is_some()
    }

    fn broadcast(&self, batch: &Batch) {
        if let Some(span) = &self.span {
            span.broadcast(batch.position, batch.messages, batch.members);
        }
    }
}
