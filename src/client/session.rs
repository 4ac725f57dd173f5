//! A place in a room that outlives its calls, in the caller's hands.

use super::call::Call;
use super::publisher::Publisher;
use super::types::{Incoming, Welcome};
use super::{Error, Options};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::Stream;

/// What goes from the session's task to the receiver: something, the end, or the error that is the end.
pub(super) type Handed = Result<Option<Incoming>, Error>;

/// A place in a room: whoever has it says things and hears what is said, over as many calls as it takes.
#[derive(Debug)]
pub struct Session {
    publisher: Publisher,
    receiver: Receiver,
}

impl Session {
    pub(super) fn new(publisher: Publisher, receiver: Receiver) -> Self {
        Self { publisher, receiver }
    }

    /// What the server said when the session began.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        self.receiver.welcome()
    }

    /// The two halves. Dropping the publisher finishes the session; who only wants to hear keeps it, or asks for
    /// [`Client::subscribe`](super::Client::subscribe) instead.
    #[must_use]
    pub fn split(self) -> (Publisher, Receiver) {
        (self.publisher, self.receiver)
    }
}

/// The hearing half of a session; as a [`Stream`] it ends after its first error.
///
/// It must be taken from: when as much waits for the caller as the options allow (`events_ahead`), the session stops
/// reading its call. Then acknowledgements, which come the same way, wait too, and in the end the server sends a slow
/// client away; the session comes back when the caller goes on, and a [`Gap`](super::Gap) tells if that was too late.
/// Who only wants to publish drops the receiver: what is heard is then thrown away, and acknowledgements go on.
#[derive(Debug)]
pub struct Receiver {
    handed: mpsc::Receiver<Handed>,
    welcome: Welcome,
    has_ended: bool,
}

impl Receiver {
    /// The receiver of a session that begins with this call, and where its task hands things over.
    pub(super) fn new(call: &Call, options: &Options) -> (Self, mpsc::Sender<Handed>) {
        let (sender, handed) = mpsc::channel(options.events_ahead.clamp(1, Semaphore::MAX_PERMITS));
        (Self { handed, welcome: call.welcome.clone(), has_ended: false }, sender)
    }

    /// What the server said when the session began.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The next that there is to hear; `None` once the session has finished. Loses nothing when it is cancelled.
    ///
    /// # Errors
    /// What ended the session: [`Error::Refused`], [`Error::GaveUp`], [`Error::Contract`]; after that there is nothing.
    pub async fn receive(&mut self) -> Result<Option<Incoming>, Error> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Handed> {
        if self.has_ended {
            return Poll::Ready(Ok(None));
        }
        // A task that is gone without a word has not finished: its runtime has.
        let handed = ready!(self.handed.poll_recv(cx)).unwrap_or(Err(Error::Ended));
        self.has_ended = !matches!(handed, Ok(Some(_)));
        Poll::Ready(handed)
    }
}

impl Stream for Receiver {
    type Item = Result<Incoming, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_receive(cx).map(Result::transpose)
    }
}
