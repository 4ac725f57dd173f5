//! What a client says: hello, then things.

use super::body::{Opening, Told};
use super::checked;
use super::wants::KindFilter;
use crate::chat::codec::{self, Fault};
use crate::chat::said::{Said, Sender, V1, position};
use crate::chat::seat::{Admitted, Caller, Door};
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

/// Time for the client to say hello once its call is open.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// A client that speaks and listens.
pub(super) async fn join(
    door: Door,
    caller: Caller,
    named: Option<RoomName>,
    mut requests: Streaming<api::JoinRequest>,
    tell: oneshot::Sender<Told>,
) {
    let max = door.max_message_bytes;
    let hello = match first(&mut requests, max, &door.hub).await.map(|first| first.request) {
        Ok(Some(Request::Hello(hello))) => Ok(hello),
        Ok(Some(Request::Publish(_))) => Err(invalid("publish", "the first request must be hello")),
        Ok(None) => Err(invalid("request", "the first request must be hello")),
        Err(status) => Err(status),
    };
    let has_spoken = Arc::new(AtomicBool::new(false));
    let admitted = hello.and_then(|hello| enter(&door, &caller, named, &hello, &has_spoken, "hello."));
    let Some((publisher, span, fault)) = tell_of(admitted, max, tell) else { return };
    Talk { requests, publisher, span, fault, has_spoken, max }.run().await;
}

/// A client that only listens.
pub(super) async fn subscribe(
    door: Door,
    caller: Caller,
    named: Option<RoomName>,
    mut requests: Streaming<api::SubscribeRequest>,
    tell: oneshot::Sender<Told>,
) {
    let max = door.max_message_bytes;
    let hello = only(&mut requests, max, &door.hub).await.map(|request| {
        let api::SubscribeRequest { room, display_name, start, kinds, presence } = request;
        api::Hello { room, display_name, start, kinds, suppress_echo: false, presence }
    });
    let admitted = hello.and_then(|hello| enter(&door, &caller, named, &hello, &Arc::default(), ""));
    // Nothing more comes from it. That it is silent does not mean that it leaves.
    drop(tell_of(admitted, max, tell));
}

/// The only request of a call, once the client has ended its side: a second one is refused by the transport.
pub(super) async fn only<T>(requests: &mut Streaming<T>, max: usize, hub: &Hub<Said>) -> Result<T, Status> {
    let request = first(requests, max, hub).await?;
    // Nothing but its end can follow, or why it does not.
    next(requests, max, hub).await.map(|_| request)
}

/// The first request of a call, unless the server stops before it comes.
async fn first<T>(requests: &mut Streaming<T>, max: usize, hub: &Hub<Said>) -> Result<T, Status> {
    let first = next(requests, max, hub).await?;
    first.ok_or_else(|| invalid("request", "the call ended without one"))
}

async fn next<T>(requests: &mut Streaming<T>, max: usize, hub: &Hub<Said>) -> Result<Option<T>, Status> {
    let next = tokio::select! {
        biased;
        () = hub.wait_until_shut() => return Err(status::of_refusal(&Refused::Closing)),
        next = timeout(HELLO_DEADLINE, requests.message()) => next,
    };
    let next = next.map_err(|_| no_request(HELLO_DEADLINE))?;
    next.map_err(|status| {
        if status.code() == Code::Unimplemented {
            // The transport has found a second request.
            return status;
        }
        match Fault::from(status) {
            Fault::TooLarge => too_large(max),
            Fault::Late(why) => refused(Code::DeadlineExceeded, why, "REQUEST_INCOMPLETE", &[], None),
            Fault::Invalid(why) => invalid_message(why),
            Fault::Broken => Status::cancelled("the call was cancelled"),
        }
    })
}

fn too_large(max: usize) -> Status {
    let reason = DisconnectReason::MessageTooLarge.as_str().to_uppercase();
    refused(Code::ResourceExhausted, codec::too_large(max), &reason, &[], None)
}

/// Lets the client in.
fn enter(
    door: &Door,
    caller: &Caller,
    named: Option<RoomName>,
    hello: &api::Hello,
    has_spoken: &Arc<AtomicBool>,
    path: &str,
) -> Result<Admitted, Status> {
    let at = |field: &str| format!("{path}{field}");
    let room = checked::room(&at("room"), &hello.room, named)?;
    let who = caller.client_info(checked::name(&at("display_name"), &hello.display_name)?);
    let (start, strict) = checked::start(&at("start"), hello.start.as_ref(), Start::Tail)?;
    let filter = KindFilter {
        me: who.id,
        kinds: checked::kinds(&at("kinds"), &hello.kinds)?,
        echo: !hello.suppress_echo,
        presence: hello.presence,
        has_spoken: Arc::clone(has_spoken),
    };
    let view = View::filtered(V1, filter);
    let options = SubscribeOptions { start, strict, view, presence: hello.presence, gaps: true };
    door.admit(caller, &room, who, options)
}

