//! The client's side of gRPC calls on one HTTP/2 transport.
//!
//! Does what a server may expect of a client: respects windows and frame sizes, acknowledges SETTINGS and PING, and returns
//! received bytes to the windows. Its own windows are too large to limit a server. A received message costs no allocation,
//! and no copy unless it is split between two reads.
//!
//! Cost against the `h2` crate: `benches/clients/h2_receiver.rs` receives the same room at the same time with the same
//! checks of content and order. Release builds, 50 connections each, 10 publishers with windows of 64, two busy cores,
//! three runs: 66, 63 and 61 ns of CPU per delivery here, including the publishing and the latencies, against 68, 66 and
//! 78 ns with `h2`, that is 1.04 to 1.28 times as much. With one message per read (500 messages per second) system calls
//! dominate, and there is no gain: 7.1 µs here, with the publisher's timer and a latency per delivery, 5.1 µs with `h2`.

use super::call_handler::{CallError, CallHandler};
use super::frames::{self, Frame, FrameHandler, FrameReader};
use super::grpc::{self, MessageReader, Service};
use super::headers::{self, ResponseHeaders};
use super::plan::Plan;
use loona_hpack::Decoder;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The initial size of a window, and the largest (RFC 9113, 6.9).
const WINDOW_DEFAULT: i64 = 65_535;
const WINDOW_MAX: u32 = 0x7fff_ffff;

/// Received bytes before a `WINDOW_UPDATE`.
const WINDOW_HALF: u32 = WINDOW_MAX / 2;

/// The largest frame that a peer accepts by default.
const FRAME_DEFAULT: usize = 16_384;

/// Setting identifiers (RFC 9113, 6.5.2).
const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

/// The error code of a cancelled call.
const CANCEL: u32 = 8;

/// Longest header block: no regular one comes close.
const BLOCK_MAX: usize = 1 << 16;

/// A transport and its calls.
pub(super) struct Http2 {
    reader: FrameReader,
    connection: Connection,
}

struct Connection {
    service: &'static Service,
    authority: String,
    calls: Vec<Stream>,
    /// The call of each stream, by half the stream id.
    streams: Vec<Option<u32>>,
    decoder: Decoder<'static>,
    block: Vec<u8>,
    out: Vec<u8>,
    /// Bytes of all calls that wait for the server's windows.
    pending: usize,
    up: bool,
    window: i64,
    initial_window: i64,
    frame_max: usize,
    streams_max: usize,
    received: u32,
    goaway: Option<CallError>,
}

struct Stream {
    room: Option<String>,
    /// The stream id; 0 before the start.
    id: u32,
    open: bool,
    reader: MessageReader,
    received: u32,
    window: i64,
    pending: Vec<u8>,
}

impl Http2 {
    pub(super) fn new(plan: &Plan, rooms: &[u32]) -> Self {
        let call = |&room| Stream {
            room: plan.room_name(room),
            id: 0,
            open: false,
            reader: MessageReader::default(),
            received: 0,
            window: WINDOW_DEFAULT,
            pending: Vec::new(),
        };
        let mut connection = Connection {
            service: Service::of(plan.protocol),
            authority: plan.authority.clone(),
            calls: rooms.iter().map(call).collect(),
            streams: Vec::new(),
            decoder: Decoder::new(),
            block: Vec::new(),
            out: PREFACE.to_vec(),
            pending: 0,
            up: false,
            window: WINDOW_DEFAULT,
            initial_window: WINDOW_DEFAULT,
            frame_max: FRAME_DEFAULT,
            streams_max: usize::MAX,
            received: 0,
            goaway: None,
        };
        connection.start();
        Self { reader: FrameReader::new(), connection }
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.up
    }

    #[inline]
    pub(super) fn feed<H: CallHandler>(&mut self, bytes: &[u8], handler: &mut H) -> Result<(), CallError> {
        self.reader.feed(bytes, &mut Inbound { connection: &mut self.connection, handler })
    }

    pub(super) fn backlog(&self, call: usize) -> usize {
        self.connection.calls[call].pending.len() + self.connection.out.len()
    }

    pub(super) fn publish(&mut self, call: usize, text: &[u8]) {
        let Connection { service, calls, pending, .. } = &mut self.connection;
        let before = calls[call].pending.len();
        service.write_publish(text, &mut calls[call].pending);
        *pending += calls[call].pending.len() - before;
    }

