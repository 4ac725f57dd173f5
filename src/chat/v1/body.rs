//! The response body of a `Join` or `Subscribe` call: welcome, the room's messages, goodbye, and the status.

use crate::chat::admission::ConnectionGuard;
use crate::chat::message::Message;
use crate::chat::message::position;
use crate::chat::response::trailers;
use crate::chat::status;
use crate::hub::{DisconnectReason, Gap, GapReason, Next, Position, Subscription};
use crate::rpc::with_reason;
use crate::transport::Chunk;
use crate::wire::v1::{self as api, join_response::Response};
use crate::wire::{self};
use bytes::{Bytes, BytesMut};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tonic::Status;

/// A client that has joined, as its task hands it to the response body.
pub(super) struct JoinedRoom {
    pub(super) guard: ConnectionGuard,
    pub(super) subscription: Subscription<Message>,
    pub(super) gap: Option<Gap>,
    pub(super) max_message_bytes: usize,
    /// The status of an invalid request, which the task sets before it disconnects the client.
    pub(super) fault: Arc<OnceLock<Status>>,
}

pub(super) type JoinOutcome = Result<JoinedRoom, Status>;

/// The response body of a call.
pub struct V1Body {
    stage: Stage,
}

enum Stage {
    /// The client has not joined.
    Joining(ReaderTask, oneshot::Receiver<JoinOutcome>),
    Joined(Box<Joined>),
    /// Only the status is left.
    Ending(Status),
    Ended,
}

struct Joined {
    // Before the subscription, so that it is dropped while the connection is still there.
    _guard: ConnectionGuard,
    subscription: Subscription<Message>,
    fault: Arc<OnceLock<Status>>,
    /// The welcome, and the gap event that goes with it, until they are sent.
    first: Option<(Bytes, Option<Gap>)>,
}

/// The task that reads the client's requests; it ends with the body.
struct ReaderTask(Option<AbortHandle>);

impl Drop for ReaderTask {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl V1Body {
    /// Starts the client's task, which sends the outcome of its join.
    pub(super) fn spawn<F>(task: impl FnOnce(oneshot::Sender<JoinOutcome>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, outcome) = oneshot::channel();
        let task = tokio::spawn(task(sender));
        Self { stage: Stage::Joining(ReaderTask(Some(task.abort_handle())), outcome) }
    }

