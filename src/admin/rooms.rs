//! Listing rooms.

use super::page::{self, Tokens};
use super::show;
use crate::hub::{Frame, Hub};
use crate::wire::admin as api;
use tonic::Status;

/// What a page token of this list is sealed with.
const QUERY: &str = "rooms";

pub(super) fn list<M: Frame>(
    hub: &Hub<M>,
    tokens: &Tokens,
    request: &api::ListRoomsRequest,
) -> Result<api::ListRoomsResponse, Status> {
    let size = page::size(request.page_size)?;
    let after = tokens.read(&QUERY, &request.page_token)?.unwrap_or_default();
    let mut rooms = hub.rooms();
    let total_size = rooms.len() as u64;
    rooms.retain(|room| room.name().as_str() > after.as_str());
    rooms.sort_unstable_by(|a, b| a.name().cmp(b.name()));
    let more = rooms.len() > size;
    rooms.truncate(size);
    let last = rooms.last().map_or("", |room| room.name().as_str());
    Ok(api::ListRoomsResponse {
        next_page_token: if more { tokens.write(&QUERY, last) } else { String::new() },
        rooms: rooms.iter().map(|room| show::room(room)).collect(),
        total_size,
    })
}
