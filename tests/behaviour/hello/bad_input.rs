//! What bad input gets, and that nobody else in the room notices any of it.

use crate::common::{
    client::{Member, Transport, call, chat},
    frames,
    server::Server,
};
use bytes::Bytes;
use http::Method;
use tonic::Code;

const MESSAGE_MAX: usize = 64 * 1024;

/// A room with one member who does wrong and one who only listens.
struct Fixture {
    server: Server,
    witness: Member,
    culprit: Member,
}

impl Fixture {
    async fn new() -> Self {
        let server = Server::start(&[]);
        let witness = server.join_as("lobby", "witness").await;
        let culprit = server.join_as("lobby", "culprit").await;
        Self { server, witness, culprit }
    }

    async fn sends(&mut self, bytes: &'static [u8]) {
        self.culprit.requests.send(Bytes::from_static(bytes)).await;
    }

    /// The culprit is sent away, and the first thing the witness hears is said after that.
    async fn culprit_is_sent_away(&mut self, code: Code, departure: &str) {
        self.culprit.ends_with(code).await;
        assert_eq!(self.server.departure_of("culprit").await, departure);
        let mut ann = self.server.join("lobby").await;
        ann.publish("after").await;
        self.witness.receives("after").await;
    }
}

#[tokio::test]
async fn message_of_64_kib_is_delivered() {
    let mut room = Fixture::new().await;
    let longest = "x".repeat(frames::text_of_message_size(MESSAGE_MAX));
    room.culprit.publish(&longest).await;
    room.culprit.receives(&longest).await;
    room.witness.receives(&longest).await;
}

#[tokio::test]
async fn message_over_64_kib_is_resource_exhausted() {
    let mut room = Fixture::new().await;
    let too_long = "x".repeat(frames::text_of_message_size(MESSAGE_MAX) + 1);
    let published = frames::message(too_long.as_bytes());
    // The answer may come before all of it is sent.
    let _ = room.culprit.requests.try_send(published).await;
    room.culprit_is_sent_away(Code::ResourceExhausted, "message_too_large").await;
}

#[tokio::test]
async fn declared_length_of_4_gib_is_refused_unread() {
    let mut room = Fixture::new().await;
    room.sends(b"\0\xff\xff\xff\xff").await;
    room.culprit_is_sent_away(Code::ResourceExhausted, "message_too_large").await;
}

#[tokio::test]
async fn invalid_utf8_is_never_broadcast() {
    let mut room = Fixture::new().await;
    room.sends(b"\0\0\0\0\x04\x0a\x02\xc3\x28").await;
    room.culprit_is_sent_away(Code::Internal, "invalid_message").await;
}

#[tokio::test]
async fn broken_protobuf_is_never_broadcast() {
    for broken in [
        b"\0\0\0\0\x03\x0a\x09x".as_slice(), // a string longer than its message
        b"\0\0\0\0\x02\x08\x01",             // field 1 as a varint
        b"\0\0\0\0\x02\x0f\x01",             // wire type 7
        b"\0\0\0\0\x01\x0a",                 // a key without a value
        b"\0\0\0\0\x0b\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", // a length beyond 64 bits
    ] {
        let mut room = Fixture::new().await;
        room.sends(broken).await;
        room.culprit_is_sent_away(Code::Internal, "invalid_message").await;
    }
}

#[tokio::test]
async fn stream_end_inside_message_is_internal() {
    for truncated in [b"\0\0\0".as_slice(), b"\0\0\0\0\x09\x0a\x07half"] {
        let mut room = Fixture::new().await;
        room.sends(truncated).await;
        room.culprit.half_close();
        room.culprit_is_sent_away(Code::Internal, "invalid_message").await;
    }
}

#[tokio::test]
async fn compressed_flag_without_encoding_is_internal() {
    let mut room = Fixture::new().await;
    room.sends(b"\x01\0\0\0\x04\x0a\x02hi").await;
    room.culprit_is_sent_away(Code::Internal, "invalid_message").await;
}

#[tokio::test]
async fn reserved_flag_is_internal() {
    let mut room = Fixture::new().await;
    room.sends(b"\x07\0\0\0\x04\x0a\x02hi").await;
    room.culprit_is_sent_away(Code::Internal, "invalid_message").await;
}

#[tokio::test]
async fn messages_before_bad_one_are_delivered() {
    let mut room = Fixture::new().await;
    room.sends(b"\0\0\0\0\x04\x0a\x02hi\0\0\0\0\x04\x0a\x02\xc3\x28").await;
    room.witness.receives("hi").await;
    let ending = loop {
        match room.culprit.next().await {
            Ok(received) => assert_eq!(received, "hi"),
            Err(ending) => break ending,
        }
    };
    assert_eq!(ending.code(), Some(Code::Internal), "{ending:?}");
}

#[tokio::test]
async fn unknown_fields_are_skipped() {
    let mut room = Fixture::new().await;
    room.sends(b"\0\0\0\0\x06\x10\x05\x0a\x02hi").await;
    room.witness.receives("hi").await;
}

#[tokio::test]
async fn message_in_single_byte_frames_is_one_message() {
    let mut room = Fixture::new().await;
    for byte in frames::message(b"hi").chunks(1) {
        room.culprit.requests.send(Bytes::copy_from_slice(byte)).await;
        tokio::task::yield_now().await;
    }
    room.witness.receives("hi").await;
}

#[tokio::test]
async fn unknown_method_service_or_encoding_is_unimplemented() {
    let server = Server::start(&[]);
    let transport = Transport::connect(server.addr).await;
    for path in ["/hello.ChatRoom/Whisper", "/hello.Nobody/Chat", "/", "/nothing"] {
        let unknown = call(Method::POST, path, "application/grpc", &[]);
        let (response, mut nobody) = transport.open(unknown).await;
        assert_eq!(response.status(), 200, "{path}");
        nobody.ends_with(Code::Unimplemented).await;
    }
    let (_, mut squeezed) = transport.open(chat(&[("grpc-encoding", "br")])).await;
    let _ = squeezed.requests.try_send(Bytes::from_static(b"\x01\0\0\0\x04\x0a\x02hi")).await;
    squeezed.ends_with(Code::Unimplemented).await;
}

#[tokio::test]
async fn non_grpc_request_gets_http_status() {
    let server = Server::start(&[]);
    let transport = Transport::connect(server.addr).await;
    for (method, content_type, status) in [
        (Method::GET, "application/grpc", 405),
        (Method::PUT, "application/grpc", 405),
        (Method::POST, "application/json", 415),
        (Method::POST, "text/plain", 415),
        (Method::POST, "application/grpc+proto", 200),
    ] {
        let request = call(method.clone(), frames::CHAT, content_type, &[]);
        let (response, _) = transport.open(request).await;
        assert_eq!(response.status(), status, "{method} {content_type}");
    }
    let stopped = server.stop().await;
    assert_eq!((stopped.joined, stopped.departed), (1, 1));
}

#[tokio::test]
async fn noise_on_port_is_closed_and_disturbs_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut room = Fixture::new().await;
    for noise in [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 TLS", // how a ClientHello begins
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        let mut socket = tokio::net::TcpStream::connect(room.server.addr).await.unwrap();
        socket.write_all(noise).await.unwrap();
        let reading = async {
            let mut answer = Vec::new();
            // Closed or reset, both are an end.
            let _ = socket.read_to_end(&mut answer).await;
        };
        crate::common::within(crate::common::PATIENCE, "the end of a noisy socket", reading).await;
    }
    room.culprit.publish("after").await;
    room.witness.receives("after").await;
}
