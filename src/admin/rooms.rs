//! Listing rooms.

use super::show;
use crate::hub::{Hub, Payload, Room};
use crate::rpc::lists::TimeSlice;
use crate::rpc::page::{self, PageTokens};
use crate::wire::admin as api;
use std::sync::Arc;
use tonic::Status;

pub(super) async fn list<M: Payload>(
    hub: Hub<M>,
    tokens: Arc<PageTokens>,
    request: api::ListRoomsRequest,
) -> Result<api::ListRoomsResponse, Status> {
    let size = page::page_size(request.page_size)?;
    let after = |name: &str, count| hub.rooms_after(name, count);
    let name = |room: &Arc<Room<M>>| room.name().clone();
    let found = page::page_by_name(hub.room_count(), after, name, size, &tokens, &request.page_token)?;
    let mut rooms = Vec::with_capacity(found.page.len());
    let mut slice = TimeSlice::default();
    for room in &found.page {
        let mut lag_bytes_max = 0;
        for block in room.member_blocks() {
            let lags = block.iter().filter(|member| !member.is_gone()).map(|member| room.lag(member).bytes);
            lag_bytes_max = lags.fold(lag_bytes_max, u64::max);
            slice.pause().await;
        }
        rooms.push(show::room(room, lag_bytes_max));
        slice.pause().await;
    }
    Ok(api::ListRoomsResponse { rooms, next_page_token: found.next_page_token, total_size: found.total_size })
}
