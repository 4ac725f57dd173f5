//! gRPC's messages out of a call's bytes, and the one text in a message that counts.
//!
//! Promises to copy nothing but what is split between two pieces of input, and to build no message: a text is found by
//! the numbers of the fields it is in, whatever fields a server adds beside it.

use super::protocol::Fault;
use crate::cli::ProtocolArg;

/// Compressed flag and length.
const PREFIX: usize = 5;

/// No message of a run comes near: an answer that claims more is none.
const MESSAGE_MAX: usize = 16 << 20;

/// What distinguishes the gRPC services a run can load.
pub(super) struct Service {
    pub(super) path: &'static str,
    /// The fields that the text of an answer is in, from the outermost.
    pub(super) heard: &'static [u32],
    /// Likewise of a request.
    pub(super) said: &'static [u32],
    /// Whether a call begins with a message of its own, that names the room, and is answered.
    pub(super) greets: bool,
}

/// `hello.ChatRoom`: one text, one field.
const HELLO: Service = Service { path: "/hello.ChatRoom/Chat", heard: &[1], said: &[1], greets: false };

/// `chatroom.v1`: `event.body.text` and `publish.body.text`.
const V1: Service =
    Service { path: "/chatroom.v1.ChatService/Join", heard: &[2, 5, 1], said: &[2, 3, 1], greets: true };

impl Service {
    pub(super) fn of(protocol: ProtocolArg) -> &'static Self {
        if protocol == ProtocolArg::V1 { &V1 } else { &HELLO }
    }

    /// A message with this text, framed.
    pub(super) fn say(&self, text: &[u8], out: &mut Vec<u8>) {
        frame(self.said, text, out);
    }

    /// `hello.room`, if it is named.
    pub(super) fn greet(room: Option<&str>, out: &mut Vec<u8>) {
        match room {
            Some(room) => frame(&[1, 1], room.as_bytes(), out),
            None => frame(&[1], b"", out),
        }
    }
}

/// A message that is nothing but a text, as deep as `path` says.
fn frame(path: &[u32], text: &[u8], out: &mut Vec<u8>) {
    let mut lengths = [0; 4];
    let mut length = text.len();
    for (depth, _) in path.iter().enumerate().rev() {
        lengths[depth] = length;
        length += 1 + varint_length(length);
    }
    out.push(0);
    out.extend_from_slice(&(length as u32).to_be_bytes());
    for (field, length) in path.iter().zip(lengths) {
        out.push((field << 3) as u8 | LENGTH_DELIMITED);
        varint(length, out);
    }
    out.extend_from_slice(text);
}

const LENGTH_DELIMITED: u8 = 2;

fn varint_length(number: usize) -> usize {
    (number.max(1).ilog2() / 7 + 1) as usize
}

fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A call's bytes, cut into messages.
#[derive(Default)]
pub(super) struct MessageReader {
    partial: Vec<u8>,
}

impl MessageReader {
    /// Reads on, and hands on each message that is complete.
    #[inline]
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Fault> {
        while !self.partial.is_empty() {
            let wanted = length(&self.partial)?.map_or(PREFIX, |length| PREFIX + length);
            let taken = bytes.len().min(wanted - self.partial.len());
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.partial.len() < wanted {
                return Ok(());
            }
            if length(&self.partial)? == Some(wanted - PREFIX) {
                each(&self.partial[PREFIX..]);
                self.partial.clear();
            }
        }
        while let Some(length) = length(bytes)? {
            let Some(message) = bytes.get(PREFIX..PREFIX + length) else { break };
            each(message);
            bytes = &bytes[PREFIX + length..];
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

/// The length of the message that begins here, once its prefix is there.
#[inline]
fn length(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(&[compressed, a, b, c, d]) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if compressed != 0 || length > MESSAGE_MAX {
        return Err(Fault::new("no gRPC message, or a compressed one"));
    }
    Ok(Some(length))
}

/// The text in a message: the last of the fields in `path`, each within the one before.
#[inline]
pub(super) fn text<'a>(message: &'a [u8], path: &[u32]) -> Option<&'a [u8]> {
    let mut inner = message;
    for &field in path {
        inner = find(inner, field)?;
    }
    Some(inner)
}

#[inline]
fn find(message: &[u8], field: u32) -> Option<&[u8]> {
    let mut rest = message;
    while !rest.is_empty() {
        let key = read_varint(&mut rest)?;
        match key & 7 {
            0 => {
                read_varint(&mut rest)?;
            }
            1 => rest = rest.get(8..)?,
            5 => rest = rest.get(4..)?,
            2 => {
                let length = usize::try_from(read_varint(&mut rest)?).ok()?;
                let value = rest.get(..length)?;
                if key >> 3 == u64::from(field) {
                    return Some(value);
                }
                rest = &rest[length..];
            }
            _ => return None,
        }
    }
    None
}

#[inline]
fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hello::ChatRequest;
    use crate::wire::v1::{Body, Event, JoinRequest, JoinResponse, body, join_request, join_response};
    use prost::Message as _;

