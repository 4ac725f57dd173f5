//! Request metadata: the room's name, for load balancers that route by room.

use tonic::Request;

const ROOM: &str = "chatroom-room";
/// The room of a call without a room name.
const LOBBY: &str = "lobby";

/// A request with the room's name in its metadata, as in the message.
pub(super) fn in_room<T>(room: &str, message: T) -> Request<T> {
    let room = if room.is_empty() { LOBBY } else { room };
    let mut request = Request::new(message);
    // A name that is not valid metadata is not a valid room name: the server refuses the message itself.
    if let Ok(room) = room.parse() {
        request.metadata_mut().insert(ROOM, room);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_names_the_default_room() {
        for (room, named) in [("blue", Some("blue")), ("", Some("lobby")), ("a\nb", None)] {
            let request = in_room(room, ());
            let value = request.metadata().get(ROOM).map(|value| value.to_str().unwrap());
            assert_eq!(value, named);
        }
    }
}
