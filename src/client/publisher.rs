//! The saying half of a session, in the callers' hands.
//!
//! Promises that what waits for acknowledgement is bounded, and that a publish which cannot be sent is refused before
//! it harms the session.

use super::types::{Ack, Body};
use super::{Error, Options};
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

/// Says things in a room. Cheap to clone; what one clone says, is said in its order.
///
/// When the last clone is dropped, the session finishes: what was published is still sent and acknowledged, the
/// [`Receiver`](super::Receiver) gets everything up to the session's own last message, and then ends.
#[derive(Clone, Debug)]
pub struct Publisher {
    said: mpsc::UnboundedSender<Said>,
    shared: Arc<Shared>,
}

/// What publishers and the session's task both know.
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
pub(super) struct Said {
    pub(super) publish: v1::Publish,
    pub(super) acked: oneshot::Sender<Result<Ack, Error>>,
    _room: [OwnedSemaphorePermit; 2],
}

impl Publisher {
    /// A publisher, and where the session's task gets what it says.
    pub(super) fn new(options: &Options) -> (Self, mpsc::UnboundedReceiver<Said>, Arc<Shared>) {
        let bytes_max = options.in_flight_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let messages = options.in_flight_messages.clamp(1, Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            messages: Arc::new(Semaphore::new(messages)),
            bytes: Arc::new(Semaphore::new(bytes_max)),
            bytes_max: bytes_max as u32,
            max_message_bytes: AtomicU64::new(0),
            ended: OnceLock::new(),
        });
        // Bounded by the permits that everything in it holds.
        let (said, receiver) = mpsc::unbounded_channel();
        (Self { said, shared: shared.clone() }, receiver, shared)
    }

    /// Says something, and waits until it has its position.
    ///
    /// `kind` is what sort of thing it is, for filters: 1 to 64 of `A-Z a-z 0-9 . _ -`; "chat" if empty.
    ///
    /// It is said once, also when the session has to reconnect meanwhile: it is sent again with the same idempotency
    /// key, and the room says it again only if it does not retain the first any more, or has another epoch. A future
    /// that is dropped while it waits may or may not have been said.
    ///
    /// # Errors
    /// [`Error::Kind`] and [`Error::TooLarge`], which leave the session as it is; whatever ends the session.
    pub async fn publish(&self, kind: impl Into<String>, body: impl Into<Body>) -> Result<Ack, Error> {
        self.submit(kind, body).await?.await
    }

    /// The same without waiting for the position: returns when there is room for the message among those that wait for
    /// acknowledgement (`in_flight_messages`, `in_flight_bytes`). From then on the session sees to it, whether the
    /// receipt is kept or dropped; once nobody has the session or any receipt of it, until its call is lost.
    ///
    /// # Errors
    /// As [`Publisher::publish`]; what happens later is in the receipt.
    pub async fn submit(&self, kind: impl Into<String>, body: impl Into<Body>) -> Result<Receipt, Error> {
        let publish = v1::Publish {
            reference: reference(0),
            kind: checked_kind(kind.into())?,
            body: Some(body.into().into()),
            idempotency_key: fresh_key(),
        };
        let bytes = request(publish.clone()).encoded_len() as u64;
        let max = self.shared.max_message_bytes.load(Ordering::Relaxed);
        if max > 0 && bytes > max {
            return Err(Error::TooLarge { bytes, max });
        }
        // One that is larger than all the room there is takes all the room there is.
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.shared.bytes_max);
        let ended = |_| self.shared.ended();
        let message = self.shared.messages.clone().acquire_owned().await.map_err(ended)?;
        let bytes = self.shared.bytes.clone().acquire_many_owned(share).await.map_err(ended)?;
        let (acked, receipt) = oneshot::channel();
        let said = Said { publish, acked, _room: [message, bytes] };
        self.said.send(said).map_err(|_| self.shared.ended())?;
        Ok(Receipt(receipt))
    }
}

impl Shared {
    /// The server takes messages up to this.
    pub(super) fn limit_messages(&self, max_bytes: u64) {
        self.max_message_bytes.store(max_bytes, Ordering::Relaxed);
    }

    /// Nothing can be said any more.
    pub(super) fn end(&self, why: Error) {
        // The first reason stands.
        let _ = self.ended.set(why);
        self.messages.close();
        self.bytes.close();
    }

    fn ended(&self) -> Error {
        self.ended.get().cloned().unwrap_or(Error::Ended)
    }
}

/// Becomes the acknowledgement of one publish. Dropping it takes nothing back.
#[derive(Debug)]
#[must_use = "whether something was said is known when its receipt has been awaited"]
pub struct Receipt(oneshot::Receiver<Result<Ack, Error>>);

impl Future for Receipt {
    type Output = Result<Ack, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|acked| acked.unwrap_or(Err(Error::Ended)))
    }
}

/// The word that comes back in the acknowledgement. All are of one length, so that a message's length is known before
/// its number.
pub(super) fn reference(number: u64) -> String {
    format!("{number:016x}")
}

/// A key that nobody else has.
pub(super) fn fresh_key() -> String {
    Uuid::new_v4().simple().to_string()
}

pub(super) fn request(publish: v1::Publish) -> v1::JoinRequest {
    v1::JoinRequest { request: Some(v1::join_request::Request::Publish(publish)) }
}

pub(super) fn checked_kind(kind: String) -> Result<String, Error> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if kind.len() <= KIND_MAX && kind.bytes().all(known) { Ok(kind) } else { Err(Error::Kind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn must_wait<T>(future: impl Future<Output = T>) {
        assert!(tokio::time::timeout(Duration::from_secs(60), future).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_publish_waits_until_there_is_room_by_count_and_by_bytes() {
        let options = Options { in_flight_messages: 2, in_flight_bytes: 1000, ..Options::default() };
        let (publisher, mut said, _) = Publisher::new(&options);
        let first = publisher.submit("", "a").await.unwrap();
        let _second = publisher.submit("", "b").await.unwrap();
        must_wait(publisher.submit("", "c")).await;
        drop(said.recv().await);
        assert!(matches!(first.await, Err(Error::Ended)));
        must_wait(publisher.submit("", "x".repeat(950))).await;
        drop(said.recv().await);
        let _larger_than_all_room = publisher.submit("", "x".repeat(5000)).await.unwrap();
        must_wait(publisher.submit("", "d")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_room_is_told_the_end() {
        let options = Options { in_flight_messages: 1, ..Options::default() };
        let (publisher, _said, shared) = Publisher::new(&options);
        let _receipt = publisher.submit("", "a").await.unwrap();
        let other = publisher.clone();
        let waiting = tokio::spawn(async move { other.submit("", "b").await });
        tokio::task::yield_now().await;
        shared.end(Error::Contract("a test"));
        assert!(matches!(waiting.await.unwrap(), Err(Error::Contract(_))));
        assert!(matches!(publisher.submit("", "c").await, Err(Error::Contract(_))));
    }

    #[tokio::test]
    async fn what_the_server_would_not_take_is_refused_here() {
        let (publisher, _said, shared) = Publisher::new(&Options::default());
        shared.limit_messages(200);
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
