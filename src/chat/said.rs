//! What is said in a room.

use crate::hub::{Frame, Position};
use crate::wire;
use bytes::BytesMut;

/// A text that somebody said.
#[derive(Debug)]
pub struct Said {
    /// The text, as the client sent it.
    pub text: String,
}

impl Said {
    /// A text that nobody traces.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self { text }
    }
}

impl Frame for Said {
    fn frame_len(&self) -> usize {
        wire::text_frame_len(self.text.len())
    }

    fn frame(&self, _position: Position, out: &mut BytesMut) {
        wire::frame_text(&self.text, out);
    }
}
