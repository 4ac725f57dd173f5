//! A transport's socket with the one deadline that HTTP/2 lacks: bytes that wait must move.
//!
//! HTTP/2 keepalive never reaps a peer that stopped reading with a full socket: the ping waits behind the data.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Length of the bytes every HTTP/2 connection begins with (RFC 9113, section 3.4).
pub(super) const PREFACE_LEN: usize = 24;

/// Bytes up to which copying is cheaper than a vectored write.
const COPY_BELOW: usize = 2048;

/// What the socket shares with those that watch the transport.
#[derive(Default)]
pub(super) struct Flow {
    /// Bytes read until the preface was complete; stays there.
    preface: AtomicUsize,
    /// The peer's side is full: bytes wait to be written.
    blocked: AtomicBool,
}

impl Flow {
    pub(super) fn has_preface(&self) -> bool {
        self.preface.load(Ordering::Relaxed) >= PREFACE_LEN
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }
}

pub(super) struct Socket {
    inner: TcpStream,
    flow: Arc<Flow>,
    stall_limit: Duration,
    /// Made when the socket first blocks: most transports never need one.
    stalled: Option<Pin<Box<Sleep>>>,
    blocked: bool,
    preface_done: bool,
}

impl Socket {
    pub(super) fn new(socket: TcpStream, flow: Arc<Flow>, stall_limit: Duration) -> Self {
        Self { inner: socket, flow, stall_limit, stalled: None, blocked: false, preface_done: false }
    }

    fn is_blocked(&mut self, blocked: bool) {
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
                self.is_blocked(false);
            }
            return written;
        }
        let limit = self.stall_limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.blocked {
            stalled.as_mut().reset(Instant::now() + limit);
            self.is_blocked(true);
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        let error = io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading");
        Poll::Ready(Err(error))
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
        if self.preface_done {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        let total = self.flow.preface.fetch_add(read, Ordering::Relaxed) + read;
        self.preface_done = total >= PREFACE_LEN;
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
