//! The metadata of requests: balancers that route by room read its name there.

use tonic::Request;

const ROOM: &str = "chatroom-room";
/// The room of a call that names none.
const LOBBY: &str = "lobby";

/// A request about a room, which its metadata names as the message does.
pub(super) fn in_room<T>(room: &str, message: T) -> Request<T> {
    let room = if room.is_empty() { LOBBY } else { room };
    let mut request = Request::new(message);
    // A name that cannot be metadata is no room's name: the server refuses it by the message.
    if let Ok(room) = room.parse() {
        request.metadata_mut().insert(ROOM, room);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_named_also_where_the_message_leaves_it_out() {
        for (room, named) in [("blue", Some("blue")), ("", Some("lobby")), ("a\nb", None)] {
            let request = in_room(room, ());
            let value = request.metadata().get(ROOM).map(|value| value.to_str().unwrap());
            assert_eq!(value, named);
        }
    }
}
