//! Finding connections: filters, orders and pages.

use super::show;
use crate::hub::{ConnectionId, ConnectionSnapshot, Hub, Member, Payload, Room, RoomName, WireForm};
use crate::rpc::lists::TimeSlice;
use crate::rpc::page::{self, FirstN, PageTokens};
use crate::rpc::{invalid, not_found};
use crate::wire::admin as api;
use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tonic::Status;

/// A validated filter.
pub(super) struct Filter {
    room: Option<RoomName>,
    peer: Option<Peer>,
    name: Option<String>,
    form: Option<WireForm>,
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

    fn fits(&self, member: &Member) -> bool {
        let peer_fits = match &self.peer {
            None => true,
            Some(Peer::Address(address)) => member.peer().is_some_and(|peer| peer.ip() == *address),
            Some(Peer::Socket(socket)) => member.peer() == Some(*socket),
        };
        peer_fits
            && self.name.as_ref().is_none_or(|name| member.name().as_str() == name)
            && self.form.is_none_or(|form| member.form() == form)
    }

    /// Passes all matching connections to `found`, in no order. Reads snapshots and yields regularly.
    pub(super) async fn find<M: Payload>(&self, hub: &Hub<M>, mut found: impl FnMut(ConnectionSnapshot)) {
        let rooms = match &self.room {
            Some(name) => hub.room(name).into_iter().collect(),
            None => hub.rooms(),
        };
        for_each_member(&rooms, |room, member| {
            if self.fits(member) {
                let snapshot = room.snapshot(member);
                if snapshot.lag.messages >= self.min_lag_messages {
                    found(snapshot);
                }
            }
        })
        .await;
    }
}

/// Visits each member of these rooms and yields regularly.
pub(super) async fn for_each_member<M: Payload>(
    rooms: &[Arc<Room<M>>],
    mut look: impl FnMut(&Room<M>, &Arc<Member>),
) {
    let mut slice = TimeSlice::default();
    for room in rooms {
        for block in room.member_blocks() {
            block.iter().filter(|member| !member.is_gone()).for_each(|member| look(room, member));
            slice.pause().await;
        }
        slice.pause().await;
    }
}

/// The connection with this id.
pub(super) async fn get<M: Payload>(hub: Hub<M>, id: String) -> Result<ConnectionSnapshot, Status> {
    let wanted = parse_id("id", &id)?;
    let mut found = None;
    for_each_member(&hub.rooms(), |room, member| {
        if member.id() == wanted {
            found = Some(room.snapshot(member));
        }
    })
    .await;
    found.ok_or_else(|| not_found("connection", &id))
}

pub(super) fn parse_id(field: &str, id: &str) -> Result<ConnectionId, Status> {
    id.parse().map_err(|_| invalid(field, "a connection id is a UUID"))
}

pub(super) async fn list<M: Payload>(
    hub: Hub<M>,
    tokens: Arc<PageTokens>,
    request: api::ListConnectionsRequest,
) -> Result<api::ListConnectionsResponse, Status> {
    let size = page::page_size(request.page_size)?;
    let order = api::ConnectionOrder::try_from(request.order);
    let order = order.map_err(|_| invalid("order", "is not an order of this server"))?;
    let query = format!("{:?} {order:?}", request.filter);
    let from = tokens.read(&query, &request.page_token)?;
    // A sealed token holds a number.
    let from: u64 = from.and_then(|from| from.parse().ok()).unwrap_or_default();
    let filter = Filter::new(request.filter)?;
    // By age, a token is the number of the last connection listed: a connection that stays is listed exactly once,
    // however many join and leave. By a changing quantity, it is the count of connections listed.
    let by_age = matches!(order, api::ConnectionOrder::Unspecified | api::ConnectionOrder::Age);
    let skip = if by_age { 0 } else { usize::try_from(from).unwrap_or(usize::MAX) };
    let mut found = FirstN::new(skip.saturating_add(size + 1));
    let mut total_size = 0;
    filter
        .find(&hub, |snapshot| {
            total_size += 1;
            let number = snapshot.member.number();
            match order {
                api::ConnectionOrder::Lag => found.add((Reverse(snapshot.lag.bytes), number), snapshot),
                api::ConnectionOrder::Bytes => {
                    found.add((Reverse(snapshot.member.delivered().1), number), snapshot);
                }
                api::ConnectionOrder::Unspecified | api::ConnectionOrder::Age if number > from => {
                    found.add((Reverse(0), number), snapshot);
                }
                api::ConnectionOrder::Unspecified | api::ConnectionOrder::Age => {}
            }
        })
        .await;
    let found = found.in_order();
    let more = found.len() > skip.saturating_add(size);
    let page: Vec<&ConnectionSnapshot> = found.iter().skip(skip).take(size).collect();
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
