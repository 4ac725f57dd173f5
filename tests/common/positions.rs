//! The check that one order explains what clients of both APIs met in a room.
//!
//! Beside what [`super::history`] checks: a position carries one message for everybody; a client that resumes gets each
//! message once; what a client does not get is told by a gap, no more and no less; what is acknowledged is at its
//! position. It knows no server.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{
    history::{Breach, Id, Law},
    track::{HelloLog, Step, Track, Wants},
    v1_member::Why,
};

/// What holds, in numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Messages in the order.
    pub messages: u64,
    pub deliveries: u64,
    /// Connections of `chatroom.v1`, and those of them that went on where another one had ended.
    pub connections: u64,
    pub resumed: u64,
    pub acks: u64,
    /// Acknowledgements of what had been said before.
    pub repeats: u64,
    /// Gaps by reason: how many, and how many messages.
    pub gaps: BTreeMap<Why, (u64, u64)>,
}

impl Account {
    /// Gaps for this reason, and their messages.
    pub fn gaps_for(&self, why: Why) -> (u64, u64) {
        self.gaps.get(&why).copied().unwrap_or_default()
    }

    /// Messages in gaps, whatever the reason.
    pub fn missed(&self) -> u64 {
        self.gaps.values().map(|(_, messages)| messages).sum()
    }
}

/// All that happened in one room.
#[derive(Default)]
pub struct Chronicle {
    tracks: Vec<Track>,
    logs: Vec<HelloLog>,
    published: BTreeMap<u16, u32>,
}

impl Chronicle {
    /// `sender` said this many messages, numbered from 0; each is in the order once.
    pub fn published(&mut self, sender: u16, messages: u32) {
        self.published.insert(sender, messages);
    }

    pub fn met(&mut self, track: Track) {
        self.tracks.push(track);
    }

    pub fn received(&mut self, log: HelloLog) {
        self.logs.push(log);
    }

    /// Panics with the first breaches.
    pub fn holds(&self) -> Account {
        self.check().unwrap_or_else(|mut breaches| {
            let all = breaches.len();
            breaches.truncate(10);
            panic!("{all} breaches, among them {breaches:#?}")
        })
    }

    /// What holds, or every law that is broken.
    pub fn check(&self) -> Result<Account, Vec<Breach>> {
        let mut breaches = Vec::new();
        let order = Order::of(&self.tracks, &mut breaches);
        order.check_senders(&self.published, &mut breaches);
        let mut account = Account { messages: order.ids.len() as u64, ..Account::default() };
        for track in &self.tracks {
            Walk { order: &order, track, at: None, gap_due: None, breaches: Vec::new() }
                .take(&mut account, &mut breaches);
        }
        for log in &self.logs {
            order.check_hello(log, &mut breaches);
            account.deliveries += log.received.len() as u64;
        }
        if breaches.is_empty() { Ok(account) } else { Err(breaches) }
    }
}

/// The order that the positions make.
struct Order {
    ids: BTreeMap<u64, Id>,
    offsets: BTreeMap<Id, u64>,
}

impl Order {
    fn of(tracks: &[Track], breaches: &mut Vec<Breach>) -> Self {
        let mut order = Self { ids: BTreeMap::new(), offsets: BTreeMap::new() };
        let mut epoch = None;
        for track in tracks {
            if *epoch.get_or_insert(&track.epoch) != &track.epoch {
                breaches.push(track.breach(Law::Placed, format!("another epoch: {}", track.epoch)));
            }
            for step in &track.steps {
                let (offset, id) = match *step {
                    Step::Incoming(offset, id) => (offset, id),
                    Step::Acked { sequence, at, .. } => match track.own {
                        Some((sender, _)) => (at, Id::new(sender, sequence)),
                        None => continue,
                    },
                    _ => continue,
                };
                let before = *order.ids.entry(offset).or_insert(id);
                if before != id {
                    breaches
                        .push(track.breach(Law::Placed, format!("{id:?} at {offset}, where {before:?} is")));
                    continue;
                }
                let before = *order.offsets.entry(id).or_insert(offset);
                if before != offset {
                    breaches.push(track.breach(Law::Unique, format!("{id:?} at {offset} and at {before}")));
                }
            }
        }
        order
    }

