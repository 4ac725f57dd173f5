//! A client of `chatroom.v1` on the frugal transport: its requests written, and what it hears read, field by field.
//!
//! It promises that whatever the server says is shown as it came, without a copy. It does not use the crate's generated
//! code.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use http::Method;

use super::{
    PATIENCE,
    client::{Ending, RequestStream, ResponseStream, Transport, call},
    frames, within,
};

pub const JOIN: &str = "/chatroom.v1.ChatService/Join";
pub const SUBSCRIBE: &str = "/chatroom.v1.ChatService/Subscribe";
pub const PUBLISH: &str = "/chatroom.v1.ChatService/Publish";
pub const LIST_EVENTS: &str = "/chatroom.v1.ChatService/ListEvents";

/// A protobuf message as it is written. Fields with their default value are left out.
#[derive(Default)]
pub struct Writing(BytesMut);

impl Writing {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn number(mut self, field: u64, value: u64) -> Self {
        if value != 0 {
            frames::put_varint(&mut self.0, (field << 3) as usize);
            frames::put_varint(&mut self.0, value as usize);
        }
        self
    }

    pub fn text(self, field: u64, value: &str) -> Self {
        if value.is_empty() { self } else { self.bytes(field, value.as_bytes()) }
    }

    /// Is there even if it is empty.
    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        frames::put_varint(&mut self.0, (field << 3 | 2) as usize);
        frames::put_varint(&mut self.0, value.len());
        self.0.extend_from_slice(value);
        self
    }

    pub fn message(self, field: u64, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    /// As one gRPC message.
    pub fn framed(&self) -> Bytes {
        frames::prefixed(&self.0)
    }
}

/// A field's value as it is on the wire.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(bytes) => panic!("not a number: {bytes:02x?}"),
        }
    }

    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("not bytes: {number}"),
        }
    }

    fn text(self) -> &'a str {
        str::from_utf8(self.bytes()).expect("strings are UTF-8")
    }
}

/// Calls `each` with every field of a message.
pub fn fields<'a>(mut message: &'a [u8], mut each: impl FnMut(u64, Value<'a>)) {
    while !message.is_empty() {
        let key = varint(&mut message);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut message)),
            2 => {
                let length = varint(&mut message) as usize;
                let (value, rest) = message.split_at(length);
                message = rest;
                Value::Bytes(value)
            }
            kind => panic!("nothing in chatroom.v1 has the wire type {kind}"),
        };
        each(key >> 3, value);
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for at in 0..10 {
        let byte = bytes[at];
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return value;
        }
    }
    panic!("a varint of more than ten bytes")
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position<'a> {
    pub epoch: &'a str,
    pub offset: u64,
}

