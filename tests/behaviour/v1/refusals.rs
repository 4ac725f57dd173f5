//! `chatroom.v1`: what is not taken has its code and names the field that is wrong, and nobody else notices.

use crate::common::{
    PATIENCE,
    client::{Transport, call},
    server::Server,
    v1::{
        Call, Guest, after, body as body_of, client, hello, hello_of, is_invalid, keyed, of_kind, offset,
        publish_in, reason_of, request, text, text_of,
    },
    within,
};
use bytes::Bytes;
use chatroom::wire::v1::{
    Body, Hello, JoinRequest, JoinResponse, ListEventsRequest, ListMembersRequest, Position, Publish,
    PublishRequest, SubscribeRequest, body, join_request::Request, join_response::Response,
};
use http::Method;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status, Streaming, transport::Channel};

const JOIN: &str = "/chatroom.v1.ChatService/Join";

/// One who must notice nothing: it hears only what is right, in order.
struct Bystander(Guest, u64);

impl Bystander {
    async fn of(server: &Server) -> Self {
        Self(Guest::joins(server, hello_of("blue", "bystander")).await, 0)
    }

    async fn receives(&mut self, words: &str) {
        self.1 += 1;
        assert_eq!(offset(&self.0.receives(words).await), self.1);
    }

    async fn noticed_nothing(mut self) {
        self.0.publish_and_receive("still here").await;
        assert_eq!(self.0.leaves().await.position.unwrap().offset, self.1 + 1);
    }
}

fn publishes(publish: Publish) -> JoinRequest {
    request(Request::Publish(publish))
}

fn hello_request(hello: Hello) -> JoinRequest {
    request(Request::Hello(hello))
}

fn kinds(kinds: &[&str]) -> Vec<String> {
    kinds.iter().map(|kind| (*kind).to_owned()).collect()
}

/// What no call that begins with a room takes: the room, the name, the kinds, and the field that is wrong.
fn wrong_hellos() -> Vec<(Hello, String)> {
    let long = |len| "x".repeat(len);
    let mut wrong = Vec::new();
    for room in [" ", "no room", "a/b", "ü", "a\n", "*", &long(129)] {
        wrong.push((hello(room), "room".to_owned()));
    }
    for name in ["a\nb", "\u{7}", "\u{1b}[31m", "\0", "\u{7f}", &long(65), &"ü".repeat(65)] {
        wrong.push((hello_of("blue", name), "display_name".to_owned()));
    }
    for name in
        ["mallory ", "\u{a0}mallory", "mallory\u{200b}", "mal\u{ad}lory", "\u{61c}mallory", "\u{feff}"]
    {
        wrong.push((hello_of("blue", name), "display_name".to_owned()));
    }
    let of = |kinds| Hello { kinds, ..hello("blue") };
    wrong.push((of(vec!["x".to_owned(); 33]), "kinds".to_owned()));
    wrong.push((of(kinds(&[""])), "kinds[0]".to_owned()));
    wrong.push((of(kinds(&["chat", "no kind"])), "kinds[1]".to_owned()));
    wrong.push((of(kinds(&["chat", "ok", &long(65), "no kind"])), "kinds[2]".to_owned()));
    let no_epoch = after(&Position { epoch: "nowhere".to_owned(), offset: 1 });
    wrong.push((Hello { start: Some(no_epoch), ..hello("blue") }, "start.after.epoch".to_owned()));
    wrong
}

/// What nobody takes to say: without a path, the field that is wrong.
fn wrong_publishes() -> Vec<(Publish, &'static str)> {
    let mut wrong = vec![
        (Publish::default(), "body"),
        (Publish { body: Some(Body { body: None }), ..Default::default() }, "body"),
    ];
    for kind in ["no kind", "ü", "a/b", "\n", &"k".repeat(65)] {
        wrong.push((of_kind(kind, text("never heard")), "kind"));
    }
    for key in ["k".repeat(65), "ü".repeat(33)] {
        wrong.push((keyed(&key, text("never heard")), "idempotency_key"));
    }
    wrong
}