    pub(super) fn renew(&mut self, call: usize) {
        let connection = &mut self.connection;
        let Stream { id: stream, open, .. } = connection.calls[call];
        if open {
            frames::write(&mut connection.out, frames::RST_STREAM, 0, stream, &[&CANCEL.to_be_bytes()]);
        }
        connection.streams[stream as usize / 2] = None;
        connection.begin(call);
    }

    /// The bytes that may be written now.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        let connection = &mut self.connection;
        if connection.pending == 0 {
            return &mut connection.out;
        }
        for call in connection.calls.iter_mut().filter(|call| call.open && !call.pending.is_empty()) {
            let allowed = connection.window.min(call.window).max(0);
            let sent = allowed.min(i64::try_from(call.pending.len()).unwrap_or(i64::MAX));
            connection.window -= sent;
            call.window -= sent;
            let sent = usize::try_from(sent).unwrap_or(0);
            for chunk in call.pending[..sent].chunks(connection.frame_max) {
                frames::write(&mut connection.out, frames::DATA, 0, call.id, &[chunk]);
            }
            connection.pending -= sent;
            call.pending.drain(..sent);
        }
        &mut connection.out
    }

    pub(super) fn pending_error(&self) -> Option<CallError> {
        self.connection.goaway.clone()
    }
}

impl Connection {
    /// Writes the preface, the settings and the first call. Further calls wait for the server's settings.
    fn start(&mut self) {
        let mut settings = Vec::new();
        let ours = [
            (HEADER_TABLE_SIZE, 0),
            (ENABLE_PUSH, 0),
            (INITIAL_WINDOW_SIZE, WINDOW_MAX),
            (MAX_FRAME_SIZE, frames::FRAME_MAX as u32),
        ];
        for (name, value) in ours {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        frames::write(&mut self.out, frames::SETTINGS, 0, 0, &[&settings]);
        let more = WINDOW_MAX - WINDOW_DEFAULT as u32;
        frames::write(&mut self.out, frames::WINDOW_UPDATE, 0, 0, &[&more.to_be_bytes()]);
        self.begin(0);
    }

    fn begin(&mut self, number: usize) {
        let stream = self.streams.len() as u32 * 2 + 1;
        self.streams.push(Some(number as u32));
        let call = &mut self.calls[number];
        let room = call.room.as_deref();
        let header = if self.service.has_hello { None } else { room };
        let block = headers::request(self.service.path, &self.authority, header);
        frames::write(&mut self.out, frames::HEADERS, frames::END_HEADERS, stream, &[&block]);
        (call.id, call.open, call.received) = (stream, true, 0);
        call.window = self.initial_window;
        call.reader = MessageReader::default();
        self.pending -= call.pending.len();
        call.pending.clear();
        if self.service.has_hello {
            Service::write_hello(room, &mut call.pending);
            self.pending += call.pending.len();
        }
    }

    fn call_on(&self, stream: u32) -> Option<usize> {
        self.streams.get(stream as usize / 2).copied().flatten().map(|call| call as usize)
    }

    fn on_settings(&mut self, payload: &[u8], handler: &mut impl CallHandler) {
        for setting in payload.chunks_exact(6) {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                MAX_CONCURRENT_STREAMS => self.streams_max = value as usize,
                MAX_FRAME_SIZE => self.frame_max = (value as usize).clamp(FRAME_DEFAULT, frames::FRAME_MAX),
                INITIAL_WINDOW_SIZE => {
                    for call in &mut self.calls {
                        call.window += i64::from(value) - self.initial_window;
                    }
                    self.initial_window = i64::from(value);
                }
                _ => {}
            }
        }
        frames::write(&mut self.out, frames::SETTINGS, frames::ACK, 0, &[]);
        if std::mem::replace(&mut self.up, true) {
            return;
        }
        for number in 1..self.calls.len() {
            if number < self.streams_max {
                self.begin(number);
            } else {
                let error = format!("more than the {} calls that a transport may carry", self.streams_max);
                handler.ended(number, CallError::new(error));
            }
        }
    }

    fn on_block(&mut self, stream: u32, last: bool, handler: &mut impl CallHandler) -> Result<(), CallError> {
        let headers = ResponseHeaders::read(&mut self.decoder, &self.block)?;
        self.block.clear();
        let Some(call) = self.call_on(stream) else { return Ok(()) };
        match headers.end(last) {
            Some(error) => self.end(call, error, handler),
            // With a hello, its response confirms the join.
            None if !self.service.has_hello => handler.joined(call),
            None => {}
        }
        Ok(())
    }