impl<'a> Position<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut position = Self::default();
        fields(message, |field, value| match field {
            1 => position.epoch = value.text(),
            2 => position.offset = value.number(),
            _ => panic!("a position has no field {field}"),
        });
        position
    }

    pub fn writing(&self) -> Writing {
        Writing::new().text(1, self.epoch).number(2, self.offset)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    Text(&'a [u8]),
    Data(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    pub position: Position<'a>,
    pub kind: &'a str,
    pub body: Body<'a>,
}

impl<'a> Event<'a> {
    pub fn of(message: &'a [u8]) -> Self {
        let mut event = Self { position: Position::default(), kind: "", body: Body::Text(b"") };
        fields(message, |field, value| match field {
            1 => event.position = Position::of(value.bytes()),
            4 => event.kind = value.text(),
            5 => fields(value.bytes(), |field, value| {
                event.body = match field {
                    1 => Body::Text(value.bytes()),
                    2 => Body::Data(value.bytes()),
                    _ => panic!("nobody said a body {field}"),
                }
            }),
            _ => {}
        });
        event
    }
}

/// Why messages are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    Retention,
    Epoch,
    Slow,
}

/// What a room says to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    Welcome(Position<'a>),
    Event(Event<'a>),
    Ack { reference: &'a str, position: Position<'a>, repeated: bool },
    Gap { from: Position<'a>, to: Position<'a>, count: u64, why: Why },
    Presence,
    Goodbye { reason: &'a str, position: Position<'a> },
}

impl<'a> Incoming<'a> {
    pub fn of(response: &'a [u8]) -> Self {
        let mut received = None;
        fields(response, |field, value| {
            assert!(received.is_none(), "one response says two things");
            let message = value.bytes();
            received = Some(match field {
                1 => Self::Welcome(the_position(message, 3)),
                2 => Self::Event(Event::of(message)),
                3 => Self::ack(message),
                4 => Self::gap(message),
                5 => Self::Presence,
                6 => Self::goodbye(message),
                _ => panic!("a response has no field {field}"),
            });
        });
        received.expect("an empty response")
    }

    fn ack(message: &'a [u8]) -> Self {
        let (mut reference, mut repeated) = ("", false);
        fields(message, |field, value| match field {
            1 => reference = value.text(),
            3 => repeated = value.number() != 0,
            _ => {}
        });
        Self::Ack { reference, position: the_position(message, 2), repeated }
    }

    pub fn gap(message: &'a [u8]) -> Self {
        let (mut count, mut why) = (0, None);
        fields(message, |field, value| match field {
            3 => count = value.number(),
            4 => {
                why = match value.number() {
                    1 => Some(Why::Retention),
                    2 => Some(Why::Epoch),
                    3 => Some(Why::Slow),
                    _ => None,
                }
            }
            _ => {}
        });
        let why = why.expect("a gap has a reason");
        Self::Gap { from: the_position(message, 1), to: the_position(message, 2), count, why }
    }

    fn goodbye(message: &'a [u8]) -> Self {
        let mut reason = "";
        fields(message, |field, value| {
            if field == 1 {
                reason = value.text();
            }
        });
        Self::Goodbye { reason, position: the_position(message, 3) }
    }
}

/// The position in this field.
fn the_position(message: &[u8], of_field: u64) -> Position<'_> {
    let mut position = None;
    fields(message, |field, value| {
        if field == of_field {
            position = Some(Position::of(value.bytes()));
        }
    });
    position.expect("a position")
}

/// Where to begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    #[default]
    Tail,
    Earliest,
    After(String, u64),
}

impl Start {
    fn writing(&self) -> Writing {
        match self {
            Self::Tail => Writing::new(),
            Self::Earliest => Writing::new().bytes(2, b""),
            Self::After(epoch, offset) => {
                let position = Position { epoch, offset: *offset };
                Writing::new().message(4, &position.writing())
            }
        }
    }
}

/// How to join.
#[derive(Clone, Debug, Default)]
pub struct Hello<'a> {
    pub room: &'a str,
    pub name: &'a str,
    pub start: Start,
    pub kinds: &'a [&'a str],
    pub suppress_echo: bool,
    pub presence: bool,
}

impl Hello<'_> {
    fn common(&self) -> Writing {
        let begun = Writing::new().text(1, self.room).text(2, self.name).message(3, &self.start.writing());
        self.kinds.iter().fold(begun, |writing, kind| writing.text(4, kind))
    }

    /// As the first request of a `Join`.
    pub fn joining(&self) -> Bytes {
        let hello = self.common().number(5, self.suppress_echo.into()).number(6, self.presence.into());
        Writing::new().message(1, &hello).framed()
    }

    fn subscribing(&self) -> Bytes {
        self.common().number(5, self.presence.into()).framed()
    }
}

/// Something to say.
pub struct Publication<'a> {
    pub reference: &'a str,
    pub kind: &'a str,
    pub body: Body<'a>,
    pub key: &'a str,
}

