//! Positions in a log.

use std::fmt;
use std::str::FromStr;

/// Identifies one life of a room's log, to which an offset belongs: a room that is removed and created again has another
/// epoch. Random, so that no two lives are confused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a new log.
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

/// The text is not a position of this server.
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

/// A message's position in a room. Offsets start at 1 and grow by 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which life of the log.
    pub epoch: Epoch,
    /// Which message of it; the first is 1.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

/// Where a reader continues: it has received everything before, and nothing after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Number of the segment to read next.
    pub segment: u64,
    /// Offset of the message to read next.
    pub offset: u64,
    /// Bytes of the messages before it, since the log began.
    pub bytes: u64,
}

impl Cursor {
    /// Before the first message.
    pub const START: Self = Self { segment: 1, offset: 1, bytes: 0 };
}
