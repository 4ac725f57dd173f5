//! Reads and writes HTTP/2 frames.
//!
//! Passes the payload of DATA frames on as it arrives, in place, whole or in parts, without padding, and other frames
//! whole. Does not know about streams, windows or headers.

use super::call_handler::CallError;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// Largest frame that a server may send: so large that it does not limit the server.
pub(super) const FRAME_MAX: usize = 1 << 20;

/// Length, type, flags, stream.
const HEAD: usize = 9;

/// Receives the frames.
pub(super) trait FrameHandler {
    /// A part of the payload of a DATA frame.
    fn data(&mut self, stream: u32, bytes: &[u8]) -> Result<(), CallError>;

    /// The end of a DATA frame; `length` counts against the windows.
    fn data_over(&mut self, stream: u32, length: usize, last: bool);

    /// Any other frame.
    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), CallError>;
}

/// A frame other than DATA.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of HEADERS without padding and priority.
    pub(super) fn block(&self) -> Result<&'a [u8], CallError> {
        let broken = || CallError::new("a HEADERS frame shorter than its padding");
        let mut block = self.payload;
        if self.has(PADDED) {
            let (&padding, rest) = block.split_first().ok_or_else(broken)?;
            let length = rest.len().checked_sub(usize::from(padding)).ok_or_else(broken)?;
            block = &rest[..length];
        }
        if self.has(PRIORITY) {
            block = block.get(5..).ok_or_else(broken)?;
        }
        Ok(block)
    }
}

/// The state of reading.
pub(super) struct FrameReader {
    at: At,
    head: [u8; HEAD],
    held: usize,
    /// Remaining bytes of a DATA frame.
    left: usize,
    /// Padding of a DATA frame.
    padding: usize,
    /// Bytes so far of another frame.
    body: Vec<u8>,
}

#[derive(Clone, Copy)]
enum At {
    Head,
    PadLength,
    Data,
    Padding,
    Body,
}

impl FrameReader {
    pub(super) fn new() -> Self {
        Self { at: At::Head, head: [0; HEAD], held: 0, left: 0, padding: 0, body: Vec::new() }
    }

    /// Reads more bytes. Keeps incomplete frames, except DATA, which it passes on in parts.
    #[inline]
    pub(super) fn feed<F: FrameHandler>(
        &mut self,
        mut bytes: &[u8],
        frames: &mut F,
    ) -> Result<(), CallError> {
        loop {
            match self.at {
                At::Head => {
                    let taken = bytes.len().min(HEAD - self.held);
                    self.head[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
                    self.held += taken;
                    bytes = &bytes[taken..];
                    if self.held < HEAD {
                        return Ok(());
                    }
                    self.held = 0;
                    self.begin()?;
                }
                At::PadLength => {
                    let Some((&padding, rest)) = bytes.split_first() else { return Ok(()) };
                    bytes = rest;
                    self.padding = usize::from(padding);
                    let left = self.left.checked_sub(1 + self.padding);
                    self.left = left.ok_or(CallError::new("a DATA frame shorter than its padding"))?;
                    self.at = At::Data;
                }
                At::Data => {
                    let (data, rest) = bytes.split_at(bytes.len().min(self.left));
                    if !data.is_empty() {
                        frames.data(self.stream(), data)?;
                        self.left -= data.len();
                        bytes = rest;
                    }
                    if self.left > 0 {
                        return Ok(());
                    }
                    self.left = self.padding;
                    self.at = At::Padding;
                }
                At::Padding => {
                    let skipped = bytes.len().min(self.left);
                    self.left -= skipped;
                    bytes = &bytes[skipped..];
                    if self.left > 0 {
                        return Ok(());
                    }
                    self.at = At::Head;
                    frames.data_over(self.stream(), self.length(), self.head[4] & END_STREAM != 0);
                }
                At::Body => {
                    let wanted = self.length() - self.body.len();
                    if self.body.is_empty() && bytes.len() >= wanted {
                        frames.frame(&self.frame(&bytes[..wanted]))?;
                        bytes = &bytes[wanted..];
                    } else {
                        let taken = bytes.len().min(wanted);
                        self.body.extend_from_slice(&bytes[..taken]);
                        bytes = &bytes[taken..];
                        if taken < wanted {
                            return Ok(());
                        }
                        let body = std::mem::take(&mut self.body);
                        frames.frame(&self.frame(&body))?;
                    }
                    self.at = At::Head;
                }
            }
        }
    }

    /// Starts the frame of a complete head.
    fn begin(&mut self) -> Result<(), CallError> {
        self.left = self.length();
        self.padding = 0;
        if self.left > FRAME_MAX {
            return Err(CallError::new("not an HTTP/2 frame"));
        }
        self.at = match self.head[3] {
            DATA if self.head[4] & PADDED != 0 => At::PadLength,
            DATA => At::Data,
            _ => At::Body,
        };
        Ok(())
    }

    fn length(&self) -> usize {
        let [a, b, c, ..] = self.head;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }

    fn stream(&self) -> u32 {
        let [.., a, b, c, d] = self.head;
        u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff
    }

    fn frame<'a>(&self, payload: &'a [u8]) -> Frame<'a> {
        Frame { kind: self.head[3], flags: self.head[4], stream: self.stream(), payload }
    }
}