#[tokio::test]
async fn invalid_hello_is_refused_without_join() {
    let server = Server::start(&[]);
    let bystander = Bystander::of(&server).await;
    let mut client = client(&server).await;
    let mut wrong = vec![
        (publishes(text("never heard")), "publish".to_owned()),
        (publishes(Publish::default()), "publish".to_owned()),
        (JoinRequest::default(), "request".to_owned()),
    ];
    wrong.extend(
        wrong_hellos().into_iter().map(|(hello, field)| (hello_request(hello), format!("hello.{field}"))),
    );
    for (first, field) in wrong {
        let mut call = Call::opens(&mut client).await;
        call.sends(first);
        // What it goes on to say is not said.
        call.publishes(text("never heard"));
        is_invalid(&call.is_over().await, &field);
    }
    let mut call = Call::opens(&mut client).await;
    call.half_closes();
    is_invalid(&call.is_over().await, "request");
    for (hello, field) in wrong_hellos() {
        let Hello { room, display_name, start, kinds, presence, .. } = hello;
        let request = SubscribeRequest { room, display_name, start, kinds, presence };
        let mut responses = client.subscribe(request).await.unwrap().into_inner();
        is_invalid(&within(PATIENCE, "a refusal", responses.message()).await.unwrap_err(), &field);
    }
    bystander.noticed_nothing().await;
    let stopped = server.stop().await;
    assert_eq!((stopped.joined, stopped.departed), (1, 1));
}

