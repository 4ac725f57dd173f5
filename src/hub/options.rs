//! What a client brings when it joins: who it is, how its call is controlled, and how it wants to receive.

use crate::hub::ids::{ConnectionId, DisplayName};
use crate::hub::log::start::Start;
use crate::hub::log::view::View;
use std::net::SocketAddr;
use std::sync::Arc;

/// Ends a call that does not end by itself. Given to the hub by the transport.
pub trait CallControl: Send + Sync {
    /// Ends the call now, whatever it is waiting for. May be called more than once.
    fn abort(&self);

    /// Has the call's transport closed once no call is left on it.
    fn close_transport_when_idle(&self);

    /// Has the call's transport take no more calls, and close once none is left on it.
    fn go_away(&self);
}

/// Who joins: what the hub is told about a connection.
#[derive(Clone)]
pub struct ClientInfo {
    /// The id that the connection is to have.
    pub id: ConnectionId,
    /// What the client calls itself.
    pub name: DisplayName,
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// The number of the transport that carries its call.
    pub transport: Option<u64>,
    /// How to end its call when it cannot be ended politely.
    pub control: Option<Arc<dyn CallControl>>,
}

impl ClientInfo {
    /// Somebody of whom nothing is known.
    #[must_use]
    pub fn anonymous() -> Self {
        let (id, name) = (ConnectionId::random(), DisplayName::default());
        Self { id, name, peer: None, transport: None, control: None }
    }
}

/// How a connection wants to hear.
pub struct SubscribeOptions<M> {
    /// Where it begins.
    pub start: Start,
    /// It is refused rather than told that something before that is missing.
    pub strict: bool,
    /// How it sees the log.
    pub view: View<M>,
    /// It wants to know who comes and goes.
    pub presence: bool,
    /// It can be told of messages that it does not get; else it is disconnected instead.
    pub gaps: bool,
}

impl<M> SubscribeOptions<M> {
    /// Everything that comes from now on, in this wire form.
    #[must_use]
    pub fn live(form: usize) -> Self {
        Self { start: Start::Tail, strict: false, view: View::all(form), presence: false, gaps: false }
    }
}
