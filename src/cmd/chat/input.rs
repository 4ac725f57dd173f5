//! Reads the lines of stdin on a separate thread.

use std::io::{self, BufRead};
use tokio::sync::mpsc;

/// Lines read ahead of the publisher.
const AHEAD: usize = 64;

/// A line of the input, without its line ending.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counts from 1.
    pub(super) number: u64,
    pub(super) text: String,
}

/// The lines of stdin. The channel closes at the end of the input or after a read error.
pub(super) fn lines() -> mpsc::Receiver<io::Result<Line>> {
    let (lines, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        // An error means that the receiver was dropped; the thread ends.
        let _ = read(io::stdin().lock(), |line| lines.blocking_send(line).map_err(drop));
    });
    receiver
}

/// Passes each line of the input to `sink` until that fails.
fn read(mut input: impl BufRead, mut sink: impl FnMut(io::Result<Line>) -> Result<(), ()>) -> Result<(), ()> {
    for number in 1.. {
        let mut line = Vec::new();
        if let Err(error) = input.read_until(b'\n', &mut line) {
            return sink(Err(error));
        }
        // Reading a terminal again after its end would start a new input, so stop at the first end.
        let is_last = line.pop_if(|end| *end == b'\n').is_none();
        if is_last && line.is_empty() {
            return Ok(());
        }
        line.pop_if(|end| *end == b'\r');
        sink(Ok(Line { number, text: text(number, line) }))?;
        if is_last {
            return Ok(());
        }
    }
    Ok(())
}

fn text(number: u64, line: Vec<u8>) -> String {
    String::from_utf8(line).unwrap_or_else(|error| {
        eprintln!("chatroom: line {number} is not UTF-8; invalid bytes are replaced by \u{fffd}");
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A terminal with these results of reads; reading more often panics.
    struct Typed(VecDeque<io::Result<&'static str>>);

    impl io::Read for Typed {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let typed = self.0.pop_front().expect("it was read again after its end")?;
            buffer[..typed.len()].copy_from_slice(typed.as_bytes());
            Ok(typed.len())
        }
    }

    /// The numbered lines, or the error, passed to the sink.
    fn reads<const N: usize>(typed: [io::Result<&'static str>; N]) -> Vec<String> {
        let mut lines = Vec::new();
        let input = io::BufReader::new(Typed(typed.into()));
        let read =
            read(input, |line| {
                lines.push(line.map_or_else(
                    |error| error.to_string(),
                    |Line { number, text }| format!("{number}: {text}"),
                ));
                Ok(())
            });
        assert_eq!(read, Ok(()));
        lines
    }

    #[test]
    fn last_line_needs_no_line_ending() {
        assert_eq!(reads([Ok("one\r\n"), Ok("two\n"), Ok("")]), ["1: one", "2: two"]);
        assert_eq!(reads([Ok("one\ntw"), Ok("o"), Ok("")]), ["1: one", "2: two"]);
        assert_eq!(reads([Ok("one"), Ok("")]), ["1: one"]);
        assert_eq!(reads([Ok("one\n\n"), Ok("")]), ["1: one", "2: "]);
        assert!(reads([Ok("")]).is_empty());
    }

    #[test]
    fn read_error_follows_the_lines_before_it() {
        assert_eq!(reads([Ok("one\ntw"), Err(io::Error::other("broken"))]), ["1: one", "broken"]);
    }
}
