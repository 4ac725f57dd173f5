//! What the commands share about terminals and errors: words from others, made fit for people to read.
//!
//! Promises that no text from the other side of a connection can steer the terminal.

use std::fmt;
use tonic::Status;

/// Text from others as a terminal may show it: what steers a terminal or turns the direction of writing is escaped.
pub(super) struct Harmless<'a>(pub(super) &'a str);

impl fmt::Display for Harmless<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if steers(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

fn steers(c: char) -> bool {
    let turns_direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks_line = matches!(c, '\u{2028}' | '\u{2029}');
    (c.is_control() && c != '\t') || turns_direction || breaks_line
}

/// A status in one line: its code and the server's words.
pub(super) fn describe(status: &Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        words => format!("{:?}: {}", status.code(), Harmless(words)),
    }
}

/// The first cause of all, which is where the operating system says what is wrong.
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
    fn what_others_say_cannot_steer_the_terminal() {
        assert_eq!(Harmless("a\u{1b}[2Jb\r\tü").to_string(), "a\\u{1b}[2Jb\\r\tü");
        assert_eq!(Harmless("\u{202e}nna\u{2028}\u{9b}").to_string(), "\\u{202e}nna\\u{2028}\\u{9b}");
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(describe(&Status::not_found("no\nsuch")), "NotFound: no\\nsuch");
        assert_eq!(describe(&Status::unimplemented("")), "Unimplemented");
    }
}
