//! Finding connections: filters, orders and pages.

use super::show;
use crate::hub::{ConnectionId, Frame, Hub, RoomName, Sight};
use crate::rpc::page::{self, Tokens};
use crate::rpc::{invalid, not_found};
use crate::wire::admin as api;
use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use tonic::Status;

/// A filter that has been checked.
pub(super) struct Filter {
    room: Option<RoomName>,
    peer: Option<Peer>,
    name: Option<String>,
    form: Option<usize>,
    min_lag_messages: u64,
}

enum Peer {
    Address(IpAddr),
    Socket(SocketAddr),
}

impl Filter {
    pub(super) fn new(filter: Option<api::ConnectionFilter>) -> Result<Self, Status> {
        let filter = filter.unwrap_or_default();
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let room = given(&filter.room).map(|room| RoomName::new(&room)).transpose();
        let peer = given(&filter.peer).map(|peer| {
            let socket = peer.parse().map(Peer::Socket);
            socket.or_else(|_| peer.parse().map(Peer::Address))
        });
        let api = api::Api::try_from(filter.api);
        let api = api.map_err(|_| invalid("filter.api", "is not an API of this server"))?;
        Ok(Self {
            room: room.map_err(|error| invalid("filter.room", error.to_string()))?,
            peer: peer
                .transpose()
                .map_err(|_| invalid("filter.peer", "must be an address, or address:port"))?,
            name: given(&filter.name),
            form: show::form(api),
            min_lag_messages: filter.min_lag_messages,
        })
    }

    fn fits(&self, sight: &Sight) -> bool {
        let member = &sight.member;
        let peer_fits = match &self.peer {
            None => true,
            Some(Peer::Address(address)) => member.peer().is_some_and(|peer| peer.ip() == *address),
            Some(Peer::Socket(socket)) => member.peer() == Some(*socket),
        };
        peer_fits
            && self.name.as_ref().is_none_or(|name| member.name().as_str() == name)
            && self.form.is_none_or(|form| member.form() == form)
            && sight.lag.messages >= self.min_lag_messages
    }

    /// All that fit, in no order. Reads snapshots.
    pub(super) fn find<M: Frame>(&self, hub: &Hub<M>) -> Vec<Sight> {
        let mut found = Vec::new();
        for room in hub.rooms() {
            if self.room.as_ref().is_some_and(|name| name != room.name()) {
                continue;
            }
            room.for_each_member(|member| {
                let sight = room.sight(member);
                if self.fits(&sight) {
                    found.push(sight);
                }
            });
        }
        found
    }
}

/// The connection with this id.
pub(super) fn get<M: Frame>(hub: &Hub<M>, id: &str) -> Result<Sight, Status> {
    hub.find(parse_id("id", id)?).ok_or_else(|| not_found("connection", id))
}

pub(super) fn parse_id(field: &str, id: &str) -> Result<ConnectionId, Status> {
    id.parse().map_err(|_| invalid(field, "a connection id is a UUID"))
}

pub(super) fn list<M: Frame>(
    hub: &Hub<M>,
    tokens: &Tokens,
    request: api::ListConnectionsRequest,
) -> Result<api::ListConnectionsResponse, Status> {
    let size = page::size(request.page_size)?;
    let order = api::ConnectionOrder::try_from(request.order);
    let order = order.map_err(|_| invalid("order", "is not an order of this server"))?;
    let query = format!("{:?} {order:?}", request.filter);
    let from = tokens.read(&query, &request.page_token)?;
    // A sealed token holds a number.
    let from: u64 = from.and_then(|from| from.parse().ok()).unwrap_or_default();
    let mut found = Filter::new(request.filter)?.find(hub);
    let total_size = found.len() as u64;
    // By age, a token is the number of the last one seen: who stays is met exactly once, however many come and go.
    // By what changes, it is how many were seen.
    let by_age = matches!(order, api::ConnectionOrder::Unspecified | api::ConnectionOrder::Age);
    match order {
        api::ConnectionOrder::Lag => {
            found.sort_unstable_by_key(|s| (Reverse(s.lag.bytes), s.member.number()));
        }
        api::ConnectionOrder::Bytes => {
            found.sort_by_cached_key(|s| (Reverse(s.member.taken().1), s.member.number()));
        }
        api::ConnectionOrder::Unspecified | api::ConnectionOrder::Age => {
            found.retain(|s| s.member.number() > from);
            found.sort_unstable_by_key(|s| s.member.number());
        }
    }
    let skip = if by_age { 0 } else { from as usize };
    let more = found.len() > skip.saturating_add(size);
    let page: Vec<&Sight> = found.iter().skip(skip).take(size).collect();
    let next = match page.last() {
        Some(last) if by_age => last.member.number(),
        _ => from + page.len() as u64,
    };
    Ok(api::ListConnectionsResponse {
        connections: page.into_iter().map(show::connection).collect(),
        next_page_token: if more { tokens.write(&query, &next.to_string()) } else { String::new() },
        total_size,
    })
}
