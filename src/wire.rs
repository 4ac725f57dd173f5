//! What goes over the wire: the generated gRPC code and the framing of messages.
//!
//! Promises that a framed message is byte for byte what a stock gRPC server would send.
//! Knows nothing of rooms, connections or sockets.

use bytes::{BufMut, BytesMut};
use prost::Message;

/// The contract: `hello.ChatRoom`.
#[cfg(feature = "server")]
#[allow(
    missing_docs,
    clippy::pedantic,
    reason = "generated; the contract's file must stay byte for byte, so it has no comments"
)]
pub mod hello {
    tonic::include_proto!("hello");
}

/// The API for new clients: `chatroom.v1`.
#[allow(clippy::pedantic, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("chatroom.v1");
}

/// The operator's API: `chatroom.admin.v1`.
#[cfg(feature = "server")]
#[allow(clippy::pedantic, reason = "generated")]
pub mod admin {
    tonic::include_proto!("chatroom.admin.v1");
}

/// gRPC's health protocol, with List. The messages of Check and Watch are tonic-health's.
#[cfg(feature = "server")]
#[allow(missing_docs, clippy::pedantic, reason = "generated")]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// Every service's encoded descriptors, for server reflection.
#[cfg(feature = "server")]
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Bytes before each message on a gRPC stream: a compressed flag and a length.
/// Source: the gRPC-over-HTTP/2 protocol, "Length-Prefixed-Message".
pub const PREFIX_LEN: usize = 5;

/// Bytes [`frame_text`] writes for a text of `len` bytes.
#[must_use]
pub fn text_frame_len(len: usize) -> usize {
    PREFIX_LEN + text_message_len(len)
}

/// Appends one uncompressed gRPC message with `text` as its string field 1, which is a `ChatResponse`.
/// An empty text is an empty message, as proto3 leaves default values out.
///
/// # Panics
/// When `text` is 4 GiB or longer: the message limit is far below.
pub fn frame_text(text: &str, out: &mut BytesMut) {
    prefix(text_message_len(text.len()), out);
    if !text.is_empty() {
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, out);
        prost::encoding::encode_varint(text.len() as u64, out);
        out.put_slice(text.as_bytes());
    }
}

/// Appends one uncompressed gRPC message.
///
/// # Panics
/// When the message is 4 GiB or longer: the message limit is far below.
pub fn frame(message: &impl Message, out: &mut BytesMut) {
    prefix(message.encoded_len(), out);
    message.encode_raw(out);
}

fn prefix(len: usize, out: &mut BytesMut) {
    out.reserve(PREFIX_LEN + len);
    out.put_u8(0);
    out.put_u32(u32::try_from(len).expect("messages are limited far below 4 GiB"));
}

/// What an event says, borrowed.
pub struct EventParts<'a> {
    /// Its place in the room's order.
    pub position: v1::Position,
    /// When it got it.
    pub time: prost_types::Timestamp,
    /// Who said it.
    pub sender: Option<&'a v1::Member>,
    /// What sort of thing it is.
    pub kind: &'a str,
    /// What was said.
    pub body: &'a v1::body::Body,
}

/// Appends one uncompressed gRPC message: a `JoinResponse`, or `SubscribeResponse`, that is this event. As
/// [`frame`] would, without a copy of what was said.
///
/// # Panics
/// As [`frame`].
pub fn frame_event(parts: &EventParts<'_>, out: &mut BytesMut) {
    use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len, message};
    // The numbers of the fields of Event, and of the event in the responses.
    const EVENT: u32 = 2;
    const POSITION: u32 = 1;
    const TIME: u32 = 2;
    const SENDER: u32 = 3;
    const KIND: u32 = 4;
    const BODY: u32 = 5;
    let EventParts { position, time, sender, kind, body } = parts;
    let delimited = |tag, len: usize| key_len(tag) + encoded_len_varint(len as u64) + len;
    let kind_len = if kind.is_empty() { 0 } else { delimited(KIND, kind.len()) };
    let len = message::encoded_len(POSITION, position)
        + message::encoded_len(TIME, time)
        + sender.map_or(0, |sender| message::encoded_len(SENDER, sender))
        + kind_len
        + delimited(BODY, body.encoded_len());
    let begin = |tag, len: usize, out: &mut BytesMut| {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(len as u64, out);
    };
    prefix(delimited(EVENT, len), out);
    begin(EVENT, len, out);
    message::encode(POSITION, position, out);
    message::encode(TIME, time, out);
    if let Some(sender) = sender {
        message::encode(SENDER, *sender, out);
    }
    if !kind.is_empty() {
        begin(KIND, kind.len(), out);
        out.put_slice(kind.as_bytes());
    }
    begin(BODY, body.encoded_len(), out);
    body.encode(out);
}

fn text_message_len(len: usize) -> usize {
    match len {
        0 => 0,
        len => 1 + prost::encoding::encoded_len_varint(len as u64) + len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framed_event_is_what_prost_would_encode() {
        let sender = v1::Member { connection_id: "c".repeat(36), display_name: "ann".to_owned() };
        let any = prost_types::Any { type_url: "t/u".to_owned(), value: vec![1, 2, 3] };
        let long = "x".repeat(20_000);
        for (sender, kind, body) in [
            (Some(&sender), "chat", v1::body::Body::Text(long)),
            (Some(&sender), "chat", v1::body::Body::Text(String::new())),
            (None, "move", v1::body::Body::Data(vec![7; 300])),
            (None, "", v1::body::Body::Any(any)),
        ] {
            let position = v1::Position { epoch: "0123456789abcdef".to_owned(), offset: 300 };
            let time = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5 };
            let event = v1::Event {
                position: Some(position.clone()),
                time: Some(time),
                sender: sender.cloned(),
                kind: kind.to_owned(),
                body: Some(v1::Body { body: Some(body.clone()) }),
            };
            let parts = EventParts { position, time, sender, kind, body: &body };
            let (mut ours, mut joined, mut subscribed) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
            frame_event(&parts, &mut ours);
            let response = v1::join_response::Response::Event(event.clone());
            frame(&v1::JoinResponse { response: Some(response) }, &mut joined);
            assert_eq!(ours, joined);
            let response = v1::subscribe_response::Response::Event(event);
            frame(&v1::SubscribeResponse { response: Some(response) }, &mut subscribed);
            assert_eq!(ours, subscribed);
        }
    }

    #[test]
    fn a_framed_text_is_what_prost_would_encode() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 65_536] {
            let text = "x".repeat(len);
            let mut framed = BytesMut::new();
            frame_text(&text, &mut framed);
            assert_eq!(framed.len(), text_frame_len(len));
            let body = hello::ChatResponse { message: text.clone() }.encode_to_vec();
            assert_eq!(framed[0], 0);
            assert_eq!(framed[1..5], (body.len() as u32).to_be_bytes());
            assert_eq!(framed[5..], body);
        }
    }
}
