//! A request whose answer is complete before the peer has said all.
//!
//! HTTP/2 has the server reset such a stream, with `NO_ERROR` (RFC 9113, 8.1), and h2 does so as soon as the request's
//! body is dropped. Balancers make a `CANCEL` of it for their own client (`HAProxy` before 3.0 does), and gRPC's C core
//! then tells its caller CANCELLED and not the status. So the request is held a moment longer: the peer, who has the
//! answer, ends it by itself.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a peer may take to end its request once it has the answer. One that does not is reset, as ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a call's request and its response know of each other.
#[derive(Clone, Default)]
pub(super) struct Exchange(Arc<parking_lot::Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Open,
    /// Nobody wants the rest of the request, and there is no answer yet.
    Unwanted(Incoming),
    Answered,
}

impl Exchange {
    /// The answer is complete.
    pub(super) fn answered(&self) {
        if let State::Unwanted(body) = std::mem::replace(&mut *self.0.lock(), State::Answered) {
            linger(body);
        }
    }

    fn unwanted(&self, body: Incoming) {
        let mut state = self.0.lock();
        match *state {
            State::Answered => linger(body),
            _ => *state = State::Unwanted(body),
        }
    }
}

fn linger(mut body: Incoming) {
    // Without a runtime the transport is being dropped, too.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(tokio::time::timeout(PATIENCE, async move {
            while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
        }));
    }
}

/// A request's body.
pub(super) struct Said {
    body: Option<Incoming>,
    exchange: Exchange,
}

impl Said {
    pub(super) fn new(body: Incoming, exchange: Exchange) -> Self {
        Self { body: Some(body), exchange }
    }
}

impl Body for Said {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            self.exchange.unwanted(body);
        }
    }
}
