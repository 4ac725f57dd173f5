//! What a client brings when it joins: its identity, control over its call, and how it wants to receive.

use crate::hub::ids::{ConnectionId, DisplayName};
use crate::hub::log::start::Start;
use crate::hub::log::view::View;
use crate::hub::wire_form::WireForm;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Control over a client's call and its transport, which the transport gives to the hub.
pub trait CallControl: Send + Sync {
    /// Ends the call now, whatever it waits for. May be called more than once.
    fn abort(&self);

    /// Closes the call's transport once no call is left on it.
    fn close_transport_when_idle(&self);

    /// Stops the call's transport from taking more calls, and closes it once none is left.
    fn go_away(&self);
}

/// A client that joins or publishes.
#[derive(Clone)]
pub struct ClientInfo {
    /// The id of the connection.
    pub id: ConnectionId,
    /// The client's display name.
    pub name: DisplayName,
    /// The client's address.
    pub peer: Option<SocketAddr>,
    /// The number of the transport that carries the call.
    pub transport: Option<u64>,
    /// Control over the call.
    pub control: Option<Arc<dyn CallControl>>,
}

impl ClientInfo {
    /// A client of which nothing is known, with a fresh id.
    #[must_use]
    pub fn anonymous() -> Self {
        let (id, name) = (ConnectionId::random(), DisplayName::default());
        Self { id, name, peer: None, transport: None, control: None }
    }
}

/// How a connection wants to receive.
pub struct SubscribeOptions<M> {
    /// Where it starts.
    pub start: Start,
    /// If messages after the start are no longer retained, refuse the join instead of reporting a gap.
    pub strict: bool,
    /// Which messages it receives, and in which wire form.
    pub view: View<M>,
    /// It receives presence: joins and leaves.
    pub presence: bool,
    /// The client can receive gap events; if not, it is disconnected instead.
    pub gaps: bool,
}

impl<M> SubscribeOptions<M> {
    /// All messages from now on, in this wire form.
    #[must_use]
    pub fn live(form: WireForm) -> Self {
        Self { start: Start::Tail, strict: false, view: View::all(form), presence: false, gaps: false }
    }
}

/// The address as it is counted: an IPv4 address itself, the /64 network of an IPv6 address.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}
