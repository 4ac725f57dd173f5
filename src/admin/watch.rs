//! The stream of connection events.

use super::show;
use crate::hub::{ConnectionEvent, ConnectionEventKind, RoomName};
use crate::wire::admin as api;
use api::watch_connections_response::Event as WireEvent;
use futures_util::stream::{self, Stream, StreamExt as _};
use std::time::SystemTime;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;
use tonic::Status;

type WatchItem = Result<api::WatchConnectionsResponse, Status>;

/// The events of `room`, or of all rooms, until the server stops. The stream then ends with `UNAVAILABLE`, as all calls do.
pub(super) fn events(
    events: Receiver<ConnectionEvent>,
    room: Option<RoomName>,
    stopping: CancellationToken,
) -> impl Stream<Item = WatchItem> + Send {
    let response = to_responses(events, room).take_until(stopping.cancelled_owned());
    response.chain(stream::once(async { Err(Status::unavailable("the server is stopping")) }))
}

fn to_responses(
    events: Receiver<ConnectionEvent>,
    room: Option<RoomName>,
) -> impl Stream<Item = WatchItem> + Send {
    stream::unfold((events, room), |(mut events, room)| async {
        loop {
            let response = match events.recv().await {
                Ok(event) if room.as_ref().is_none_or(|room| *room == event.connection.room) => {
                    to_response(&event)
                }
                Ok(_) => continue,
                Err(RecvError::Lagged(count)) => {
                    let event = Some(WireEvent::Missed(api::Missed { count }));
                    api::WatchConnectionsResponse { event, time: Some(show::time(SystemTime::now())) }
                }
                Err(RecvError::Closed) => return None,
            };
            return Some((Ok(response), (events, room)));
        }
    })
}

fn to_response(event: &ConnectionEvent) -> api::WatchConnectionsResponse {
    let connection = Some(show::connection(&event.connection));
    let response = match &event.kind {
        ConnectionEventKind::Joined => WireEvent::Joined(api::Joined { connection }),
        ConnectionEventKind::Left(reason) => {
            WireEvent::Left(api::Left { connection, reason: reason.to_string() })
        }
        ConnectionEventKind::Lagging => WireEvent::Lagging(api::Lagging { connection }),
        ConnectionEventKind::Kicked(reason) => {
            WireEvent::Kicked(api::Kicked { connection, reason: reason.clone() })
        }
    };
    api::WatchConnectionsResponse { event: Some(response), time: Some(show::time(event.at)) }
}
