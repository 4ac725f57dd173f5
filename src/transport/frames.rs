//! A scanner for the headers of received frames.
//!
//! h2 has no hook for frames, and reads everything in the socket before its caller sees a stream. So the bytes are scanned
//! before h2 gets them, for three things: the number of frames in a turn, the cost of frames that carry no message, and the
//! changes of the peer's flow-control windows. Reference: RFC 9113, sections 4.1 and 6.
//!
//! Deliberately does not validate: h2 does, and closes the connection. Wrong bytes may at worst be counted wrong.

/// Length of the connection preface (RFC 9113, section 3.4).
pub(super) const PREFACE_LEN: usize = 24;

const HEADER_LEN: usize = 9;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// Bytes of one setting: its identifier and its value.
const SETTING_LEN: usize = 6;

/// The cost of a frame without data, in units of [`super::frame_rate::FrameRate`].
const COST: u32 = 4;
/// DATA is bounded by flow control, but below this many bytes the frame itself is the larger cost.
const SHORT_DATA: usize = 64;
const COST_OF_SHORT_DATA: u32 = 2;
/// A reset includes the cost of the stream that it ends, about a hundred times that of a bare frame.
const COST_OF_RESET: u32 = 100 * COST;
/// A change of settings visits every open stream, and wakes those that wait for a window: half a millisecond with a
/// thousand. Twenty pass in a burst, then four a second: a client sends one, and about ten more if it sizes its windows by
/// measuring the bandwidth.
const COST_OF_SETTINGS: u32 = 5_000 * COST;

/// Receives the changes of the peer's flow-control windows.
pub(super) trait FrameObserver {
    /// The window of one stream, or of the connection (stream 0), grows by `increment` bytes.
    fn window_update(&mut self, stream: u32, increment: u32);
    /// `SETTINGS_INITIAL_WINDOW_SIZE` of every stream becomes `bytes`.
    fn initial_window(&mut self, bytes: u32);
}

/// Finds the frames in a byte stream, whatever the chunks in which it arrives.
pub(super) struct FrameScanner {
    /// Bytes to skip: of the preface, or of a payload that is not read.
    skip: usize,
    header: [u8; HEADER_LEN],
    /// Bytes of the header, or of the value, that have arrived.
    have: usize,
    /// Bytes left of a payload that is read value by value.
    values: usize,
    value: [u8; SETTING_LEN],
    in_values: bool,
}

impl FrameScanner {
    /// A scanner at the start of a connection.
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE_LEN,
            header: [0; HEADER_LEN],
            have: 0,
            values: 0,
            value: [0; SETTING_LEN],
            in_values: false,
        }
    }

    /// Scans until `frames` frames have ended, or `bytes` has; counts `frames` down. Returns the number of bytes scanned,
    /// and the cost of the frames that started in them.
    pub(super) fn scan(
        &mut self,
        bytes: &[u8],
        frames: &mut u32,
        to: &mut impl FrameObserver,
    ) -> (usize, u32) {
        let mut at = 0;
        let mut cost = 0;
        while at < bytes.len() && *frames > 0 {
            let rest = &bytes[at..];
            at += if self.skip > 0 {
                let skipped = self.skip.min(rest.len());
                self.skip -= skipped;
                if self.skip == 0 && self.have == HEADER_LEN {
                    self.end_frame(frames);
                }
                skipped
            } else if self.in_values {
                self.read_value(rest, frames, to)
            } else {
                let read = fill(&mut self.header, &mut self.have, rest, HEADER_LEN);
                if self.have == HEADER_LEN {
                    cost += self.start_frame(frames);
                }
                read
            };
        }
        (at, cost)
    }

    fn start_frame(&mut self, frames: &mut u32) -> u32 {
        let [a, b, c, kind, flags, ..] = self.header;
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        self.in_values = match kind {
            WINDOW_UPDATE => len == 4,
            SETTINGS => flags & ACK == 0 && len > 0 && len.is_multiple_of(SETTING_LEN),
            _ => false,
        };
        if self.in_values {
            self.have = 0;
            self.values = len;
        } else {
            self.skip = len;
            if len == 0 {
                self.end_frame(frames);
            }
        }
        match kind {
            DATA if len >= SHORT_DATA => 0,
            DATA if len > 0 => COST_OF_SHORT_DATA,
            RST_STREAM => COST_OF_RESET,
            SETTINGS if flags & ACK == 0 => COST_OF_SETTINGS,
            _ => COST,
        }
    }

    fn read_value(&mut self, rest: &[u8], frames: &mut u32, to: &mut impl FrameObserver) -> usize {
        let is_window = self.header[3] == WINDOW_UPDATE;
        let len = if is_window { 4 } else { SETTING_LEN };
        let read = fill(&mut self.value, &mut self.have, rest, len);
        if self.have < len {
            return read;
        }
        self.have = 0;
        self.values -= len;
        let [id0, id1, value @ ..] = self.value;
        if is_window {
            let [.., s0, s1, s2, s3] = self.header;
            // The first bit of both is reserved (RFC 9113, sections 4.1 and 6.9).
            let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
            let [i0, i1, i2, i3, ..] = self.value;
            to.window_update(stream, u32::from_be_bytes([i0, i1, i2, i3]) & 0x7fff_ffff);
        } else if u16::from_be_bytes([id0, id1]) == INITIAL_WINDOW_SIZE {
            to.initial_window(u32::from_be_bytes(value));
        }
        if self.values == 0 {
            self.in_values = false;
            self.end_frame(frames);
        }
        read
    }

    fn end_frame(&mut self, frames: &mut u32) {
        self.have = 0;
        *frames -= 1;
    }
}