    fn check_senders(&self, published: &BTreeMap<u16, u32>, breaches: &mut Vec<Breach>) {
        let mut breach = |law, what| breaches.push(Breach { law, member: "everyone".to_owned(), what });
        let mut next: BTreeMap<u16, u32> = BTreeMap::new();
        for (offset, id) in &self.ids {
            let due = next.entry(id.sender()).or_insert(0);
            if id.sequence() != *due {
                let law = if id.sequence() < *due { Law::FifoPerSender } else { Law::Contiguous };
                breach(law, format!("{id:?} at {offset} where number {due} was due"));
            }
            *due = id.sequence() + 1;
        }
        for sender in next.keys().chain(published.keys()).collect::<BTreeSet<_>>() {
            let (received, published) = (next.get(sender).unwrap_or(&0), published.get(sender).unwrap_or(&0));
            if received != published {
                breach(
                    Law::Contiguous,
                    format!("heard {received} of the {published} messages of sender {sender}"),
                );
            }
        }
    }

    /// The first of these places that has something which is wanted, or that nobody knows.
    fn wanted(&self, places: Range<u64>, wants: &Wants) -> Option<(u64, Option<Id>)> {
        let mut due = places.start;
        if due >= places.end {
            return None;
        }
        for (offset, id) in self.ids.range(places.clone()) {
            if *offset != due {
                return Some((due, None));
            }
            if wants.id(*id) {
                return Some((due, Some(*id)));
            }
            due += 1;
        }
        (due < places.end).then_some((due, None))
    }

    fn end(&self) -> u64 {
        self.ids.last_key_value().map_or(1, |(offset, _)| offset + 1)
    }

    fn check_hello(&self, log: &HelloLog, breaches: &mut Vec<Breach>) {
        let mut breach = |law, what| breaches.push(Breach { law, member: log.member.clone(), what });
        if let Some(text) = &log.spoilt {
            breach(Law::Intact, format!("heard {text:?}"));
        }
        let wants = Wants { no_moves: true, ..Wants::default() };
        let mut at: Option<u64> = None;
        for id in &log.received {
            let Some(offset) = self.offsets.get(id) else {
                breach(Law::Ordered, format!("heard {id:?}, which nobody else did"));
                return;
            };
            if at.is_some_and(|at| *offset <= at) {
                let law = if at == Some(*offset) { Law::Unique } else { Law::Ordered };
                breach(law, format!("heard {id:?}, number {offset}, after number {at:?}"));
                return;
            }
            if let Some(lost) = at.and_then(|at| self.wanted(at + 1..*offset, &wants)) {
                breach(Law::Contiguous, format!("heard {id:?} where {lost:?} was due"));
            }
            at = Some(*offset);
        }
        if let Some((sender, published)) = &log.own {
            let own = log.received.iter().filter(|id| id.sender() == *sender);
            let own: Vec<u32> = own.map(|id| id.sequence()).collect();
            if !published.clone().eq(own.iter().copied()) {
                breach(Law::SelfHeard, format!("said {published:?} and heard {own:?} of itself"));
            }
        }
        if log.to_the_end
            && let Some(lost) = self.wanted(at.map_or(0, |at| at + 1)..self.end(), &wants)
        {
            breach(Law::Contiguous, format!("was not told {lost:?}"));
        }
    }
}

/// One client's way along the order.
struct Walk<'a> {
    order: &'a Order,
    track: &'a Track,
    /// Everything up to here is accounted for.
    at: Option<u64>,
    /// The gap of which it must be told next: what is missing between what it asked for and what it gets.
    gap_due: Option<Range<u64>>,
    breaches: Vec<Breach>,
}

