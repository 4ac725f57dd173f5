//! How one member sees a log: in which wire form, and which of the messages.

use crate::hub::log::position::Cursor;
use crate::hub::log::segment::{Entry, Segment, Sequencing};
use crate::hub::payload::{EventMeta, Payload};
use bytes::BytesMut;

/// How one member sees a log.
pub struct View<M> {
    /// The wire form that it speaks.
    pub form: usize,
    /// What it wants; everything, as everyone gets it, if there is none.
    pub filter: Option<Box<dyn Filter<M>>>,
    /// Number of the first segment that was appended when the member was there. What has no place in the order is shown
    /// from here on only: it was for those who were there.
    pub(crate) live_from: u64,
}

impl<M> View<M> {
    /// Everything, in this form.
    #[must_use]
    pub fn all(form: usize) -> Self {
        Self { form, filter: None, live_from: 0 }
    }

    /// What is wanted, in this form.
    #[must_use]
    pub fn filtered(form: usize, filter: impl Filter<M> + 'static) -> Self {
        Self { form, filter: Some(Box::new(filter)), live_from: 0 }
    }
}

/// What a member wants of a log, and how it gets it.
pub trait Filter<M>: Send {
    /// Whether it wants all of these as everyone gets them; then nothing is copied for it.
    fn passes_all(&self, entries: &[Entry<M>]) -> bool;

    /// Appends what the member gets for an entry: usually `frame`, which everyone gets, or nothing.
    fn append(&mut self, entry: &Entry<M>, meta: &EventMeta, frame: &[u8], out: &mut BytesMut);
}

impl<M: Payload> View<M> {
    pub(crate) fn passes_all(&self, segment: &Segment<M>) -> bool {
        let entries = segment.entries();
        self.filter.as_ref().is_none_or(|filter| filter.passes_all(entries))
            && (self.was_there(segment)
                || entries.iter().all(|entry| entry.sequencing() != Sequencing::Ephemeral))
    }

    fn was_there(&self, segment: &Segment<M>) -> bool {
        segment.start.segment >= self.live_from
    }

    /// Appends what the member gets of a segment from this offset on, as many whole messages as `out` may have within
    /// `room` bytes, and returns where that ends; or the bytes that the first of them needs, with nothing appended.
    ///
    /// What has no offset of its own goes with the message that follows it.
    pub(crate) fn append(
        &mut self,
        segment: &Segment<M>,
        from: u64,
        room: usize,
        out: &mut BytesMut,
    ) -> Result<Cursor, usize> {
        let frames = segment.encoded(self.form).each();
        let was_there = self.was_there(segment);
        let shown = |entry: &Entry<M>| {
            entry.offset >= from && (was_there || entry.sequencing() != Sequencing::Ephemeral)
        };
        let begin = out.len();
        // Where the last message that fits ends: the length of `out`, and the offset after it.
        let mut fits: Option<(usize, u64)> = None;
        for (entry, frame) in segment.entries().iter().zip(frames).filter(|(entry, _)| shown(entry)) {
            match &mut self.filter {
                Some(filter) => filter.append(entry, &segment.meta(entry), frame, out),
                None => out.extend_from_slice(frame),
            }
            if out.len() > room {
                break;
            }
            if entry.sequencing() == Sequencing::Assigned {
                fits = Some((out.len(), entry.offset + 1));
            }
        }
        if out.len() <= room {
            return Ok(segment.end());
        }
        let Some((len, next)) = fits else {
            let needed = out.len() - begin;
            out.truncate(begin);
            return Err(needed);
        };
        out.truncate(len);
        Ok(segment.cursor_at(next))
    }
}
