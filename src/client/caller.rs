//! The task's end of what it hands to the receiver.
//!
//! Promises that no more waits than the options allow, and a few words about the call itself.

use super::Error;
use super::session::Handed;
use super::types::Incoming;
use std::collections::VecDeque;
use tokio::sync::mpsc;

#[derive(Debug)]
pub(super) struct Caller {
    handed: mpsc::Sender<Handed>,
    /// What did not find room. While there is something, nothing more is read from the call.
    waiting: VecDeque<Handed>,
    gone: bool,
}

impl Caller {
    pub(super) fn new(handed: mpsc::Sender<Handed>) -> Self {
        Self { handed, waiting: VecDeque::new(), gone: false }
    }

    /// Whether the receiver was dropped, as far as is known.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether something waits for the caller to take what came before.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Hands it over, now or by [`Caller::attend`].
    pub(super) fn hand(&mut self, incoming: Incoming) {
        // Of many attempts to come back, the last is news.
        let is_retry = |waiting: &Handed| matches!(waiting, Ok(Some(Incoming::Disconnected(_))));
        if matches!(incoming, Incoming::Disconnected(_)) && self.waiting.back().is_some_and(is_retry) {
            self.waiting.pop_back();
        }
        self.offer(Ok(Some(incoming)));
    }

    /// Hands over the end, and what waits before it.
    pub(super) async fn end(mut self, end: Result<(), Error>) {
        self.offer(end.map(|()| None));
        while self.is_behind() && !self.gone {
            self.attend().await;
        }
    }

    /// Hands over what waits, or notices that the receiver is gone. Loses nothing when it is cancelled.
    pub(super) async fn attend(&mut self) {
        if self.waiting.is_empty() {
            self.handed.closed().await;
            self.gone = true;
            return;
        }
        let Ok(room) = self.handed.reserve().await else {
            return self.go();
        };
        if let Some(handed) = self.waiting.pop_front() {
            room.send(handed);
        }
    }

    fn offer(&mut self, handed: Handed) {
        if self.gone {
            return;
        }
        if self.is_behind() {
            return self.waiting.push_back(handed);
        }
        match self.handed.try_send(handed) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(handed)) => self.waiting.push_back(handed),
            Err(mpsc::error::TrySendError::Closed(_)) => self.go(),
        }
    }

    fn go(&mut self) {
        self.gone = true;
        self.waiting.clear();
    }
}
