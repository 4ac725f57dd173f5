//! Admission to a room, the same for both APIs: the hub decides, the log gets its lines, and a guard leaves the room again.

use super::message::Message;
use super::status;
use crate::hub::{
    CallControl, ClientInfo, ConnectionId, DisconnectReason, DisplayName, Gap, Hub, Joined, Member,
    Publisher, Refused, RoomName, ShardId, SubscribeOptions, Subscription,
};
use crate::telemetry::trace::RpcSpan;
use crate::transport::{CallContext, CallHandle};
use http::Extensions;
use std::sync::Arc;
use tokio::task::AbortHandle;
use tonic::Status;

/// Admits calls to rooms; one for the services of each shard's thread.
#[derive(Clone)]
pub(super) struct Admission {
    pub(super) hub: Hub<Message>,
    pub(super) shard: ShardId,
    pub(super) max_message_bytes: usize,
    /// Calls of `chatroom.v1` that name a room must name it in their metadata too.
    pub(super) require_room_header: bool,
}

/// The call that a client makes: its address, its span, and the means to end it.
#[derive(Clone)]
pub(super) struct ClientCall {
    call: Option<CallContext>,
}

impl ClientCall {
    /// The call whose request has these extensions.
    pub(super) fn of(request: &Extensions) -> Self {
        Self { call: request.get::<CallContext>().cloned() }
    }

    /// The call's span, if it is sampled.
    pub(super) fn span(&self) -> Option<&RpcSpan> {
        self.call.as_ref()?.span.as_ref()
    }

    /// What the hub is told of the client, which has this name.
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

/// A client that has joined a room.
pub(super) struct Admitted {
    pub(super) publisher: Publisher<Message>,
    pub(super) subscription: Subscription<Message>,
    pub(super) guard: ConnectionGuard,
    pub(super) gap: Option<Gap>,
    pub(super) span: Option<RpcSpan>,
}

impl Admission {
    /// Refuses a call from a banned address. A call that only reads has no name to check.
    pub(super) fn check_ban(&self, call: &ClientCall) -> Result<(), Status> {
        let checked = self.hub.check_ban(&call.client_info(DisplayName::default()));
        checked.map_err(|refused| status::of_refusal(&refused))
    }

    /// Joins a client to a room.
    pub(super) fn admit(
        &self,
        call: &ClientCall,
        room: &RoomName,
        client: ClientInfo,
        options: SubscribeOptions<Message>,
    ) -> Result<Admitted, Status> {
        let joined = self.hub.join(self.shard, room, client, options).map_err(|refused| {
            if let (Refused::Closing, Some(call)) = (&refused, &call.call) {
                // The client's next call then goes to another instance.
                call.handle.go_away();
            }
            status::of_refusal(&refused)
        })?;
        let Joined { publisher, subscription, gap } = joined;
        let member = Arc::clone(subscription.member());
        let span = call.span().cloned();
        if let Some(span) = &span {
            span.record_join(member.id(), room);
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
        let guard = ConnectionGuard { member, room: room.clone(), reader: None, span: span.clone() };
        Ok(Admitted { publisher, subscription, guard, gap, span })
    }
}

/// A connection's membership in its room. Dropping it leaves the room, and logs why.
pub struct ConnectionGuard {
    member: Arc<Member>,
    room: RoomName,
    /// The task that reads the client's requests; it ends with the connection.
    pub(super) reader: Option<AbortHandle>,
    span: Option<RpcSpan>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
        let member = &self.member;
        // Without any other reason the client has cancelled the call.
        member.disconnect(DisconnectReason::Cancelled, None);
        let reason = member.disconnected().map(|disconnect| disconnect.reason.as_str());
        if let (Some(span), Some(reason)) = (&self.span, reason) {
            span.record_disconnect(reason);
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
