//! The caller's handles of a session: [`Session`] and [`Receiver`].

use super::connector::OpenCall;
use super::error::Error;
use super::options::Options;
use super::publisher::Publisher;
use super::types::{Incoming, Welcome};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::Stream;

/// What the session's task sends to the receiver: an item, the end, or the error that ends the session.
pub(super) type Delivered = Result<Option<Incoming>, Error>;

/// A membership in a room that publishes and receives over any number of calls.
#[derive(Debug)]
pub struct Session {
    publisher: Publisher,
    receiver: Receiver,
}

impl Session {
    pub(super) fn new(publisher: Publisher, receiver: Receiver) -> Self {
        Self { publisher, receiver }
    }

    /// The server's welcome to the session's first call.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        self.receiver.welcome()
    }

    /// The two halves. Dropping the publisher finishes the session; to receive only, keep it or use
    /// [`Client::subscribe`](super::Client::subscribe).
    #[must_use]
    pub fn split(self) -> (Publisher, Receiver) {
        (self.publisher, self.receiver)
    }
}

/// The receiving half of a session; as a [`Stream`] it ends after its first error.
///
/// The caller must keep receiving: with `events_ahead` items queued, the session stops reading its call. Acknowledgements
/// arrive on the same call, so they stop too, and the server eventually disconnects a slow client. The session
/// reconnects when the caller resumes, and a [`Gap`](super::Gap) reports events that were lost meanwhile. To publish
/// only, drop the receiver: received events are then discarded, and acknowledgements continue.
#[derive(Debug)]
pub struct Receiver {
    incoming: mpsc::Receiver<Delivered>,
    welcome: Welcome,
    has_ended: bool,
}

impl Receiver {
    /// The receiver of a session that starts with this call, and the sender for its task.
    pub(super) fn new(call: &OpenCall, options: &Options) -> (Self, mpsc::Sender<Delivered>) {
        let (sender, incoming) = mpsc::channel(options.events_ahead.clamp(1, Semaphore::MAX_PERMITS));
        (Self { incoming, welcome: call.welcome.clone(), has_ended: false }, sender)
    }

    /// The server's welcome to the session's first call.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The next item; `None` once the session has finished. Cancel safe.
    ///
    /// # Errors
    /// What ended the session: [`Error::Refused`], [`Error::GaveUp`], [`Error::Contract`]; afterwards `None`.
    pub async fn receive(&mut self) -> Result<Option<Incoming>, Error> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Delivered> {
        if self.has_ended {
            return Poll::Ready(Ok(None));
        }
        // The task always sends an end. If the channel closes without one, its runtime was shut down.
        let delivered = ready!(self.incoming.poll_recv(cx)).unwrap_or(Err(Error::Ended));
        self.has_ended = !matches!(delivered, Ok(Some(_)));
        Poll::Ready(delivered)
    }
}

impl Stream for Receiver {
    type Item = Result<Incoming, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_receive(cx).map(Result::transpose)
    }
}
