//! One TCP connection with its calls: opened, read, written, given up.
//!
//! Promises never to block, and that each call that ends without being asked to is told of once, with its reason.

use super::payload::{self, PROBE, Tag};
use super::plan::{Plan, Role};
use super::protocol::{Fault, Hear, Protocol};
use super::receiver::Receiver;
use super::tally::{Span, Tally};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

/// Full reads of a socket in a row, before others have their turn.
const READS: usize = 8;

/// A transport.
pub(super) struct Transport {
    number: u32,
    link: Link,
    pub(super) protocol: Protocol,
    pub(super) calls: Vec<Call>,
    written: usize,
    /// Whether its stallers have joined, so that it is no longer read.
    pub(super) stalls: bool,
    /// Whether the server has shown that it is there, or that it is not.
    pub(super) settled: bool,
    /// Whether something was published that is not flushed.
    pub(super) touched: bool,
}

/// Its socket.
enum Link {
    Closed,
    Connecting(TcpStream),
    Connected(TcpStream),
}

impl Link {
    fn connected(&mut self) -> Option<&mut TcpStream> {
        if let Self::Connected(socket) = self { Some(socket) } else { None }
    }
}

/// A call, and what it has heard.
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) role: Role,
    pub(super) standing: Standing,
    pub(super) receiver: Receiver,
    pub(super) publisher: Option<Publisher>,
    /// Not the first on its place: it came while the others were at it.
    pub(super) renewed: bool,
    /// When it asked to join.
    pub(super) since: u64,
    tag: Tag,
    /// Its own, as a publisher.
    slot: u32,
}

/// How much is read.
#[derive(Clone, Copy)]
pub(super) enum Amount {
    /// What is there. A read that is not full was the last.
    Ready,
    /// What is there, and the end of it: that has been announced and will not be again.
    ToTheEnd,
    /// So many bytes.
    Bytes(usize),
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    In,
    Ended,
}

/// What a call that publishes knows of its own messages.
#[derive(Default)]
pub(super) struct Publisher {
    /// Its place in the loop's list.
    pub(super) place: usize,
    pub(super) said: u32,
    pub(super) heard: u32,
    /// Whether the loop knows that it may say more.
    pub(super) hot: bool,
}

/// What the loop has to know after a read or an end.
#[derive(Default)]
pub(super) struct News {
    pub(super) joined: usize,
    pub(super) refused: usize,
    pub(super) live: usize,
    pub(super) stalling: usize,
    pub(super) heard: u64,
    pub(super) last_join: u64,
    /// Publishers that have heard themselves.
    pub(super) hot: Vec<usize>,
}

impl News {
    /// How many of this role are in.
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
            standing: Standing::Waiting,
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

    /// Leaves, and comes back as somebody who knows nothing.
    pub(super) fn renew(&mut self, plan: &Plan, now: u64, tally: &mut Tally, news: &mut News) {
        let fresh = Receiver::in_the_middle(plan.publishers_in(plan.room_of(self.number)));
        tally.faults += std::mem::replace(&mut self.receiver, fresh).faults();
        tally.left += 1;
        news.live -= 1;
        (self.standing, self.renewed, self.since) = (Standing::Waiting, true, now);
    }

    fn join(&mut self, now: u64, news: &mut News) {
        if self.standing != Standing::Waiting {
            return;
        }
        self.standing = Standing::In;
        if !self.renewed {
            news.joined += 1;
            news.last_join = now;
        }
        *news.there(self.role) += 1;
    }

    pub(super) fn end(&mut self, fault: Fault, tally: &mut Tally, news: &mut News) {
        let had_joined = match std::mem::replace(&mut self.standing, Standing::Ended) {
            Standing::Ended => return,
            standing => standing == Standing::In,
        };
        if had_joined {
            *news.there(self.role) -= 1;
        }
        if !had_joined && !self.renewed {
            news.refused += 1;
        }
        tally.ended(self.role, had_joined, fault);
    }
}

impl Transport {
    /// A transport that is not connected yet.
    pub(super) fn new(plan: &Plan, number: u32, now: u64) -> Self {
        let calls: Vec<_> = plan.calls_on(number).map(|call| Call::new(plan, call, now)).collect();
        let protocol = protocol(plan, &calls);
        Self {
            number,
            link: Link::Closed,
            protocol,
            calls,
            written: 0,
            stalls: false,
            settled: false,
            touched: false,
        }
    }

    /// Begins to connect.
    pub(super) fn open(&mut self, plan: &Plan, registry: &Registry, token: usize) -> Result<(), Fault> {
        let mut socket = connect(plan, self.number).map_err(|error| fault(&error, false))?;
        let registered =
            registry.register(&mut socket, Token(token), Interest::READABLE | Interest::WRITABLE);
        registered.map_err(|error| fault(&error, false))?;
        self.link = Link::Connecting(socket);
        Ok(())
    }