/// Fills `into` up to `len` from `bytes`; returns the number of bytes used.
fn fill(into: &mut [u8], have: &mut usize, bytes: &[u8], len: usize) -> usize {
    let read = (len - *have).min(bytes.len());
    into[*have..*have + read].copy_from_slice(&bytes[..read]);
    *have += read;
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Default, PartialEq, Eq)]
    struct WindowChanges(Vec<(u32, u32)>);

    impl FrameObserver for WindowChanges {
        fn window_update(&mut self, stream: u32, increment: u32) {
            self.0.push((stream, increment));
        }

        fn initial_window(&mut self, bytes: u32) {
            self.0.push((u32::MAX, bytes));
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn connection() -> Vec<u8> {
        let settings = [[0, 3, 0, 0, 0, 100], [0, 4, 0, 1, 0, 0]].concat();
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(SETTINGS, 0, 0, &settings),
            frame(SETTINGS, ACK, 0, &[]),
            frame(WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 5]),
            frame(1, 4, 1, &[7; 300]),
            frame(DATA, 0, 1, &[0; 70]),
            frame(DATA, 1, 1, &[]),
            frame(WINDOW_UPDATE, 0, 1, &7u32.to_be_bytes()),
            frame(RST_STREAM, 0, 1, &[0; 4]),
        ]
        .concat()
    }

    fn expected() -> WindowChanges {
        WindowChanges(vec![(u32::MAX, 65_536), (0, 5), (1, 7)])
    }

    #[test]
    fn headers_give_windows_and_costs() {
        let mut changes = WindowChanges::default();
        let mut frames = 100;
        let bytes = connection();
        let scanned = FrameScanner::new().scan(&bytes, &mut frames, &mut changes);
        // SETTINGS and RST_STREAM; then the SETTINGS acknowledgement, two WINDOW_UPDATE, HEADERS, and an empty DATA.
        let cost = COST_OF_SETTINGS + COST_OF_RESET + 5 * COST;
        assert_eq!((scanned, frames), ((bytes.len(), cost), 92));
        assert_eq!(changes, expected());
    }

    #[test]
    fn scan_stops_after_last_frame() {
        let bytes = connection();
        let mut scanner = FrameScanner::new();
        let mut changes = WindowChanges::default();
        let mut at = 0;
        for _ in 0..8 {
            let mut frames = 1;
            at += scanner.scan(&bytes[at..], &mut frames, &mut changes).0;
            assert_eq!(frames, 0);
        }
        assert_eq!((at, changes), (bytes.len(), expected()));
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(cuts in prop::collection::vec(1usize..40, 1..200)) {
            let bytes = connection();
            let mut scanner = FrameScanner::new();
            let mut changes = WindowChanges::default();
            let mut rest = &bytes[..];
            let mut frames = 100;
            let mut total = 0;
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(cut.min(rest.len()));
                let (used, cost) = scanner.scan(now, &mut frames, &mut changes);
                prop_assert_eq!(used, now.len());
                total += cost;
                rest = later;
            }
            let cost = COST_OF_SETTINGS + COST_OF_RESET + 5 * COST;
            prop_assert_eq!((changes, frames, total), (expected(), 92, cost));
        }
    }
}
