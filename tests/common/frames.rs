//! gRPC and HTTP/2 bytes made and read by hand: the five-byte prefix, protobuf field 1, and the few frames a raw client
//! needs. It knows no socket and no server.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const CHAT: &str = "/hello.ChatRoom/Chat";

/// `message {string message = 1}` as one gRPC message.
pub fn message(text: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(text.len() + 12);
    put_message(&mut bytes, text);
    bytes.freeze()
}

pub fn put_message(bytes: &mut BytesMut, text: &[u8]) {
    let length = (1 + varint_length(text.len()) + text.len()) as u32;
    bytes.put_u8(0);
    bytes.put_u32(length);
    bytes.put_u8(0x0a);
    put_varint(bytes, text.len());
    bytes.put_slice(text);
}

/// The longest text whose gRPC message is still `size` bytes long, prefix not counted.
pub fn text_of_message_size(size: usize) -> usize {
    (0..size).rev().find(|text| 1 + varint_length(*text) + text <= size).unwrap()
}

/// Any bytes as one uncompressed gRPC message.
pub fn prefixed(payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(payload.len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(payload.len() as u32);
    bytes.put_slice(payload);
    bytes.freeze()
}

fn varint_length(mut value: usize) -> usize {
    let mut length = 1;
    while value >= 0x80 {
        value >>= 7;
        length += 1;
    }
    length
}

pub fn put_varint(bytes: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        bytes.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

/// Takes gRPC messages out of DATA frames that may be cut anywhere.
#[derive(Default)]
pub struct Unframer {
    carry: Vec<u8>,
}

impl Unframer {
    /// Calls `each` with the encoding of every message that `frame` completes.
    pub fn take(&mut self, frame: &[u8], mut each: impl FnMut(&[u8])) {
        if self.carry.is_empty() {
            let used = whole_messages(frame, &mut each);
            self.carry.extend_from_slice(&frame[used..]);
        } else {
            self.carry.extend_from_slice(frame);
            let used = whole_messages(&self.carry, &mut each);
            self.carry.drain(..used);
        }
    }

    /// Whether a message has begun and not ended.
    pub fn is_inside(&self) -> bool {
        !self.carry.is_empty()
    }
}

fn whole_messages(bytes: &[u8], each: &mut impl FnMut(&[u8])) -> usize {
    let mut at = 0;
    while let Some(prefix) = bytes.get(at..at + 5) {
        assert_eq!(prefix[0], 0, "a compressed message nobody asked for");
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let Some(body) = bytes.get(at + 5..at + 5 + length) else {
            break;
        };
        each(body);
        at += 5 + length;
    }
    at
}

/// Where field 1 lies in a `ChatResponse`; an empty message has none.
pub fn text_in(body: &[u8]) -> Range<usize> {
    if body.is_empty() {
        return 0..0;
    }
    assert_eq!(body[0], 0x0a, "not a ChatResponse: {body:02x?}");
    let (mut length, mut at) = (0, 1);
    loop {
        length |= usize::from(body[at] & 0x7f) << (7 * (at - 1));
        at += 1;
        if body[at - 1] < 0x80 {
            break;
        }
    }
    assert_eq!(at + length, body.len(), "more than one field");
    at..at + length
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;

pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The client's side of a handshake, with windows so wide that only the socket can be full.
pub fn handshake() -> Vec<u8> {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let mut setting = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    setting.extend(0x7fff_ffff_u32.to_be_bytes());
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &setting));
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
    bytes
}

/// The HEADERS that open a Chat call.
pub fn chat_call(stream: u32, room: &str, name: &str) -> Vec<u8> {
    call_head(stream, CHAT, &[("chatroom-room", room), ("chatroom-name", name)])
}

/// The HEADERS that open a call; each header a literal that is not indexed, without Huffman coding.
pub fn call_head(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in headers.iter().chain(more) {
        block.push(0);
        for string in [name, value] {
            assert!(string.len() < 127, "HPACK lengths of one byte only");
            block.push(string.len() as u8);
            block.extend(string.as_bytes());
        }
    }
    frame(HEADERS, END_HEADERS, stream, &block)
}
