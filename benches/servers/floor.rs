//! The lower bound of `make bench`: a broadcast over raw sockets.
//!
//! One thread, one epoll. A message is a big-endian length of 4 bytes, and that many bytes. All connections, the sender
//! included, receive all messages in one order. The messages of one turn of the loop go into one shared buffer, so each
//! connection costs one write per turn. There are no rooms, deadlines or history.
//!
//! A connection whose socket is full keeps a reference to the buffer until it is writable. With more than
//! [`BACKLOG_BYTES_MAX`] unsent bytes it is closed.

use bytes::{Buf as _, Bytes, BytesMut};
use clap::Parser;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

/// Connections that may wait to be accepted. Connection storms lose SYNs with fewer.
const ACCEPT_QUEUE: i32 = 4_096;
/// The token of the listener. Connections have their index in the slab.
const LISTENER: Token = Token(usize::MAX);
/// Bytes of the length before each message.
const PREFIX_LEN: usize = 4;
/// The longest message. A longer one closes its connection.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Unsent bytes that a connection may have.
const BACKLOG_BYTES_MAX: usize = 16 << 20;
/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;

/// Broadcasts length-prefixed messages over raw sockets.
#[derive(Parser)]
struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15060")]
    listen: SocketAddr,
}

fn main() -> io::Result<()> {
    let listener = listen(Arguments::parse().listen)?;
    println!("floor on {}", listener.local_addr()?);
    Floor::new(listener)?.run()
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(ACCEPT_QUEUE)?;
    Ok(TcpListener::from_std(socket.into()))
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    /// The buffer of all reads.
    scratch: Vec<u8>,
    /// The complete messages of this turn, with their prefixes.
    turn: BytesMut,
}

impl Floor {
    fn new(mut listener: TcpListener) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let scratch = vec![0; READ_BYTES];
        Ok(Self { poll, listener, connections: Slab::new(), scratch, turn: BytesMut::new() })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(index) => self.serve(index, event),
                }
            }
            let turn = self.turn.split().freeze();
            if !turn.is_empty() {
                self.connections.retain(|_, connection| is_open(connection.send(&turn)));
            }
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = join(&mut self.connections, self.poll.registry(), stream) {
                        eprintln!("a connection is refused: {error}");
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Mostly the open-file limit. The next connection makes the listener readable again.
                Err(error) => return eprintln!("cannot accept: {error}"),
            }
        }
    }

    fn serve(&mut self, index: usize, event: &Event) {
        // It may have been closed in this turn.
        let Some(connection) = self.connections.get_mut(index) else { return };
        let mut served = Ok(());
        if event.is_writable() {
            served = connection.flush();
        }
        if served.is_ok() && (event.is_readable() || event.is_read_closed()) {
            served = connection.receive(&mut self.scratch, &mut self.turn);
        }
        if !is_open(served) {
            self.connections.remove(index);
        }
    }
}

fn join(connections: &mut Slab<Connection>, registry: &Registry, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let entry = connections.vacant_entry();
    registry.register(&mut stream, Token(entry.key()), Interest::READABLE | Interest::WRITABLE)?;
    entry.insert(Connection { stream, partial: Vec::new(), backlog: VecDeque::new(), backlog_bytes: 0 });
    Ok(())
}

/// Whether a connection stays open. Logs errors other than a close by the peer.
fn is_open(result: io::Result<()>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != ErrorKind::UnexpectedEof {
                eprintln!("a connection is dropped: {error}");
            }
            false
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// The start of an incomplete message.
    partial: Vec<u8>,
    /// Unsent buffers, oldest first. Not empty only if the socket is full, so a writable event follows.
    backlog: VecDeque<Bytes>,
    backlog_bytes: usize,
}

impl Connection {
    /// Reads everything available, and appends complete messages to the turn.
    fn receive(&mut self, scratch: &mut [u8], turn: &mut BytesMut) -> io::Result<()> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.append(&scratch[..n], turn)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn append(&mut self, read: &[u8], turn: &mut BytesMut) -> io::Result<()> {
        if self.partial.is_empty() {
            let whole = complete_len(read)?;
            turn.extend_from_slice(&read[..whole]);
            self.partial.extend_from_slice(&read[whole..]);
        } else {
            self.partial.extend_from_slice(read);
            let whole = complete_len(&self.partial)?;
            turn.extend_from_slice(&self.partial[..whole]);
            self.partial.drain(..whole);
        }
        Ok(())
    }

    /// Writes a turn, as far as the socket accepts it.
    fn send(&mut self, turn: &Bytes) -> io::Result<()> {
        let backlogged = !self.backlog.is_empty();
        self.backlog_bytes += turn.len();
        self.backlog.push_back(turn.clone());
        // A full socket is written once it is writable.
        if backlogged { self.check_backlog() } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(first) = self.backlog.front_mut() {
            match self.stream.write(first) {
                Ok(n) => {
                    self.backlog_bytes -= n;
                    first.advance(n);
                    if !first.is_empty() {
                        return self.check_backlog();
                    }
                    self.backlog.pop_front();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.check_backlog(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn check_backlog(&self) -> io::Result<()> {
        if self.backlog_bytes <= BACKLOG_BYTES_MAX {
            return Ok(());
        }
        Err(io::Error::other(format!("it has more than {BACKLOG_BYTES_MAX} bytes to come")))
    }
}

/// The length of the complete messages in the bytes.
fn complete_len(bytes: &[u8]) -> io::Result<usize> {
    let mut whole = 0;
    while let Some(prefix) = bytes[whole..].first_chunk::<PREFIX_LEN>() {
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > MESSAGE_BYTES_MAX {
            return Err(io::Error::other(format!("a message claims {len} bytes")));
        }
        if bytes.len() - whole < PREFIX_LEN + len {
            break;
        }
        whole += PREFIX_LEN + len;
    }
    Ok(whole)
}
