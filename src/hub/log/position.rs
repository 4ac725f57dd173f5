//! Where in a log something is.

use std::fmt;
use std::str::FromStr;

/// The life of a log that an offset belongs to: a room that went away and came back has another.
/// Random, so that two lives do not meet by counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// A new log's.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Not an epoch of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a position of this server: \"epoch:offset\"")]
pub struct InvalidPosition;

impl FromStr for Epoch {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let plain = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = plain.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or(InvalidPosition)
    }
}

/// A message's place in a room's order. Offsets start at 1 and grow by 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which life of the log.
    pub epoch: Epoch,
    /// Which message in it.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

/// The place between two segments where a reader goes on: it has everything before, nothing after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Number of the segment to read next.
    pub segment: u64,
    /// Offset of the message to read next.
    pub offset: u64,
    /// Payload bytes appended before this place, since the log began.
    pub bytes: u64,
}

impl Cursor {
    /// Before the first message.
    pub const START: Self = Self { segment: 1, offset: 1, bytes: 0 };
}
