//! Names that clients choose, and the ids that we give.

use std::fmt;
use std::sync::Arc;

/// Longest room name, in bytes.
pub const ROOM_NAME_MAX: usize = 128;
/// Longest display name, in characters.
pub const DISPLAY_NAME_MAX: usize = 64;

/// A connection's id: a random UUID, fresh for each call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(uuid::Uuid);

impl ConnectionId {
    /// A fresh one.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for ConnectionId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        uuid::Uuid::parse_str(text).map(Self).map_err(|_| InvalidName::ConnectionId)
    }
}

/// Why a name or id was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// A room name outside the rule.
    #[error("a room name has 1 to {ROOM_NAME_MAX} of the characters A-Z a-z 0-9 . _ -")]
    Room,
    /// A display name outside the rule.
    #[error("a display name has at most {DISPLAY_NAME_MAX} characters, none of them a control character")]
    Display,
    /// Not a UUID.
    #[error("a connection id is a UUID")]
    ConnectionId,
}

/// A room's name: 1 to 128 of `A-Za-z0-9._-`, so it is safe in logs, URLs and shells. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// The room of a client that names none.
    pub const DEFAULT: &str = "lobby";

    /// # Errors
    /// [`InvalidName::Room`] outside the rule.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let fits = (1..=ROOM_NAME_MAX).contains(&name.len());
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if fits && name.bytes().all(plain) { Ok(Self(name.into())) } else { Err(InvalidName::Room) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RoomName {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client calls itself; may be empty. Not unique, not trusted, never a metric label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisplayName(Box<str>);

impl DisplayName {
    /// # Errors
    /// [`InvalidName::Display`] when it is too long or could disturb a terminal.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        if name.chars().count() > DISPLAY_NAME_MAX || name.chars().any(is_disturbing) {
            return Err(InvalidName::Display);
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Control characters, and the marks that reorder the text around them (Unicode UAX #9, "bidi controls").
fn is_disturbing(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_names_are_plain_and_bounded() {
        assert!(RoomName::new("blue.Team_1-x").is_ok());
        assert!(RoomName::new(&"r".repeat(ROOM_NAME_MAX)).is_ok());
        let long = "r".repeat(ROOM_NAME_MAX + 1);
        for bad in ["", "a b", "a/b", "blü", "a\n", &long] {
            assert_eq!(RoomName::new(bad), Err(InvalidName::Room), "{bad:?}");
        }
    }

    #[test]
    fn display_names_are_bounded_and_cannot_disturb_a_terminal() {
        assert!(DisplayName::new("").is_ok());
        assert!(DisplayName::new(&"ü".repeat(DISPLAY_NAME_MAX)).is_ok());
        let long = "ü".repeat(DISPLAY_NAME_MAX + 1);
        for bad in ["\u{1b}[31m", "a\nb", "\u{202e}evil", &long] {
            assert_eq!(DisplayName::new(bad), Err(InvalidName::Display), "{bad:?}");
        }
    }
}
