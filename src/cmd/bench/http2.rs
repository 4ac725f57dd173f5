//! gRPC calls on one HTTP/2 transport, from the client's side.
//!
//! Promises what a server may expect of a client: windows and frame sizes are kept to, SETTINGS and PING are answered,
//! what was received is given back to the windows. Its own windows are so large that they limit nobody. A message that is
//! heard costs no allocation and no copy, unless it is split.

use super::frames::{self, Frame, FrameReader, Frames};
use super::grpc::{self, MessageReader, Service};
use super::plan::Plan;
use super::protocol::{Fault, Hear};
use super::status::{self, Answer};
use loona_hpack::Decoder;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a window is before anybody has said anything; the largest it may be.
const WINDOW_DEFAULT: i64 = 65_535;
const WINDOW_MAX: u32 = 0x7fff_ffff;

/// What is received before it is given back.
const WINDOW_HALF: u32 = WINDOW_MAX / 2;

/// The largest frame that a peer takes unless it says otherwise.
const FRAME_DEFAULT: usize = 16_384;

/// Numbers of settings.
const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

/// The error code of a call that its client no longer wants.
const CANCEL: u32 = 8;

/// A header block is longer than this only to do harm.
const BLOCK_MAX: usize = 1 << 16;

/// A transport and its calls.
pub(super) struct Http2 {
    reader: FrameReader,
    session: Session,
}

struct Session {
    service: &'static Service,
    authority: String,
    calls: Vec<Call>,
    /// By stream id, halved: which call it is.
    streams: Vec<Option<u32>>,
    decoder: Decoder<'static>,
    block: Vec<u8>,
    out: Vec<u8>,
    /// Bytes of all calls that the windows have not let out yet.
    pending: usize,
    up: bool,
    window: i64,
    window_of_a_call: i64,
    frame_max: usize,
    streams_max: usize,
    received: u32,
    goaway: Option<Fault>,
}

struct Call {
    room: Option<String>,
    /// 0: not begun.
    stream: u32,
    open: bool,
    reader: MessageReader,
    received: u32,
    window: i64,
    pending: Vec<u8>,
}

impl Http2 {
    pub(super) fn new(plan: &Plan, rooms: &[u32]) -> Self {
        let call = |&room| Call {
            room: plan.room_name(room),
            stream: 0,
            open: false,
            reader: MessageReader::default(),
            received: 0,
            window: WINDOW_DEFAULT,
            pending: Vec::new(),
        };
        let mut session = Session {
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
            window_of_a_call: WINDOW_DEFAULT,
            frame_max: FRAME_DEFAULT,
            streams_max: usize::MAX,
            received: 0,
            goaway: None,
        };
        session.greet();
        Self { reader: FrameReader::new(), session }
    }

    pub(super) fn is_up(&self) -> bool {
        self.session.up
    }

    #[inline]
    pub(super) fn feed<H: Hear>(&mut self, bytes: &[u8], hear: &mut H) -> Result<(), Fault> {
        self.reader.feed(bytes, &mut Inbound { session: &mut self.session, hear })
    }

    pub(super) fn backlog(&self, call: usize) -> usize {
        self.session.calls[call].pending.len() + self.session.out.len()
    }

    pub(super) fn publish(&mut self, call: usize, text: &[u8]) {
        let Session { service, calls, pending, .. } = &mut self.session;
        let before = calls[call].pending.len();
        service.say(text, &mut calls[call].pending);
        *pending += calls[call].pending.len() - before;
    }

    pub(super) fn renew(&mut self, call: usize) {
        let session = &mut self.session;
        let Call { stream, open, .. } = session.calls[call];
        if open {
            frames::write(&mut session.out, frames::RST_STREAM, 0, stream, &[&CANCEL.to_be_bytes()]);
        }
        session.streams[stream as usize / 2] = None;
        session.begin(call);
    }

    /// Everything that may be written now.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        let session = &mut self.session;
        if session.pending == 0 {
            return &mut session.out;
        }
        for call in session.calls.iter_mut().filter(|call| call.open && !call.pending.is_empty()) {
            let allowed = session.window.min(call.window).max(0);
            let sent = allowed.min(i64::try_from(call.pending.len()).unwrap_or(i64::MAX));
            session.window -= sent;
            call.window -= sent;
            let sent = usize::try_from(sent).unwrap_or(0);
            for chunk in call.pending[..sent].chunks(session.frame_max) {
                frames::write(&mut session.out, frames::DATA, 0, call.stream, &[chunk]);
            }
            session.pending -= sent;
            call.pending.drain(..sent);
        }
        &mut session.out
    }

    pub(super) fn last_words(&self) -> Option<Fault> {
        self.session.goaway.clone()
    }
}

impl Session {
    /// Preface, settings, and the first call: more calls wait for the server's own settings.
    fn greet(&mut self) {
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
        let header = if self.service.greets { None } else { room };
        let block = status::request(self.service.path, &self.authority, header);
        frames::write(&mut self.out, frames::HEADERS, frames::END_HEADERS, stream, &[&block]);
        (call.stream, call.open, call.received) = (stream, true, 0);
        call.window = self.window_of_a_call;
        call.reader = MessageReader::default();
        self.pending -= call.pending.len();
        call.pending.clear();
        if self.service.greets {
            Service::greet(room, &mut call.pending);
            self.pending += call.pending.len();
        }
    }

    fn call_of(&self, stream: u32) -> Option<usize> {
        self.streams.get(stream as usize / 2).copied().flatten().map(|call| call as usize)
    }

