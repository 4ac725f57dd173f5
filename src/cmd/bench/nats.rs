//! The part of NATS' text protocol that one subject needs (docs.nats.io, "Client Protocol").

use super::call_handler::{CallError, CallHandler};
use std::io::Write as _;

/// `MSG subject sid [reply-to] bytes` is far shorter; INFO is not.
const LINE_MAX: usize = 64 * 1024;

/// Longest text of a run.
const TEXT_MAX: usize = 16 << 20;

/// A transport with its one call.
pub(super) struct Nats {
    room: u32,
    partial: Vec<u8>,
    pub(super) out: Vec<u8>,
    up: bool,
    error: Option<CallError>,
}

impl Nats {
    pub(super) fn new(room: u32) -> Self {
        // The PONG confirms the subscription.
        let hello =
            format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB room.{room} 1\r\nPING\r\n");
        Self { room, partial: Vec::new(), out: hello.into_bytes(), up: false, error: None }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn publish(&mut self, text: &[u8]) {
        // Writing to memory cannot fail.
        let _ = write!(self.out, "PUB room.{} {}\r\n", self.room, text.len());
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    pub(super) fn pending_error(&self) -> Option<CallError> {
        self.error.clone()
    }

    pub(super) fn feed<H: CallHandler>(&mut self, bytes: &[u8], handler: &mut H) -> Result<(), CallError> {
        if self.partial.is_empty() {
            let read = self.read(bytes, handler)?;
            self.partial.extend_from_slice(&bytes[read..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            let read = self.read(&partial, handler)?;
            partial.drain(..read);
            self.partial = partial;
        }
        Ok(())
    }

    /// Handles complete lines and messages; returns their length.
    fn read<H: CallHandler>(&mut self, bytes: &[u8], handler: &mut H) -> Result<usize, CallError> {
        let mut read = 0;
        while let Some(length) = bytes[read..].iter().position(|&byte| byte == b'\n') {
            let line = &bytes[read..read + length];
            let after = read + length + 1;
            if line.starts_with(b"MSG ") {
                let length = last_number(line).ok_or_else(|| CallError::new("not a NATS message"))?;
                let Some(text) = bytes.get(after..after + length + 2) else { return Ok(read) };
                handler.text(0, &text[..length]);
                read = after + length + 2;
                continue;
            }
            read = after;
            self.command(line, handler)?;
        }
        if bytes.len() - read > LINE_MAX {
            return Err(CallError::new("not a NATS line"));
        }
        Ok(read)
    }

    fn command(&mut self, line: &[u8], handler: &mut impl CallHandler) -> Result<(), CallError> {
        let line = String::from_utf8_lossy(line);
        match line.split_ascii_whitespace().next() {
            Some("PING") => self.out.extend_from_slice(b"PONG\r\n"),
            Some("PONG") => {
                self.up = true;
                handler.joined(0);
            }
            Some("-ERR") => self.error = Some(CallError::new(line.trim_end())),
            Some("INFO" | "+OK") => {}
            _ => return Err(CallError::new("not a NATS server")),
        }
        Ok(())
    }
}

/// The number of bytes at the end of a MSG line.
fn last_number(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let digits = line.rsplit(|&byte| byte == b' ').next()?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number <= TEXT_MAX).then_some(number)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A handler that records texts.
    #[derive(Default)]
    pub(in crate::cmd::bench) struct Texts(pub(in crate::cmd::bench) Vec<String>);

    impl CallHandler for Texts {
        fn joined(&mut self, _: usize) {
            self.0.push("joined".to_owned());
        }

        fn text(&mut self, _: usize, text: &[u8]) {
            self.0.push(String::from_utf8(text.to_vec()).unwrap());
        }

        fn ended(&mut self, _: usize, error: CallError) {
            panic!("{error:?}");
        }
    }

    #[test]
    fn lines_and_messages_split_at_any_byte_read_the_same() {
        let wire = b"INFO {}\r\nPONG\r\nMSG room.1 1 3\r\none\r\nMSG room.1 1 4\r\nt\r\no\r\nPING\r\nMSG room.1 1 0\r\n\r\n";
        for cut in 0..=wire.len() {
            let mut nats = Nats::new(1);
            let mut received = Texts::default();
            nats.out.clear();
            nats.feed(&wire[..cut], &mut received).unwrap();
            nats.feed(&wire[cut..], &mut received).unwrap();
            assert_eq!(received.0, ["joined", "one", "t\r\no", ""], "cut at {cut}");
            assert!(nats.is_up() && nats.out == b"PONG\r\n");
        }
    }

    #[test]
    fn errors_are_kept_and_other_protocols_refused() {
        let mut nats = Nats::new(0);
        nats.feed(b"-ERR 'Slow Consumer'\r\n", &mut Texts::default()).unwrap();
        assert_eq!(nats.pending_error().unwrap().kind, "-ERR 'Slow Consumer'");
        assert!(Nats::new(0).feed(b"HTTP/1.1 400\r\n", &mut Texts::default()).is_err());
    }
}
