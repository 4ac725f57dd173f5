//! A client's place in a room, whichever API it speaks: how it is taken, and what happens when it is given up.

use super::said::Said;
use super::status;
use crate::hub::{
    CallControl, ClientInfo, ConnectionId, DisconnectReason, DisplayName, Gap, Hub, Joined, Member,
    Publisher, Refused, RoomName, ShardId, SubscribeOptions, Subscription,
};
use crate::telemetry::trace::RpcSpan;
use crate::transport::{Call, CallHandle};
use http::Extensions;
use std::sync::Arc;
use tokio::task::AbortHandle;
use tonic::Status;

/// What all services of a shard's thread have in common.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) hub: Hub<Said>,
    pub(super) shard: ShardId,
    pub(super) max_message_bytes: usize,
    /// Calls of `chatroom.v1` that name a room must name it in their metadata too.
    pub(super) require_room_header: bool,
}

/// Who comes in, by which call.
#[derive(Clone)]
pub(super) struct Caller {
    call: Option<Call>,
}

impl Caller {
    /// Who sends the request with these extensions.
    pub(super) fn of(request: &Extensions) -> Self {
        Self { call: request.get::<Call>().cloned() }
    }

    /// The call's span, if it is sampled.
    pub(super) fn span(&self) -> Option<&RpcSpan> {
        self.call.as_ref()?.span.as_ref()
    }

    pub(super) fn client_info(&self, name: DisplayName) -> ClientInfo {
        let call = self.call.as_ref();
        ClientInfo {
            id: ConnectionId::random(),
            name,
            peer: call.map(|call| call.peer),
            transport: call.map(|call| call.transport.number()),
            control: call.map(|call| Arc::new(call.handle.clone()) as _),
        }
    }
}

impl CallControl for CallHandle {
    fn abort(&self) {
        Self::abort(self);
    }

    fn close_transport_when_idle(&self) {
        self.close_transport_when_idle();
    }

    fn go_away(&self) {
        CallHandle::go_away(self);
    }
}

/// Who is in.
pub(super) struct Admitted {
    pub(super) publisher: Publisher<Said>,
    pub(super) subscription: Subscription<Said>,
    pub(super) seat: Seat,
    pub(super) gap: Option<Gap>,
    pub(super) span: Option<RpcSpan>,
}

impl Door {
    /// Refuses a caller that is banned by its address: a call that only reads has no name.
    pub(super) fn check_ban(&self, caller: &Caller) -> Result<(), Status> {
        let checked = self.hub.check_ban(&caller.client_info(DisplayName::default()));
        checked.map_err(|refused| status::of_refusal(&refused))
    }

    /// Lets a client into a room.
    pub(super) fn admit(
        &self,
        caller: &Caller,
        room: &RoomName,
        who: ClientInfo,
        options: SubscribeOptions<Said>,
    ) -> Result<Admitted, Status> {
        let joined = self.hub.join(self.shard, room, who, options).map_err(|refused| {
            if let (Refused::Closing, Some(call)) = (&refused, &caller.call) {
                // So that the client asks again elsewhere.
                call.handle.go_away();
            }
            status::of_refusal(&refused)
        })?;
        let member = joined.subscription.member();
        let span = caller.span().cloned();
        if let Some(span) = &span {
            span.joined(member.id(), room);
        }
        RpcSpan::in_scope(span.as_ref(), || {
            tracing::info!(
                connection = %member.id(),
                peer = member.peer().map(tracing::field::display),
                room = %room,
                name = member.name().as_str(),
                "new user"
            );
        });
        let (member, room) = (Arc::clone(member), room.clone());
        let seat = Seat { member, room, listener: None, span: span.clone() };
        let Joined { publisher, subscription, gap } = joined;
        Ok(Admitted { publisher, subscription, seat, gap, span })
    }
}

/// A taken place. Dropping it is leaving, which is logged.
pub struct Seat {
    member: Arc<Member>,
    room: RoomName,
    /// The task that reads what this client says.
    pub(super) listener: Option<AbortHandle>,
    span: Option<RpcSpan>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
        let member = &self.member;
        // If nobody has decided on an end, the client has gone.
        member.disconnect(DisconnectReason::Cancelled, None);
        let reason = member.disconnected().map(|disconnect| disconnect.reason.as_str());
        if let (Some(span), Some(reason)) = (&self.span, reason) {
            span.disconnected(reason);
        }
        RpcSpan::in_scope(self.span.as_ref(), || {
            tracing::info!(
                connection = %member.id(),
                room = %self.room,
                reason,
                "user left"
            );
        });
    }
}
