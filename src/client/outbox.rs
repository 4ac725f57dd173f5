//! The unacknowledged publishes of a session, in order, over any number of calls.
//!
//! A publish stays here until it is acknowledged. After a lost call, everything here is sent again in the same order and
//! with the same idempotency keys. Does not know about calls.

use super::error::Error;
use super::publisher::{PendingPublish, Shared, reference, request};
use super::types::Ack;
use crate::wire::v1;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;

#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::UnboundedReceiver<PendingPublish>,
    shared: Arc<Shared>,
    /// Unacknowledged, oldest first; bounded by the permits that each one holds.
    unacked: VecDeque<(u64, PendingPublish)>,
    /// How many of `unacked` have been sent on this call.
    sent: usize,
    /// Number of the last publish received from the publishers.
    last: u64,
    /// Number of the last publish sent on any call.
    last_sent: u64,
    finished: bool,
}

impl Outbox {
    pub(super) fn new(queue: mpsc::UnboundedReceiver<PendingPublish>, shared: Arc<Shared>) -> Self {
        let unacked = VecDeque::new();
        Self { queue, shared, unacked, sent: 0, last: 0, last_sent: 0, finished: false }
    }

    /// Waits for the next publish, or for the last publisher to be dropped. Cancel safe.
    pub(super) async fn receive(&mut self) {
        match self.queue.recv().await {
            Some(mut pending) => {
                self.last += 1;
                pending.publish.reference = reference(self.last);
                self.unacked.push_back((self.last, pending));
            }
            None => self.finished = true,
        }
    }

    /// Whether all publishers have been dropped.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether everything is acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.unacked.is_empty()
    }

    /// Whether the session has ever published.
    pub(super) fn was_used(&self) -> bool {
        self.last > 0
    }

    /// Whether a publish waits to be sent on this call.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.unacked.len()
    }

    /// Whether any unacknowledged publish still has its receipt.
    pub(super) fn has_waiters(&self) -> bool {
        self.unacked.iter().any(|(_, pending)| !pending.ack.is_closed())
    }

    /// The next publish to send on this call, and whether it is sent for the first time.
    pub(super) fn next_unsent(&mut self) -> Option<(v1::JoinRequest, bool)> {
        let (number, pending) = self.unacked.get(self.sent)?;
        self.sent += 1;
        let is_first = *number > self.last_sent;
        self.last_sent = self.last_sent.max(*number);
        Some((request(pending.publish.clone()), is_first))
    }

    /// Marks everything unacknowledged as unsent.
    pub(super) fn resend(&mut self) {
        self.sent = 0;
    }

    /// Whether a publish sent on this call is unacknowledged.
    pub(super) fn has_sent(&self) -> bool {
        self.sent > 0
    }

    /// Starts over on a new call.
    pub(super) fn begin_call(&mut self, max_message_bytes: u64) {
        self.resend();
        self.shared.set_max_message_bytes(max_message_bytes);
    }

    /// Completes the publish with this reference. Ignores unknown references and repeated acknowledgements.
    pub(super) fn acknowledge(&mut self, reference: &str, ack: Ack) {
        let Ok(number) = u64::from_str_radix(reference, 16) else { return };
        let Ok(index) = self.unacked.binary_search_by_key(&number, |(number, _)| *number) else { return };
        if index < self.sent {
            self.sent -= 1;
        }
        if let Some((_, pending)) = self.unacked.remove(index) {
            // The receipt may have been dropped.
            let _ = pending.ack.send(Ok(ack));
        }
    }

    /// Fails all pending publishes with the end of the session.
    pub(super) fn end(&mut self, why: &Error) {
        self.shared.end(why.clone());
        self.queue.close();
        let unacked = std::mem::take(&mut self.unacked).into_iter().map(|(_, pending)| pending);
        let underway = std::iter::from_fn(|| self.queue.try_recv().ok());
        for pending in unacked.chain(underway) {
            let _ = pending.ack.send(Err(why.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, Publisher};
    use super::*;
    use crate::client::Position;

    fn ack(offset: u64) -> Ack {
        Ack { position: Position { epoch: "e".into(), offset }, repeated: false }
    }

    fn sent(outbox: &mut Outbox) -> Vec<(String, String, bool)> {
        std::iter::from_fn(|| outbox.next_unsent())
            .map(|(request, is_first)| match request.request {
                Some(v1::join_request::Request::Publish(publish)) => {
                    (publish.reference, publish.idempotency_key, is_first)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[tokio::test]
    async fn unacknowledged_publishes_are_resent_in_order_with_their_keys() {
        let (publisher, queue, shared) = Publisher::new(&Options::default());
        let mut outbox = Outbox::new(queue, shared);
        let mut receipts = Vec::new();
        for text in ["a", "b", "c"] {
            receipts.push(publisher.submit("", text).await.unwrap());
            outbox.receive().await;
        }
        let first = sent(&mut outbox);
        assert!(first.len() == 3 && first.iter().all(|(_, _, is_first)| *is_first), "{first:?}");
        // Out of order, which our server never does.
        outbox.acknowledge(&first[1].0, ack(2));
        outbox.acknowledge(&first[1].0, ack(9));
        outbox.acknowledge("nonsense", ack(9));
        assert!(!outbox.has_unsent());
        assert_eq!(receipts.remove(1).await.unwrap(), ack(2));

        outbox.begin_call(0);
        let again = sent(&mut outbox);
        let expected: Vec<_> = [0, 2].map(|n| (first[n].0.clone(), first[n].1.clone(), false)).into();
        assert_eq!(again, expected);
        outbox.acknowledge(&again[0].0, ack(1));
        outbox.acknowledge(&again[1].0, ack(3));
        assert!(outbox.is_empty() && !outbox.is_finished());
        drop(publisher);
        outbox.receive().await;
        assert!(outbox.is_finished());
    }

    #[tokio::test]
    async fn end_of_session_fails_all_receipts() {
        let (publisher, queue, shared) = Publisher::new(&Options::default());
        let mut outbox = Outbox::new(queue, shared);
        let taken_in = publisher.submit("", "a").await.unwrap();
        outbox.receive().await;
        let underway = publisher.submit("", "b").await.unwrap();
        outbox.end(&Error::Contract("a test"));
        assert!(matches!(taken_in.await, Err(Error::Contract(_))));
        assert!(matches!(underway.await, Err(Error::Contract(_))));
        assert!(matches!(publisher.publish("", "c").await, Err(Error::Contract(_))));
    }
}
