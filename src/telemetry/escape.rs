//! The fields of text log lines: `name=value` pairs, with every character escaped that a terminal would act on.
//!
//! Some values come from clients: a status message, an HTTP/2 error. A line break in one would look like another log line,
//! and an escape sequence would colour or clear the reader's screen. JSON needs no such escaping.

use std::fmt::{self, Write};
use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{self, Writer};

/// The formatter of an event's fields: the message without a name, all others with it.
pub(super) fn text_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    format::debug_fn(|writer, field: &Field, value| {
        let colour = writer.has_ansi_escapes();
        match field.name() {
            "message" => {}
            name if colour => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
            name => write!(writer, "{name}=")?,
        }
        write!(EscapingWriter(writer), "{value:?}")
    })
    .delimited(" ")
}

struct EscapingWriter<'a, 'w>(&'a mut Writer<'w>);

impl Write for EscapingWriter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unsafe(*c)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", c.escape_default())?;
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Whether a character affects the terminal or the text around it: C0 and C1 controls, line separators, and characters that
/// hide or reorder text.
fn is_unsafe(c: char) -> bool {
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
            .fmt_fields(text_fields())
            .with_writer(move || writer.clone());
        let _alone = crate::telemetry::SUBSCRIBER_TESTS.lock();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        String::from_utf8(lines.0.lock().clone()).unwrap()
    }

    #[test]
    fn line_has_message_and_named_fields() {
        let line = logged(false, || tracing::info!(room = %"blue", count = 3, name = "ann", "new user"));
        assert!(line.ends_with("new user room=blue count=3 name=\"ann\"\n"), "{line:?}");
    }

    #[test]
    fn terminal_controls_are_escaped() {
        let evil = "a\x1b[2Jb\r\nINFO fake\u{9b}2Jc\u{202e}d\u{2028}e\u{7f}";
        let line = logged(false, || tracing::warn!(error = %evil, also = evil, "it said {evil}"));
        let unescaped: Vec<_> = line.trim_end_matches('\n').chars().filter(|c| is_unsafe(*c)).collect();
        assert!(unescaped.is_empty(), "{line:?}");
        assert!(line.contains("error=a\\u{1b}[2Jb\\r\\nINFO fake"), "{line:?}");
    }

    #[test]
    fn only_own_colour_reaches_the_terminal() {
        let line = logged(true, || tracing::info!(error = %"\x1b[31mred", "words"));
        assert!(line.contains("\x1b[3merror\x1b[0m") && !line.contains("\x1b[31mred"), "{line:?}");
    }
}
