//! Delivery from the session's task to its [`Receiver`](super::Receiver).
//!
//! Queues at most [`Options::events_ahead`](super::Options::events_ahead) items, and a few notices about the call itself
//! on top.

use super::error::Error;
use super::session::Delivered;
use super::types::Incoming;
use std::collections::VecDeque;
use tokio::sync::mpsc;

#[derive(Debug)]
pub(super) struct Delivery {
    sender: mpsc::Sender<Delivered>,
    /// Items that did not fit into the channel. While it is not empty, the task reads nothing from the call.
    backlog: VecDeque<Delivered>,
    closed: bool,
}

impl Delivery {
    pub(super) fn new(sender: mpsc::Sender<Delivered>) -> Self {
        Self { sender, backlog: VecDeque::new(), closed: false }
    }

    /// Whether the receiver is known to have been dropped.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether items wait for the receiver to make room.
    pub(super) fn is_blocked(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Delivers an item, now or by a later [`Delivery::flush`].
    pub(super) fn deliver(&mut self, incoming: Incoming) {
        // Of several failed attempts in a row, only the last is delivered.
        let is_retry = |queued: &Delivered| matches!(queued, Ok(Some(Incoming::Disconnected(_))));
        if matches!(incoming, Incoming::Disconnected(_)) && self.backlog.back().is_some_and(is_retry) {
            self.backlog.pop_back();
        }
        self.enqueue(Ok(Some(incoming)));
    }

    /// Delivers everything queued, then the end of the session.
    pub(super) async fn end(mut self, end: Result<(), Error>) {
        self.enqueue(end.map(|()| None));
        while self.is_blocked() && !self.closed {
            self.flush().await;
        }
    }

    /// Delivers the oldest queued item; if there is none, waits until the receiver is dropped. Cancel safe.
    pub(super) async fn flush(&mut self) {
        if self.backlog.is_empty() {
            self.sender.closed().await;
            self.closed = true;
            return;
        }
        let Ok(permit) = self.sender.reserve().await else {
            return self.close();
        };
        if let Some(item) = self.backlog.pop_front() {
            permit.send(item);
        }
    }

    fn enqueue(&mut self, item: Delivered) {
        if self.closed {
            return;
        }
        if self.is_blocked() {
            return self.backlog.push_back(item);
        }
        match self.sender.try_send(item) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(item)) => self.backlog.push_back(item),
            Err(mpsc::error::TrySendError::Closed(_)) => self.close(),
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.backlog.clear();
    }
}
