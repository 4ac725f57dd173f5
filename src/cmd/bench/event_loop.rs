//! An event loop: one thread and one poll for its share of the transports.
//!
//! Keeps the work per delivery small: one read for all waiting messages, one clock reading per read, one write for all
//! messages that a publisher may send.

use super::call_handler::CallError;
use super::control::{Control, Phase};
use super::counters::{Counters, Span};
use super::payload::{PROBE, Stamp, Text};
use super::plan::{Plan, Role};
use super::protocol;
use super::scheduler::Scheduler;
use super::timer::Timer;
use super::transport::{Amount, Call, CallState, LoopStats, Transport};
use crate::cli::ProtocolArg;
use mio::{Events, Poll, Token};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Concurrent connects of a loop: below the listen backlog of any server.
const PENDING: usize = 64;

/// Size of a read: what a server may send to one connection while the others are served.
const BUFFER: usize = 256 * 1024;

const EVENTS: usize = 1024;

/// Longest sleep of a loop, and period of its timed work.
const TICK: Duration = Duration::from_millis(20);
const TICK_NS: u64 = 20_000_000;
const SECOND: u64 = 1_000_000_000;

/// Time without a join before a probe message finds out who has joined, and the period of probes.
const SILENCE: u64 = 500_000_000;
const PROBE_PERIOD: u64 = 200_000_000;

/// Time that a replaced call may wait for its join at the end of a run.
const RESPONSE_TIMEOUT: u64 = 5_000_000_000;

/// The results of a loop.
pub(super) struct Outcome {
    pub(super) counters: Counters,
    pub(super) calls: Vec<Call>,
}

/// The loop.
pub(super) struct EventLoop<'a> {
    plan: &'a Plan,
    control: &'a Control,
    number: usize,
    poll: Poll,
    timer: Timer,
    transports: Vec<Transport>,
    scheduler: Scheduler,
    probe: Text,
    buffer: Box<[u8]>,
    counters: Counters,
    stats: LoopStats,
    /// Transports that have neither connected nor failed.
    pending: usize,
    /// Transports whose socket may have more to read.
    unread: Vec<usize>,
    touched: Vec<usize>,
    ticked: u64,
    probed: u64,
    /// Where to look for the next connection to replace.
    leaver: (usize, usize),
    /// Replaced connections.
    left: u64,
}

