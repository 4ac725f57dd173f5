//! Decides when each publisher of a loop sends its next message.
//!
//! In an open loop, a message is stamped with its due time, however late it is sent: a server or loop that does not keep up
//! shows in the latencies, instead of silently lowering the load.

use super::control::{Control, Phase};
use super::payload::{Stamp, Text};
use super::plan::{Pace, Plan};
use super::protocol;
use super::transport::{CallState, Transport};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The publishers of a loop.
pub(super) struct Scheduler {
    pace: Pace,
    /// Number of publishers in all loops.
    publishers: u32,
    /// Transport, and call on it, of each publisher.
    entries: Vec<(usize, usize)>,
    text: Text,
    began: Option<u64>,
    /// Open loop: due times of the next messages, with their publishers.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// Publishers whose backlog is full.
    blocked: Vec<usize>,
    /// Closed loop: publishers that may have room in their window.
    pub(super) ready: Vec<usize>,
    finished: bool,
}

impl Scheduler {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            pace: plan.pace,
            publishers: plan.publishers,
            entries: Vec::new(),
            text: protocol::text(plan),
            began: None,
            due: BinaryHeap::new(),
            blocked: Vec::new(),
            ready: Vec::new(),
            finished: false,
        }
    }

    /// Adds the publishers of a new transport.
    pub(super) fn add(&mut self, transports: &mut [Transport], at: usize) {
        for (number, call) in transports[at].calls.iter_mut().enumerate() {
            if let Some(publisher) = &mut call.publisher {
                publisher.entry = self.entries.len();
                self.entries.push((at, number));
            }
        }
    }

    /// Sends the messages that are due; returns their number, and adds the transports to flush to `touched`.
    pub(super) fn publish(
        &mut self,
        control: &Control,
        phase: Phase,
        transports: &mut [Transport],
        touched: &mut Vec<usize>,
    ) -> u64 {
        if !(Phase::Warmup..=Phase::Drain).contains(&phase) || self.finished {
            return 0;
        }
        let now = control.now();
        self.begin(control, transports);
        let sent = match self.pace {
            Pace::Rate(_) => {
                self.publish_due(now.min(control.to.load(Ordering::Relaxed)), transports, touched)
            }
            Pace::Window(window) if phase < Phase::Drain => {
                self.fill_windows(window, now, transports, touched)
            }
            Pace::Window(_) => 0,
        };
        if phase == Phase::Drain && self.is_done(control) {
            self.finish(control, transports);
        }
        sent
    }

    /// When the next message is due.
    pub(super) fn next(&self) -> Option<u64> {
        let Reverse((due, _)) = *self.due.peek()?;
        (!self.finished).then_some(due)
    }

    /// Messages that were due but could not be sent.
    pub(super) fn unpublished(&self, control: &Control, transports: &[Transport]) -> u64 {
        let to = control.to.load(Ordering::Relaxed);
        let late = |&entry: &usize| {
            let (at, call) = self.entries[entry];
            let published =
                transports[at].calls[call].publisher.as_ref().map_or(0, |publisher| publisher.published);
            let mut more = 0;
            while self.due_of(entry, published + more, transports) < to {
                more += 1;
            }
            u64::from(more)
        };
        self.blocked.iter().map(late).sum()
    }

    fn begin(&mut self, control: &Control, transports: &mut [Transport]) {
        if self.began.is_some() {
            return;
        }
        self.began = Some(control.publish_from.load(Ordering::Relaxed));
        for entry in 0..self.entries.len() {
            match self.pace {
                Pace::Rate(_) => self.due.push(Reverse((self.due_of(entry, 0, transports), entry))),
                Pace::Window(_) => {
                    let (at, call) = self.entries[entry];
                    if let Some(publisher) = &mut transports[at].calls[call].publisher {
                        publisher.ready = true;
                    }
                    self.ready.push(entry);
                }
            }
        }
    }

    /// When a publisher's message is due: all publishers take turns evenly.
    fn due_of(&self, entry: usize, message: u32, transports: &[Transport]) -> u64 {
        let Pace::Rate(rate) = self.pace else { return 0 };
        let (at, call) = self.entries[entry];
        let turn =
            u64::from(message) * u64::from(self.publishers) + u64::from(transports[at].calls[call].number);
        self.began.unwrap_or(0) + Duration::from_secs_f64(turn as f64 / rate).as_nanos() as u64
    }

    fn publish_due(&mut self, now: u64, transports: &mut [Transport], touched: &mut Vec<usize>) -> u64 {
        for entry in std::mem::take(&mut self.blocked) {
            let (at, call) = self.entries[entry];
            let published =
                transports[at].calls[call].publisher.as_ref().map_or(0, |publisher| publisher.published);
            self.due.push(Reverse((self.due_of(entry, published, transports), entry)));
        }
        let mut sent = 0;
        while let Some(&Reverse((due, entry))) = self.due.peek()
            && due <= now
        {
            self.due.pop();
            match self.publish_one(entry, due, transports, touched) {
                PublishOutcome::Published(next) => {
                    sent += 1;
                    self.due.push(Reverse((self.due_of(entry, next, transports), entry)));
                }
                PublishOutcome::Blocked => self.blocked.push(entry),
                PublishOutcome::Idle => {}
            }
        }
        sent
    }

    fn fill_windows(
        &mut self,
        window: u32,
        now: u64,
        transports: &mut [Transport],
        touched: &mut Vec<usize>,
    ) -> u64 {
        let mut sent = 0;
        for entry in std::mem::take(&mut self.ready) {
            let (at, call) = self.entries[entry];
            let outcome = loop {
                let Some(publisher) = &mut transports[at].calls[call].publisher else {
                    break PublishOutcome::Idle;
                };
                if publisher.published - publisher.received.min(publisher.published) >= window {
                    publisher.ready = false;
                    break PublishOutcome::Idle;
                }
                match self.publish_one(entry, now, transports, touched) {
                    PublishOutcome::Published(_) => sent += 1,
                    other => break other,
                }
            };
            if matches!(outcome, PublishOutcome::Blocked) {
                self.ready.push(entry);
            }
        }
        sent
    }

    fn publish_one(
        &mut self,
        entry: usize,
        due: u64,
        transports: &mut [Transport],
        touched: &mut Vec<usize>,
    ) -> PublishOutcome {
        let (at, number) = self.entries[entry];
        let transport = &mut transports[at];
        let call = &mut transport.calls[number];
        let tag = call.tag();
        let slot = call.slot();
        let Some(publisher) = call.publisher.as_mut().filter(|_| call.state == CallState::Joined) else {
            return PublishOutcome::Idle;
        };
        if !transport.protocol.can_publish(number) {
            return PublishOutcome::Blocked;
        }
        transport
            .protocol
            .publish(number, self.text.stamped(tag, Stamp { slot, number: publisher.published }, due));
        publisher.published += 1;
        if !std::mem::replace(&mut transport.touched, true) {
            touched.push(at);
        }
        PublishOutcome::Published(publisher.published)
    }

    /// Whether everything due before the end has been sent.
    fn is_done(&self, control: &Control) -> bool {
        let to = control.to.load(Ordering::Relaxed);
        self.blocked.is_empty() && self.due.peek().is_none_or(|&Reverse((due, _))| due > to)
    }

    fn finish(&mut self, control: &Control, transports: &[Transport]) {
        self.finished = true;
        for &(at, call) in &self.entries {
            let call = &transports[at].calls[call];
            // How much the server received from a broken call is unknown.
            if let Some(publisher) = call.publisher.as_ref().filter(|_| call.state == CallState::Joined) {
                control.published[call.number as usize].store(publisher.published, Ordering::Relaxed);
            }
        }
        control.finished.fetch_add(1, Ordering::Release);
    }
}

enum PublishOutcome {
    /// Sent; the number of the publisher's next message.
    Published(u32),
    Blocked,
    Idle,
}
