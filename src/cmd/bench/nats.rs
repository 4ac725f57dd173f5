//! NATS' text protocol, as far as one subject needs it (docs.nats.io, "Client Protocol").

use super::protocol::{Fault, Hear};
use std::io::Write as _;

/// `MSG subject sid [reply-to] bytes` is far shorter; INFO is not.
const LINE_MAX: usize = 64 * 1024;

/// No text of a run is longer.
const TEXT_MAX: usize = 16 << 20;

/// One transport, which is one call.
pub(super) struct Nats {
    room: u32,
    partial: Vec<u8>,
    pub(super) out: Vec<u8>,
    up: bool,
    error: Option<Fault>,
}

impl Nats {
    pub(super) fn new(room: u32) -> Self {
        // The PONG comes when the subscription is in force.
        let hello =
            format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB room.{room} 1\r\nPING\r\n");
        Self { room, partial: Vec::new(), out: hello.into_bytes(), up: false, error: None }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn publish(&mut self, text: &[u8]) {
        // Writing into memory cannot fail.
        let _ = write!(self.out, "PUB room.{} {}\r\n", self.room, text.len());
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    pub(super) fn last_words(&self) -> Option<Fault> {
        self.error.clone()
    }

    pub(super) fn feed<H: Hear>(&mut self, bytes: &[u8], hear: &mut H) -> Result<(), Fault> {
        if self.partial.is_empty() {
            let read = self.read(bytes, hear)?;
            self.partial.extend_from_slice(&bytes[read..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            let read = self.read(&partial, hear)?;
            partial.drain(..read);
            self.partial = partial;
        }
        Ok(())
    }

    /// Takes what is complete, and says how much that was.
    fn read<H: Hear>(&mut self, bytes: &[u8], hear: &mut H) -> Result<usize, Fault> {
        let mut read = 0;
        while let Some(length) = bytes[read..].iter().position(|&byte| byte == b'\n') {
            let line = &bytes[read..read + length];
            let after = read + length + 1;
            if line.starts_with(b"MSG ") {
                let length = last_number(line).ok_or_else(|| Fault::new("no NATS message"))?;
                let Some(text) = bytes.get(after..after + length + 2) else { return Ok(read) };
                hear.text(0, &text[..length]);
                read = after + length + 2;
                continue;
            }
            read = after;
            self.command(line, hear)?;
        }
        if bytes.len() - read > LINE_MAX {
            return Err(Fault::new("no NATS line"));
        }
        Ok(read)
    }

    fn command(&mut self, line: &[u8], hear: &mut impl Hear) -> Result<(), Fault> {
        let line = String::from_utf8_lossy(line);
        match line.split_ascii_whitespace().next() {
            Some("PING") => self.out.extend_from_slice(b"PONG\r\n"),
            Some("PONG") => {
                self.up = true;
                hear.joined(0);
            }
            Some("-ERR") => self.error = Some(Fault::new(line.trim_end())),
            Some("INFO" | "+OK") => {}
            _ => return Err(Fault::new("no NATS server")),
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

    /// Who takes texts down.
    #[derive(Default)]
    pub(in crate::cmd::bench) struct Texts(pub(in crate::cmd::bench) Vec<String>);

    impl Hear for Texts {
        fn joined(&mut self, _: usize) {
            self.0.push("joined".to_owned());
        }

        fn text(&mut self, _: usize, text: &[u8]) {
            self.0.push(String::from_utf8(text.to_vec()).unwrap());
        }

        fn ended(&mut self, _: usize, fault: Fault) {
            panic!("{fault:?}");
        }
    }

    #[test]
    fn lines_and_messages_split_at_any_byte_read_the_same() {
        let wire = b"INFO {}\r\nPONG\r\nMSG room.1 1 3\r\none\r\nMSG room.1 1 4\r\nt\r\no\r\nPING\r\nMSG room.1 1 0\r\n\r\n";
        for cut in 0..=wire.len() {
            let (mut nats, mut heard) = (Nats::new(1), Texts::default());
            nats.out.clear();
            nats.feed(&wire[..cut], &mut heard).unwrap();
            nats.feed(&wire[cut..], &mut heard).unwrap();
            assert_eq!(heard.0, ["joined", "one", "t\r\no", ""], "cut at {cut}");
            assert!(nats.is_up() && nats.out == b"PONG\r\n");
        }
    }

    #[test]
    fn an_error_is_kept_and_what_is_no_nats_is_refused() {
        let mut nats = Nats::new(0);
        nats.feed(b"-ERR 'Slow Consumer'\r\n", &mut Texts::default()).unwrap();
        assert_eq!(nats.last_words().unwrap().kind, "-ERR 'Slow Consumer'");
        assert!(Nats::new(0).feed(b"HTTP/1.1 400\r\n", &mut Texts::default()).is_err());
    }
}
