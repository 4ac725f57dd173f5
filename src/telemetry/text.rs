//! Log lines for people: `name=value` pairs, with everything escaped that would act on a terminal.
//!
//! Values come from clients too: a status message, an error of their HTTP/2. A line break in one would look like another
//! line, an escape sequence would colour or clear the reader's screen. JSON escapes by itself.

use std::fmt::{self, Write};
use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{self, Writer};

/// Formats the fields of an event: the message as it is, the others by name.
pub(super) fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    format::debug_fn(|writer, field: &Field, value| {
        let colour = writer.has_ansi_escapes();
        match field.name() {
            "message" => {}
            name if colour => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
            name => write!(writer, "{name}=")?,
        }
        write!(Escaping(writer), "{value:?}")
    })
    .delimited(" ")
}

struct Escaping<'a, 'w>(&'a mut Writer<'w>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| acts(*c)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", c.escape_default())?;
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Whether a character does more than stand there: C0 and C1 controls, line separators, and what hides or reorders text.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(ansi: bool, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(ansi)
            .fmt_fields(fields())
            .with_writer(move || writer.clone());
        let _alone = crate::telemetry::SUBSCRIBER_TESTS.lock();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        String::from_utf8(lines.0.lock().clone()).unwrap()
    }

    #[test]
    fn a_line_has_its_message_and_its_fields_by_name() {
        let line = logged(false, || tracing::info!(room = %"blue", count = 3, name = "ann", "new user"));
        assert!(line.ends_with("new user room=blue count=3 name=\"ann\"\n"), "{line:?}");
    }

    #[test]
    fn text_that_acts_on_a_terminal_is_escaped() {
        let evil = "a\x1b[2Jb\r\nINFO fake\u{9b}2Jc\u{202e}d\u{2028}e\u{7f}";
        let line = logged(false, || tracing::warn!(error = %evil, also = evil, "it said {evil}"));
        let acting: Vec<_> = line.trim_end_matches('\n').chars().filter(|c| acts(*c)).collect();
        assert!(acting.is_empty(), "{line:?}");
        assert!(line.contains("error=a\\u{1b}[2Jb\\r\\nINFO fake"), "{line:?}");
    }

    #[test]
    fn colour_comes_from_us_only() {
        let line = logged(true, || tracing::info!(error = %"\x1b[31mred", "words"));
        assert!(line.contains("\x1b[3merror\x1b[0m") && !line.contains("\x1b[31mred"), "{line:?}");
    }
}
