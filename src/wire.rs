//! The generated gRPC code, and the framing of messages.
//!
//! Guarantees: a framed message has the same bytes that a stock gRPC server would send. Deliberately does not know rooms,
//! connections or sockets.

use bytes::{BufMut, BytesMut};
use prost::Message;

/// The original API: `hello.ChatRoom`.
#[cfg(feature = "server")]
#[allow(
    missing_docs,
    clippy::pedantic,
    reason = "generated; the proto file is frozen byte for byte, so it has no comments"
)]
pub mod hello {
    tonic::include_proto!("hello");
}

/// The API for new clients: `chatroom.v1`.
#[cfg(any(feature = "client", feature = "server"))]
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

/// gRPC's health protocol, with List. Check and Watch use tonic-health's messages.
#[cfg(feature = "server")]
#[allow(missing_docs, clippy::pedantic, reason = "generated")]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// The encoded descriptors of every service, for server reflection.
#[cfg(feature = "server")]
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Bytes of the prefix of each message on a gRPC stream: a compressed flag and a length.
/// Source: gRPC over HTTP/2, "Length-Prefixed-Message".
pub const PREFIX_LEN: usize = 5;

/// The bytes that [`frame_text`] writes for a text of `len` bytes.
#[must_use]
pub fn text_frame_len(len: usize) -> usize {
    PREFIX_LEN + text_message_len(len)
}

/// Appends one uncompressed gRPC message with `text` as its string field 1: a `ChatResponse`. An empty text makes an empty
/// message, as proto3 omits default values.
///
/// # Panics
/// If `text` has 4 GiB or more; the message limit is far below.
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
/// If the message has 4 GiB or more; the message limit is far below.
pub fn frame(message: &impl Message, out: &mut BytesMut) {
    prefix(message.encoded_len(), out);
    message.encode_raw(out);
}

fn prefix(len: usize, out: &mut BytesMut) {
    out.reserve(PREFIX_LEN + len);
    out.put_u8(0);
    out.put_u32(u32::try_from(len).expect("messages are limited far below 4 GiB"));
}

/// The fields of a `chatroom.v1.Event`, borrowed.
#[cfg(feature = "server")]
pub struct EventRef<'a> {
    /// Its position in the room's order.
    pub position: v1::Position,
    /// When the server assigned the position.
    pub time: prost_types::Timestamp,
    /// The sender; `None` for the server.
    pub sender: Option<&'a v1::Member>,
    /// The kind, for filters.
    pub kind: &'a str,
    /// The body.
    pub body: &'a v1::body::Body,
}

/// Appends one uncompressed gRPC message: a `JoinResponse`, or equally a `SubscribeResponse`, with this event. The bytes are
/// those of [`frame`], without a copy of the body.
///
/// # Panics
/// Like [`frame`].
#[cfg(feature = "server")]
pub fn frame_event(event: &EventRef<'_>, out: &mut BytesMut) {
    use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len, message};
    // Field numbers of Event, and of the event in both responses.
    const EVENT: u32 = 2;
    const POSITION: u32 = 1;
    const TIME: u32 = 2;
    const SENDER: u32 = 3;
    const KIND: u32 = 4;
    const BODY: u32 = 5;
    let EventRef { position, time, sender, kind, body } = event;
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
    fn framed_event_equals_prost_encoding() {
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
            let parts = EventRef { position, time, sender, kind, body: &body };
            let mut ours = BytesMut::new();
            let mut joined = BytesMut::new();
            let mut subscribed = BytesMut::new();
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
    fn framed_text_equals_prost_encoding() {
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
