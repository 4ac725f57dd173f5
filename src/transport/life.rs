//! The life-cycle of a transport: the deadlines of its beginning, keepalive, idleness, and its end.
//!
//! ```text
//! Preface ──► FirstCall ──► Serving ◄──► Pinged
//!    └────────────┴─────────────┴───────────┴──► closed: late, idle, or it answers no ping
//! ```
//!
//! In any of them it may be told to go away: then it is closed once it has no call.

use super::Limits;
use super::call::Transport;
use super::connection::Closed;
use h2::{Ping, PingPong};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// After GOAWAY, how long a transport may wait for its peer to close it once no call is left on it and everything has been
/// written.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);
/// The same for one that is closed as soon as it is idle, if not everything could be written: its socket is full.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// What is to be done now.
pub(super) enum Due {
    /// Tell the peer to open no more calls.
    GoAway,
    Close(Closed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preface,
    FirstCall,
    Serving,
    /// A ping waits for its answer since.
    Pinged(Instant),
}

pub(super) struct Life {
    transport: Arc<Transport>,
    limits: Arc<Limits>,
    stage: Stage,
    /// The peer has been told to open no more calls.
    going_away: bool,
    timer: Pin<Box<Sleep>>,
    ping: Option<PingPong>,
    /// Since when no call is open.
    idle_since: Option<Instant>,
    /// When a transport without calls is closed that is going away.
    close_at: Option<Instant>,
}

impl Life {
    pub(super) fn new(transport: Arc<Transport>, limits: Arc<Limits>) -> Self {
        let preface = transport.flow.began() + limits.preface_deadline;
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

    /// The handshake is complete; this pings.
    pub(super) fn serves(&mut self, ping: Option<PingPong>) {
        self.ping = ping;
    }

    /// Ready with what is to be done. Woken by its timer, and whenever the transport's calls or orders change.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        if self.transport.is_going_away() && !self.going_away {
            self.going_away = true;
            return Poll::Ready(Due::GoAway);
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
            let due = self.due();
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            if let Some(due) = self.time_is_up(Instant::now()) {
                return Poll::Ready(due);
            }
        }
    }

    /// When it is to be looked at next.
    fn due(&self) -> Instant {
        let Limits {
            preface_deadline,
            first_stream_deadline,
            keepalive_interval,
            keepalive_timeout,
            idle,
            ..
        } = *self.limits;
        let flow = &self.transport.flow;
        match self.stage {
            Stage::Preface => flow.began() + preface_deadline,
            Stage::FirstCall => flow.began() + first_stream_deadline.max(preface_deadline),
            Stage::Serving => {
                let ping = flow.last_read() + keepalive_interval;
                self.idle_since.map_or(ping, |since| ping.min(since + idle))
            }
            Stage::Pinged(at) => at + keepalive_timeout,
        }
    }

    fn time_is_up(&mut self, now: Instant) -> Option<Due> {
        let flow = &self.transport.flow;
        let has_called = self.transport.has_had_calls();
        match self.stage {
            Stage::Preface if !flow.has_preface() => return Some(Due::Close(Closed::NoPreface)),
            Stage::Preface => self.stage = Stage::FirstCall,
            Stage::FirstCall if !has_called => return Some(Due::Close(Closed::NoCall)),
            Stage::Serving => {
                if self.idle_since.is_some_and(|since| now >= since + self.limits.idle) {
                    tracing::debug!(transport = %self.transport.id, "transport closed: it is idle");
                    self.transport.go_away();
                    self.going_away = true;
                    return Some(Due::GoAway);
                }
                if now >= flow.last_read() + self.limits.keepalive_interval {
                    self.send_ping();
                    self.stage = Stage::Pinged(now);
                }
            }
            Stage::Pinged(at) if flow.last_read() < at => return Some(Due::Close(Closed::NoPong)),
            Stage::FirstCall | Stage::Pinged(_) => self.stage = Stage::Serving,
        }
        None
    }

    fn send_ping(&mut self) {
        let Some(ping) = &mut self.ping else { return };
        // Takes the answer to the last one, without which there is no next.
        let _ = ping.poll_pong(&mut Context::from_waker(std::task::Waker::noop()));
        // An error means that one is under way, or that the transport is closing.
        let _ = ping.send_ping(Ping::opaque());
    }

    /// Closes the transport, which has no call, once everything has been written and its peer has had time to close it.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        let transport = &self.transport;
        let is_writing = transport.is_writing();
        if is_writing && !transport.closes_when_idle() {
            // The limit of the socket holds. Looked at again when it may have written everything.
            self.close_at = None;
            self.timer.as_mut().reset(Instant::now() + CLOSE_PATIENCE / 10);
            ready!(self.timer.as_mut().poll(cx));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let patience = if is_writing { WRITE_PATIENCE } else { CLOSE_PATIENCE };
        let now = Instant::now();
        let close_at = *self.close_at.get_or_insert(now + patience);
        // As soon as everything is written, the shorter time counts.
        let close_at = close_at.min(now + patience);
        self.close_at = Some(close_at);
        let look_again = close_at.min(now + CLOSE_PATIENCE / 10);
        self.timer.as_mut().reset(if is_writing { look_again } else { close_at });
        ready!(self.timer.as_mut().poll(cx));
        if Instant::now() >= close_at {
            return Poll::Ready(Due::Close(Closed::AfterGoAway));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