type Speaking = (Publisher<Said>, Option<RpcSpan>, Arc<OnceLock<Status>>);

/// Tells the body who is in, or why not; what is left to the client's task.
fn tell_of(admitted: Result<Admitted, Status>, max: usize, tell: oneshot::Sender<Told>) -> Option<Speaking> {
    // If the body is gone, so is the client: dropping the seat is its leave.
    match admitted {
        Ok(Admitted { publisher, subscription, seat, gap, span }) => {
            let fault = Arc::new(OnceLock::new());
            let opening =
                Opening { seat, subscription, gap, max_message_bytes: max, fault: Arc::clone(&fault) };
            tell.send(Ok(opening)).is_ok().then_some((publisher, span, fault))
        }
        Err(status) => {
            let _ = tell.send(Err(status));
            None
        }
    }
}

/// A client that has said hello.
struct Talk {
    requests: Streaming<api::JoinRequest>,
    publisher: Publisher<Said>,
    span: Option<RpcSpan>,
    fault: Arc<OnceLock<Status>>,
    has_spoken: Arc<AtomicBool>,
    max: usize,
}

impl Talk {
    /// Publishes what the client says, until it has said all, or something that it may not.
    async fn run(mut self) {
        let member = Arc::clone(self.publisher.member());
        let sender = Sender::new(Some(member.id()), member.name());
        loop {
            let said = match self.requests.message().await.map(|request| request.map(|r| r.request)) {
                Ok(None) => return self.publisher.finish(),
                Ok(Some(Some(Request::Publish(publish)))) => checked::said("publish", publish, &sender),
                Ok(Some(Some(Request::Hello(_)))) => Err(invalid("hello", "was said before")),
                Ok(Some(None)) => Err(invalid("request", "must be a publish")),
                Err(status) => match Fault::from(status) {
                    Fault::Broken => return,
                    Fault::TooLarge => {
                        member
                            .disconnect(DisconnectReason::MessageTooLarge, Some(codec::too_large(self.max)));
                        return;
                    }
                    Fault::Late(why) => {
                        member.disconnect(DisconnectReason::RequestIncomplete, Some(why));
                        return;
                    }
                    Fault::Invalid(why) => Err(invalid_message(why)),
                },
            };
            let said = match said {
                Ok(said) => said.traced(self.span.as_ref().map(RpcSpan::message)),
                Err(status) => {
                    let words = status.message().to_owned();
                    // Set before the end is decided, which has the body look for it.
                    let _ = self.fault.set(status);
                    member.disconnect(DisconnectReason::InvalidMessage, Some(words));
                    return;
                }
            };
            // Before it is said: its own cursor may meet it at once.
            self.has_spoken.store(true, Ordering::Release);
            if self.publisher.publish(said).await.is_err() {
                return;
            }
        }
    }
}

/// Says one thing for somebody who does not stay.
pub(super) async fn publish(
    door: &Door,
    caller: &Caller,
    named: Option<RoomName>,
    request: api::PublishRequest,
) -> Result<api::PublishResponse, Status> {
    let api::PublishRequest { room, display_name, kind, body, idempotency_key } = request;
    let room = checked::room("room", &room, named)?;
    if let Some(span) = caller.span() {
        span.in_room(&room);
    }
    let name = checked::name("display_name", &display_name)?;
    let sender = Sender::new(None, &name);
    let publish = api::Publish { reference: String::new(), kind, body, idempotency_key };
    let said = checked::said("", publish, &sender)?;
    let (said, told) = said.traced(caller.span().map(RpcSpan::message)).with_receipt();
    let publisher = door.hub.one_shot_publisher(&room, &caller.client_info(name));
    let publisher = publisher.map_err(|refusal| status::of_refusal(&refusal))?;
    publisher.publish(V1, said).map_err(|_| {
        let words = "the room takes in nothing more just now";
        refused(Code::ResourceExhausted, words, "ROOM_BUSY", &[], Some(retry_after()))
    })?;
    let receipt = told.await.map_err(|_| Status::internal("the room has gone"))?;
    Ok(api::PublishResponse { position: Some(position(receipt.position)), repeated: receipt.repeated })
}
