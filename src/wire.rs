//! What goes over the wire: the generated gRPC code and the framing of messages.
//!
//! Promises that a framed message is byte for byte what a stock gRPC server would send.
//! Knows nothing of rooms, connections or sockets.

use bytes::{BufMut, BytesMut};

/// The contract: `hello.ChatRoom`.
#[allow(
    missing_docs,
    clippy::pedantic,
    reason = "generated; the contract's file must stay byte for byte, so it has no comments"
)]
pub mod hello {
    tonic::include_proto!("hello");
}

/// The operator's API: `chatroom.admin.v1`.
#[allow(clippy::pedantic, reason = "generated")]
pub mod admin {
    tonic::include_proto!("chatroom.admin.v1");
}

/// gRPC's health protocol, with List. The messages of Check and Watch are tonic-health's.
#[allow(missing_docs, clippy::pedantic, reason = "generated")]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// Every service's encoded descriptors, for server reflection.
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
    let len = text_message_len(text.len());
    out.reserve(PREFIX_LEN + len);
    out.put_u8(0);
    out.put_u32(u32::try_from(len).expect("messages are limited far below 4 GiB"));
    if !text.is_empty() {
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, out);
        prost::encoding::encode_varint(text.len() as u64, out);
        out.put_slice(text.as_bytes());
    }
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
    use prost::Message;

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
