//! Rendering of remote text and errors on a terminal, shared by the commands.
//!
//! Text from the other side of a connection cannot control the terminal.

use std::fmt;
use tonic::Status;

/// Remote text made safe for a terminal: control characters and bidirectional overrides are escaped.
pub(super) struct Sanitized<'a>(pub(super) &'a str);

impl fmt::Display for Sanitized<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_unsafe(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

fn is_unsafe(c: char) -> bool {
    let overrides_direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks_line = matches!(c, '\u{2028}' | '\u{2029}');
    (c.is_control() && c != '\t') || overrides_direction || breaks_line
}

/// A status in one line: its code and message.
pub(super) fn describe(status: &Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        message => format!("{:?}: {}", status.code(), Sanitized(message)),
    }
}

/// The innermost cause, which is usually the operating system's error.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_text_cannot_control_the_terminal() {
        assert_eq!(Sanitized("a\u{1b}[2Jb\r\tü").to_string(), "a\\u{1b}[2Jb\\r\tü");
        assert_eq!(Sanitized("\u{202e}nna\u{2028}\u{9b}").to_string(), "\\u{202e}nna\\u{2028}\\u{9b}");
    }

    #[test]
    fn status_is_one_line() {
        assert_eq!(describe(&Status::not_found("no\nsuch")), "NotFound: no\\nsuch");
        assert_eq!(describe(&Status::unimplemented("")), "Unimplemented");
    }
}