impl Publication<'_> {
    fn body(&self) -> Writing {
        match self.body {
            Body::Text(text) => Writing::new().bytes(1, text),
            Body::Data(data) => Writing::new().bytes(2, data),
        }
    }

    /// As a request of a `Join`.
    pub fn publish(&self) -> Bytes {
        let publish = Writing::new().text(1, self.reference).text(2, self.kind).message(3, &self.body());
        Writing::new().message(2, &publish.text(4, self.key)).framed()
    }
}

/// One open call of `Join` or `Subscribe`.
pub struct V1Member {
    pub requests: RequestStream,
    responses: ResponseStream,
}

impl V1Member {
    /// Says hello; the welcome is the first that it hears.
    pub async fn join(transport: &Transport, hello: &Hello<'_>) -> Self {
        Self::open(transport, JOIN, hello.joining()).await
    }

    pub async fn subscribe(transport: &Transport, hello: &Hello<'_>) -> Self {
        let mut member = Self::open(transport, SUBSCRIBE, hello.subscribing()).await;
        member.requests.half_close();
        member
    }

    async fn open(transport: &Transport, method: &str, first: Bytes) -> Self {
        let (response, mut opened) =
            transport.open(call(Method::POST, method, "application/grpc", &[])).await;
        assert_eq!(response.status(), 200);
        opened.requests.send(first).await;
        Self { requests: opened.requests, responses: opened.responses }
    }

    /// Reads one DATA frame and calls `each` with everything it completes; or the ending, which stays.
    /// May be dropped while it waits without losing anything.
    pub async fn receive(&mut self, mut each: impl FnMut(&Incoming<'_>)) -> Option<Ending> {
        self.responses.receive_bodies(|response| each(&Incoming::of(response))).await
    }

    /// Hears until `each` has had enough.
    ///
    /// # Panics
    /// When the call ends before.
    pub async fn receives_until(
        &mut self,
        what: &str,
        mut each: impl FnMut(&Incoming<'_>) -> ControlFlow<()>,
    ) {
        let hearing = async {
            let mut enough = false;
            while !enough {
                let ending = self.receive(|received| enough |= each(received).is_break()).await;
                assert!(enough || ending.is_none(), "{ending:?} instead of {what}");
            }
        };
        within(PATIENCE, what, hearing).await;
    }
}

/// A unary call: the encoding of its one answer.
pub async fn asks(transport: &Transport, method: &str, request: &Writing) -> Bytes {
    let call = call(Method::POST, method, "application/grpc", &[]);
    let (_, mut call) = transport.ask(call, request.framed()).await;
    let mut answer = None;
    let ending = within(PATIENCE, method, async {
        loop {
            let each = |body: &[u8]| answer = Some(Bytes::copy_from_slice(body));
            if let Some(ending) = call.responses.receive_bodies(each).await {
                return ending;
            }
        }
    });
    let ending = ending.await;
    answer.unwrap_or_else(|| panic!("{method} ends with {ending:?}"))
}

/// Says one thing by `Publish`; its position's offset.
pub async fn publishes(transport: &Transport, room: &str, publication: &Publication<'_>) -> u64 {
    let request = Writing::new().text(1, room).text(3, publication.kind).message(4, &publication.body());
    let answer = asks(transport, PUBLISH, &request.text(5, publication.key)).await;
    the_position(&answer, 1).offset
}

/// Everything that a room retains, by pages.
pub async fn lists_events(transport: &Transport, room: &str, mut each: impl FnMut(&Event<'_>)) {
    let mut token = String::new();
    loop {
        let request = Writing::new().text(1, room).number(2, 1000).text(3, &token);
        let page = asks(transport, LIST_EVENTS, &request).await;
        token.clear();
        fields(&page, |field, value| match field {
            1 => each(&Event::of(value.bytes())),
            2 => value.text().clone_into(&mut token),
            _ => panic!("a gap in what is retained: {:?}", Incoming::gap(value.bytes())),
        });
        if token.is_empty() {
            return;
        }
    }
}
