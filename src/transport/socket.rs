//! The socket beneath HTTP/2, with two bounds that h2 lacks.
//!
//! Reading takes at most [`FRAMES_PER_TURN`] frames in a turn: h2 reads as long as there is something, so a peer with many
//! small frames would keep other transports waiting. Writing fails after a time without progress: HTTP/2 keepalive does not
//! detect a peer that stopped reading, as its PING waits behind the data in a full socket.
//!
//! Deliberately does not know calls or deadlines; the lifecycle reads its times from [`SocketState`].

use super::frame_rate::FrameRate;
use super::frames::{FrameScanner, PREFACE_LEN};
use super::send_windows::SendWindows;
use bytes::{Buf as _, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Bytes up to which a copy is cheaper than a vectored write.
const COPY_MAX: usize = 2048;

/// Frames that a transport reads in one turn. Then its calls process them, and other transports run.
const FRAMES_PER_TURN: u32 = 64;

/// What the socket shares with the rest of its transport.
pub(super) struct SocketState {
    began: Instant,
    /// Bytes read until the preface was complete; constant afterwards.
    preface_read: AtomicUsize,
    /// The time of the last read, in nanoseconds since `began`.
    last_read: AtomicU64,
    /// The socket's send buffer is full: bytes wait to be written.
    blocked: AtomicBool,
    /// This turn's frames have been read.
    turn_over: AtomicBool,
    pub(super) windows: SendWindows,
}

impl Default for SocketState {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            preface_read: AtomicUsize::new(0),
            last_read: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            turn_over: AtomicBool::new(false),
            windows: SendWindows::default(),
        }
    }
}

impl SocketState {
    pub(super) fn has_preface(&self) -> bool {
        self.preface_read.load(Ordering::Relaxed) >= PREFACE_LEN
    }

    /// Whether the socket's send buffer is full.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// When the socket was accepted by its worker.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The time of the last read from the peer.
    pub(super) fn last_read(&self) -> Instant {
        self.began + Duration::from_nanos(self.last_read.load(Ordering::Relaxed))
    }

    /// Starts the next turn if this one's frames have been read; returns whether it did. The caller then yields to other
    /// tasks before it polls HTTP/2 again.
    pub(super) fn start_next_turn(&self) -> bool {
        self.turn_over.swap(false, Ordering::Relaxed)
    }
}

/// A byte stream that can be served: TCP, or a pipe in tests.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the coming close discard unsent bytes, and reset the connection.
    fn reset_on_close(&self);
}

impl ByteStream for TcpStream {
    fn reset_on_close(&self) {
        // On an error the kernel merely keeps the unsent bytes for a while.
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

/// The socket, as h2 reads and writes it.
pub(super) struct Socket<I: ByteStream> {
    inner: I,
    state: Arc<SocketState>,
    scanner: FrameScanner,
    /// Frames left in this turn.
    frames_left: u32,
    rate: FrameRate,
    /// Bytes beyond this turn's frames: less than one read.
    read_ahead: BytesMut,
    /// Reading is paused until then: the peer exceeds its frame rate.
    paused: Option<Pin<Box<Sleep>>>,
    stall_limit: Duration,
    /// The timer of the stall limit. Created when the socket first blocks: most transports never need one.
    stall_timer: Option<Pin<Box<Sleep>>>,
    blocked: bool,
    preface_done: bool,
}

impl<I: ByteStream> Socket<I> {
    pub(super) fn new(inner: I, state: Arc<SocketState>, stall_limit: Duration) -> Self {
        Self {
            inner,
            state,
            scanner: FrameScanner::new(),
            frames_left: FRAMES_PER_TURN,
            rate: FrameRate::new(),
            read_ahead: BytesMut::new(),
            paused: None,
            stall_limit,
            stall_timer: None,
            blocked: false,
            preface_done: false,
        }
    }

    fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
        self.state.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Applies the stall limit to the result of a write.
    fn check_stall(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            if self.blocked {
                self.set_blocked(false);
            }
            return written;
        }
        let limit = self.stall_limit;
        let timer = self.stall_timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.blocked {
            timer.as_mut().reset(Instant::now() + limit);
            self.set_blocked(true);
        }
        let timer = self.stall_timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        let error = io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading");
        Poll::Ready(Err(error))
    }

    /// Reads what was read ahead, or from the socket.
    fn read_inner(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            let len = self.read_ahead.len().min(buf.remaining());
            buf.put_slice(&self.read_ahead[..len]);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read > 0 {
            let now = self.state.began.elapsed().as_nanos() as u64;
            self.state.last_read.store(now, Ordering::Relaxed);
            if !self.preface_done {
                let total = self.state.preface_read.fetch_add(read, Ordering::Relaxed) + read;
                self.preface_done = total >= PREFACE_LEN;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Scans the bytes from `before` on, and keeps those beyond this turn for the next one.
    fn scan_frames(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let read = &buf.filled()[before..];
        let len = read.len();
        let was_read_ahead = self.read_ahead.len();
        let (used, cost) = self.scanner.scan(read, &mut self.frames_left, &mut &self.state.windows);
        if was_read_ahead > 0 {
            self.read_ahead.advance(used);
            if self.read_ahead.is_empty() {
                self.read_ahead = BytesMut::new();
            }
        } else if used < len {
            self.read_ahead.extend_from_slice(&read[used..]);
        }
        buf.set_filled(before + used);
        if self.frames_left == 0 {
            self.state.turn_over.store(true, Ordering::Relaxed);
        }
        if cost > 0
            && let Some(pause) = self.rate.take(cost, Instant::now())
        {
            self.paused = Some(Box::pin(sleep(pause)));
        }
    }
}

/// Copies `bufs` into `piece`.
fn concat<'a>(bufs: &[io::IoSlice<'_>], piece: &'a mut [u8; COPY_MAX]) -> &'a [u8] {
    let mut len = 0;
    for buf in bufs {
        piece[len..len + buf.len()].copy_from_slice(buf);
        len += buf.len();
    }
    &piece[..len]
}

impl<I: ByteStream> Drop for Socket<I> {
    fn drop(&mut self) {
        if self.blocked {
            // The peer reads nothing: without a reset the kernel would keep the unsent bytes for a while.
            self.inner.reset_on_close();
        }
    }
}

impl<I: ByteStream> AsyncRead for Socket<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.frames_left == 0 {
            if self.state.turn_over.load(Ordering::Relaxed) {
                // The transport's task starts the next turn itself, so no waker is needed.
                return Poll::Pending;
            }
            self.frames_left = FRAMES_PER_TURN;
        }
        if let Some(paused) = &mut self.paused {
            ready!(paused.as_mut().poll(cx));
            self.paused = None;
        }
        let before = buf.filled().len();
        ready!(self.read_inner(cx, buf))?;
        self.scan_frames(buf, before);
        Poll::Ready(Ok(()))
    }
}

impl<I: ByteStream> AsyncWrite for Socket<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.check_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = Pin::new(&mut self.inner);
        // One `send` of a copy where that is cheaper: `writev` on a socket takes a longer path in the kernel.
        let written = match bufs {
            [only] => inner.poll_write(cx, only),
            _ if bufs.iter().map(|buf| buf.len()).sum::<usize>() <= COPY_MAX => {
                inner.poll_write(cx, concat(bufs, &mut [0; COPY_MAX]))
            }
            _ => inner.poll_write_vectored(cx, bufs),
        };
        self.check_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
