//! Names that clients choose, and ids that the hub assigns.

use std::borrow::Borrow;
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
    /// A display name that is too long, or no text.
    #[error("a display name has at most {DISPLAY_NAME_MAX} characters, in UTF-8")]
    Display,
    /// A display name that begins or ends with white space.
    #[error("a display name has no white space around it")]
    DisplaySurrounded,
    /// A display name with an invisible character, or one that disturbs the text around it.
    #[error("a display name has no control characters and no invisible ones, such as U+{:04X}", u32::from(*.0))]
    DisplayCharacter(char),
    /// Not a UUID.
    #[error("a connection id is a UUID")]
    ConnectionId,
}

/// A room's name: 1 to 128 of `A-Za-z0-9._-`, so it is safe in logs, URLs and shells. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// The default room.
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

impl RoomName {
    /// Whether this is the default room, whose place in the room table is reserved.
    #[must_use]
    pub fn is_lobby(&self) -> bool {
        self.as_str() == Self::DEFAULT
    }
}

/// Names are ordered and hashed like their text.
impl Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
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

/// A client's display name; may be empty. Not unique, not trusted, never a metric label. It has no invisible characters:
/// otherwise a client that is banned by name could return with one more of them. Look-alikes are not detected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisplayName(Box<str>);

impl DisplayName {
    /// # Errors
    /// [`InvalidName::Display`] if it is too long, [`InvalidName::DisplayCharacter`] if it could disturb a terminal or has
    /// invisible characters, [`InvalidName::DisplaySurrounded`] if white space surrounds it.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        if name.chars().count() > DISPLAY_NAME_MAX {
            return Err(InvalidName::Display);
        }
        let mut before = 'a';
        for (at, c) in name.char_indices() {
            if c.is_control() || is_invisible(c) && !shapes(before, c, &name[at + c.len_utf8()..]) {
                return Err(InvalidName::DisplayCharacter(c));
            }
            before = c;
        }
        if name.trim() != name {
            return Err(InvalidName::DisplaySurrounded);
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Characters without a glyph of their own: Unicode's `Default_Ignorable_Code_Point` (`DerivedCoreProperties.txt` of
/// version 16), which has the soft hyphen, what has no width, the marks that turn the direction of writing, joiners and
/// variation selectors; line and paragraph separators; annotation marks; and the blank Braille pattern.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether `c` changes what is seen: after a symbol, the selector that draws it as an emoji, and the joiner that makes one
/// emoji of two.
fn shapes(before: char, c: char, rest: &str) -> bool {
    let is_symbol = |c: char| !c.is_ascii() && !c.is_alphanumeric() && !c.is_whitespace();
    match c {
        '\u{fe0f}' => is_symbol(before) && !is_invisible(before),
        '\u{200d}' => is_symbol(before) && rest.starts_with(|next| is_symbol(next) && !is_invisible(next)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emoji_of_several_characters_are_allowed() {
        for name in
            ["\u{2764}\u{fe0f}", "ann \u{1f469}\u{200d}\u{1f4bb}", "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}!"]
        {
            assert!(DisplayName::new(name).is_ok(), "{name:?}");
        }
        for name in [
            "ann\u{fe0f}",
            "ann\u{200d}",
            "\u{1f469}\u{200d}",
            "\u{1f469}\u{200d}a",
            "\u{2764}\u{fe0f}\u{fe0f}",
        ] {
            assert!(matches!(DisplayName::new(name), Err(InvalidName::DisplayCharacter(_))), "{name:?}");
        }
    }

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
    fn display_names_are_bounded_and_have_no_control_characters() {
        assert!(DisplayName::new("").is_ok());
        assert!(DisplayName::new(&"ü".repeat(DISPLAY_NAME_MAX)).is_ok());
        assert_eq!(DisplayName::new(&"ü".repeat(DISPLAY_NAME_MAX + 1)), Err(InvalidName::Display));
        for (bad, wrong) in [("\u{1b}[31m", '\u{1b}'), ("a\nb", '\n'), ("\u{202e}evil", '\u{202e}')] {
            assert_eq!(DisplayName::new(bad), Err(InvalidName::DisplayCharacter(wrong)), "{bad:?}");
        }
    }

    #[test]
    fn display_names_have_no_invisible_characters() {
        for unseen in [
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{2060}',
            '\u{61c}',
            '\u{200e}',
            '\u{2066}',
            '\u{ad}',
            '\u{feff}',
            '\u{180e}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{2028}',
            '\u{2800}',
            '\u{e0020}',
        ] {
            for name in [format!("mallory{unseen}"), format!("{unseen}mallory"), format!("mal{unseen}lory")] {
                let refused = DisplayName::new(&name);
                assert_eq!(refused, Err(InvalidName::DisplayCharacter(unseen)), "{name:?}");
            }
        }
        let words = InvalidName::DisplayCharacter('\u{ad}').to_string();
        assert!(words.ends_with("such as U+00AD"), "{words}");
        for space in [' ', '\u{a0}', '\u{2003}', '\u{3000}'] {
            for name in [format!("mallory{space}"), format!("{space}mallory"), space.to_string()] {
                assert_eq!(DisplayName::new(&name), Err(InvalidName::DisplaySurrounded), "{name:?}");
            }
            assert!(DisplayName::new(&format!("mal{space}lory")).is_ok());
        }
        for name in ["Ünal Çelik", "山田　太郎", "علي", "अनिल", "Zoë", "ann 🦀", "-_.", "🇫🇷"]
        {
            assert!(DisplayName::new(name).is_ok(), "{name}");
        }
    }
}
