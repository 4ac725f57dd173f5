//! A chat client straight on h2: cheap enough to be 250 of them beside the server, and open enough to misbehave.
//!
//! It promises that flow-control windows are given back as soon as a frame is read and never before, that a mouth sends
//! no more than the window lets it, and that an ending is told as it came. Whoever does not read simply does not call.

use std::{collections::VecDeque, future::poll_fn, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use h2::{
    Reason, RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Method, Request, Response, request};
use socket2::SockRef;
use tokio::{net::TcpStream, task::JoinHandle};
use tonic::Code;

use super::{
    PATIENCE,
    frames::{self, Unframer},
    within,
};

/// What the client lets the server send unread, in bytes.
#[derive(Clone, Copy)]
pub struct Windows {
    pub stream: u32,
    pub connection: u32,
}

impl Windows {
    /// For loads: the windows are never what is measured.
    pub const WIDE: Self = Self { stream: 4 << 20, connection: 64 << 20 };
    /// What a grpc client that sets nothing has.
    pub const DEFAULT: Self = Self { stream: 65_535, connection: 65_535 };
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With a gRPC status.
    Status(Code, String),
    /// With `RST_STREAM`.
    Reset(Reason),
    /// With its transport, by GOAWAY or at the socket.
    Lost(String),
}

impl Ending {
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Status(code, _) => Some(*code),
            _ => None,
        }
    }

    fn of_error(error: &h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason),
            _ => Self::Lost(error.to_string()),
        }
    }

    fn of_trailers(trailers: &HeaderMap) -> Option<Self> {
        let text = |name| Some(trailers.get(name)?.to_str().unwrap());
        let code = Code::from_bytes(text("grpc-status")?.as_bytes());
        let message = text("grpc-message").unwrap_or_default();
        Some(Self::Status(code, message.to_owned()))
    }
}

/// One TCP + HTTP/2 connection. Its calls keep it open; the last of them closes it.
pub struct Transport {
    requests: SendRequest<Bytes>,
    task: JoinHandle<Option<String>>,
}

impl Transport {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::connect_with(addr, Windows::WIDE).await
    }

    pub async fn connect_with(addr: SocketAddr, windows: Windows) -> Self {
        let connecting = async { Self::over(TcpStream::connect(addr).await.unwrap(), windows).await };
        let transport = within(PATIENCE, "a transport", connecting).await;
        transport.unwrap()
    }

    pub async fn over(socket: TcpStream, windows: Windows) -> Result<Self, h2::Error> {
        let _ = socket.set_nodelay(true);
        let (requests, connection) = client::Builder::new()
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .enable_push(false)
            // Else h2 gives up on a server whose messages meet calls that were dropped a moment ago.
            .max_local_error_reset_streams(None)
            .handshake(socket)
            .await?;
        let task = tokio::spawn(async move { connection.await.err().map(|end| end.to_string()) });
        Ok(Self { requests, task })
    }

    /// A transport whose [`cut`](Self::cut) is a TCP reset.
    pub async fn connect_abortive(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).await.unwrap();
        let at_once = Some(Duration::ZERO);
        SockRef::from(&socket).set_linger(at_once).unwrap();
        Self::over(socket, Windows::WIDE).await.unwrap()
    }

    /// Drops the socket under all its calls.
    pub async fn cut(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Joins `room` as `name`; returns when the response headers are here.
    pub async fn join(&self, room: &str, name: &str) -> Member {
        let call = chat(&[("chatroom-room", room), ("chatroom-name", name)]);
        let (response, member) = self.open(call).await;
        assert_eq!(response.status(), 200);
        if let Some(ending) = &member.responses.ending {
            panic!("{name} was not let into {room:?}: {ending:?}");
        }
        member
    }

    /// Opens any call and waits for its response headers.
    pub async fn open(&self, call: request::Builder) -> (Response<()>, Member) {
        let opening = within(PATIENCE, "response headers", self.try_open(call)).await;
        opening.unwrap()
    }

    pub async fn try_open(&self, call: request::Builder) -> Result<(Response<()>, Member), h2::Error> {
        let (answer, words) = self.send(call).await?;
        Member::answered(answer, words).await
    }

    /// Opens a unary call: the whole request first, then its response headers.
    pub async fn ask(&self, call: request::Builder, request: Bytes) -> (Response<()>, Member) {
        let asking = async {
            let (answer, words) = self.send(call).await.unwrap();
            let mut requests = RequestStream { words };
            requests.send(request).await;
            requests.half_close();
            Member::answered(answer, requests.words).await
        };
        within(PATIENCE, "an answer", asking).await.unwrap()
    }

    /// Sends the head of a call and waits for nothing.
    pub async fn send(
        &self,
        call: request::Builder,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut ready = self.requests.clone().ready().await?;
        let only_the_head = call.body(()).unwrap();
        ready.send_request(only_the_head, false)
    }
}

/// A well-formed Chat call with these headers besides.
pub fn chat(headers: &[(&str, &str)]) -> request::Builder {
    call(Method::POST, frames::CHAT, "application/grpc", headers)
}

pub fn call(method: Method, path: &str, content_type: &str, headers: &[(&str, &str)]) -> request::Builder {
    let mut call = Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .header("content-type", content_type)
        .header("te", "trailers");
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    call
}

/// One open call.
pub struct Member {
    pub requests: RequestStream,
    pub responses: ResponseStream,
}

