//! The floor: a length of four bytes, big-endian, and a text; both ways, and nothing else.

use super::protocol::{Fault, Hear};

const LENGTH: usize = 4;

/// No text of a run is longer.
const TEXT_MAX: usize = 16 << 20;

/// One transport, which is one call.
pub(super) struct Framed {
    partial: Vec<u8>,
    pub(super) out: Vec<u8>,
}

impl Framed {
    pub(super) fn new() -> Self {
        Self { partial: Vec::new(), out: Vec::new() }
    }

    pub(super) fn publish(&mut self, text: &[u8]) {
        self.out.extend_from_slice(&(text.len() as u32).to_be_bytes());
        self.out.extend_from_slice(text);
    }

    #[inline]
    pub(super) fn feed<H: Hear>(&mut self, mut bytes: &[u8], hear: &mut H) -> Result<(), Fault> {
        while !self.partial.is_empty() {
            let wanted = LENGTH + length(&self.partial)?.unwrap_or(0);
            let taken = bytes.len().min(wanted - self.partial.len());
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.partial.len() < wanted {
                return Ok(());
            }
            if length(&self.partial)? == Some(wanted - LENGTH) {
                hear.text(0, &self.partial[LENGTH..]);
                self.partial.clear();
            }
        }
        while let Some(length) = length(bytes)? {
            let Some(text) = bytes.get(LENGTH..LENGTH + length) else { break };
            hear.text(0, text);
            bytes = &bytes[LENGTH + length..];
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

#[inline]
fn length(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(&length) = bytes.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_be_bytes(length) as usize;
    if length > TEXT_MAX {
        return Err(Fault::new("no framed text"));
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::bench::nats::tests::Texts;

    #[test]
    fn texts_split_at_any_byte_read_the_same() {
        let mut framed = Framed::new();
        for text in ["one", "", "three"] {
            framed.publish(text.as_bytes());
        }
        let wire = framed.out;
        for cut in 0..=wire.len() {
            let (mut framed, mut heard) = (Framed::new(), Texts::default());
            framed.feed(&wire[..cut], &mut heard).unwrap();
            framed.feed(&wire[cut..], &mut heard).unwrap();
            assert_eq!(heard.0, ["one", "", "three"], "cut at {cut}");
        }
        assert!(Framed::new().feed(b"HTTP", &mut Texts::default()).is_err());
    }
}
