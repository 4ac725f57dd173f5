//! One TCP connection with its calls.
//!
//! Never blocks. Reports each unexpected end of a call once, with its reason.

use super::call_handler::{CallError, CallHandler};
use super::counters::{Counters, Span};
use super::payload::{self, PROBE, Tag};
use super::plan::{Plan, Role};
use super::protocol::Protocol;
use super::receiver::Receiver;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

/// Full reads of a socket in a row before others are served.
const READS: usize = 8;

/// A transport.
pub(super) struct Transport {
    number: u32,
    socket: SocketState,
    pub(super) protocol: Protocol,
    pub(super) calls: Vec<Call>,
    written: usize,
    /// Whether its staller has joined, so that it is no longer read.
    pub(super) stalls: bool,
    /// Whether the connect has succeeded or failed.
    pub(super) settled: bool,
    /// Whether published bytes wait for a flush.
    pub(super) touched: bool,
}

/// The socket.
enum SocketState {
    Closed,
    Connecting(TcpStream),
    Connected(TcpStream),
}

impl SocketState {
    fn connected(&mut self) -> Option<&mut TcpStream> {
        if let Self::Connected(socket) = self { Some(socket) } else { None }
    }
}

/// A call and its checks.
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) role: Role,
    pub(super) state: CallState,
    pub(super) receiver: Receiver,
    pub(super) publisher: Option<Publisher>,
    /// Whether it replaced another call during the run.
    pub(super) renewed: bool,
    /// When it started.
    pub(super) since: u64,
    tag: Tag,
    /// Its number as a publisher.
    slot: u32,
}

/// How much to read.
#[derive(Clone, Copy)]
pub(super) enum Amount {
    /// What is available; a short read is the last.
    Ready,
    /// What is available, including the end of the stream, which is announced only once.
    ToEof,
    /// At most this many bytes.
    Bytes(usize),
}

/// The state of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallState {
    Waiting,
    Joined,
    Ended,
}

/// A publishing call's count of its own messages.
#[derive(Default)]
pub(super) struct Publisher {
    /// Its index in the scheduler.
    pub(super) entry: usize,
    pub(super) published: u32,
    pub(super) received: u32,
    /// Whether the scheduler knows that it may publish more.
    pub(super) ready: bool,
}

/// Counters of a loop, updated by reads and ends of calls.
#[derive(Default)]
pub(super) struct LoopStats {
    pub(super) joined: usize,
    pub(super) refused: usize,
    pub(super) live: usize,
    pub(super) stalling: usize,
    pub(super) received: u64,
    pub(super) last_join: u64,
    /// Publishers that received a message of their own.
    pub(super) ready: Vec<usize>,
}

impl LoopStats {
    /// The number of joined calls with this role.
    fn there(&mut self, role: Role) -> &mut usize {
        match role {
            Role::Member => &mut self.live,
            Role::Staller => &mut self.stalling,
        }
    }
}

impl Call {
    fn new(plan: &Plan, number: u32, now: u64) -> Self {
        let room = plan.room_of(number);
        let slot = if plan.publishes(number) { plan.slot_of(number) } else { PROBE };
        Self {
            number,
            role: plan.role(number),
            state: CallState::Waiting,
            receiver: Receiver::from_the_start(plan.publishers_in(room)),
            publisher: plan.publishes(number).then(Publisher::default),
            renewed: false,
            since: now,
            tag: payload::tag(plan.run, room),
            slot,
        }
    }

    pub(super) fn tag(&self) -> Tag {
        self.tag
    }

    pub(super) fn slot(&self) -> u32 {
        self.slot
    }

    /// Replaces the call by a new one.
    pub(super) fn renew(&mut self, plan: &Plan, now: u64, counters: &mut Counters, stats: &mut LoopStats) {
        let fresh = Receiver::in_the_middle(plan.publishers_in(plan.room_of(self.number)));
        counters.errors += std::mem::replace(&mut self.receiver, fresh).errors();
        counters.left += 1;
        stats.live -= 1;
        (self.state, self.renewed, self.since) = (CallState::Waiting, true, now);
    }