impl<'a> EventLoop<'a> {
    pub(super) fn new(plan: &'a Plan, control: &'a Control, number: usize) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), Token(usize::MAX))?;
        Ok(Self {
            plan,
            control,
            number,
            poll,
            timer,
            transports: Vec::new(),
            scheduler: Scheduler::new(plan),
            probe: protocol::text(plan),
            buffer: vec![0; BUFFER].into(),
            counters: Counters::new(plan)?,
            stats: LoopStats::default(),
            pending: 0,
            unread: Vec::new(),
            touched: Vec::new(),
            ticked: 0,
            probed: 0,
            leaver: (0, 0),
            left: 0,
        })
    }

    /// Runs until the last phase.
    pub(super) fn run(mut self) -> anyhow::Result<Outcome> {
        let mut events = Events::with_capacity(EVENTS);
        let mut before = Phase::Join;
        loop {
            let phase = self.control.phase();
            if phase == Phase::Done {
                return Ok(self.end());
            }
            if phase != before {
                self.turn(before, phase);
                before = phase;
            }
            self.open(phase);
            self.publish(phase);
            let now = self.control.now();
            if now >= self.ticked + TICK_NS {
                self.tick(now, phase);
            }
            self.report();
            let wait = if self.unread.is_empty() { TICK } else { Duration::ZERO };
            self.timer.set(self.scheduler.next().map(|due| due.saturating_sub(self.control.now())))?;
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for at in std::mem::take(&mut self.unread) {
                self.read(at, Amount::ToEof);
            }
            for event in &events {
                let at = event.token().0;
                if at >= self.transports.len() {
                    continue;
                }
                if event.is_writable() {
                    self.on_writable(at);
                }
                if !self.transports[at].stalls {
                    if event.is_read_closed() || event.is_error() {
                        self.read(at, Amount::ToEof);
                    } else if event.is_readable() {
                        self.read(at, Amount::Ready);
                    }
                }
            }
        }
    }

    /// Number of transports of this loop.
    fn share(&self) -> usize {
        (self.number..self.plan.sockets() as usize).step_by(usize::from(self.plan.threads)).count()
    }

    /// Starts as many connects as `PENDING` and the ramp allow.
    fn open(&mut self, phase: Phase) {
        let share = self.share();
        while phase == Phase::Join && self.transports.len() < share && self.pending < PENDING {
            let now = self.control.now();
            let ramp = self.plan.ramp.as_nanos() as u64;
            if ramp > 0 && self.transports.len() as f64 > share as f64 * (now as f64 / ramp as f64) {
                return;
            }
            let at = self.transports.len();
            let number = self.number + at * usize::from(self.plan.threads);
            self.transports.push(Transport::new(self.plan, number as u32, now));
            self.scheduler.add(&mut self.transports, at);
            self.pending += 1;
            let opened = self.transports[at].open(self.plan, self.poll.registry(), at);
            self.settle(at, &opened);
        }
    }

    /// Updates the state of a transport after an operation: it may have connected or failed.
    fn settle(&mut self, at: usize, done: &Result<(), CallError>) {
        let transport = &mut self.transports[at];
        if let Err(error) = done {
            transport.give_up(error, &mut self.counters, &mut self.stats);
        }
        if !transport.settled && (done.is_err() || transport.is_up()) {
            transport.settled = true;
            self.pending -= 1;
        }
    }

    fn on_writable(&mut self, at: usize) {
        let written = self.transports[at].on_writable();
        self.settle(at, &written);
    }

    fn read(&mut self, at: usize, amount: Amount) {
        let plan = self.plan;
        let control = self.control;
        let counts = (&mut self.counters, &mut self.stats);
        let transport = &mut self.transports[at];
        let read = transport.read(&mut self.buffer, amount, || Span::at(control), plan, counts);
        let done = match read {
            Ok(more) => {
                if more {
                    self.unread.push(at);
                }
                transport.flush()
            }
            Err(error) => Err(error),
        };
        let staller = &transport.calls[0];
        if staller.role == Role::Staller
            && staller.state == CallState::Joined
            && control.phase() < Phase::InspectStallers
        {
            transport.stalls = true;
        }
        self.scheduler.ready.append(&mut self.stats.ready);
        self.settle(at, &done);
    }

    fn publish(&mut self, phase: Phase) {
        let published = self.scheduler.publish(self.control, phase, &mut self.transports, &mut self.touched);
        if phase == Phase::Measure {
            self.counters.messages += published;
        }
        self.flush_touched();
    }

    fn flush_touched(&mut self) {
        for at in std::mem::take(&mut self.touched) {
            let flushed = self.transports[at].flush();
            self.settle(at, &flushed);
        }
    }

    /// Handles the start of a phase.
    fn turn(&mut self, before: Phase, phase: Phase) {
        if before == Phase::Join {
            let no_response = CallError::new("no response");
            for at in 0..self.transports.len() {
                let transport = &mut self.transports[at];
                for call in transport.calls.iter_mut().filter(|call| call.state == CallState::Waiting) {
                    call.end(no_response.clone(), &mut self.counters, &mut self.stats);
                }
            }
        }
        if phase == Phase::InspectStallers {
            for at in 0..self.transports.len() {
                if std::mem::take(&mut self.transports[at].stalls) {
                    self.read(at, Amount::ToEof);
                }
            }
        }
    }

    /// Timed work.
    fn tick(&mut self, now: u64, phase: Phase) {
        let elapsed = now - self.ticked;
        self.ticked = now;
        if phase == Phase::Join {
            self.probe_joins(now);
        }
        if let Some(rate) = self.plan.read_rate {
            let budget = (rate.saturating_mul(elapsed.min(SECOND)) / SECOND) as usize + 1;
            for at in 0..self.transports.len() {
                if self.transports[at].stalls {
                    self.read(at, Amount::Bytes(budget));
                }
            }
        }
        if phase == Phase::Measure {
            self.churn(now);
        }
        if phase == Phase::Drain
            && self.control.finished.load(Ordering::Acquire) == self.control.progress.len()
        {
            let drained =
                self.transports.iter().flat_map(|transport| &transport.calls).all(|call| self.has_all(call));
            self.control.progress[self.number].drained.store(drained, Ordering::Relaxed);
        }
    }

    /// Some servers respond to a call only with the first message: a probe message then shows which calls have joined.
    fn probe_joins(&mut self, now: u64) {
        let silence = if self.plan.protocol == ProtocolArg::Framed { 0 } else { SILENCE };
        let last = self
            .control
            .progress
            .iter()
            .map(|loop_| loop_.last_join.load(Ordering::Relaxed))
            .max()
            .unwrap_or(0);
        let all_open = self.transports.len() == self.share() && self.pending == 0;
        let waiting = self.control.settled() < self.plan.calls() as usize;
        if !all_open || !waiting || now < last.max(self.probed) + silence || now < self.probed + PROBE_PERIOD
        {
            return;
        }
        self.probed = now;
        // The first call of each room publishes the probe.
        for at in 0..self.transports.len() {
            let transport = &mut self.transports[at];
            for number in 0..transport.calls.len() {
                let call = &transport.calls[number];
                if call.number < self.plan.rooms && call.state != CallState::Ended && transport.is_open() {
                    let text = self.probe.stamped(call.tag(), Stamp { slot: PROBE, number: 0 }, now);
                    transport.protocol.publish(number, text);
                    self.touched.push(at);
                }
            }
        }
        self.flush_touched();
    }

    /// Replaces the connections that are due to leave.
    fn churn(&mut self, now: u64) {
        let from = self.control.from.load(Ordering::Relaxed);
        let rate = self.plan.churn / f64::from(self.plan.threads);
        if rate == 0.0 {
            return;
        }
        let when = |leaver: u64| from + Duration::from_secs_f64(leaver as f64 / rate).as_nanos() as u64;
        while when(self.left + 1) <= now {
            self.left += 1;
            let Some((at, number)) = self.next_leaver() else { return };
            let transport = &mut self.transports[at];
            transport.calls[number].renew(self.plan, now, &mut self.counters, &mut self.stats);
            let done = if transport.calls.len() > 1 {
                transport.protocol.renew(number);
                transport.flush()
            } else {
                transport.reopen(self.plan, self.poll.registry(), at)
            };
            self.settle(at, &done);
        }
    }

    /// The next joined member that does not publish.
    fn next_leaver(&mut self) -> Option<(usize, usize)> {
        let calls: usize = self.transports.iter().map(|transport| transport.calls.len()).sum();
        for _ in 0..=calls + self.transports.len() {
            let (at, number) = self.leaver;
            match self.transports.get(at)?.calls.get(number) {
                Some(call) => {
                    self.leaver = (at, number + 1);
                    let may = call.role == Role::Member && call.publisher.is_none();
                    if may && call.state == CallState::Joined {
                        return Some((at, number));
                    }
                }
                None => self.leaver = ((at + 1) % self.transports.len(), 0),
            }
        }
        None
    }

    /// Whether a call has received everything published in its room.
    fn has_all(&self, call: &Call) -> bool {
        if call.role == Role::Staller || call.state != CallState::Joined {
            return true;
        }
        let room = self.plan.room_of(call.number);
        (0..self.plan.publishers_in(room)).all(|slot| {
            let published = &self.control.published[self.plan.publisher(room, slot)];
            call.receiver.behind(slot, published.load(Ordering::Relaxed)) == 0
        })
    }

    fn report(&self) {
        let progress = &self.control.progress[self.number];
        let LoopStats { joined, refused, live, stalling, received, last_join, .. } = self.stats;
        progress.stalling.store(stalling, Ordering::Relaxed);
        progress.opened.store(self.transports.len() - self.pending, Ordering::Relaxed);
        progress.live.store(live, Ordering::Relaxed);
        progress.received.store(received, Ordering::Relaxed);
        progress.last_join.store(last_join, Ordering::Relaxed);
        progress.refused.store(refused, Ordering::Relaxed);
        progress.joined.store(joined, Ordering::Relaxed);
    }

    fn end(mut self) -> Outcome {
        let now = self.control.now();
        self.counters.latencies.close(self.counters.deliveries);
        self.counters.unpublished = self.scheduler.unpublished(self.control, &self.transports);
        let mut calls: Vec<_> = self.transports.into_iter().flat_map(|transport| transport.calls).collect();
        for call in calls
            .iter_mut()
            .filter(|call| call.state == CallState::Waiting && now > call.since + RESPONSE_TIMEOUT)
        {
            call.end(CallError::new("no response"), &mut self.counters, &mut self.stats);
        }
        Outcome { counters: self.counters, calls }
    }
}