    /// Leaves with its one call, and begins anew.
    pub(super) fn reopen(&mut self, plan: &Plan, registry: &Registry, token: usize) -> Result<(), Fault> {
        self.protocol = protocol(plan, &self.calls);
        self.written = 0;
        self.open(plan, registry, token)
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.link, Link::Closed)
    }

    /// Whether the server has shown that it is there.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.link, Link::Connected(_)) && self.protocol.is_up()
    }

    /// The socket can be written: for the first time, or again.
    pub(super) fn on_writable(&mut self) -> Result<(), Fault> {
        self.link = match std::mem::replace(&mut self.link, Link::Closed) {
            Link::Connecting(socket) => {
                if let Some(error) = socket.take_error().unwrap_or_else(Some) {
                    return Err(fault(&error, false));
                }
                // Without a peer it is not there yet.
                if socket.peer_addr().is_ok() { Link::Connected(socket) } else { Link::Connecting(socket) }
            }
            link => link,
        };
        self.flush()
    }

    /// Writes what there is to write, in one piece if the socket takes it.
    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        self.touched = false;
        let Some(socket) = self.link.connected() else { return Ok(()) };
        let out = self.protocol.out();
        while self.written < out.len() {
            match socket.write(&out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // What the server said before it hung up is still to be read.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe) => return Ok(()),
                Err(error) => return Err(fault(&error, true)),
            }
        }
        out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads; true if there may be more.
    #[inline]
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        amount: Amount,
        span: impl Fn() -> Span,
        plan: &Plan,
        (tally, news): (&mut Tally, &mut News),
    ) -> Result<bool, Fault> {
        let mut left = if let Amount::Bytes(budget) = amount { budget } else { usize::MAX };
        for _ in 0..READS {
            let wanted = left.min(buffer.len());
            let Some(socket) = self.link.connected().filter(|_| wanted > 0) else {
                return Ok(false);
            };
            let count = match socket.read(&mut buffer[..wanted]) {
                Ok(0) => return Err(self.protocol.last_words().unwrap_or_else(|| Fault::new(CLOSED))),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(self.protocol.last_words().unwrap_or_else(|| fault(&error, true))),
            };
            let span = span();
            let (calls, size) = (&mut self.calls[..], plan.size);
            if calls[0].role == Role::Member {
                tally.latencies.tick(span, tally.deliveries);
                let mut ear = Ear { calls, tally, news, span, size, heard: 0 };
                let fed = self.protocol.feed(&buffer[..count], &mut ear);
                ear.close();
                fed?;
            } else {
                self.protocol.feed(&buffer[..count], &mut Deaf { call: &mut calls[0], tally, news, span })?;
            }
            left -= count;
            if count < wanted && matches!(amount, Amount::Ready) {
                return Ok(false);
            }
        }
        Ok(left > 0)
    }

    /// It is over, for all its calls.
    pub(super) fn give_up(&mut self, fault: &Fault, tally: &mut Tally, news: &mut News) {
        self.link = Link::Closed;
        for call in &mut self.calls {
            call.end(fault.clone(), tally, news);
        }
    }
}

const CLOSED: &str = "closed by the server";

fn protocol(plan: &Plan, calls: &[Call]) -> Protocol {
    let rooms: Vec<_> = calls.iter().map(|call| plan.room_of(call.number)).collect();
    Protocol::new(plan, &rooms)
}

/// What became of a connection, without the numbers that differ from one to the next.
fn fault(error: &io::Error, was_connected: bool) -> Fault {
    let kind = if was_connected { error.kind().to_string() } else { format!("connect: {}", error.kind()) };
    let words = if error.kind() == ErrorKind::AddrNotAvailable { "out of ports; see --sources" } else { "" };
    Fault { kind, words: words.to_owned() }
}

fn connect(plan: &Plan, transport: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(plan.addr), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = plan.source(transport) {
        socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
    }
    match socket.connect(&plan.addr.into()) {
        Ok(()) => {}
        // EINPROGRESS, which std has no kind for in all versions this builds with.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// A member's ear. Each delivery goes through [`Hear::text`]: it allocates nothing and reads no clock.
struct Ear<'a> {
    calls: &'a mut [Call],
    tally: &'a mut Tally,
    news: &'a mut News,
    span: Span,
    size: usize,
    heard: u64,
}

impl Ear<'_> {
    fn close(self) {
        self.news.heard += self.heard;
        if self.span.is_measured() {
            self.tally.deliveries += self.heard;
        }
    }
}

impl Hear for Ear<'_> {
    fn joined(&mut self, call: usize) {
        self.calls[call].join(self.span.now, self.news);
    }

    #[inline]
    fn text(&mut self, call: usize, text: &[u8]) {
        let call = &mut self.calls[call];
        let Some(stamp) = payload::read(text, call.tag).filter(|_| text.len() == self.size) else {
            self.tally.strange += 1;
            return;
        };
        if call.standing == Standing::Waiting {
            call.join(self.span.now, self.news);
        }
        if stamp.slot == PROBE {
            return;
        }
        if !call.receiver.hear(stamp) {
            self.tally.strange += 1;
            return;
        }
        self.heard += 1;
        self.tally.latencies.sample(self.span, || payload::due(text));
        if stamp.slot == call.slot
            && let Some(publisher) = &mut call.publisher
        {
            publisher.heard += 1;
            if !std::mem::replace(&mut publisher.hot, true) {
                self.news.hot.push(publisher.place);
            }
        }
    }

    fn ended(&mut self, call: usize, fault: Fault) {
        self.calls[call].end(fault, self.tally, self.news);
    }
}

/// A staller's: it only notices whether it is in.
struct Deaf<'a> {
    call: &'a mut Call,
    tally: &'a mut Tally,
    news: &'a mut News,
    span: Span,
}

impl Hear for Deaf<'_> {
    fn joined(&mut self, _: usize) {
        self.call.join(self.span.now, self.news);
    }

    fn text(&mut self, _: usize, _: &[u8]) {
        self.call.join(self.span.now, self.news);
    }

    fn ended(&mut self, _: usize, fault: Fault) {
        self.call.end(fault, self.tally, self.news);
    }
}
