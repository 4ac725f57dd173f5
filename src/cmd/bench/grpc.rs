//! Splits a call's bytes into gRPC messages, and finds the text in a message.
//!
//! Copies only messages that are split between two pieces of input, and decodes none: it finds a text by its path of field
//! numbers, whatever fields a server adds beside it.

use super::call_handler::CallError;
use crate::cli::ProtocolArg;

/// Compressed flag and length.
const PREFIX: usize = 5;

/// Far above any message of a run: a longer one is invalid.
const MESSAGE_MAX: usize = 16 << 20;

/// A gRPC method that a run can load.
pub(super) struct Service {
    pub(super) path: &'static str,
    /// Path of field numbers to the text of a response, outermost first.
    pub(super) response_path: &'static [u32],
    /// Path to the text of a request.
    pub(super) request_path: &'static [u32],
    /// Whether a call begins with a hello message, which names the room and gets a response.
    pub(super) has_hello: bool,
}

/// `hello.ChatRoom`: one text, one field.
const HELLO: Service =
    Service { path: "/hello.ChatRoom/Chat", response_path: &[1], request_path: &[1], has_hello: false };

/// `chatroom.v1`: `event.body.text` and `publish.body.text`.
const V1: Service = Service {
    path: "/chatroom.v1.ChatService/Join",
    response_path: &[2, 5, 1],
    request_path: &[2, 3, 1],
    has_hello: true,
};

impl Service {
    pub(super) fn of(protocol: ProtocolArg) -> &'static Self {
        if protocol == ProtocolArg::V1 { &V1 } else { &HELLO }
    }

    /// Writes a framed message with this text.
    pub(super) fn write_publish(&self, text: &[u8], out: &mut Vec<u8>) {
        frame(self.request_path, text, out);
    }

    /// Writes the hello message, with the room if it has a name.
    pub(super) fn write_hello(room: Option<&str>, out: &mut Vec<u8>) {
        match room {
            Some(room) => frame(&[1, 1], room.as_bytes(), out),
            None => frame(&[1], b"", out),
        }
    }
}

/// Writes a message that contains only a text at this path.
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

/// Splits a call's bytes into messages.
#[derive(Default)]
pub(super) struct MessageReader {
    partial: Vec<u8>,
}

impl MessageReader {
    /// Reads more bytes; passes each complete message to `each`.
    #[inline]
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), CallError> {
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

/// The length of the message that starts here; `None` while its prefix is incomplete.
#[inline]
fn length(bytes: &[u8]) -> Result<Option<usize>, CallError> {
    let Some(&[compressed, a, b, c, d]) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if compressed != 0 || length > MESSAGE_MAX {
        return Err(CallError::new("not a gRPC message, or a compressed one"));
    }
    Ok(Some(length))
}

/// The text at this path in a message.
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
        let mut reader = MessageReader::default();
        let mut found = Vec::new();
        for piece in pieces {
            reader.feed(piece, |message| found.push(message.to_vec())).unwrap();
        }
        found
    }

    #[test]
    fn messages_split_at_any_two_bytes_read_the_same() {
        let mut wire = Vec::new();
        let mut expected = Vec::new();
        for text in ["one", "", "a third that is longer"] {
            HELLO.write_publish(text.as_bytes(), &mut wire);
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
    fn empty_messages_are_found() {
        assert_eq!(messages(&[&[0; 7], &[0; 8]]), vec![Vec::<u8>::new(); 3]);
    }

    #[test]
    fn compressed_and_oversized_messages_are_refused() {
        for wire in [[1, 0, 0, 0, 1], [0, 0xff, 0, 0, 0]] {
            assert!(MessageReader::default().feed(&wire, |_| ()).is_err());
        }
    }

    #[test]
    fn text_is_found_beside_unknown_fields() {
        let other_fields = b"\x10\x96\x01\x1a\x03ann\x21abcdefgh\x2dabcd";
        let message = [&other_fields[..], b"\x0a\x02hi", other_fields].concat();
        assert_eq!(text(&message, HELLO.response_path), Some(&b"hi"[..]));
        assert_eq!(text(other_fields, HELLO.response_path), None);
        for end in 0..message.len() {
            let _ = text(&message[..end], HELLO.response_path);
        }
    }

    #[test]
    fn v1_paths_match_the_proto() {
        let mut wire = Vec::new();
        V1.write_publish("x".repeat(300).as_bytes(), &mut wire);
        let request = JoinRequest::decode(&wire[PREFIX..]).unwrap();
        let Some(join_request::Request::Publish(publish)) = request.request else { panic!("{request:?}") };
        assert_eq!(publish.body.unwrap().body, Some(body::Body::Text("x".repeat(300))));
        wire.clear();
        Service::write_hello(Some("blue"), &mut wire);
        let request = JoinRequest::decode(&wire[PREFIX..]).unwrap();
        assert!(matches!(request.request, Some(join_request::Request::Hello(hello)) if hello.room == "blue"));
        let body = Some(Body { body: Some(body::Body::Text("hi".into())) });
        let event = Event { kind: "chat".into(), body, ..Event::default() };
        let response = JoinResponse { response: Some(join_response::Response::Event(event)) };
        assert_eq!(text(&response.encode_to_vec(), V1.response_path), Some(&b"hi"[..]));
    }
}