    fn messages(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut reader, mut found) = (MessageReader::default(), Vec::new());
        for piece in pieces {
            reader.feed(piece, |message| found.push(message.to_vec())).unwrap();
        }
        found
    }

    #[test]
    fn messages_split_at_any_two_bytes_read_the_same() {
        let (mut wire, mut expected) = (Vec::new(), Vec::new());
        for text in ["one", "", "a third that is longer"] {
            HELLO.say(text.as_bytes(), &mut wire);
            expected.push(ChatRequest { message: text.to_owned() });
        }
        for first in 0..=wire.len() {
            for second in first..=wire.len() {
                let found = messages(&[&wire[..first], &wire[first..second], &wire[second..]]);
                let found: Vec<_> = found.iter().map(|m| ChatRequest::decode(&m[..]).unwrap()).collect();
                assert_eq!(found, expected, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn empty_messages_are_messages() {
        assert_eq!(messages(&[&[0; 7], &[0; 8]]), vec![Vec::<u8>::new(); 3]);
    }

    #[test]
    fn compressed_and_absurd_messages_are_refused() {
        for wire in [[1, 0, 0, 0, 1], [0, 0xff, 0, 0, 0]] {
            assert!(MessageReader::default().feed(&wire, |_| ()).is_err());
        }
    }

    #[test]
    fn a_text_is_found_beside_fields_that_a_server_adds() {
        let other_fields = b"\x10\x96\x01\x1a\x03ann\x21abcdefgh\x2dabcd";
        let message = [&other_fields[..], b"\x0a\x02hi", other_fields].concat();
        assert_eq!(text(&message, HELLO.heard), Some(&b"hi"[..]));
        assert_eq!(text(other_fields, HELLO.heard), None);
        for end in 0..message.len() {
            let _ = text(&message[..end], HELLO.heard);
        }
    }

    #[test]
    fn what_v1_says_is_what_its_proto_says() {
        let mut wire = Vec::new();
        V1.say("x".repeat(300).as_bytes(), &mut wire);
        let request = JoinRequest::decode(&wire[PREFIX..]).unwrap();
        let Some(join_request::Request::Publish(publish)) = request.request else { panic!("{request:?}") };
        assert_eq!(publish.body.unwrap().body, Some(body::Body::Text("x".repeat(300))));
        wire.clear();
        Service::greet(Some("blue"), &mut wire);
        let request = JoinRequest::decode(&wire[PREFIX..]).unwrap();
        assert!(matches!(request.request, Some(join_request::Request::Hello(hello)) if hello.room == "blue"));
        let body = Some(Body { body: Some(body::Body::Text("hi".into())) });
        let event = Event { kind: "chat".into(), body, ..Event::default() };
        let response = JoinResponse { response: Some(join_response::Response::Event(event)) };
        assert_eq!(text(&response.encode_to_vec(), V1.heard), Some(&b"hi"[..]));
    }
}
