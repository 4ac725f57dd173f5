//! The response body of a `Join` or `Subscribe` call: welcome, what the client is owed, goodbye, and the status.

use crate::chat::reply::trailers;
use crate::chat::said::Said;
use crate::chat::said::position;
use crate::chat::seat::Seat;
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
    /// The welcome, and the gap event that goes with it, until they are sent.
    first: Option<(Bytes, Option<Gap>)>,
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

    /// The next whole messages that fit `room` bytes, or the status.
    pub(in crate::chat) fn poll_chunk(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Chunk> {
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
                Stage::In(seated) => match ready!(seated.poll_next(cx, room)) {
                    Sent::Data(data) => return Poll::Ready(Chunk::Data(data)),
                    Sent::NoRoom(needed) => return Poll::Ready(Chunk::NoRoom(needed)),
                    Sent::End(goodbye, status) => {
                        self.stage = Stage::Leaving(status);
                        if goodbye.len() <= room {
                            return Poll::Ready(Chunk::Data(goodbye));
                        }
                        // The status alone says the same.
                    }
                },
                Stage::Leaving(status) => {
                    let trailers = trailers(status);
                    self.stage = Stage::Ended;
                    return Poll::Ready(Chunk::Trailers(trailers));
                }
                Stage::Ended => return Poll::Ready(Chunk::End),
            }
        }
    }
}

/// What a connection has for its client next.
enum Sent {
    Data(Bytes),
    NoRoom(usize),
    /// The goodbye as a frame, and the status.
    End(Bytes, Status),
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
        if let Some(gap) = &gap {
            say(of_gap(gap), &mut first);
        }
        Self { _seat: seat, subscription, fault, first: Some((first.freeze(), gap)) }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Sent> {
        if let Some((first, _)) = self.first.take_if(|(first, _)| first.len() <= room) {
            return Poll::Ready(Sent::Data(first));
        }
        // Before the welcome nothing else is sent but the status.
        let rest_of_room = if self.first.is_some() { 0 } else { room };
        let next = match (self.subscription.poll_next(cx, rest_of_room), &self.first) {
            (Poll::Ready(next), _) => next,
            (Poll::Pending, None) => return Poll::Pending,
            (Poll::Pending, Some((first, _))) => return Poll::Ready(Sent::NoRoom(first.len())),
        };
        Poll::Ready(match (next, &self.first) {
            (Next::End, _) => {
                let (goodbye, status) = self.last_words();
                let mut out = BytesMut::new();
                say(Response::Goodbye(goodbye), &mut out);
                Sent::End(out.freeze(), status)
            }
            (_, Some((first, _))) => Sent::NoRoom(first.len()),
            (Next::Frames(frames), None) => Sent::Data(frames),
            (Next::NoRoom(needed), None) => Sent::NoRoom(needed),
            (Next::Gap(gap), None) => {
                let mut out = BytesMut::new();
                say(of_gap(&gap), &mut out);
                Sent::Data(out.freeze())
            }
        })
    }

    /// Up to where the client has received everything, or has been told what it does not get.
    fn delivered(&self) -> Position {
        match &self.first {
            Some((_, Some(gap))) => Position { offset: gap.from.offset.saturating_sub(1), ..gap.from },
            _ => self.subscription.delivered(),
        }
    }

    fn last_words(&self) -> (api::Goodbye, Status) {
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

fn say(response: Response, out: &mut BytesMut) {
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

fn of_gap(missing: &Gap) -> Response {
    Response::Gap(gap(missing))
}
