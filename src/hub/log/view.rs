//! A view of a log: which messages a member receives, and in which wire form.

use crate::hub::log::position::Cursor;
use crate::hub::log::segment::{Entry, Segment, Sequencing};
use crate::hub::payload::{EventMeta, Payload};
use crate::hub::wire_form::WireForm;
use bytes::BytesMut;

/// What one member receives of a log.
pub struct View<M> {
    /// The wire form.
    pub form: WireForm,
    /// The filter; without one, the member receives everything unchanged.
    pub filter: Option<Box<dyn Filter<M>>>,
    /// Number of the first segment that was appended after the member joined. Ephemeral messages are shown from here on only:
    /// they are for the members that are present.
    pub(crate) live_from: u64,
}

impl<M> View<M> {
    /// All messages, in this form.
    #[must_use]
    pub fn all(form: WireForm) -> Self {
        Self { form, filter: None, live_from: 0 }
    }

    /// What the filter selects, in this form.
    #[must_use]
    pub fn filtered(form: WireForm, filter: impl Filter<M> + 'static) -> Self {
        Self { form, filter: Some(Box::new(filter)), live_from: 0 }
    }
}

/// Selects what a member receives of a log, and may change it.
pub trait Filter<M>: Send {
    /// Whether all of these entries pass unchanged; then nothing is copied for the member.
    fn passes_all(&self, entries: &[Entry<M>]) -> bool;

    /// Appends what the member receives for an entry: usually `frame`, its encoded form, or nothing.
    fn append(&mut self, entry: &Entry<M>, meta: &EventMeta, frame: &[u8], out: &mut BytesMut);
}

impl<M: Payload> View<M> {
    pub(crate) fn passes_all(&self, segment: &Segment<M>) -> bool {
        let entries = segment.entries();
        self.filter.as_ref().is_none_or(|filter| filter.passes_all(entries))
            && (self.was_present(segment)
                || entries.iter().all(|entry| entry.sequencing() != Sequencing::Ephemeral))
    }

    fn was_present(&self, segment: &Segment<M>) -> bool {
        segment.start.segment >= self.live_from
    }

    /// Appends what the member receives of a segment from this offset on: as many whole messages as keep `out` within `room`
    /// bytes. Returns where that ends; or the bytes that the first message needs, with nothing appended.
    ///
    /// Entries without an offset of their own go with the message that follows them.
    pub(crate) fn append(
        &mut self,
        segment: &Segment<M>,
        from: u64,
        capacity: usize,
        out: &mut BytesMut,
    ) -> Result<Cursor, usize> {
        let frames = segment.encoded(self.form).each();
        let was_present = self.was_present(segment);
        let shown = |entry: &Entry<M>| {
            entry.offset >= from && (was_present || entry.sequencing() != Sequencing::Ephemeral)
        };
        let start = out.len();
        // Where the last message that fits ends: the length of `out`, and the offset after it.
        let mut fits: Option<(usize, u64)> = None;
        for (entry, frame) in segment.entries().iter().zip(frames).filter(|(entry, _)| shown(entry)) {
            match &mut self.filter {
                Some(filter) => filter.append(entry, &segment.meta(entry), frame, out),
                None => out.extend_from_slice(frame),
            }
            if out.len() > capacity {
                break;
            }
            if entry.sequencing() == Sequencing::Assigned {
                fits = Some((out.len(), entry.offset + 1));
            }
        }
        if out.len() <= capacity {
            return Ok(segment.end());
        }
        let Some((len, next)) = fits else {
            let needed = out.len() - start;
            out.truncate(start);
            return Err(needed);
        };
        out.truncate(len);
        Ok(segment.cursor_at(next))
    }
}
