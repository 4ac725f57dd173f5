//! A transport's socket beneath HTTP/2: what it reads is counted, and what it writes must move.
//!
//! HTTP/2 keepalive never reaps a peer that stopped reading with a full socket: the ping waits behind the data. And h2
//! reads as long as there is something, so that a peer with many small frames would keep the others from their turn.

use super::frames::{FrameScanner, PREFACE_LEN};
use super::pace::Pace;
use super::windows::Windows;
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

/// Bytes up to which copying is cheaper than a vectored write.
const COPY_BELOW: usize = 2048;

/// Frames that a transport reads in one turn; then its calls take what has come, and others have their turn.
const FRAMES_PER_TURN: u32 = 64;

/// What the socket shares with those that watch the transport.
pub(super) struct Flow {
    began: Instant,
    /// Bytes read until the preface was complete; stays there.
    preface: AtomicUsize,
    /// When something was last read, in nanoseconds since `began`.
    last_read: AtomicU64,
    /// The peer's side is full: bytes wait to be written.
    blocked: AtomicBool,
    /// The frames of this turn have been read.
    turn_over: AtomicBool,
    pub(super) windows: Windows,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            preface: AtomicUsize::new(0),
            last_read: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            turn_over: AtomicBool::new(false),
            windows: Windows::default(),
        }
    }
}

impl Flow {
    pub(super) fn has_preface(&self) -> bool {
        self.preface.load(Ordering::Relaxed) >= PREFACE_LEN
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// When the transport began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// When something was last read from the peer.
    pub(super) fn last_read(&self) -> Instant {
        self.began + Duration::from_nanos(self.last_read.load(Ordering::Relaxed))
    }

    /// Begins the next turn if the last one is over: the caller lets others run, and polls HTTP/2 again.
    pub(super) fn begin_turn(&self) -> bool {
        self.turn_over.swap(false, Ordering::Relaxed)
    }
}

pub(super) struct Socket {
    inner: TcpStream,
    flow: Arc<Flow>,
    scanner: FrameScanner,
    /// Frames left in this turn.
    frames: u32,
    pace: Pace,
    /// What was read beyond the frames of this turn: less than one read.
    ahead: BytesMut,
    /// The peer is ahead of its pace.
    paused: Option<Pin<Box<Sleep>>>,
    stall_limit: Duration,
    /// Made when the socket first blocks: most transports never need one.
    stalled: Option<Pin<Box<Sleep>>>,
    blocked: bool,
    preface_done: bool,
}

impl Socket {
    pub(super) fn new(socket: TcpStream, flow: Arc<Flow>, stall_limit: Duration) -> Self {
        Self {
            inner: socket,
            flow,
            scanner: FrameScanner::new(),
            frames: FRAMES_PER_TURN,
            pace: Pace::new(),
            ahead: BytesMut::new(),
            paused: None,
            stall_limit,
            stalled: None,
            blocked: false,
            preface_done: false,
        }
    }

    fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
        self.flow.blocked.store(blocked, Ordering::Relaxed);
    }

    fn after_write(
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
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.blocked {
            stalled.as_mut().reset(Instant::now() + limit);
            self.set_blocked(true);
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        let error = io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading");
        Poll::Ready(Err(error))
    }

    /// Reads from what is ahead, or from the socket. None: the turn is over, or nothing is there.
    fn read_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let len = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..len]);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read > 0 {
            let now = self.flow.began.elapsed().as_nanos() as u64;
            self.flow.last_read.store(now, Ordering::Relaxed);
            if !self.preface_done {
                let total = self.flow.preface.fetch_add(read, Ordering::Relaxed) + read;
                self.preface_done = total >= PREFACE_LEN;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Looks at the bytes from `before` on, and keeps back what is beyond this turn.
    fn count(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let read = &buf.filled()[before..];
        let len = read.len();
        let was_ahead = self.ahead.len();
        let (used, cost) = self.scanner.scan(read, &mut self.frames, &mut &self.flow.windows);
        if was_ahead > 0 {
            self.ahead.advance(used);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
        } else if used < len {
            self.ahead.extend_from_slice(&read[used..]);
        }
        buf.set_filled(before + used);
        if self.frames == 0 {
            self.flow.turn_over.store(true, Ordering::Relaxed);
        }
        if cost > 0
            && let Some(pause) = self.pace.take(cost, Instant::now())
        {
            self.paused = Some(Box::pin(sleep(pause)));
        }
    }
}

/// Copies `bufs` into one piece.
fn gather<'a>(bufs: &[io::IoSlice<'_>], piece: &'a mut [u8; COPY_BELOW]) -> &'a [u8] {
    let mut len = 0;
    for buf in bufs {
        piece[len..len + buf.len()].copy_from_slice(buf);
        len += buf.len();
    }
    &piece[..len]
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.blocked {
            // The peer takes nothing: reset, or the kernel would keep what it has not taken for a while.
            let _ = socket2::SockRef::from(&self.inner).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.frames == 0 {
            if self.flow.turn_over.load(Ordering::Relaxed) {
                // The transport's task begins the next turn itself: nothing needs to wake it.
                return Poll::Pending;
            }
            self.frames = FRAMES_PER_TURN;
        }
        if let Some(paused) = &mut self.paused {
            ready!(paused.as_mut().poll(cx));
            self.paused = None;
        }
        let before = buf.filled().len();
        ready!(self.read_some(cx, buf))?;
        self.count(buf, before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.after_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = Pin::new(&mut self.inner);
        // One piece by `send` where that costs less: `writev` on a socket takes a longer way.
        let written = match bufs {
            [only] => inner.poll_write(cx, only),
            _ if bufs.iter().map(|buf| buf.len()).sum::<usize>() <= COPY_BELOW => {
                inner.poll_write(cx, gather(bufs, &mut [0; COPY_BELOW]))
            }
            _ => inner.poll_write_vectored(cx, bufs),
        };
        self.after_write(cx, written)
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
