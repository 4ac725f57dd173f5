//! The publishing half of a session.
//!
//! Bounds the unacknowledged publishes, and refuses an invalid publish before it can end the session.

use super::error::Error;
use super::options::Options;
use super::types::{Ack, Body};
use crate::wire::v1;
use prost::Message as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use uuid::Uuid;

/// Longest kind, in bytes.
const KIND_MAX: usize = 64;

/// Publishes in a room. Cheap to clone; each clone's messages keep their order.
///
/// When the last clone is dropped, the session finishes: pending publishes are still sent and acknowledged, and the
/// [`Receiver`](super::Receiver) ends after the session's own last message.
#[derive(Clone, Debug)]
pub struct Publisher {
    queue: mpsc::UnboundedSender<PendingPublish>,
    shared: Arc<Shared>,
}

/// State shared by the publishers and the session's task.
#[derive(Debug)]
pub(super) struct Shared {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_max: u32,
    max_message_bytes: AtomicU64,
    ended: OnceLock<Error>,
}

/// A publish on its way to the session's task.
#[derive(Debug)]
pub(super) struct PendingPublish {
    pub(super) publish: v1::Publish,
    pub(super) ack: oneshot::Sender<Result<Ack, Error>>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Publisher {
    /// A publisher, and the queue from which the session's task takes its messages.
    pub(super) fn new(options: &Options) -> (Self, mpsc::UnboundedReceiver<PendingPublish>, Arc<Shared>) {
        let bytes_max = options.in_flight_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let messages = options.in_flight_messages.clamp(1, Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            messages: Arc::new(Semaphore::new(messages)),
            bytes: Arc::new(Semaphore::new(bytes_max)),
            bytes_max: bytes_max as u32,
            max_message_bytes: AtomicU64::new(0),
            ended: OnceLock::new(),
        });
        // Bounded by the permits that each item holds.
        let (queue, receiver) = mpsc::unbounded_channel();
        (Self { queue, shared: shared.clone() }, receiver, shared)
    }

    /// Publishes a message and waits for its position.
    ///
    /// `kind` is for filters: 1 to 64 of `A-Z a-z 0-9 . _ -`; "chat" if empty.
    ///
    /// The message is published once, even if the session reconnects meanwhile: it is resent with the same idempotency
    /// key, and the room publishes it again only if it no longer retains the first, or has another epoch. If the future
    /// is dropped while it waits, the message may or may not have been published.
    ///
    /// # Errors
    /// [`Error::Kind`] and [`Error::TooLarge`], which do not affect the session; any error that ends the session.
    pub async fn publish(&self, kind: impl Into<String>, body: impl Into<Body>) -> Result<Ack, Error> {
        self.submit(kind, body).await?.await
    }

    /// Publishes a message without waiting for its position: returns when the message is within `in_flight_messages` and
    /// `in_flight_bytes`. The session then delivers it whether or not the receipt is kept. If the session's halves and all
    /// receipts are dropped, it does so only until its call is lost.
    ///
    /// # Errors
    /// As [`Publisher::publish`]; later errors are in the receipt.
    pub async fn submit(&self, kind: impl Into<String>, body: impl Into<Body>) -> Result<Receipt, Error> {
        let publish = v1::Publish {
            reference: reference(0),
            kind: validate_kind(kind.into())?,
            body: Some(body.into().into()),
            idempotency_key: new_idempotency_key(),
        };
        let bytes = request(publish.clone()).encoded_len() as u64;
        let max = self.shared.max_message_bytes.load(Ordering::Relaxed);
        if max > 0 && bytes > max {
            return Err(Error::TooLarge { bytes, max });
        }
        // A message larger than the whole budget takes the whole budget.
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.shared.bytes_max);
        let ended = |_| self.shared.ended();
        let message = self.shared.messages.clone().acquire_owned().await.map_err(ended)?;
        let bytes = self.shared.bytes.clone().acquire_many_owned(share).await.map_err(ended)?;
        let (ack, receipt) = oneshot::channel();
        let pending = PendingPublish { publish, ack, _permits: [message, bytes] };
        self.queue.send(pending).map_err(|_| self.shared.ended())?;
        Ok(Receipt(receipt))
    }
}

