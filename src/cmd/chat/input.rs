//! The lines of the input, read on a thread of their own.
//!
//! Knows nothing of what becomes of them.

use std::io::{self, BufRead};
use tokio::sync::mpsc;

/// Lines that are read ahead of who takes them.
const AHEAD: usize = 64;

/// A line of the input, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The first has 1.
    pub(super) number: u64,
    pub(super) text: String,
}

/// The lines of stdin. The channel closes at its end, or after what keeps it from being read.
pub(super) fn lines() -> mpsc::Receiver<io::Result<Line>> {
    let (lines, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        // Who takes them has gone: so does this thread.
        let _ = read(io::stdin().lock(), |line| lines.blocking_send(line).map_err(drop));
    });
    receiver
}

/// Hands on each line of the input, until nobody takes them.
fn read(mut input: impl BufRead, mut hand: impl FnMut(io::Result<Line>) -> Result<(), ()>) -> Result<(), ()> {
    for number in 1.. {
        let mut line = Vec::new();
        if let Err(error) = input.read_until(b'\n', &mut line) {
            return hand(Err(error));
        }
        // A terminal that was asked once more after its end would begin again.
        let is_last = line.pop_if(|end| *end == b'\n').is_none();
        if is_last && line.is_empty() {
            return Ok(());
        }
        line.pop_if(|end| *end == b'\r');
        hand(Ok(Line { number, text: text(number, line) }))?;
        if is_last {
            return Ok(());
        }
    }
    Ok(())
}

fn text(number: u64, line: Vec<u8>) -> String {
    String::from_utf8(line).unwrap_or_else(|error| {
        eprintln!("chatroom: line {number} is not UTF-8; what is not is said as \u{fffd}");
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A terminal: what each read gets; it must not be read more often.
    struct Typed(VecDeque<io::Result<&'static str>>);

    impl io::Read for Typed {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let typed = self.0.pop_front().expect("it was asked again after its end")?;
            buffer[..typed.len()].copy_from_slice(typed.as_bytes());
            Ok(typed.len())
        }
    }

    /// What was handed on: the lines with their numbers, or why there is none.
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
    fn the_input_ends_with_a_line_that_has_no_end() {
        assert_eq!(reads([Ok("one\r\n"), Ok("two\n"), Ok("")]), ["1: one", "2: two"]);
        assert_eq!(reads([Ok("one\ntw"), Ok("o"), Ok("")]), ["1: one", "2: two"]);
        assert_eq!(reads([Ok("one"), Ok("")]), ["1: one"]);
        assert_eq!(reads([Ok("one\n\n"), Ok("")]), ["1: one", "2: "]);
        assert!(reads([Ok("")]).is_empty());
    }

    #[test]
    fn an_input_that_cannot_be_read_is_told_after_what_came_before() {
        assert_eq!(reads([Ok("one\ntw"), Err(io::Error::other("broken"))]), ["1: one", "broken"]);
    }
}
