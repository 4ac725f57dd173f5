//! Lists by page: events, members, rooms. They run on the thread of [`crate::rpc::lists`], and pause as it requires.

use super::{body, requests};
use crate::chat::message::{Message, position};
use crate::hub::{Cursor, Gap, Hub, Position, Refused, Room, RoomName, Sequencing, Start, StartError};
use crate::rpc::lists::TimeSlice;
use crate::rpc::not_found;
use crate::rpc::page::{self, FirstN, PageTokens};
use crate::wire::v1 as api;
use prost::Message as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use tonic::Status;

/// A page of events ends after this many bytes. Far below the 4 MiB that gRPC clients take: a page is encoded on the thread
/// that serves members, a quarter of a MiB in about 0.1 ms, and is held until it has been read.
const EVENTS_BYTES_MAX: usize = 256 * 1024;

/// A page of events ends after this many have been looked at, wanted or not: about a millisecond's work. It may then be
/// short or empty, and has a token for the next (AIP-158).
const EVENTS_LOOKED_AT_MAX: usize = 8192;

/// Segments between two pauses: of the shortest messages a segment has thousands, 0.1 ms' work.
const SEGMENTS_AT_ONCE: u64 = 4;

/// What a list is made from.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) hub: Hub<Message>,
    pub(super) tokens: Arc<PageTokens>,
    /// The room that the call's metadata names.
    pub(super) named_room: Option<RoomName>,
}

impl Source {
    /// The room of this name, which must be there.
    fn room(&self, name: &str) -> Result<Arc<Room<Message>>, Status> {
        let name = requests::room("room", name, self.named_room.as_ref())?;
        self.hub.room(&name).ok_or_else(|| not_found("room", name.as_str()))
    }
}

pub(super) async fn events(
    source: Source,
    request: api::ListEventsRequest,
) -> Result<api::ListEventsResponse, Status> {
    let size = page::page_size(request.page_size)?;
    let kinds = requests::kinds("kinds", &request.kinds)?;
    let (start, strict) = requests::start("start", request.start.as_ref(), Start::Earliest)?;
    let room = source.room(&request.room)?;
    // The rest of the request, which must stay the same.
    let query = format!("events {} {:?} {:?}", room.name(), request.start, request.kinds);
    let token = source.tokens.read(&query, &request.page_token)?;
    let from = token.as_deref().and_then(after).map_or(start, |after| after);
    let (mut next, missing) = find(&room, from, strict)
        .map_err(|refusal| crate::chat::status::of_refusal(&Refused::Start(refusal)))?;
    let (mut events, mut bytes, mut looked_at, mut is_full) = (Vec::new(), 0, 0, false);
    let wanted =
        |said: &Message| kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| **kind == *said.kind()));
    let mut slice = TimeSlice::default();
    while !is_full && looked_at < EVENTS_LOOKED_AT_MAX {
        let reached = room.log().visit(&next, SEGMENTS_AT_ONCE, |entry, meta| {
            looked_at += 1;
            let is_own = entry.sequencing() == Sequencing::Assigned;
            // Looked at before it is copied: most of a log may be of other kinds.
            let event = (is_own && wanted(&entry.message)).then(|| entry.message.event(meta)).flatten();
            let Some(event) = event else { return ControlFlow::Continue(()) };
            let len = event.encoded_len();
            if events.len() == size || !events.is_empty() && bytes + len > EVENTS_BYTES_MAX {
                is_full = true;
                return ControlFlow::Break(());
            }
            bytes += len;
            events.push(event);
            ControlFlow::Continue(())
        });
        match reached {
            Some(reached) if reached != next => next = reached,
            // The tail; or trimmed between two looks, of which the next page tells.
            _ => break,
        }
        slice.pause().await;
    }
    let more = next.offset < room.log().tail().offset;
    let next = Position { epoch: room.epoch(), offset: next.offset - 1 }.to_string();
    Ok(api::ListEventsResponse {
        events,
        next_page_token: if more { source.tokens.write(&query, &next) } else { String::new() },
        gap: missing.as_ref().map(body::gap),
    })
}

/// What a page token says.
fn after(position: &str) -> Option<Start> {
    let (epoch, offset) = position.split_once(':')?;
    Some(Start::After(epoch.parse().ok()?, offset.parse().ok()?))
}

fn find(room: &Room<Message>, start: Start, strict: bool) -> Result<(Cursor, Option<Gap>), StartError> {
    match start.find(room.log())? {
        (_, Some(gap)) if strict => Err(StartError::Missing(gap)),
        found => Ok(found),
    }
}

pub(super) async fn members(
    source: Source,
    request: api::ListMembersRequest,
) -> Result<api::ListMembersResponse, Status> {
    let size = page::page_size(request.page_size)?;
    let room = source.room(&request.room)?;
    let query = format!("members {}", room.name());
    let after = source.tokens.read(&query, &request.page_token)?;
    // A sealed token holds a number.
    let after: u64 = after.and_then(|after| after.parse().ok()).unwrap_or_default();
    let (mut found, mut total_size) = (FirstN::new(size + 1), 0);
    let mut slice = TimeSlice::default();
    for block in room.member_blocks() {
        for member in block.iter().filter(|member| !member.is_gone()) {
            total_size += 1;
            if member.number() > after {
                found.add(member.number(), Arc::clone(member));
            }
        }
        slice.pause().await;
    }
    let mut found = found.in_order();
    let more = found.len() > size;
    found.truncate(size);
    let last = found.last().map_or(after, |member| member.number());
    let member = |member: &Arc<crate::hub::Member>| api::Member {
        connection_id: member.id().to_string(),
        display_name: member.name().as_str().to_owned(),
    };
    Ok(api::ListMembersResponse {
        members: found.iter().map(member).collect(),
        next_page_token: if more { source.tokens.write(&query, &last.to_string()) } else { String::new() },
        total_size,
    })
}

pub(super) async fn rooms(
    source: Source,
    request: api::ListRoomsRequest,
) -> Result<api::ListRoomsResponse, Status> {
    let size = page::page_size(request.page_size)?;
    let Source { hub, tokens, .. } = source;
    let after = |name: &str, count| hub.rooms_after(name, count);
    let name = |room: &Arc<Room<Message>>| room.name().clone();
    let found = page::page_by_name(hub.room_count(), after, name, size, &tokens, &request.page_token)?;
    let mut rooms = Vec::with_capacity(found.page.len());
    let mut slice = TimeSlice::default();
    for room in &found.page {
        let (log, epoch) = (room.log(), room.epoch());
        let oldest = position(Position { epoch, offset: log.oldest().offset });
        rooms.push(api::Room {
            name: room.name().to_string(),
            members: room.members() as u64,
            last_position: Some(position(Position { epoch, offset: log.tail().offset - 1 })),
            oldest_position: Some(oldest),
        });
        slice.pause().await;
    }
    Ok(api::ListRoomsResponse { rooms, next_page_token: found.next_page_token, total_size: found.total_size })
}
