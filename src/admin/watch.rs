//! Telling what happens to connections, as it happens.

use super::show;
use crate::hub::{ConnectionEvent, ConnectionEventKind, RoomName};
use crate::wire::admin as api;
use api::watch_connections_response::Event as Told;
use futures_util::stream::{self, Stream, StreamExt as _};
use std::time::SystemTime;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;
use tonic::Status;

type Answer = Result<api::WatchConnectionsResponse, Status>;

/// The events of `room`, or of all rooms, until the server stops: then the call ends as every call does.
pub(super) fn events(
    events: Receiver<ConnectionEvent>,
    room: Option<RoomName>,
    stopping: CancellationToken,
) -> impl Stream<Item = Answer> + Send {
    let told = told(events, room).take_until(stopping.cancelled_owned());
    told.chain(stream::once(async { Err(Status::unavailable("the server is stopping")) }))
}

fn told(events: Receiver<ConnectionEvent>, room: Option<RoomName>) -> impl Stream<Item = Answer> + Send {
    stream::unfold((events, room), |(mut events, room)| async {
        loop {
            let told = match events.recv().await {
                Ok(event) if room.as_ref().is_none_or(|room| *room == event.connection.room) => tell(&event),
                Ok(_) => continue,
                Err(RecvError::Lagged(count)) => {
                    let event = Some(Told::Missed(api::Missed { count }));
                    api::WatchConnectionsResponse { event, time: Some(show::time(SystemTime::now())) }
                }
                Err(RecvError::Closed) => return None,
            };
            return Some((Ok(told), (events, room)));
        }
    })
}

fn tell(event: &ConnectionEvent) -> api::WatchConnectionsResponse {
    let connection = Some(show::connection(&event.connection));
    let told = match &event.kind {
        ConnectionEventKind::Joined => Told::Joined(api::Joined { connection }),
        ConnectionEventKind::Left(reason) => Told::Left(api::Left { connection, reason: reason.to_string() }),
        ConnectionEventKind::Lagging => Told::Lagging(api::Lagging { connection }),
        ConnectionEventKind::Kicked(reason) => {
            Told::Kicked(api::Kicked { connection, reason: reason.clone() })
        }
    };
    api::WatchConnectionsResponse { event: Some(told), time: Some(show::time(event.at)) }
}