/// Writes a frame; the payload is in parts, so that callers need not concatenate it.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[&[u8]]) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    for part in payload {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Debug, PartialEq, Eq)]
    struct Seen {
        data: Vec<u8>,
        over: Vec<(u32, usize, bool)>,
        frames: Vec<(u8, u8, u32, Vec<u8>)>,
    }

    impl FrameHandler for Seen {
        fn data(&mut self, stream: u32, bytes: &[u8]) -> Result<(), CallError> {
            assert_eq!(stream, 5);
            self.data.extend_from_slice(bytes);
            Ok(())
        }

        fn data_over(&mut self, stream: u32, length: usize, last: bool) {
            self.over.push((stream, length, last));
        }

        fn frame(&mut self, frame: &Frame<'_>) -> Result<(), CallError> {
            self.frames.push((frame.kind, frame.flags, frame.stream, frame.payload.to_vec()));
            Ok(())
        }
    }

    fn wire() -> (Vec<u8>, Seen) {
        let mut wire = Vec::new();
        write(&mut wire, SETTINGS, 0, 0, &[]);
        write(&mut wire, HEADERS, END_HEADERS, 5, &[b"block"]);
        write(&mut wire, DATA, 0, 5, &[b"whole"]);
        write(&mut wire, DATA, PADDED, 5, &[&[4], b"padded", &[0; 4]]);
        write(&mut wire, DATA, PADDED, 5, &[&[2], &[0; 2]]);
        write(&mut wire, DATA, 0, 5, &[]);
        write(&mut wire, PING, 0, 0, &[&[7; 8]]);
        write(&mut wire, DATA, END_STREAM, 5, &[b"last"]);
        let seen = Seen {
            data: b"wholepaddedlast".to_vec(),
            over: vec![(5, 5, false), (5, 11, false), (5, 3, false), (5, 0, false), (5, 4, true)],
            frames: vec![
                (SETTINGS, 0, 0, vec![]),
                (HEADERS, END_HEADERS, 5, b"block".to_vec()),
                (PING, 0, 0, vec![7; 8]),
            ],
        };
        (wire, seen)
    }

    #[test]
    fn frames_split_at_any_byte_read_the_same() {
        let (wire, expected) = wire();
        for cut in 0..=wire.len() {
            let mut reader = FrameReader::new();
            let mut seen = Seen::default();
            reader.feed(&wire[..cut], &mut seen).unwrap();
            reader.feed(&wire[cut..], &mut seen).unwrap();
            assert_eq!(seen, expected, "cut at {cut}");
        }
    }

    #[test]
    fn frames_read_byte_by_byte_are_the_same() {
        let (wire, expected) = wire();
        let mut reader = FrameReader::new();
        let mut seen = Seen::default();
        for byte in wire {
            reader.feed(&[byte], &mut seen).unwrap();
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn invalid_frames_are_refused() {
        let feed = |wire: &[u8]| FrameReader::new().feed(wire, &mut Seen::default());
        assert!(feed(b"HTTP/1.1 400 Bad Request\r\n").is_err());
        let mut wire = Vec::new();
        write(&mut wire, DATA, PADDED, 5, &[&[9], b"short"]);
        assert!(feed(&wire).is_err());
    }

    #[test]
    fn header_block_excludes_padding_and_priority() {
        let frame = |flags, payload| Frame { kind: HEADERS, flags, stream: 1, payload };
        assert_eq!(frame(0, b"abc").block().unwrap(), b"abc");
        assert_eq!(frame(PADDED, b"\x02abc..").block().unwrap(), b"abc");
        assert_eq!(frame(PADDED | PRIORITY, b"\x0112345abc.").block().unwrap(), b"abc");
        assert!(frame(PADDED, b"\x09abc").block().is_err() && frame(PRIORITY, b"abc").block().is_err());
    }
}