#[tokio::test]
async fn invalid_publish_ends_call_after_valid_ones() {
    let server = Server::start(&[]);
    let mut bystander = Bystander::of(&server).await;
    let mut wrong = vec![
        (hello_request(hello("blue")), "hello".to_owned()),
        (hello_request(hello("no room")), "hello".to_owned()),
        (JoinRequest::default(), "request".to_owned()),
    ];
    for reference in ["r".repeat(65), "ü".repeat(33)] {
        wrong.push((publishes(Publish { reference, ..text("never heard") }), "publish.reference".to_owned()));
    }
    wrong.extend(
        wrong_publishes()
            .into_iter()
            .map(|(publish, field)| (publishes(publish), format!("publish.{field}"))),
    );
    for (n, (sent, field)) in wrong.into_iter().enumerate() {
        let (name, words) = (format!("culprit {n}"), format!("before {n}"));
        let mut culprit = Guest::joins(&server, hello_of("blue", &name)).await;
        culprit.publishes(text(&words));
        culprit.sends(sent);
        culprit.publishes(text("never heard"));
        let place = offset(&culprit.receives(&words).await);
        let (goodbye, status) = culprit.ends().await;
        is_invalid(&status, &field);
        assert_eq!((&*goodbye.reason, goodbye.retry_after), ("invalid_message", None));
        assert_eq!(goodbye.position.unwrap().offset, place);
        assert_eq!(server.departure_of(&name).await, "invalid_message");
        bystander.receives(&words).await;
    }
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn unary_refusals_name_the_field() {
    let server = Server::start(&[]);
    let bystander = Bystander::of(&server).await;
    let mut client = client(&server).await;
    for (publish, field) in wrong_publishes() {
        is_invalid(&client.publish(publish_in("blue", publish)).await.unwrap_err(), field);
    }
    for (hello, field) in wrong_hellos() {
        let Hello { room, display_name, start, kinds, .. } = hello;
        if field == "room" || field == "display_name" {
            let publish = PublishRequest {
                display_name: display_name.clone(),
                ..publish_in(&room, text("never heard"))
            };
            is_invalid(&client.publish(publish).await.unwrap_err(), &field);
        }
        if field != "display_name" {
            let list = ListEventsRequest { room: room.clone(), start, kinds, ..Default::default() };
            is_invalid(&client.list_events(list).await.unwrap_err(), &field);
        }
        if field == "room" {
            let list = ListMembersRequest { room, ..Default::default() };
            is_invalid(&client.list_members(list).await.unwrap_err(), &field);
        }
    }
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn values_at_limits_are_accepted() {
    let server = Server::start(&[]);
    let name = "ü".repeat(64);
    let long_kind = "k".repeat(64);
    let mut all = vec![long_kind.clone(); 31];
    all.push("chat".to_owned());
    let of_room = Hello { kinds: all, ..hello_of(&"r".repeat(128), &name) };
    let mut ann = Guest::joins(&server, of_room).await;
    let publish =
        Publish { reference: "r".repeat(64), ..keyed(&"ü".repeat(32), of_kind(&long_kind, text("hi"))) };
    ann.publishes(publish);
    let event = ann.receives("hi").await;
    assert_eq!((event.kind, event.sender.unwrap().display_name), (long_kind, name));
    assert_eq!(ann.ack().await.reference.len(), 64);
}

fn is_too_large(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(reason_of(status).reason, "MESSAGE_TOO_LARGE");
}

#[tokio::test]
async fn oversized_requests_are_resource_exhausted() {
    let server = Server::start(&[]);
    let bystander = Bystander::of(&server).await;
    let mut client = client(&server).await;
    let large = "x".repeat(64 * 1024);
    let mut joining = Call::opens(&mut client).await;
    joining.sends(hello_request(hello_of("blue", &large)));
    is_too_large(&joining.is_over().await);
    let request = SubscribeRequest { display_name: large.clone(), ..Default::default() };
    // With the head, or after it.
    let subscribed = match client.subscribe(request).await {
        Ok(responses) => within(PATIENCE, "a refusal", responses.into_inner().message()).await.map(drop),
        Err(status) => Err(status),
    };
    is_too_large(&subscribed.unwrap_err());
    is_too_large(&client.publish(publish_in("blue", text(&large))).await.unwrap_err());
    let list = ListEventsRequest { room: large.clone(), ..Default::default() };
    is_too_large(&client.list_events(list).await.unwrap_err());
    let list = ListMembersRequest { room: large, ..Default::default() };
    is_too_large(&client.list_members(list).await.unwrap_err());
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn missing_hello_times_out() {
    let server = Server::start(&[]);
    let mut call = Call::opens(&mut client(&server).await).await;
    let status = call.is_over().await;
    assert_eq!((status.code(), &*reason_of(&status).reason), (Code::DeadlineExceeded, "NO_REQUEST"));
    let stopped = server.stop().await;
    assert_eq!((stopped.joined, stopped.departed), (0, 0));
}

/// Sends bytes as they are, each as one message.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = JoinResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = JoinResponse;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<JoinResponse>, Status> {
        Ok(Some(JoinResponse::decode(buffer).unwrap()))
    }
}

/// A Join that sends these messages and stays open.
async fn joins_raw(
    server: &Server,
    messages: &[&[u8]],
) -> (mpsc::UnboundedSender<Vec<u8>>, Streaming<JoinResponse>) {
    let channel = Channel::from_shared(format!("http://{}", server.addr)).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let (publish, published) = mpsc::unbounded_channel();
    for message in messages {
        publish.send(message.to_vec()).unwrap();
    }
    let request = tonic::Request::new(UnboundedReceiverStream::new(published));
    let opening = grpc.streaming(request, http::uri::PathAndQuery::from_static(JOIN), Raw);
    (publish, within(PATIENCE, "response headers", opening).await.unwrap().into_inner())
}

const BROKEN: [&[u8]; 6] = [
    b"\x0a\x09x",                                    // a message longer than what has it
    b"\x08\x01",                                     // field 1 as a varint
    b"\x0f\x01",                                     // wire type 7
    b"\x0a",                                         // a key without a value
    b"\x12\x06\x1a\x04\x0a\x02\xc3\x28",             // a text that is no UTF-8
    b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", // a length beyond 64 bits
];

#[tokio::test]
async fn broken_protobuf_is_internal_and_never_broadcast() {
    let server = Server::start(&[]);
    let mut bystander = Bystander::of(&server).await;
    let hello = hello_request(hello("blue")).encode_to_vec();
    for (n, broken) in BROKEN.into_iter().enumerate() {
        let (_open, mut responses) = joins_raw(&server, &[broken, &hello]).await;
        let status = within(PATIENCE, "a refusal", responses.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{broken:02x?}: {status:?}");
        assert_eq!(reason_of(&status).reason, "INVALID_MESSAGE");

        let words = format!("before {n}");
        let published = publishes(text(&words)).encode_to_vec();
        let (_open, mut responses) = joins_raw(&server, &[&hello, &published, broken, &published]).await;
        let mut received = Vec::new();
        let status = loop {
            match within(PATIENCE, "a response", responses.message()).await {
                Ok(response) => received.push(response.unwrap().response.unwrap()),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Internal, "{broken:02x?}: {status:?}");
        assert_eq!(reason_of(&status).reason, "INVALID_MESSAGE");
        let [Response::Welcome(_), Response::Event(event), Response::Goodbye(goodbye)] = &received[..] else {
            panic!("{received:?}")
        };
        assert_eq!((text_of(event), &*goodbye.reason), (Some(&*words), "invalid_message"));
        bystander.receives(&words).await;
    }
    let mut client = client(&server).await;
    let fine = client.publish(publish_in("red", text("fine"))).await;
    assert!(fine.is_ok());
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn unknown_fields_of_newer_clients_are_skipped() {
    let server = Server::start(&[]);
    // A start of a sort that is not known, and fields that are not: from the tail, then.
    let mut ann = Guest::joins(&server, hello("blue")).await;
    ann.publish_and_receive("old").await;
    let hello = b"\x0a\x0f\x0a\x04blue\x1a\x02\x48\x01\xf8\x01\x07\x42\x00";
    // Two bodies: the last counts, as everywhere in protobuf.
    let both = b"\x12\x09\x1a\x07\x0a\x02hi\x12\x01d";
    let (_open, mut responses) = joins_raw(&server, &[hello, both]).await;
    let welcome = within(PATIENCE, "a welcome", responses.message()).await.unwrap().unwrap();
    let Some(Response::Welcome(welcome)) = welcome.response else { panic!("{welcome:?}") };
    assert_eq!((&*welcome.room, welcome.position.unwrap().offset), ("blue", 1));
    let event = ann.event().await;
    assert_eq!(event.body, Some(body_of(body::Body::Data(b"d".to_vec()))));
}

#[tokio::test]
async fn broken_frames_unknown_methods_and_encodings_are_refused() {
    let server = Server::start(&[]);
    let bystander = Bystander::of(&server).await;
    let transport = Transport::connect(server.addr).await;
    for path in
        ["/chatroom.v1.ChatService/Whisper", "/chatroom.v1.ChatService/", "/chatroom.v2.ChatService/Join"]
    {
        let (_, mut nobody) = transport.open(call(Method::POST, path, "application/grpc", &[])).await;
        nobody.ends_with(Code::Unimplemented).await;
    }
    for method in ["Join", "Subscribe", "Publish", "ListEvents", "ListMembers", "ListRooms"] {
        let path = &format!("/chatroom.v1.ChatService/{method}");
        let mut squeezed = open_with(&transport, path, "br", b"\x01\0\0\0\x01x").await;
        squeezed.ends_with(Code::Unimplemented).await;
        for (broken, code) in [
            (b"\0\0\0\0\x02\x0f\x01".as_slice(), Code::Internal), // wire type 7
            (b"\x01\0\0\0\x02\x0a\x00", Code::Internal),          // compressed, without an encoding
            (b"\x07\0\0\0\x02\x0a\x00", Code::Internal),          // a reserved flag
            (b"\0\xff\xff\xff\xff", Code::ResourceExhausted),     // 4 GiB declared
            (b"\0\0\0\0\x09\x0a\x07half", Code::Internal),        // the call ends inside a message
        ] {
            let mut culprit = open_with(&transport, path, "identity", broken).await;
            let ending = culprit.ends().await;
            assert_eq!(ending.code(), Some(code), "{path} {broken:02x?}: {ending:?}");
        }
    }
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn unknown_method_or_encoding_has_error_info() {
    let server = Server::start(&[]);
    let channel = Channel::from_shared(format!("http://{}", server.addr)).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    for (path, encoding, reason) in [
        ("/chatroom.v1.ChatService/Whisper", "identity", "NO_SUCH_METHOD"),
        ("/hello.ChatRoom/Whisper", "identity", "NO_SUCH_METHOD"),
        ("/chatroom.v1.ChatService/Join", "br", "CODING_NOT_ACCEPTED"),
        ("/chatroom.v1.ChatService/Publish", "br", "CODING_NOT_ACCEPTED"),
        ("/chatroom.v1.ChatService/ListRooms", "br", "CODING_NOT_ACCEPTED"),
        ("/hello.ChatRoom/Chat", "br", "CODING_NOT_ACCEPTED"),
    ] {
        grpc.ready().await.unwrap();
        let mut request = tonic::Request::new(Vec::new());
        request.metadata_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let asking = grpc.unary(request, http::uri::PathAndQuery::from_static(path), Raw);
        let status = within(PATIENCE, "a refusal", asking).await.unwrap_err();
        assert_eq!((status.code(), &*reason_of(&status).reason), (Code::Unimplemented, reason), "{path}");
    }
}

/// A call that sends these bytes and half-closes.
async fn open_with(
    transport: &Transport,
    path: &str,
    encoding: &str,
    bytes: &'static [u8],
) -> crate::common::client::Member {
    let head = call(Method::POST, path, "application/grpc", &[("grpc-encoding", encoding)]);
    let (answer, mut words) = within(PATIENCE, "a call", transport.send(head)).await.unwrap();
    words.send_data(Bytes::from_static(bytes), true).unwrap();
    let answered = crate::common::client::Member::answered(answer, words);
    within(PATIENCE, "response headers", answered).await.unwrap().1
}
