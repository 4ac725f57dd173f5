//! The request side of a call: hello, then publishes.
//!
//! A `Join` or `Subscribe` call has a task that reads its requests. The task joins the room, hands the subscription to the
//! response body ([`super::body`]), and publishes until the client half-closes or sends an invalid request.

use super::body::{JoinOutcome, JoinedRoom};
use super::filter::KindFilter;
use super::requests;
use crate::chat::admission::{Admission, Admitted, ClientCall};
use crate::chat::codec::{self, Fault};
use crate::chat::message::{Message, Sender, V1, position};
use crate::chat::status;
use crate::hub::{DisconnectReason, Hub, Publisher, Refused, RoomName, Start, SubscribeOptions, View};
use crate::rpc::{invalid, invalid_message, no_request, refused, retry_after};
use crate::telemetry::trace::RpcSpan;
use crate::wire::v1::{self as api, join_request::Request};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

/// Time for the first request once the call is open.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// What the calls of a client have in common: where it is admitted, and which room its metadata names.
pub(super) struct CallContext {
    pub(super) admission: Admission,
    pub(super) call: ClientCall,
    pub(super) named_room: Option<RoomName>,
}

/// The task of a `Join` call.
pub(super) async fn join(
    context: CallContext,
    mut requests: Streaming<api::JoinRequest>,
    outcome: oneshot::Sender<JoinOutcome>,
) {
    let max = context.admission.max_message_bytes;
    let first = first(&mut requests, max, &context.admission.hub).await;
    let hello = match first.map(|first| first.request) {
        Ok(Some(Request::Hello(hello))) => Ok(hello),
        Ok(Some(Request::Publish(_))) => Err(invalid("publish", "the first request must be hello")),
        Ok(None) => Err(invalid("request", "the first request must be hello")),
        Err(status) => Err(status),
    };
    let has_published = Arc::new(AtomicBool::new(false));
    let admitted = hello.and_then(|hello| context.admit(&hello, &has_published, "hello."));
    // The context has the call's metadata, which nothing needs from here on.
    drop(context);
    let Some((publisher, span, fault)) = hand_over(admitted, max, outcome) else { return };
    Session { requests, publisher, span, fault, has_published, max }.run().await;
}

/// The task of a `Subscribe` call.
pub(super) async fn subscribe(
    context: CallContext,
    mut requests: Streaming<api::SubscribeRequest>,
    outcome: oneshot::Sender<JoinOutcome>,
) {
    let max = context.admission.max_message_bytes;
    let hello = only(&mut requests, max, &context.admission.hub).await.map(|request| {
        let api::SubscribeRequest { room, display_name, start, kinds, presence } = request;
        api::Hello { room, display_name, start, kinds, suppress_echo: false, presence }
    });
    let admitted = hello.and_then(|hello| context.admit(&hello, &Arc::default(), ""));
    // The client sends nothing more, and stays until it cancels the call.
    drop(hand_over(admitted, max, outcome));
}

/// The only request of a call, once the client has half-closed. The transport refuses a second one.
pub(super) async fn only<T>(
    requests: &mut Streaming<T>,
    max: usize,
    hub: &Hub<Message>,
) -> Result<T, Status> {
    let request = first(requests, max, hub).await?;
    next(requests, max, hub).await.map(|_| request)
}

async fn first<T>(requests: &mut Streaming<T>, max: usize, hub: &Hub<Message>) -> Result<T, Status> {
    let first = next(requests, max, hub).await?;
    first.ok_or_else(|| invalid("request", "the call ended without one"))
}

/// The next request, unless the server shuts down before it comes.
async fn next<T>(requests: &mut Streaming<T>, max: usize, hub: &Hub<Message>) -> Result<Option<T>, Status> {
    let next = tokio::select! {
        biased;
        () = hub.wait_until_shut() => return Err(status::of_refusal(&Refused::Closing)),
        next = timeout(HELLO_DEADLINE, requests.message()) => next,
    };
    let next = next.map_err(|_| no_request(HELLO_DEADLINE))?;
    next.map_err(|status| {
        if status.code() == Code::Unimplemented {
            // The transport's refusal of a second request.
            return status;
        }
        match Fault::from(status) {
            Fault::TooLarge => {
                let reason = DisconnectReason::MessageTooLarge.as_str().to_uppercase();
                refused(Code::ResourceExhausted, codec::too_large(max), &reason, &[], None)
            }
            Fault::Late(why) => refused(Code::DeadlineExceeded, why, "REQUEST_INCOMPLETE", &[], None),
            Fault::Invalid(why) => invalid_message(why),
            Fault::Broken => Status::cancelled("the call was cancelled"),
        }
    })
}

