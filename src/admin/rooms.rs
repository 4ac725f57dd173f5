//! Listing rooms.

use super::show;
use crate::hub::{Frame, Hub};
use crate::rpc::page::{self, Tokens};
use crate::wire::admin as api;
use tonic::Status;

pub(super) fn list<M: Frame>(
    hub: &Hub<M>,
    tokens: &Tokens,
    request: &api::ListRoomsRequest,
) -> Result<api::ListRoomsResponse, Status> {
    let size = page::size(request.page_size)?;
    let rooms = page::by_name(hub.rooms(), |room| room.name().as_str(), size, tokens, &request.page_token)?;
    Ok(api::ListRoomsResponse {
        rooms: rooms.page.iter().map(|room| show::room(room)).collect(),
        next_page_token: rooms.next_page_token,
        total_size: rooms.total_size,
    })
}