    fn on_settings(&mut self, payload: &[u8], hear: &mut impl Hear) {
        for setting in payload.chunks_exact(6) {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                MAX_CONCURRENT_STREAMS => self.streams_max = value as usize,
                MAX_FRAME_SIZE => self.frame_max = (value as usize).clamp(FRAME_DEFAULT, frames::FRAME_MAX),
                INITIAL_WINDOW_SIZE => {
                    for call in &mut self.calls {
                        call.window += i64::from(value) - self.window_of_a_call;
                    }
                    self.window_of_a_call = i64::from(value);
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
                let fault = format!("more than the {} calls a transport may carry", self.streams_max);
                hear.ended(number, Fault::new(fault));
            }
        }
    }

    fn on_block(&mut self, stream: u32, last: bool, hear: &mut impl Hear) -> Result<(), Fault> {
        let answer = Answer::read(&mut self.decoder, &self.block)?;
        self.block.clear();
        let Some(call) = self.call_of(stream) else { return Ok(()) };
        match answer.end(last) {
            Some(fault) => self.end(call, fault, hear),
            // Whoever greets is let in by the answer to that.
            None if !self.service.greets => hear.joined(call),
            None => {}
        }
        Ok(())
    }

    fn end(&mut self, call: usize, fault: Fault, hear: &mut impl Hear) {
        self.calls[call].open = false;
        self.pending -= std::mem::take(&mut self.calls[call].pending).len();
        self.streams[self.calls[call].stream as usize / 2] = None;
        hear.ended(call, fault);
    }

    fn on_goaway(&mut self, payload: &[u8], hear: &mut impl Hear) {
        let number =
            |at: usize| payload.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes);
        let (last, code) = (number(0).unwrap_or(0), number(4).unwrap_or(0));
        let fault = Fault {
            kind: format!("GOAWAY {}", status::http2_error(code)),
            words: String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned(),
        };
        for call in 0..self.calls.len() {
            if self.calls[call].open && self.calls[call].stream > last {
                self.end(call, fault.clone(), hear);
            }
        }
        self.goaway = Some(fault);
    }

    fn on_window(&mut self, stream: u32, payload: &[u8]) {
        let Ok(more) = payload.try_into().map(u32::from_be_bytes) else { return };
        let more = i64::from(more & WINDOW_MAX);
        if stream == 0 {
            self.window += more;
        } else if let Some(call) = self.call_of(stream) {
            self.calls[call].window += more;
        }
    }
}

/// Gives back what was received, once it is half of the window.
fn give_back(received: &mut u32, length: usize, stream: u32, out: &mut Vec<u8>) {
    *received += length as u32;
    if *received >= WINDOW_HALF {
        frames::write(out, frames::WINDOW_UPDATE, 0, stream, &[&received.to_be_bytes()]);
        *received = 0;
    }
}

/// The session while bytes come in.
struct Inbound<'a, H> {
    session: &'a mut Session,
    hear: &'a mut H,
}

impl<H: Hear> Frames for Inbound<'_, H> {
    #[inline]
    fn data(&mut self, stream: u32, bytes: &[u8]) -> Result<(), Fault> {
        // It may still come for a call that has been cancelled.
        let Some(call) = self.session.call_of(stream) else { return Ok(()) };
        let (service, hear) = (self.session.service, &mut *self.hear);
        self.session.calls[call].reader.feed(bytes, |message| match grpc::text(message, service.heard) {
            Some(text) => hear.text(call, text),
            None if service.greets => hear.joined(call),
            None => hear.text(call, b""),
        })
    }

    fn data_over(&mut self, stream: u32, length: usize, last: bool) {
        let session = &mut *self.session;
        give_back(&mut session.received, length, 0, &mut session.out);
        let Some(call) = session.call_of(stream) else { return };
        if last {
            session.end(call, Fault::new("an end without a status"), self.hear);
        } else {
            give_back(&mut session.calls[call].received, length, stream, &mut session.out);
        }
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), Fault> {
        let session = &mut *self.session;
        match frame.kind {
            frames::HEADERS | frames::CONTINUATION => {
                let block = if frame.kind == frames::HEADERS { frame.block()? } else { frame.payload };
                session.block.extend_from_slice(block);
                if session.block.len() > BLOCK_MAX {
                    return Err(Fault::new("a header block without end"));
                }
                // A CONTINUATION has no such flag; trailers that are split still have their status.
                let last = frame.kind == frames::HEADERS && frame.has(frames::END_STREAM);
                if frame.has(frames::END_HEADERS) {
                    session.on_block(frame.stream, last, self.hear)?;
                }
            }
            frames::RST_STREAM => {
                let code = frame.payload.try_into().map_or(0, u32::from_be_bytes);
                if let Some(call) = session.call_of(frame.stream) {
                    let fault = Fault::new(format!("RST_STREAM {}", status::http2_error(code)));
                    session.end(call, fault, self.hear);
                }
            }
            frames::SETTINGS if !frame.has(frames::ACK) => session.on_settings(frame.payload, self.hear),
            frames::PING if !frame.has(frames::ACK) => {
                frames::write(&mut session.out, frames::PING, frames::ACK, 0, &[frame.payload]);
            }
            frames::GOAWAY => session.on_goaway(frame.payload, self.hear),
            frames::WINDOW_UPDATE => session.on_window(frame.stream, frame.payload),
            _ => {}
        }
        Ok(())
    }
}