    fn join(&mut self, now: u64, stats: &mut LoopStats) {
        if self.state != CallState::Waiting {
            return;
        }
        self.state = CallState::Joined;
        if !self.renewed {
            stats.joined += 1;
            stats.last_join = now;
        }
        *stats.there(self.role) += 1;
    }

    pub(super) fn end(&mut self, error: CallError, counters: &mut Counters, stats: &mut LoopStats) {
        let had_joined = match std::mem::replace(&mut self.state, CallState::Ended) {
            CallState::Ended => return,
            before => before == CallState::Joined,
        };
        if had_joined {
            *stats.there(self.role) -= 1;
        }
        if !had_joined && !self.renewed {
            stats.refused += 1;
        }
        counters.ended(self.role, had_joined, error);
    }
}

impl Transport {
    /// A transport before its connect.
    pub(super) fn new(plan: &Plan, number: u32, now: u64) -> Self {
        let calls: Vec<_> = plan.calls_on(number).map(|call| Call::new(plan, call, now)).collect();
        let protocol = protocol(plan, &calls);
        Self {
            number,
            socket: SocketState::Closed,
            protocol,
            calls,
            written: 0,
            stalls: false,
            settled: false,
            touched: false,
        }
    }

    /// Starts to connect.
    pub(super) fn open(&mut self, plan: &Plan, registry: &Registry, token: usize) -> Result<(), CallError> {
        let mut socket = connect(plan, self.number).map_err(|error| io_error(&error, false))?;
        let registered =
            registry.register(&mut socket, Token(token), Interest::READABLE | Interest::WRITABLE);
        registered.map_err(|error| io_error(&error, false))?;
        self.socket = SocketState::Connecting(socket);
        Ok(())
    }

    /// Closes the connection of a single call and starts a new one.
    pub(super) fn reopen(&mut self, plan: &Plan, registry: &Registry, token: usize) -> Result<(), CallError> {
        self.protocol = protocol(plan, &self.calls);
        self.written = 0;
        self.open(plan, registry, token)
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.socket, SocketState::Closed)
    }

    /// Whether the server has responded.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.socket, SocketState::Connected(_)) && self.protocol.is_up()
    }

    /// Handles a writable socket: the connect has completed, or there is room.
    pub(super) fn on_writable(&mut self) -> Result<(), CallError> {
        self.socket = match std::mem::replace(&mut self.socket, SocketState::Closed) {
            SocketState::Connecting(socket) => {
                if let Some(error) = socket.take_error().unwrap_or_else(Some) {
                    return Err(io_error(&error, false));
                }
                // Without a peer, the connect is still in progress.
                if socket.peer_addr().is_ok() {
                    SocketState::Connected(socket)
                } else {
                    SocketState::Connecting(socket)
                }
            }
            socket => socket,
        };
        self.flush()
    }

    /// Writes everything pending, in one call if the socket accepts it.
    pub(super) fn flush(&mut self) -> Result<(), CallError> {
        self.touched = false;
        let Some(socket) = self.socket.connected() else { return Ok(()) };
        let out = self.protocol.out();
        while self.written < out.len() {
            match socket.write(&out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Data that the server sent before it closed is still to be read.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe) => return Ok(()),
                Err(error) => return Err(io_error(&error, true)),
            }
        }
        out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads; returns whether there may be more.
    #[inline]
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        amount: Amount,
        span: impl Fn() -> Span,
        plan: &Plan,
        (counters, stats): (&mut Counters, &mut LoopStats),
    ) -> Result<bool, CallError> {
        let mut left = if let Amount::Bytes(budget) = amount { budget } else { usize::MAX };
        for _ in 0..READS {
            let wanted = left.min(buffer.len());
            let Some(socket) = self.socket.connected().filter(|_| wanted > 0) else {
                return Ok(false);
            };
            let count = match socket.read(&mut buffer[..wanted]) {
                Ok(0) => return Err(self.protocol.pending_error().unwrap_or_else(|| CallError::new(CLOSED))),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    return Err(self.protocol.pending_error().unwrap_or_else(|| io_error(&error, true)));
                }
            };
            let span = span();
            let calls = &mut self.calls[..];
            let size = plan.size;
            if calls[0].role == Role::Member {
                counters.latencies.tick(span, counters.deliveries);
                let mut handler = MemberHandler { calls, counters, stats, span, size, received: 0 };
                let fed = self.protocol.feed(&buffer[..count], &mut handler);
                handler.close();
                fed?;
            } else {
                self.protocol.feed(
                    &buffer[..count],
                    &mut StallerHandler { call: &mut calls[0], counters, stats, span },
                )?;
            }
            left -= count;
            if count < wanted && matches!(amount, Amount::Ready) {
                return Ok(false);
            }
        }
        Ok(left > 0)
    }

    /// Closes the transport and ends all its calls.
    pub(super) fn give_up(&mut self, error: &CallError, counters: &mut Counters, stats: &mut LoopStats) {
        self.socket = SocketState::Closed;
        for call in &mut self.calls {
            call.end(error.clone(), counters, stats);
        }
    }
}