    fn end(&mut self, call: usize, error: CallError, handler: &mut impl CallHandler) {
        self.calls[call].open = false;
        self.pending -= std::mem::take(&mut self.calls[call].pending).len();
        self.streams[self.calls[call].id as usize / 2] = None;
        handler.ended(call, error);
    }

    fn on_goaway(&mut self, payload: &[u8], handler: &mut impl CallHandler) {
        let number =
            |at: usize| payload.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes);
        let last = number(0).unwrap_or(0);
        let code = number(4).unwrap_or(0);
        let error = CallError {
            kind: format!("GOAWAY {}", headers::http2_error(code)),
            message: String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned(),
        };
        for call in 0..self.calls.len() {
            if self.calls[call].open && self.calls[call].id > last {
                self.end(call, error.clone(), handler);
            }
        }
        self.goaway = Some(error);
    }

    fn on_window(&mut self, stream: u32, payload: &[u8]) {
        let Ok(more) = payload.try_into().map(u32::from_be_bytes) else { return };
        let more = i64::from(more & WINDOW_MAX);
        if stream == 0 {
            self.window += more;
        } else if let Some(call) = self.call_on(stream) {
            self.calls[call].window += more;
        }
    }
}

/// Returns received bytes to the window once they are half of it.
fn give_back(received: &mut u32, length: usize, stream: u32, out: &mut Vec<u8>) {
    *received += length as u32;
    if *received >= WINDOW_HALF {
        frames::write(out, frames::WINDOW_UPDATE, 0, stream, &[&received.to_be_bytes()]);
        *received = 0;
    }
}

/// A connection with the handler of its events.
struct Inbound<'a, H> {
    connection: &'a mut Connection,
    handler: &'a mut H,
}

impl<H: CallHandler> FrameHandler for Inbound<'_, H> {
    #[inline]
    fn data(&mut self, stream: u32, bytes: &[u8]) -> Result<(), CallError> {
        // DATA may still arrive for a cancelled call.
        let Some(call) = self.connection.call_on(stream) else { return Ok(()) };
        let service = self.connection.service;
        let handler = &mut *self.handler;
        self.connection.calls[call].reader.feed(bytes, |message| {
            match grpc::text(message, service.response_path) {
                Some(text) => handler.text(call, text),
                None if service.has_hello => handler.joined(call),
                None => handler.text(call, b""),
            }
        })
    }

    fn data_over(&mut self, stream: u32, length: usize, last: bool) {
        let connection = &mut *self.connection;
        give_back(&mut connection.received, length, 0, &mut connection.out);
        let Some(call) = connection.call_on(stream) else { return };
        if last {
            connection.end(call, CallError::new("an end without a status"), self.handler);
        } else {
            give_back(&mut connection.calls[call].received, length, stream, &mut connection.out);
        }
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), CallError> {
        let connection = &mut *self.connection;
        match frame.kind {
            frames::HEADERS | frames::CONTINUATION => {
                let block = if frame.kind == frames::HEADERS { frame.block()? } else { frame.payload };
                connection.block.extend_from_slice(block);
                if connection.block.len() > BLOCK_MAX {
                    return Err(CallError::new("a header block that is too long"));
                }
                // CONTINUATION has no END_STREAM flag; split trailers end the call by their status.
                let last = frame.kind == frames::HEADERS && frame.has(frames::END_STREAM);
                if frame.has(frames::END_HEADERS) {
                    connection.on_block(frame.stream, last, self.handler)?;
                }
            }
            frames::RST_STREAM => {
                let code = frame.payload.try_into().map_or(0, u32::from_be_bytes);
                if let Some(call) = connection.call_on(frame.stream) {
                    let error = CallError::new(format!("RST_STREAM {}", headers::http2_error(code)));
                    connection.end(call, error, self.handler);
                }
            }
            frames::SETTINGS if !frame.has(frames::ACK) => {
                connection.on_settings(frame.payload, self.handler);
            }
            frames::PING if !frame.has(frames::ACK) => {
                frames::write(&mut connection.out, frames::PING, frames::ACK, 0, &[frame.payload]);
            }
            frames::GOAWAY => connection.on_goaway(frame.payload, self.handler),
            frames::WINDOW_UPDATE => connection.on_window(frame.stream, frame.payload),
            _ => {}
        }
        Ok(())
    }
}