    /// The next whole messages that fit `capacity` bytes, or the status.
    pub(in crate::chat) fn poll_chunk(&mut self, cx: &mut Context<'_>, capacity: usize) -> Poll<Chunk> {
        loop {
            match &mut self.stage {
                Stage::Joining(task, outcome) => {
                    let outcome = ready!(Pin::new(outcome).poll(cx));
                    let outcome =
                        outcome.unwrap_or_else(|_| Err(Status::internal("the call's task has ended")));
                    self.stage = match outcome {
                        Ok(joined) => Stage::Joined(Box::new(Joined::new(joined, task.0.take()))),
                        Err(status) => Stage::Ending(status),
                    };
                }
                Stage::Joined(joined) => match ready!(joined.poll_next(cx, capacity)) {
                    Output::Data(data) => return Poll::Ready(Chunk::Data(data)),
                    Output::NeedsCapacity(needed) => return Poll::Ready(Chunk::NeedsCapacity(needed)),
                    Output::End(goodbye, status) => {
                        self.stage = Stage::Ending(status);
                        if goodbye.len() <= capacity {
                            return Poll::Ready(Chunk::Data(goodbye));
                        }
                        // The status alone carries the same.
                    }
                },
                Stage::Ending(status) => {
                    let trailers = trailers(status);
                    self.stage = Stage::Ended;
                    return Poll::Ready(Chunk::Trailers(trailers));
                }
                Stage::Ended => return Poll::Ready(Chunk::End),
            }
        }
    }
}

/// What a connection sends next.
enum Output {
    Data(Bytes),
    NeedsCapacity(usize),
    /// The goodbye as a frame, and the status.
    End(Bytes, Status),
}

impl Joined {
    fn new(joined: JoinedRoom, task: Option<AbortHandle>) -> Self {
        let JoinedRoom { mut guard, subscription, gap, max_message_bytes, fault } = joined;
        guard.reader = task;
        let welcome = api::Welcome {
            connection_id: subscription.member().id().to_string(),
            room: subscription.room().name().to_string(),
            position: Some(position(subscription.delivered())),
            max_message_bytes: max_message_bytes as u64,
        };
        let mut first = BytesMut::new();
        append(Response::Welcome(welcome), &mut first);
        if let Some(gap) = &gap {
            append(gap_response(gap), &mut first);
        }
        Self { _guard: guard, subscription, fault, first: Some((first.freeze(), gap)) }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, capacity: usize) -> Poll<Output> {
        if let Some((first, _)) = self.first.take_if(|(first, _)| first.len() <= capacity) {
            return Poll::Ready(Output::Data(first));
        }
        // Before the welcome nothing else is sent but the status.
        let capacity = if self.first.is_some() { 0 } else { capacity };
        let next = match (self.subscription.poll_next(cx, capacity), &self.first) {
            (Poll::Ready(next), _) => next,
            (Poll::Pending, None) => return Poll::Pending,
            (Poll::Pending, Some((first, _))) => return Poll::Ready(Output::NeedsCapacity(first.len())),
        };
        Poll::Ready(match (next, &self.first) {
            (Next::End, _) => {
                let (goodbye, status) = self.goodbye();
                let mut out = BytesMut::new();
                append(Response::Goodbye(goodbye), &mut out);
                Output::End(out.freeze(), status)
            }
            (_, Some((first, _))) => Output::NeedsCapacity(first.len()),
            (Next::Frames(frames), None) => Output::Data(frames),
            (Next::NeedsCapacity(needed), None) => Output::NeedsCapacity(needed),
            (Next::Gap(gap), None) => {
                let mut out = BytesMut::new();
                append(gap_response(&gap), &mut out);
                Output::Data(out.freeze())
            }
        })
    }

    /// The position up to which the client has received everything, or the gap that reports the rest.
    fn delivered(&self) -> Position {
        match &self.first {
            Some((_, Some(gap))) => Position { offset: gap.from.offset.saturating_sub(1), ..gap.from },
            _ => self.subscription.delivered(),
        }
    }

    fn goodbye(&self) -> (api::Goodbye, Status) {
        let delivered = self.delivered();
        let Some(disconnect) = self.subscription.disconnected() else {
            return (api::Goodbye::default(), Status::ok(""));
        };
        let retry = status::retry_of(disconnect.reason);
        let goodbye = api::Goodbye {
            reason: disconnect.reason.to_string(),
            // It is some seconds.
            retry_after: retry.and_then(|retry| retry.try_into().ok()),
            position: Some(position(delivered)),
        };
        let fault = self.fault.get().filter(|_| disconnect.reason == DisconnectReason::InvalidMessage);
        let status = match fault {
            Some(fault) => {
                let reason = disconnect.reason.as_str().to_uppercase();
                with_reason(fault, &reason, &[("position", delivered.to_string())])
            }
            None => status::of_disconnect(disconnect, delivered, retry),
        };
        (goodbye, status)
    }
}

fn append(response: Response, out: &mut BytesMut) {
    wire::frame(&api::JoinResponse { response: Some(response) }, out);
}

pub(super) fn gap(gap: &Gap) -> api::Gap {
    use api::gap::Reason;
    let reason = match gap.reason {
        GapReason::Retention => Reason::Retention,
        GapReason::Epoch => Reason::Epoch,
        GapReason::Slow => Reason::Slow,
    };
    api::Gap {
        from: Some(position(gap.from)),
        to: Some(position(gap.to)),
        count: gap.count(),
        reason: reason.into(),
    }
}

fn gap_response(missing: &Gap) -> Response {
    Response::Gap(gap(missing))
}