impl Shared {
    /// Sets the server's limit; 0 if unknown.
    pub(super) fn set_max_message_bytes(&self, max_bytes: u64) {
        self.max_message_bytes.store(max_bytes, Ordering::Relaxed);
    }

    /// Fails all current and later publishes.
    pub(super) fn end(&self, why: Error) {
        // The first reason is kept.
        let _ = self.ended.set(why);
        self.messages.close();
        self.bytes.close();
    }

    fn ended(&self) -> Error {
        self.ended.get().cloned().unwrap_or(Error::Ended)
    }
}

/// A future of one publish's acknowledgement. Dropping it does not cancel the publish.
#[derive(Debug)]
#[must_use = "only an awaited receipt shows whether the message was published"]
pub struct Receipt(oneshot::Receiver<Result<Ack, Error>>);

impl Future for Receipt {
    type Output = Result<Ack, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|acked| acked.unwrap_or(Err(Error::Ended)))
    }
}

/// The reference that the acknowledgement repeats. All have the same length, so that a message's encoded length is known
/// before its number.
pub(super) fn reference(number: u64) -> String {
    format!("{number:016x}")
}

/// A unique idempotency key.
pub(super) fn new_idempotency_key() -> String {
    Uuid::new_v4().simple().to_string()
}

pub(super) fn request(publish: v1::Publish) -> v1::JoinRequest {
    v1::JoinRequest { request: Some(v1::join_request::Request::Publish(publish)) }
}

pub(super) fn validate_kind(kind: String) -> Result<String, Error> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if kind.len() <= KIND_MAX && kind.bytes().all(known) { Ok(kind) } else { Err(Error::Kind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn assert_pending<T>(future: impl Future<Output = T>) {
        assert!(tokio::time::timeout(Duration::from_secs(60), future).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn publish_waits_for_room_by_count_and_bytes() {
        let options = Options { in_flight_messages: 2, in_flight_bytes: 1000, ..Options::default() };
        let (publisher, mut queue, _) = Publisher::new(&options);
        let first = publisher.submit("", "a").await.unwrap();
        let _second = publisher.submit("", "b").await.unwrap();
        assert_pending(publisher.submit("", "c")).await;
        drop(queue.recv().await);
        assert!(matches!(first.await, Err(Error::Ended)));
        assert_pending(publisher.submit("", "x".repeat(950))).await;
        drop(queue.recv().await);
        let _larger_than_all_room = publisher.submit("", "x".repeat(5000)).await.unwrap();
        assert_pending(publisher.submit("", "d")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn end_of_session_fails_waiting_publishes() {
        let options = Options { in_flight_messages: 1, ..Options::default() };
        let (publisher, _queue, shared) = Publisher::new(&options);
        let _receipt = publisher.submit("", "a").await.unwrap();
        let other = publisher.clone();
        let waiting = tokio::spawn(async move { other.submit("", "b").await });
        tokio::task::yield_now().await;
        shared.end(Error::Contract("a test"));
        assert!(matches!(waiting.await.unwrap(), Err(Error::Contract(_))));
        assert!(matches!(publisher.submit("", "c").await, Err(Error::Contract(_))));
    }

    #[tokio::test]
    async fn invalid_publish_is_refused_locally() {
        let (publisher, _queue, shared) = Publisher::new(&Options::default());
        shared.set_max_message_bytes(200);
        assert!(matches!(publisher.submit("a b", "x").await, Err(Error::Kind)));
        assert!(matches!(publisher.submit("k".repeat(65), "x").await, Err(Error::Kind)));
        let overhead = match publisher.submit("k", "x".repeat(200)).await {
            Err(Error::TooLarge { bytes, max: 200 }) => bytes - 200,
            other => panic!("{other:?}"),
        };
        // Lengths under 128 take a byte less.
        assert!(publisher.submit("k", "x".repeat(200 - overhead as usize)).await.is_ok());
    }
}
