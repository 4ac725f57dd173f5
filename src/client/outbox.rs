//! What a session has to say: in order, until it is acknowledged, over as many calls as it takes.
//!
//! Promises that nothing leaves it unacknowledged, and that after a lost call everything in it is sent again with the
//! same idempotency keys and in the same order. Knows no calls.

use super::Error;
use super::publisher::{Said, Shared, reference, request};
use super::types::Ack;
use crate::wire::v1;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;

#[derive(Debug)]
pub(super) struct Outbox {
    said: mpsc::UnboundedReceiver<Said>,
    shared: Arc<Shared>,
    /// Not acknowledged, oldest first; bounded by the permits that each holds.
    unacked: VecDeque<(u64, Said)>,
    /// How many of them were sent on this call.
    sent: usize,
    /// Number of the last that came in, and of the last that was ever sent.
    last: u64,
    last_sent: u64,
    finished: bool,
}

impl Outbox {
    pub(super) fn new(said: mpsc::UnboundedReceiver<Said>, shared: Arc<Shared>) -> Self {
        let unacked = VecDeque::new();
        Self { said, shared, unacked, sent: 0, last: 0, last_sent: 0, finished: false }
    }

    /// Takes in the next publish; then, or when the publishers are gone, returns. Loses nothing when it is cancelled.
    pub(super) async fn take_in(&mut self) {
        match self.said.recv().await {
            Some(mut said) => {
                self.last += 1;
                said.publish.reference = reference(self.last);
                self.unacked.push_back((self.last, said));
            }
            None => self.finished = true,
        }
    }

    /// Whether nothing more will come in.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether everything that came in is acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.unacked.is_empty()
    }

    /// Whether something ever came in.
    pub(super) fn was_used(&self) -> bool {
        self.last > 0
    }

    /// Whether something waits to be sent on this call.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.unacked.len()
    }

    /// Whether somebody still waits for a receipt.
    pub(super) fn is_awaited(&self) -> bool {
        self.unacked.iter().any(|(_, said)| !said.acked.is_closed())
    }

    /// The next to send on this call, and whether it is sent for the first time.
    pub(super) fn next(&mut self) -> Option<(v1::JoinRequest, bool)> {
        let (number, said) = self.unacked.get(self.sent)?;
        self.sent += 1;
        let first_time = *number > self.last_sent;
        self.last_sent = self.last_sent.max(*number);
        Some((request(said.publish.clone()), first_time))
    }

    /// Everything that is not acknowledged is to be sent again.
    pub(super) fn resend(&mut self) {
        self.sent = 0;
    }

    /// Whether something that was sent on this call is not acknowledged.
    pub(super) fn has_sent(&self) -> bool {
        self.sent > 0
    }

    /// There is a new call.
    pub(super) fn start_over(&mut self, max_message_bytes: u64) {
        self.resend();
        self.shared.limit_messages(max_message_bytes);
    }

    /// Something was acknowledged. One that is not ours, or was acknowledged already, changes nothing.
    pub(super) fn acknowledge(&mut self, reference: &str, ack: Ack) {
        let Ok(number) = u64::from_str_radix(reference, 16) else { return };
        let Ok(index) = self.unacked.binary_search_by_key(&number, |(number, _)| *number) else { return };
        if index < self.sent {
            self.sent -= 1;
        }
        if let Some((_, said)) = self.unacked.remove(index) {
            // Nobody need be interested.
            let _ = said.acked.send(Ok(ack));
        }
    }

    /// Tells all who wait that the session has ended.
    pub(super) fn end(&mut self, why: &Error) {
        self.shared.end(why.clone());
        self.said.close();
        let unacked = std::mem::take(&mut self.unacked).into_iter().map(|(_, said)| said);
        let underway = std::iter::from_fn(|| self.said.try_recv().ok());
        for said in unacked.chain(underway) {
            let _ = said.acked.send(Err(why.clone()));
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
        std::iter::from_fn(|| outbox.next())
            .map(|(request, first_time)| match request.request {
                Some(v1::join_request::Request::Publish(publish)) => {
                    (publish.reference, publish.idempotency_key, first_time)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[tokio::test]
    async fn what_is_not_acknowledged_is_sent_again_in_order_with_its_key() {
        let (publisher, said, shared) = Publisher::new(&Options::default());
        let mut outbox = Outbox::new(said, shared);
        let mut receipts = Vec::new();
        for text in ["a", "b", "c"] {
            receipts.push(publisher.submit("", text).await.unwrap());
            outbox.take_in().await;
        }
        let first = sent(&mut outbox);
        assert!(first.len() == 3 && first.iter().all(|(_, _, first_time)| *first_time), "{first:?}");
        // Out of order, as no server of ours does.
        outbox.acknowledge(&first[1].0, ack(2));
        outbox.acknowledge(&first[1].0, ack(9));
        outbox.acknowledge("nonsense", ack(9));
        assert!(!outbox.has_unsent());
        assert_eq!(receipts.remove(1).await.unwrap(), ack(2));

        outbox.start_over(0);
        let again = sent(&mut outbox);
        let expected: Vec<_> = [0, 2].map(|n| (first[n].0.clone(), first[n].1.clone(), false)).into();
        assert_eq!(again, expected);
        outbox.acknowledge(&again[0].0, ack(1));
        outbox.acknowledge(&again[1].0, ack(3));
        assert!(outbox.is_empty() && !outbox.is_finished());
        drop(publisher);
        outbox.take_in().await;
        assert!(outbox.is_finished());
    }

    #[tokio::test]
    async fn everyone_who_waits_is_told_the_end() {
        let (publisher, said, shared) = Publisher::new(&Options::default());
        let mut outbox = Outbox::new(said, shared);
        let taken_in = publisher.submit("", "a").await.unwrap();
        outbox.take_in().await;
        let underway = publisher.submit("", "b").await.unwrap();
        outbox.end(&Error::Contract("a test"));
        assert!(matches!(taken_in.await, Err(Error::Contract(_))));
        assert!(matches!(underway.await, Err(Error::Contract(_))));
        assert!(matches!(publisher.publish("", "c").await, Err(Error::Contract(_))));
    }
}