impl CallContext {
    /// Joins the client as its hello asks; `path` is where errors find the hello in the request.
    fn admit(
        &self,
        hello: &api::Hello,
        has_published: &Arc<AtomicBool>,
        path: &str,
    ) -> Result<Admitted, Status> {
        let at = |field: &str| format!("{path}{field}");
        let room = requests::room(&at("room"), &hello.room, self.named_room.as_ref())?;
        let name = requests::name(&at("display_name"), &hello.display_name)?;
        let client = self.call.client_info(name);
        let (start, strict) = requests::start(&at("start"), hello.start.as_ref(), Start::Tail)?;
        let filter = KindFilter {
            me: client.id,
            kinds: requests::kinds(&at("kinds"), &hello.kinds)?,
            echo: !hello.suppress_echo,
            presence: hello.presence,
            has_published: Arc::clone(has_published),
        };
        let view = View::filtered(V1, filter);
        let options = SubscribeOptions { start, strict, view, presence: hello.presence, gaps: true };
        self.admission.admit(&self.call, &room, client, options)
    }

    /// Publishes one message for a client that does not join.
    pub(super) async fn publish(&self, request: api::PublishRequest) -> Result<api::PublishResponse, Status> {
        let api::PublishRequest { room, display_name, kind, body, idempotency_key } = request;
        let room = requests::room("room", &room, self.named_room.as_ref())?;
        let span = self.call.span();
        if let Some(span) = span {
            span.record_room(&room);
        }
        let name = requests::name("display_name", &display_name)?;
        let sender = Sender::new(None, &name);
        let publish = api::Publish { reference: String::new(), kind, body, idempotency_key };
        let message = requests::message("", publish, &sender)?.with_span(span.map(RpcSpan::begin_message));
        let (message, receipt) = message.with_receipt();
        let publisher = self.admission.hub.one_shot_publisher(&room, &self.call.client_info(name));
        let publisher = publisher.map_err(|refusal| status::of_refusal(&refusal))?;
        publisher.publish(V1, message).map_err(|_| {
            let words = "the room's inbox is full";
            refused(Code::ResourceExhausted, words, "ROOM_BUSY", &[], Some(retry_after()))
        })?;
        let receipt = receipt.await.map_err(|_| Status::internal("the room has gone"))?;
        Ok(api::PublishResponse { position: Some(position(receipt.position)), repeated: receipt.repeated })
    }
}

/// What the task of a joined client keeps; the third is where it leaves the status of an invalid request.
type RequestSide = (Publisher<Message>, Option<RpcSpan>, Arc<OnceLock<Status>>);

/// Hands the subscription, or the refusal, to the response body.
fn hand_over(
    admitted: Result<Admitted, Status>,
    max: usize,
    outcome: oneshot::Sender<JoinOutcome>,
) -> Option<RequestSide> {
    // Without a body the client has gone: dropping the guard leaves the room.
    match admitted {
        Ok(Admitted { publisher, subscription, guard, gap, span }) => {
            let fault = Arc::new(OnceLock::new());
            let joined =
                JoinedRoom { guard, subscription, gap, max_message_bytes: max, fault: Arc::clone(&fault) };
            outcome.send(Ok(joined)).is_ok().then_some((publisher, span, fault))
        }
        Err(status) => {
            let _ = outcome.send(Err(status));
            None
        }
    }
}

/// A client that has joined.
struct Session {
    requests: Streaming<api::JoinRequest>,
    publisher: Publisher<Message>,
    span: Option<RpcSpan>,
    fault: Arc<OnceLock<Status>>,
    has_published: Arc<AtomicBool>,
    max: usize,
}

impl Session {
    /// Publishes the client's messages until it half-closes or sends an invalid request.
    async fn run(mut self) {
        let member = Arc::clone(self.publisher.member());
        let sender = Sender::new(Some(member.id()), member.name());
        loop {
            let request = self.requests.message().await.map(|request| request.map(|r| r.request));
            let message = match request {
                Ok(None) => return self.publisher.finish(),
                Ok(Some(Some(Request::Publish(publish)))) => requests::message("publish", publish, &sender),
                Ok(Some(Some(Request::Hello(_)))) => Err(invalid("hello", "must be sent once")),
                Ok(Some(None)) => Err(invalid("request", "must be a publish")),
                Err(status) => match Fault::from(status) {
                    Fault::Broken => return,
                    Fault::TooLarge => {
                        let detail = codec::too_large(self.max);
                        member.disconnect(DisconnectReason::MessageTooLarge, Some(detail));
                        return;
                    }
                    Fault::Late(why) => {
                        member.disconnect(DisconnectReason::RequestIncomplete, Some(why));
                        return;
                    }
                    Fault::Invalid(why) => Err(invalid_message(why)),
                },
            };
            let message = match message {
                Ok(message) => message.with_span(self.span.as_ref().map(RpcSpan::begin_message)),
                Err(status) => {
                    let detail = status.message().to_owned();
                    // Before the disconnect, upon which the response body looks for it.
                    let _ = self.fault.set(status);
                    member.disconnect(DisconnectReason::InvalidMessage, Some(detail));
                    return;
                }
            };
            // Before the publish: the client's own cursor may reach the message at once.
            self.has_published.store(true, Ordering::Release);
            if self.publisher.publish(message).await.is_err() {
                return;
            }
        }
    }
}
