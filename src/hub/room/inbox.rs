//! A room's inbox: messages that were accepted and wait for the sequencer.
//!
//! Guarantees: bounded in messages and bytes; each publisher's messages keep their order; a publisher that finds the inbox
//! full is woken when there is room. Offering and taking need no lock. Knows nothing of logs or positions.

use crate::hub::member::Member;
use crate::hub::sync::{AtomicU64, Ordering, SegQueue, fence};
use crate::hub::wire_form::WireForm;
use std::sync::Arc;
use std::time::Instant;

/// A message that was accepted and is not sequenced yet.
pub(crate) struct Pending<M> {
    /// Its publisher; none for messages of the server itself, and of one-shot publishers.
    pub(crate) from: Option<Arc<Member>>,
    /// The wire form of the publisher.
    pub(crate) form: WireForm,
    pub(crate) message: M,
    pub(crate) accepted: Instant,
    /// The message's size, in bytes.
    pub(crate) size: usize,
}

pub(crate) struct Inbox<M> {
    queue: SegQueue<Pending<M>>,
    /// Messages and bytes inside, as one number so that both bounds are checked in one step.
    load: AtomicU64,
    /// Publishers to wake when there is room: each connection at most once.
    waiters: SegQueue<Arc<Member>>,
    messages_max: u64,
    bytes_max: u64,
}

/// In `load`, messages are above the bytes: 40 bits are a TiB.
const ONE_MESSAGE: u64 = 1 << 40;

fn weight(messages: usize, bytes: usize) -> u64 {
    messages as u64 * ONE_MESSAGE + bytes as u64
}

impl<M> Inbox<M> {
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            queue: SegQueue::new(),
            load: AtomicU64::new(0),
            waiters: SegQueue::new(),
            messages_max: messages_max as u64,
            bytes_max: bytes_max as u64,
        }
    }

    /// Adds a message, or returns it if the inbox is full.
    pub(crate) fn offer(&self, pending: Pending<M>) -> Result<(), Pending<M>> {
        let mut load = self.load.load(Ordering::Acquire);
        while self.fits(load, pending.size) {
            let more = load + weight(1, pending.size);
            match self.load.compare_exchange_weak(load, more, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    if let Some(member) = &pending.from {
                        member.note_pending();
                    }
                    self.queue.push(pending);
                    return Ok(());
                }
                Err(now) => load = now,
            }
        }
        Err(pending)
    }

    fn fits(&self, load: u64, size: usize) -> bool {
        let (messages, bytes) = (load / ONE_MESSAGE, load % ONE_MESSAGE);
        // A message larger than the byte bound fits when nothing else waits.
        messages < self.messages_max && (bytes == 0 || bytes + size as u64 <= self.bytes_max)
    }

    /// Wakes `member` at the next release. The caller has registered its waker, and must offer once more before it waits:
    /// a release may have come in between.
    pub(crate) fn wake_on_release(&self, member: &Arc<Member>) {
        if member.queue_as_waiter() {
            self.waiters.push(Arc::clone(member));
        }
        // Pairs with the fence in `release`: either the release sees this waiter, or the next offer sees
        // the release.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn take(&self) -> Option<Pending<M>> {
        self.queue.pop()
    }

    /// What was taken no longer counts; publishers that wait for room are woken.
    pub(crate) fn release(&self, messages: usize, bytes: usize) {
        self.load.fetch_sub(weight(messages, bytes), Ordering::AcqRel);
        fence(Ordering::SeqCst);
        // As many as wait now: those who come meanwhile have seen the release.
        for _ in 0..self.waiters.len() {
            let Some(waiter) = self.waiters.pop() else { break };
            waiter.wake_waiter();
        }
    }

    /// Messages that wait, and those of the batch that is being sequenced.
    pub(crate) fn messages(&self) -> u64 {
        self.load.load(Ordering::Relaxed) / ONE_MESSAGE
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