impl Member {
    /// A call whose response headers are here.
    pub async fn answered(
        answer: ResponseFuture,
        words: SendStream<Bytes>,
    ) -> Result<(Response<()>, Self), h2::Error> {
        let (head, body) = answer.await?.into_parts();
        let responses = ResponseStream {
            body,
            unframer: Unframer::default(),
            received: VecDeque::new(),
            ending: Ending::of_trailers(&head.headers),
        };
        let requests = RequestStream { words };
        Ok((Response::from_parts(head, ()), Self { requests, responses }))
    }

    pub async fn publish(&mut self, text: &str) {
        self.requests.publish(text).await;
    }

    /// The next message is `text`.
    pub async fn receives(&mut self, text: &str) {
        let received = self.next().await;
        assert_eq!(received.as_deref(), Ok(text));
    }

    pub async fn next(&mut self) -> Result<String, Ending> {
        within(PATIENCE, "the next message", self.responses.next()).await
    }

    pub fn half_close(&mut self) {
        self.requests.half_close();
    }

    /// Nothing more is heard before the call ends.
    pub async fn ends(&mut self) -> Ending {
        self.next().await.expect_err("a message before the end")
    }

    pub async fn ends_with(&mut self, code: Code) {
        let ending = self.ends().await;
        assert_eq!(ending.code(), Some(code), "{ending:?}");
    }

    /// `RST_STREAM` with CANCEL.
    pub fn reset(mut self) {
        self.requests.words.send_reset(Reason::CANCEL);
    }
}

pub struct RequestStream {
    words: SendStream<Bytes>,
}

impl RequestStream {
    pub async fn publish(&mut self, text: &str) {
        self.send(frames::message(text.as_bytes())).await;
    }

    /// Says them in as few frames as the window allows.
    pub async fn publish_all(&mut self, texts: &[String]) {
        let mut bytes = BytesMut::new();
        for text in texts {
            frames::put_message(&mut bytes, text.as_bytes());
        }
        self.send(bytes.freeze()).await;
    }

    /// Sends any bytes; waits for the window.
    pub async fn send(&mut self, bytes: Bytes) {
        let sending = within(PATIENCE, "room in the window", self.try_send(bytes)).await;
        sending.unwrap();
    }

    pub async fn try_send(&mut self, mut bytes: Bytes) -> Result<(), h2::Error> {
        while !bytes.is_empty() {
            self.words.reserve_capacity(bytes.len());
            while self.words.capacity() == 0 {
                match poll_fn(|cx| self.words.poll_capacity(cx)).await {
                    Some(granted) => granted?,
                    None => return Err(Reason::STREAM_CLOSED.into()),
                };
            }
            let now = self.words.capacity().min(bytes.len());
            self.words.send_data(bytes.split_to(now), false)?;
        }
        Ok(())
    }

    pub fn half_close(&mut self) {
        // Fails only if the call is over, which the ear tells better.
        let _ = self.words.send_data(Bytes::new(), true);
    }

    pub fn reset(&mut self, reason: Reason) {
        self.words.send_reset(reason);
    }

    /// Waits until the server resets the stream.
    pub async fn is_reset(&mut self) -> Reason {
        poll_fn(|cx| self.words.poll_reset(cx)).await.unwrap()
    }
}

pub struct ResponseStream {
    body: RecvStream,
    unframer: Unframer,
    received: VecDeque<String>,
    pub ending: Option<Ending>,
}

impl ResponseStream {
    /// The next message, or how the call ended.
    pub async fn next(&mut self) -> Result<String, Ending> {
        loop {
            if let Some(text) = self.received.pop_front() {
                return Ok(text);
            }
            let mut texts = Vec::new();
            let ending = self.receive(|text| texts.push(String::from_utf8(text.to_vec()).unwrap())).await;
            self.received.extend(texts);
            if let (Some(ending), true) = (ending, self.received.is_empty()) {
                return Err(ending);
            }
        }
    }

    /// Reads one DATA frame and calls `each` with every text it completes; or the ending, which stays.
    /// May be dropped while it waits without losing anything.
    pub async fn receive(&mut self, mut each: impl FnMut(&[u8])) -> Option<Ending> {
        self.receive_bodies(|body| each(&body[frames::text_in(body)])).await
    }

    /// The same with the encoding of every message, of whatever type.
    pub async fn receive_bodies(&mut self, each: impl FnMut(&[u8])) -> Option<Ending> {
        if self.ending.is_some() {
            return self.ending.clone();
        }
        match self.body.data().await {
            Some(Ok(frame)) => {
                self.unframer.take(&frame, each);
                // Fails only once the stream is over, which the next read tells better.
                let _ = self.body.flow_control().release_capacity(frame.len());
                return None;
            }
            Some(Err(error)) => self.ending = Some(Ending::of_error(&error)),
            None => self.ending = Some(self.trailers().await),
        }
        self.ending.clone()
    }

    async fn trailers(&mut self) -> Ending {
        let ending = match self.body.trailers().await {
            Ok(Some(trailers)) => Ending::of_trailers(&trailers),
            Ok(None) => None,
            Err(error) => Some(Ending::of_error(&error)),
        };
        let ending = ending.unwrap_or(Ending::Lost("no grpc-status".to_owned()));
        if self.unframer.is_inside() {
            return Ending::Lost(format!("inside a message, with {ending:?}"));
        }
        ending
    }
}
