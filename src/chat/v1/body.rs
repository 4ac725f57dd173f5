//! The response body of a `Join` or `Subscribe` call: welcome, what the client is owed, goodbye, and the status.

use crate::chat::reply::trailers;
use crate::chat::said::Said;
use crate::chat::said::position;
use crate::chat::seat::Seat;
use crate::chat::status;
use crate::hub::{Departure, Gap, Missing, Next, Subscription};
use crate::rpc::with_reason;
use crate::wire::v1::{self as api, join_response::Response};
use crate::wire::{self};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tonic::Status;

/// A client that is in, as its task tells the body.
pub(super) struct Opening {
    pub(super) seat: Seat,
    pub(super) subscription: Subscription<Said>,
    pub(super) gap: Option<Gap>,
    pub(super) max_message_bytes: usize,
    /// What the client's task found wrong with what it said, before it ended the connection.
    pub(super) fault: Arc<OnceLock<Status>>,
}

pub(super) type Told = Result<Opening, Status>;

/// The response body of a call.
pub struct V1Body {
    stage: Stage,
}

enum Stage {
    /// The client has not said hello.
    Waiting(Task, oneshot::Receiver<Told>),
    In(Box<In>),
    /// What is left to say is the status.
    Leaving(Status),
    Ended,
}

struct In {
    // Before the subscription, so that it is dropped while the connection is still there.
    _seat: Seat,
    subscription: Subscription<Said>,
    fault: Arc<OnceLock<Status>>,
    first: Option<Bytes>,
}

/// The task that reads what the client says; it ends with the body.
struct Task(Option<AbortHandle>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl V1Body {
    /// Starts the client's task, which tells when it is in.
    pub(super) fn spawn<F>(task: impl FnOnce(oneshot::Sender<Told>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let task = tokio::spawn(task(tell));
        Self { stage: Stage::Waiting(Task(Some(task.abort_handle())), told) }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            match &mut self.stage {
                Stage::Waiting(task, told) => {
                    let told = ready!(Pin::new(told).poll(cx));
                    let told =
                        told.unwrap_or_else(|_| Err(Status::internal("the call has no task any more")));
                    self.stage = match told {
                        Ok(opening) => Stage::In(Box::new(In::new(opening, task.0.take()))),
                        Err(status) => Stage::Leaving(status),
                    };
                }
                Stage::In(seated) => {
                    let (frames, status) = ready!(seated.next(cx));
                    if let Some(status) = status {
                        self.stage = Stage::Leaving(status);
                    }
                    return Poll::Ready(Some(Frame::data(frames)));
                }
                Stage::Leaving(status) => {
                    let trailers = trailers(status);
                    self.stage = Stage::Ended;
                    return Poll::Ready(Some(Frame::trailers(trailers)));
                }
                Stage::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl In {
    fn new(opening: Opening, task: Option<AbortHandle>) -> Self {
        let Opening { mut seat, subscription, gap, max_message_bytes, fault } = opening;
        seat.listener = task;
        let welcome = api::Welcome {
            connection_id: subscription.member().id().to_string(),
            room: subscription.room().name().to_string(),
            position: Some(position(subscription.delivered())),
            max_message_bytes: max_message_bytes as u64,
        };
        let mut first = BytesMut::new();
        say(Response::Welcome(welcome), &mut first);
        if let Some(gap) = gap {
            say(of_gap(&gap), &mut first);
        }
        Self { _seat: seat, subscription, fault, first: Some(first.freeze()) }
    }

    /// The next frames, and the status if these are the last.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<(Bytes, Option<Status>)> {
        if let Some(first) = self.first.take() {
            return Poll::Ready((first, None));
        }
        self.subscription.poll_next(cx).map(|next| match next {
            Next::Frames(frames) => (frames, None),
            Next::Gap(gap) => {
                let mut out = BytesMut::new();
                say(of_gap(&gap), &mut out);
                (out.freeze(), None)
            }
            Next::End => {
                let (goodbye, status) = self.last_words();
                let mut out = BytesMut::new();
                say(Response::Goodbye(goodbye), &mut out);
                (out.freeze(), Some(status))
            }
        })
    }

    fn last_words(&self) -> (api::Goodbye, Status) {
        let delivered = self.subscription.delivered();
        let Some(ending) = self.subscription.ending() else {
            return (api::Goodbye::default(), Status::ok(""));
        };
        let retry = status::retry_of(ending.departure);
        let goodbye = api::Goodbye {
            reason: ending.departure.to_string(),
            // It is some seconds.
            retry_after: retry.and_then(|retry| retry.try_into().ok()),
            position: Some(position(delivered)),
        };
        let fault = self.fault.get().filter(|_| ending.departure == Departure::InvalidMessage);
        let status = match fault {
            Some(fault) => {
                let reason = ending.departure.as_str().to_uppercase();
                with_reason(fault, &reason, &[("position", delivered.to_string())])
            }
            None => status::of_ending(ending, delivered, retry),
        };
        (goodbye, status)
    }
}

fn say(response: Response, out: &mut BytesMut) {
    wire::frame(&api::JoinResponse { response: Some(response) }, out);
}

pub(super) fn gap(gap: &Gap) -> api::Gap {
    use api::gap::Reason;
    let reason = match gap.why {
        Missing::Retention => Reason::Retention,
        Missing::Epoch => Reason::Epoch,
        Missing::Slow => Reason::Slow,
    };
    api::Gap {
        from: Some(position(gap.from)),
        to: Some(position(gap.to)),
        count: gap.count(),
        reason: reason.into(),
    }
}

fn of_gap(missing: &Gap) -> Response {
    Response::Gap(gap(missing))
}

impl Body for V1Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.next(cx).map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }
}
