//! When which publisher of a loop says its next message.
//!
//! Promises that a message in an open loop is stamped with when it was due, however late it can be said: a server, or a
//! loop, that does not keep up shows in the latencies instead of lowering the load unseen.

use super::control::{Control, Phase};
use super::payload::{Stamp, Text};
use super::plan::{Pace, Plan};
use super::protocol;
use super::transport::{Standing, Transport};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A loop's publishers.
pub(super) struct Publishing {
    pace: Pace,
    /// Of how many publishers in all.
    publishers: u32,
    /// Transport, and call in it.
    places: Vec<(usize, usize)>,
    text: Text,
    began: Option<u64>,
    /// Open loop: what is due next, by whom.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// Whom the server did not take more from.
    blocked: Vec<usize>,
    /// Closed loop: who may have room in its window.
    pub(super) hot: Vec<usize>,
    finished: bool,
}

impl Publishing {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            pace: plan.pace,
            publishers: plan.publishers,
            places: Vec::new(),
            text: protocol::text(plan),
            began: None,
            due: BinaryHeap::new(),
            blocked: Vec::new(),
            hot: Vec::new(),
            finished: false,
        }
    }

    /// Takes in the publishers of a transport that is new.
    pub(super) fn add(&mut self, transports: &mut [Transport], at: usize) {
        for (number, call) in transports[at].calls.iter_mut().enumerate() {
            if let Some(publisher) = &mut call.publisher {
                publisher.place = self.places.len();
                self.places.push((at, number));
            }
        }
    }

    /// Says what there is to say; returns how many messages, and writes down which transports are to be flushed.
    pub(super) fn say(
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
        let said = match self.pace {
            Pace::Rate(_) => self.say_due(now.min(control.to.load(Ordering::Relaxed)), transports, touched),
            Pace::Window(window) if phase < Phase::Drain => {
                self.fill_windows(window, now, transports, touched)
            }
            Pace::Window(_) => 0,
        };
        if phase == Phase::Drain && self.is_done(control) {
            self.finish(control, transports);
        }
        said
    }

    /// When the next message is due, if one is.
    pub(super) fn next(&self) -> Option<u64> {
        let Reverse((due, _)) = *self.due.peek()?;
        (!self.finished).then_some(due)
    }

    /// Messages that were due and could not be said. Those who could not are few, and their backlog is at an end.
    pub(super) fn unsaid(&self, control: &Control, transports: &[Transport]) -> u64 {
        let to = control.to.load(Ordering::Relaxed);
        let late = |&place: &usize| {
            let (at, call) = self.places[place];
            let said = transports[at].calls[call].publisher.as_ref().map_or(0, |publisher| publisher.said);
            let mut more = 0;
            while self.due_of(place, said + more, transports) < to {
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
        for place in 0..self.places.len() {
            match self.pace {
                Pace::Rate(_) => self.due.push(Reverse((self.due_of(place, 0, transports), place))),
                Pace::Window(_) => {
                    let (at, call) = self.places[place];
                    if let Some(publisher) = &mut transports[at].calls[call].publisher {
                        publisher.hot = true;
                    }
                    self.hot.push(place);
                }
            }
        }
    }

    /// When a publisher's message is due: all publishers take turns, evenly.
    fn due_of(&self, place: usize, message: u32, transports: &[Transport]) -> u64 {
        let Pace::Rate(rate) = self.pace else { return 0 };
        let (at, call) = self.places[place];
        let turn =
            u64::from(message) * u64::from(self.publishers) + u64::from(transports[at].calls[call].number);
        self.began.unwrap_or(0) + Duration::from_secs_f64(turn as f64 / rate).as_nanos() as u64
    }

    fn say_due(&mut self, now: u64, transports: &mut [Transport], touched: &mut Vec<usize>) -> u64 {
        for place in std::mem::take(&mut self.blocked) {
            let (at, call) = self.places[place];
            let said = transports[at].calls[call].publisher.as_ref().map_or(0, |publisher| publisher.said);
            self.due.push(Reverse((self.due_of(place, said, transports), place)));
        }
        let mut said = 0;
        while let Some(&Reverse((due, place))) = self.due.peek()
            && due <= now
        {
            self.due.pop();
            match self.say_one(place, due, transports, touched) {
                Said::Yes(next) => {
                    said += 1;
                    self.due.push(Reverse((self.due_of(place, next, transports), place)));
                }
                Said::NotYet => self.blocked.push(place),
                Said::Never => {}
            }
        }
        said
    }

    fn fill_windows(
        &mut self,
        window: u32,
        now: u64,
        transports: &mut [Transport],
        touched: &mut Vec<usize>,
    ) -> u64 {
        let mut said = 0;
        for place in std::mem::take(&mut self.hot) {
            let (at, call) = self.places[place];
            let outcome = loop {
                let Some(publisher) = &mut transports[at].calls[call].publisher else { break Said::Never };
                if publisher.said - publisher.heard.min(publisher.said) >= window {
                    publisher.hot = false;
                    break Said::Never;
                }
                match self.say_one(place, now, transports, touched) {
                    Said::Yes(_) => said += 1,
                    other => break other,
                }
            };
            if matches!(outcome, Said::NotYet) {
                self.hot.push(place);
            }
        }
        said
    }

    fn say_one(
        &mut self,
        place: usize,
        due: u64,
        transports: &mut [Transport],
        touched: &mut Vec<usize>,
    ) -> Said {
        let (at, number) = self.places[place];
        let transport = &mut transports[at];
        let call = &mut transport.calls[number];
        let (tag, slot) = (call.tag(), call.slot());
        let Some(publisher) = call.publisher.as_mut().filter(|_| call.standing == Standing::In) else {
            return Said::Never;
        };
        if !transport.protocol.takes_more(number) {
            return Said::NotYet;
        }
        transport
            .protocol
            .publish(number, self.text.stamped(tag, Stamp { slot, number: publisher.said }, due));
        publisher.said += 1;
        if !std::mem::replace(&mut transport.touched, true) {
            touched.push(at);
        }
        Said::Yes(publisher.said)
    }

    /// Whether all has been said that was due before the end.
    fn is_done(&self, control: &Control) -> bool {
        let to = control.to.load(Ordering::Relaxed);
        self.blocked.is_empty() && self.due.peek().is_none_or(|&Reverse((due, _))| due > to)
    }

    fn finish(&mut self, control: &Control, transports: &[Transport]) {
        self.finished = true;
        for &(at, call) in &self.places {
            let call = &transports[at].calls[call];
            // Of what a broken call has said, nobody knows how much was taken.
            if let Some(publisher) = call.publisher.as_ref().filter(|_| call.standing == Standing::In) {
                control.said[call.number as usize].store(publisher.said, Ordering::Relaxed);
            }
        }
        control.finished.fetch_add(1, Ordering::Release);
    }
}

enum Said {
    /// And the number of the next.
    Yes(u32),
    NotYet,
    Never,
}
