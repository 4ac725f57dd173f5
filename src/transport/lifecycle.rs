//! The lifecycle of a transport: the deadlines of its start, keepalive, idleness, and its end.
//!
//! ```text
//! Preface ──► FirstCall ──► Serving ◄──► Pinged
//!    └────────────┴─────────────┴───────────┴──► closed: too late, idle, or a PING without acknowledgement
//! ```
//!
//! In any stage the server may send GOAWAY; the transport then closes once it has no call.
//!
//! Guarantees: [`Lifecycle::poll`] asks to close every transport whose peer misses a deadline. Deliberately leaves HTTP/2 to
//! its caller, except for PING.

use super::limits::TransportLimits;
use super::state::TransportState;
use h2::{Ping, PingPong};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// After GOAWAY, the time for the peer to close a transport that has no call and nothing left to write.
const PEER_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// The same for a transport that closes when idle while its socket is full and data is left to write.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the caller of [`Lifecycle::poll`] does now.
pub(super) enum Action {
    SendGoAway,
    Close(CloseReason),
}

/// Why a transport closed.
#[derive(Debug)]
pub(super) enum CloseReason {
    /// The peer closed it, or both sides were done.
    Done,
    /// The preface was not complete in time.
    NoPreface,
    /// The peer opened no call in time.
    NoCall,
    /// The peer did not acknowledge a PING in time.
    NoPong,
    /// After GOAWAY the transport had no call left, and the peer did not close it.
    AfterGoAway,
    /// The socket or HTTP/2 failed.
    Failed(h2::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preface,
    FirstCall,
    Serving,
    /// A PING was sent at this time.
    Pinged(Instant),
}

/// The stage of a transport, and its timer.
pub(super) struct Lifecycle {
    transport: Arc<TransportState>,
    limits: Arc<TransportLimits>,
    stage: Stage,
    /// GOAWAY was sent.
    going_away: bool,
    timer: Pin<Box<Sleep>>,
    ping: Option<PingPong>,
    /// Since when no call is open.
    idle_since: Option<Instant>,
    /// When the transport closes, once it is going away and has no call.
    close_at: Option<Instant>,
}

impl Lifecycle {
    pub(super) fn new(transport: Arc<TransportState>, limits: Arc<TransportLimits>) -> Self {
        let preface = transport.socket.began() + limits.preface_deadline;
        let timer = Box::pin(sleep_until(preface));
        Self {
            transport,
            limits,
            stage: Stage::Preface,
            going_away: false,
            timer,
            ping: None,
            idle_since: None,
            close_at: None,
        }
    }

    /// Starts keepalive: the handshake is complete.
    pub(super) fn start_keepalive(&mut self, ping: Option<PingPong>) {
        self.ping = ping;
    }

    /// Ready with the next action. Woken by its timer, when the transport's first call opens or its last one ends, and by
    /// [`TransportState::go_away`] and [`TransportState::close_when_idle`].
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        if self.transport.is_going_away() && !self.going_away {
            self.going_away = true;
            return Poll::Ready(Action::SendGoAway);
        }
        if self.transport.has_no_call() {
            self.idle_since.get_or_insert_with(Instant::now);
            if self.going_away {
                return self.poll_close(cx);
            }
        } else {
            self.idle_since = None;
            self.close_at = None;
        }
        if matches!(self.stage, Stage::Preface | Stage::FirstCall) && self.transport.has_had_calls() {
            self.stage = Stage::Serving;
        }
        loop {
            let deadline = self.deadline();
            if self.timer.deadline() != deadline {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            if let Some(action) = self.on_deadline(Instant::now()) {
                return Poll::Ready(action);
            }
        }
    }

    /// The deadline of the current stage.
    fn deadline(&self) -> Instant {
        let TransportLimits {
            preface_deadline,
            first_stream_deadline,
            keepalive_interval,
            keepalive_timeout,
            idle,
            ..
        } = *self.limits;
        let socket = &self.transport.socket;
        match self.stage {
            Stage::Preface => socket.began() + preface_deadline,
            Stage::FirstCall => socket.began() + first_stream_deadline.max(preface_deadline),
            Stage::Serving => {
                let ping = socket.last_read() + keepalive_interval;
                self.idle_since.map_or(ping, |since| ping.min(since + idle))
            }
            Stage::Pinged(at) => at + keepalive_timeout,
        }
    }

    /// Moves to the next stage, or ends this one.
    fn on_deadline(&mut self, now: Instant) -> Option<Action> {
        let socket = &self.transport.socket;
        let has_called = self.transport.has_had_calls();
        match self.stage {
            Stage::Preface if !socket.has_preface() => return Some(Action::Close(CloseReason::NoPreface)),
            Stage::Preface => self.stage = Stage::FirstCall,
            Stage::FirstCall if !has_called => return Some(Action::Close(CloseReason::NoCall)),
            Stage::Serving => {
                if self.idle_since.is_some_and(|since| now >= since + self.limits.idle) {
                    tracing::debug!(transport = %self.transport.id, "transport closed: it is idle");
                    self.transport.go_away();
                    self.going_away = true;
                    return Some(Action::SendGoAway);
                }
                if now >= socket.last_read() + self.limits.keepalive_interval {
                    self.send_ping();
                    self.stage = Stage::Pinged(now);
                }
            }
            Stage::Pinged(at) if socket.last_read() < at => return Some(Action::Close(CloseReason::NoPong)),
            Stage::FirstCall | Stage::Pinged(_) => self.stage = Stage::Serving,
        }
        None
    }

    fn send_ping(&mut self) {
        let Some(ping) = &mut self.ping else { return };
        // h2 allows one PING at a time: this takes the acknowledgement of the last one.
        let _ = ping.poll_pong(&mut Context::from_waker(std::task::Waker::noop()));
        // An error means that a PING is under way, or that the transport is closing.
        let _ = ping.send_ping(Ping::opaque());
    }

    /// Closes a transport without calls once everything is written and the peer has had time to close it first.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        let transport = &self.transport;
        let is_writing = transport.has_unsent_data();
        if is_writing && !transport.closes_when_idle() {
            // The socket's own limit bounds this. Checked again later, when everything may have been written.
            self.close_at = None;
            self.timer.as_mut().reset(Instant::now() + PEER_CLOSE_TIMEOUT / 10);
            ready!(self.timer.as_mut().poll(cx));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let timeout = if is_writing { FINAL_WRITE_TIMEOUT } else { PEER_CLOSE_TIMEOUT };
        let now = Instant::now();
        let close_at = *self.close_at.get_or_insert(now + timeout);
        // As soon as everything is written, the shorter timeout applies.
        let close_at = close_at.min(now + timeout);
        self.close_at = Some(close_at);
        let next_check = close_at.min(now + PEER_CLOSE_TIMEOUT / 10);
        self.timer.as_mut().reset(if is_writing { next_check } else { close_at });
        ready!(self.timer.as_mut().poll(cx));
        if Instant::now() >= close_at {
            return Poll::Ready(Action::Close(CloseReason::AfterGoAway));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
