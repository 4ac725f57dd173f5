//! An event loop: one thread, one poll, its share of the transports.
//!
//! Promises little work per delivery: one read for as many messages as are there, one look at the clock
//! for each read, one write for all that a publisher may say.

use super::control::{Control, Phase};
use super::payload::{PROBE, Stamp, Text};
use super::plan::{Plan, Role};
use super::protocol::{self, Fault};
use super::publishing::Publishing;
use super::tally::{Span, Tally};
use super::timer::Timer;
use super::transport::{Amount, Call, News, Standing, Transport};
use crate::cli::ProtocolArg;
use mio::{Events, Poll, Token};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Transports of a loop that are connecting at a time: below any server's listen backlog.
const PENDING: usize = 64;

/// Read at once: what a server sends to one connection while the others have their turn.
const BUFFER: usize = 256 * 1024;

const EVENTS: usize = 1024;

/// How long a loop may sleep at most, and how often it looks after what has no event.
const TICK: Duration = Duration::from_millis(20);
const TICK_NS: u64 = 20_000_000;
const SECOND: u64 = 1_000_000_000;

/// How long nobody has joined before it is asked who has, by a message; and how often.
const SILENCE: u64 = 500_000_000;
const PROBE_PERIOD: u64 = 200_000_000;

/// How long a call that came late may be without an answer when all is over.
const ANSWER: u64 = 5_000_000_000;