impl Walk<'_> {
    fn take(mut self, account: &mut Account, breaches: &mut Vec<Breach>) {
        if let Some(what) = &self.track.spoilt {
            self.breach(Law::Intact, format!("heard {what}"));
        }
        let mut acked = BTreeMap::new();
        let mut own_heard = Vec::new();
        let mut gaps: Vec<Range<u64>> = Vec::new();
        for step in &self.track.steps {
            if let Some(due) = self.gap_due.take()
                && !matches!(step, Step::Missed { .. })
            {
                self.breach(Law::Accounted, format!("{step:?} instead of the gap {due:?}"));
            }
            match *step {
                Step::Came { asked, at } => {
                    account.connections += 1;
                    account.resumed += u64::from(asked.is_some());
                    self.comes(asked, at);
                }
                Step::Incoming(offset, id) => {
                    account.deliveries += 1;
                    if self.track.wants.not_from == Some(id.sender()) {
                        own_heard.push(id.sequence());
                    }
                    self.receives(offset, id);
                }
                Step::Missed { from, to, count, why } => {
                    let (times, messages) = account.gaps.entry(why).or_default();
                    *times += 1;
                    *messages += count;
                    gaps.push(from..to + 1);
                    self.misses(from..to + 1, count);
                }
                Step::Acked { sequence, at, repeated } => {
                    account.acks += 1;
                    account.repeats += u64::from(repeated);
                    if acked.insert(sequence, repeated).is_some() {
                        self.breach(Law::Acknowledged, format!("number {sequence} twice"));
                    }
                    if !repeated {
                        // It is told where its own message is met, whether that is shown or not.
                        self.passes(at, "an acknowledgement");
                    }
                }
                Step::Went(at) => self.passes(at, "goodbye"),
            }
        }
        self.check_acks(&acked, &gaps);
        for sequence in own_heard.iter().filter(|sequence| acked.get(sequence) == Some(&false)) {
            self.breach(Law::Wanted, format!("heard its own number {sequence}"));
        }
        if self.track.to_the_end {
            self.passes(self.order.end() - 1, "the end");
        }
        breaches.append(&mut self.breaches);
    }

    fn breach(&mut self, law: Law, what: String) {
        self.breaches.push(self.track.breach(law, what));
    }

    fn comes(&mut self, asked: Option<u64>, at: u64) {
        if asked.is_some_and(|asked| at < asked) {
            self.breach(Law::Unique, format!("asked for what is after {asked:?}, gets what is after {at}"));
        }
        self.gap_due = asked.filter(|asked| at > *asked).map(|asked| asked + 1..at + 1);
        self.at = Some(asked.unwrap_or(at));
    }

    fn receives(&mut self, offset: u64, id: Id) {
        if !self.track.wants.id(id) && self.track.wants.not_from != Some(id.sender()) {
            self.breach(Law::Wanted, format!("heard {id:?}"));
        }
        match self.at {
            Some(at) if offset > at => self.passes(offset - 1, &format!("{id:?} at {offset}")),
            Some(at) if offset == at => self.breach(Law::Unique, format!("{id:?} at {offset} again")),
            at => self.breach(Law::Ordered, format!("{id:?} at {offset} after {at:?}")),
        }
        self.at = Some(offset);
    }

    fn misses(&mut self, missed: Range<u64>, count: u64) {
        if missed.end.saturating_sub(missed.start) != count || count == 0 {
            self.breach(Law::Accounted, format!("a gap {missed:?} of {count}"));
        }
        if let Some(at) = self.at
            && missed.start <= at
        {
            self.breach(Law::Accounted, format!("a gap {missed:?} of what came before {at}"));
        }
        self.passes(missed.start - 1, &format!("a gap {missed:?}"));
        self.at = Some(missed.end - 1);
    }

    /// Nothing that it wants is between where it is and here.
    fn passes(&mut self, to: u64, what: &str) {
        let at = self.at.unwrap_or(to);
        if let Some(lost) = self.order.wanted(at + 1..to + 1, &self.track.wants) {
            let is_own = |id: Id| self.track.own.is_some_and(|(own, _)| own == id.sender());
            let law = if lost.1.is_some_and(is_own) { Law::SelfHeard } else { Law::Contiguous };
            self.breach(law, format!("{what} where {lost:?} was due, after {at}"));
        }
        if what == "goodbye" && to < at {
            self.breach(Law::Accounted, format!("goodbye at {to} after {at}"));
        }
        self.at = Some(at.max(to));
    }

    /// All that it said was acknowledged, or is among what it missed.
    fn check_acks(&mut self, acked: &BTreeMap<u32, bool>, gaps: &[Range<u64>]) {
        let Some((sender, published)) = self.track.own else { return };
        for sequence in (0..published).filter(|sequence| !acked.contains_key(sequence)) {
            let place = self.order.offsets.get(&Id::new(sender, sequence));
            if !place.is_some_and(|place| gaps.iter().any(|gap| gap.contains(place))) {
                let what = format!("number {sequence} of {published}, at {place:?}, was not acknowledged");
                self.breach(Law::Acknowledged, what);
            }
        }
    }
}
