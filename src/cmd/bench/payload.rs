//! The text of a message: a stamp of 40 characters, padded to the size asked for.
//!
//! ```text
//! 8 hex digits   the run and the room
//! 8 hex digits   which of the room's publishers
//! 8 hex digits   the message's number, from 0
//! 16 hex digits  when it was due, in ns since the run began
//! ```
//!
//! Texts are plain ASCII. The reader has no branches, since it runs once per delivery.

/// Characters of a stamp.
pub(super) const STAMP: usize = 40;

/// The publisher number of probes, which find out which calls have joined.
pub(super) const PROBE: u32 = u32::MAX;

/// The first characters of all texts of a run and room.
pub(super) type Tag = [u8; 8];

/// The tag of a room's messages.
pub(super) fn tag(run: u32, room: u32) -> Tag {
    // An odd factor, so that no two rooms share a tag.
    hex(run.wrapping_add(room.wrapping_mul(0x9e37_79b9)))
}

/// A message's publisher and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) slot: u32,
    pub(super) number: u32,
}

/// A text buffer, stamped anew for each message.
pub(super) struct Text(Vec<u8>);

impl Text {
    pub(super) fn new(size: usize) -> Self {
        Self(vec![b'.'; size.max(STAMP)])
    }

    pub(super) fn stamped(&mut self, tag: Tag, stamp: Stamp, due: u64) -> &[u8] {
        self.0[..8].copy_from_slice(&tag);
        self.0[8..16].copy_from_slice(&hex(stamp.slot));
        self.0[16..24].copy_from_slice(&hex(stamp.number));
        self.0[24..32].copy_from_slice(&hex((due >> 32) as u32));
        self.0[32..40].copy_from_slice(&hex(due as u32));
        &self.0
    }
}

/// The stamp of a text with this tag.
#[inline]
pub(super) fn read(text: &[u8], expected: Tag) -> Option<Stamp> {
    let stamp: &[u8; STAMP] = text.first_chunk()?;
    (stamp[..8] == expected).then(|| Stamp { slot: number(stamp, 8), number: number(stamp, 16) })
}

/// The due time of a text that [`read`] accepted.
#[inline]
pub(super) fn due(text: &[u8]) -> u64 {
    let stamp: Option<&[u8; STAMP]> = text.first_chunk();
    stamp.map_or(0, |stamp| u64::from(number(stamp, 24)) << 32 | u64::from(number(stamp, 32)))
}

#[inline]
fn number(stamp: &[u8; STAMP], at: usize) -> u32 {
    let mut digits = [0; 8];
    digits.copy_from_slice(&stamp[at..at + 8]);
    unhex(digits)
}

fn hex(number: u32) -> [u8; 8] {
    std::array::from_fn(|digit| b"0123456789abcdef"[(number >> (28 - 4 * digit) & 15) as usize])
}

/// Eight digits at once: each byte to its nibble, then pairs, fours and eights of nibbles together.
#[inline]
fn unhex(digits: [u8; 8]) -> u32 {
    let text = u64::from_be_bytes(digits);
    let nibbles = (text & 0x0f0f_0f0f_0f0f_0f0f) + 9 * (text >> 6 & 0x0101_0101_0101_0101);
    let bytes = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    let words = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    (words | words >> 16) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_round_trips() {
        let tag = tag(7, 3);
        let mut text = Text::new(64);
        for number in [0, 1, 0x0123_4567, 0x89ab_cdef, u32::MAX] {
            let stamp = Stamp { slot: !number, number };
            let when = u64::from(number) << 29 | 5;
            let published = text.stamped(tag, stamp, when);
            assert!(published.len() == 64 && published.is_ascii());
            assert_eq!(read(published, tag), Some(stamp));
            assert_eq!(due(published), when);
        }
    }

    #[test]
    fn texts_of_other_rooms_and_runs_are_rejected() {
        let mut text = Text::new(0);
        let published = text.stamped(tag(7, 3), Stamp { slot: 0, number: 0 }, 0);
        assert!(read(published, tag(7, 4)).is_none() && read(published, tag(8, 3)).is_none());
        assert!(read(&published[..39], tag(7, 3)).is_none() && read(b"", tag(7, 3)).is_none());
    }
}
