//! Trimming: what a log removes for its own retention, and for the budget of all rooms.

use super::ring::{LogWriter, RING_MIN};
use crate::hub::log::segment::Segment;
use crate::hub::payload::Payload;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl<M: Payload> LogWriter<M> {
    /// Removes what exceeds retention. The newest segment stays until it is too old, so that a single message larger than the
    /// byte limit still reaches everyone.
    pub fn trim(&mut self, now: Instant) {
        let ring = self.log.ring.load().held();
        self.remove_while(|writer, oldest| {
            let over =
                writer.bytes + ring > writer.retention.bytes || writer.messages > writer.retention.messages;
            let old = now.saturating_duration_since(oldest.at) > writer.retention.age;
            old || over && !writer.has_one_segment()
        });
    }

    /// Removes the oldest segments until the budget has room again; also the newest, because this log has been idle for long.
    pub(crate) fn trim_to_budget(&mut self) {
        let budget = Arc::clone(self.budget());
        let freed = self.remove_while(|_, _| budget.is_nearly_met());
        budget.count_trimmed(freed);
    }

    /// Removes the oldest segments until they free so many bytes for the budget. The newest stays: not all members have it.
    pub(super) fn free(&mut self, bytes: u64) {
        let mut freed = 0;
        let freed = self.remove_while(|writer, oldest| {
            let is_over = freed < bytes && !writer.has_one_segment();
            freed += if is_over { oldest.footprint } else { 0 };
            is_over
        });
        self.budget().count_trimmed(freed);
    }

    fn has_one_segment(&self) -> bool {
        self.head + 1 == self.next.segment
    }

    /// Removes the oldest segment as long as `is_over` returns true; returns the bytes that were freed.
    pub(super) fn remove_while(&mut self, mut is_over: impl FnMut(&Self, &Segment<M>) -> bool) -> u64 {
        let mut freed = 0;
        let ring = self.log.ring.load_full();
        while self.head < self.next.segment {
            let slot = ring.slot(self.head);
            let oldest = slot.load();
            let Some(oldest) = oldest.as_ref().filter(|oldest| is_over(self, oldest)) else { break };
            self.bytes -= oldest.footprint;
            self.messages -= oldest.messages;
            self.head += 1;
            self.log.head.store(self.head, Ordering::Release);
            slot.store(None);
            freed += oldest.release();
        }
        self.log.retained_messages.store(self.messages, Ordering::Relaxed);
        let held = (self.next.segment - self.head) as usize;
        let mut slots = ring.slots.len();
        while slots > RING_MIN && held < slots / 8 {
            slots /= 4;
        }
        if slots < ring.slots.len() {
            self.resize(slots);
        }
        freed
    }
}
