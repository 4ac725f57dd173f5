//! The raw-socket baseline: a four-byte big-endian length and a text, in both directions.

use super::call_handler::{CallError, CallHandler};

const LENGTH: usize = 4;

/// Longest text of a run.
const TEXT_MAX: usize = 16 << 20;

/// A transport with its one call.
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
    pub(super) fn feed<H: CallHandler>(
        &mut self,
        mut bytes: &[u8],
        handler: &mut H,
    ) -> Result<(), CallError> {
        while !self.partial.is_empty() {
            let wanted = LENGTH + length(&self.partial)?.unwrap_or(0);
            let taken = bytes.len().min(wanted - self.partial.len());
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.partial.len() < wanted {
                return Ok(());
            }
            if length(&self.partial)? == Some(wanted - LENGTH) {
                handler.text(0, &self.partial[LENGTH..]);
                self.partial.clear();
            }
        }
        while let Some(length) = length(bytes)? {
            let Some(text) = bytes.get(LENGTH..LENGTH + length) else { break };
            handler.text(0, text);
            bytes = &bytes[LENGTH + length..];
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

#[inline]
fn length(bytes: &[u8]) -> Result<Option<usize>, CallError> {
    let Some(&length) = bytes.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_be_bytes(length) as usize;
    if length > TEXT_MAX {
        return Err(CallError::new("not a framed text"));
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
            let mut framed = Framed::new();
            let mut received = Texts::default();
            framed.feed(&wire[..cut], &mut received).unwrap();
            framed.feed(&wire[cut..], &mut received).unwrap();
            assert_eq!(received.0, ["one", "", "three"], "cut at {cut}");
        }
        assert!(Framed::new().feed(b"HTTP", &mut Texts::default()).is_err());
    }
}