/// What a loop leaves behind.
pub(super) struct Outcome {
    pub(super) tally: Tally,
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
    publishing: Publishing,
    probe: Text,
    buffer: Box<[u8]>,
    tally: Tally,
    news: News,
    /// Transports that are neither up nor given up.
    pending: usize,
    /// Those whose socket may have more to read.
    unread: Vec<usize>,
    touched: Vec<usize>,
    ticked: u64,
    probed: u64,
    /// Where the next to leave is looked for, and how many have left.
    leaver: (usize, usize),
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
            publishing: Publishing::new(plan),
            probe: protocol::text(plan),
            buffer: vec![0; BUFFER].into(),
            tally: Tally::new(plan)?,
            news: News::default(),
            pending: 0,
            unread: Vec::new(),
            touched: Vec::new(),
            ticked: 0,
            probed: 0,
            leaver: (0, 0),
            left: 0,
        })
    }

    /// Runs until it is over.
    pub(super) fn run(mut self) -> anyhow::Result<Outcome> {
        let mut events = Events::with_capacity(EVENTS);
        let mut before = Phase::Join;
        loop {
            let phase = self.control.phase();
            if phase == Phase::Over {
                return Ok(self.end());
            }
            if phase != before {
                self.turn(before, phase);
                before = phase;
            }
            self.open(phase);
            self.say(phase);
            let now = self.control.now();
            if now >= self.ticked + TICK_NS {
                self.tick(now, phase);
            }
            self.report();
            let wait = if self.unread.is_empty() { TICK } else { Duration::ZERO };
            self.timer.set(self.publishing.next().map(|due| due.saturating_sub(self.control.now())))?;
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for at in std::mem::take(&mut self.unread) {
                self.read(at, Amount::ToTheEnd);
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
                        self.read(at, Amount::ToTheEnd);
                    } else if event.is_readable() {
                        self.read(at, Amount::Ready);
                    }
                }
            }
        }
    }

    /// Transports of this loop.
    fn share(&self) -> usize {
        (self.number..self.plan.sockets() as usize).step_by(usize::from(self.plan.threads)).count()
    }

    /// Connects as many more as may be under way.
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
            self.publishing.add(&mut self.transports, at);
            self.pending += 1;
            let opened = self.transports[at].open(self.plan, self.poll.registry(), at);
            self.settle(at, &opened);
        }
    }

    /// After anything was done with a transport: it may be up now, or lost.
    fn settle(&mut self, at: usize, done: &Result<(), Fault>) {
        let transport = &mut self.transports[at];
        if let Err(fault) = done {
            transport.give_up(fault, &mut self.tally, &mut self.news);
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
        let (plan, control) = (self.plan, self.control);
        let counts = (&mut self.tally, &mut self.news);
        let transport = &mut self.transports[at];
        let read = transport.read(&mut self.buffer, amount, || Span::at(control), plan, counts);
        let done = match read {
            Ok(more) => {
                if more {
                    self.unread.push(at);
                }
                transport.flush()
            }
            Err(fault) => Err(fault),
        };
        let staller = &transport.calls[0];
        if staller.role == Role::Staller && staller.standing == Standing::In && control.phase() < Phase::Look
        {
            transport.stalls = true;
        }
        self.publishing.hot.append(&mut self.news.hot);
        self.settle(at, &done);
    }

    fn say(&mut self, phase: Phase) {
        let said = self.publishing.say(self.control, phase, &mut self.transports, &mut self.touched);
        if phase == Phase::Measure {
            self.tally.messages += said;
        }
        self.flush_touched();
    }

    fn flush_touched(&mut self) {
        for at in std::mem::take(&mut self.touched) {
            let flushed = self.transports[at].flush();
            self.settle(at, &flushed);
        }
    }

    /// A phase begins.
    fn turn(&mut self, before: Phase, phase: Phase) {
        if before == Phase::Join {
            let nobody = Fault::new("no answer");
            for at in 0..self.transports.len() {
                let transport = &mut self.transports[at];
                for call in transport.calls.iter_mut().filter(|call| call.standing == Standing::Waiting) {
                    call.end(nobody.clone(), &mut self.tally, &mut self.news);
                }
            }
        }
        if phase == Phase::Look {
            for at in 0..self.transports.len() {
                if std::mem::take(&mut self.transports[at].stalls) {
                    self.read(at, Amount::ToTheEnd);
                }
            }
        }
    }

    /// What comes with time, not with an event.
    fn tick(&mut self, now: u64, phase: Phase) {
        let elapsed = now - self.ticked;
        self.ticked = now;
        if phase == Phase::Join {
            self.ask_who_is_in(now);
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

    /// Not every server answers a call before there is something to hear: then a message shows who is in.
    fn ask_who_is_in(&mut self, now: u64) {
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
        // The first call of each room speaks for it.
        for at in 0..self.transports.len() {
            let transport = &mut self.transports[at];
            for number in 0..transport.calls.len() {
                let call = &transport.calls[number];
                if call.number < self.plan.rooms && call.standing != Standing::Ended && transport.is_open() {
                    let text = self.probe.stamped(call.tag(), Stamp { slot: PROBE, number: 0 }, now);
                    transport.protocol.publish(number, text);
                    self.touched.push(at);
                }
            }
        }
        self.flush_touched();
    }

    /// Lets go whoever's turn it is, and has another come.
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
            transport.calls[number].renew(self.plan, now, &mut self.tally, &mut self.news);
            let done = if transport.calls.len() > 1 {
                transport.protocol.renew(number);
                transport.flush()
            } else {
                transport.reopen(self.plan, self.poll.registry(), at)
            };
            self.settle(at, &done);
        }
    }

    /// The next member that is in and does not publish.
    fn next_leaver(&mut self) -> Option<(usize, usize)> {
        let calls: usize = self.transports.iter().map(|transport| transport.calls.len()).sum();
        for _ in 0..=calls + self.transports.len() {
            let (at, number) = self.leaver;
            match self.transports.get(at)?.calls.get(number) {
                Some(call) => {
                    self.leaver = (at, number + 1);
                    let may = call.role == Role::Member && call.publisher.is_none();
                    if may && call.standing == Standing::In {
                        return Some((at, number));
                    }
                }
                None => self.leaver = ((at + 1) % self.transports.len(), 0),
            }
        }
        None
    }

    /// Whether a call has heard everything that was said in its room.
    fn has_all(&self, call: &Call) -> bool {
        if call.role == Role::Staller || call.standing != Standing::In {
            return true;
        }
        let room = self.plan.room_of(call.number);
        (0..self.plan.publishers_in(room)).all(|slot| {
            let said = &self.control.said[self.plan.publisher(room, slot)];
            call.receiver.behind(slot, said.load(Ordering::Relaxed)) == 0
        })
    }

    fn report(&self) {
        let progress = &self.control.progress[self.number];
        let News { joined, refused, live, stalling, heard, last_join, .. } = self.news;
        progress.stalling.store(stalling, Ordering::Relaxed);
        progress.opened.store(self.transports.len() - self.pending, Ordering::Relaxed);
        progress.live.store(live, Ordering::Relaxed);
        progress.heard.store(heard, Ordering::Relaxed);
        progress.last_join.store(last_join, Ordering::Relaxed);
        progress.refused.store(refused, Ordering::Relaxed);
        progress.joined.store(joined, Ordering::Relaxed);
    }

    fn end(mut self) -> Outcome {
        let now = self.control.now();
        self.tally.latencies.close(self.tally.deliveries);
        self.tally.unsaid = self.publishing.unsaid(self.control, &self.transports);
        let mut calls: Vec<_> = self.transports.into_iter().flat_map(|transport| transport.calls).collect();
        for call in
            calls.iter_mut().filter(|call| call.standing == Standing::Waiting && now > call.since + ANSWER)
        {
            call.end(Fault::new("no answer"), &mut self.tally, &mut self.news);
        }
        Outcome { tally: self.tally, calls }
    }
}