const CLOSED: &str = "closed by the server";

fn protocol(plan: &Plan, calls: &[Call]) -> Protocol {
    let rooms: Vec<_> = calls.iter().map(|call| plan.room_of(call.number)).collect();
    Protocol::new(plan, &rooms)
}

/// A connection's error, without addresses or numbers, so that equal errors are counted together.
fn io_error(error: &io::Error, was_connected: bool) -> CallError {
    let kind = if was_connected { error.kind().to_string() } else { format!("connect: {}", error.kind()) };
    let message =
        if error.kind() == ErrorKind::AddrNotAvailable { "out of ports; see --sources" } else { "" };
    CallError { kind, message: message.to_owned() }
}

fn connect(plan: &Plan, transport: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(plan.addr), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = plan.source(transport) {
        socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
    }
    match socket.connect(&plan.addr.into()) {
        Ok(()) => {}
        // EINPROGRESS, for which std has no kind in all supported versions.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// The handler of a member. [`CallHandler::text`] runs once per delivery: it does not allocate or read the clock.
struct MemberHandler<'a> {
    calls: &'a mut [Call],
    counters: &'a mut Counters,
    stats: &'a mut LoopStats,
    span: Span,
    size: usize,
    received: u64,
}

impl MemberHandler<'_> {
    fn close(self) {
        self.stats.received += self.received;
        if self.span.is_measured() {
            self.counters.deliveries += self.received;
        }
    }
}

impl CallHandler for MemberHandler<'_> {
    fn joined(&mut self, call: usize) {
        self.calls[call].join(self.span.now, self.stats);
    }

    #[inline]
    fn text(&mut self, call: usize, text: &[u8]) {
        let call = &mut self.calls[call];
        let Some(stamp) = payload::read(text, call.tag).filter(|_| text.len() == self.size) else {
            self.counters.strange += 1;
            return;
        };
        if call.state == CallState::Waiting {
            call.join(self.span.now, self.stats);
        }
        if stamp.slot == PROBE {
            return;
        }
        if !call.receiver.record(stamp) {
            self.counters.strange += 1;
            return;
        }
        self.received += 1;
        self.counters.latencies.sample(self.span, || payload::due(text));
        if stamp.slot == call.slot
            && let Some(publisher) = &mut call.publisher
        {
            publisher.received += 1;
            if !std::mem::replace(&mut publisher.ready, true) {
                self.stats.ready.push(publisher.entry);
            }
        }
    }

    fn ended(&mut self, call: usize, error: CallError) {
        self.calls[call].end(error, self.counters, self.stats);
    }
}

/// The handler of a staller, which only records whether it has joined.
struct StallerHandler<'a> {
    call: &'a mut Call,
    counters: &'a mut Counters,
    stats: &'a mut LoopStats,
    span: Span,
}

impl CallHandler for StallerHandler<'_> {
    fn joined(&mut self, _: usize) {
        self.call.join(self.span.now, self.stats);
    }

    fn text(&mut self, _: usize, _: &[u8]) {
        self.call.join(self.span.now, self.stats);
    }

    fn ended(&mut self, _: usize, error: CallError) {
        self.call.end(error, self.counters, self.stats);
    }
}
