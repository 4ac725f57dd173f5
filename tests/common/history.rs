//! What the members of a room heard, and the check that one order explains it all.
//!
//! A message is `s<sender>:<sequence>:<checksum>:<padding>`; a log keeps four bytes of it, so that 250 members may hear
//! 100,000 messages each. The check promises to find a swap, a loss, a duplicate, a spoilt text, a foreign order and a
//! sender who does not hear itself, as long as one other log covers the place. It knows no server.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

/// Senders from here on promise no order and no completeness of their own messages: those who drop their calls.
pub const LOOSE: u16 = 3000;

const SEQUENCE_BITS: u32 = 20;

/// A message: its sender (12 bits) and that sender's sequence, which starts at 0 (20 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(u32);

impl Id {
    pub fn new(sender: u16, sequence: u32) -> Self {
        assert!(sender < 1 << 12 && sequence < 1 << SEQUENCE_BITS);
        Self(u32::from(sender) << SEQUENCE_BITS | sequence)
    }

    pub fn sender(self) -> u16 {
        (self.0 >> SEQUENCE_BITS) as u16
    }

    pub fn sequence(self) -> u32 {
        self.0 & ((1 << SEQUENCE_BITS) - 1)
    }

    pub fn is_loose(self) -> bool {
        self.sender() >= LOOSE
    }

    /// The text to say, with `padding` bytes of ballast.
    pub fn text(self, padding: usize) -> String {
        let ballast: String = (b'a'..=b'z').cycle().take(padding).map(char::from).collect();
        let sum = self.checksum(ballast.as_bytes());
        format!("s{}:{}:{sum:08x}:{ballast}", self.sender(), self.sequence())
    }

    /// The message a heard text is, if it is one and intact.
    pub fn of_text(text: &[u8]) -> Option<Self> {
        let (sender, rest) = number(text.strip_prefix(b"s")?)?;
        let (sequence, rest) = number(rest)?;
        if sender >= 1 << 12 || sequence >= 1 << SEQUENCE_BITS {
            return None;
        }
        let id = Self::new(sender as u16, sequence);
        let (sum, ballast) = rest.split_at_checked(8)?;
        let ballast = ballast.strip_prefix(b":")?;
        let sum = u32::from_str_radix(str::from_utf8(sum).ok()?, 16).ok()?;
        (sum == id.checksum(ballast)).then_some(id)
    }

    /// FNV-1a over the number and the ballast.
    fn checksum(self, ballast: &[u8]) -> u32 {
        let number = self.0.to_le_bytes();
        let bytes = number.iter().chain(ballast);
        bytes.fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}:{}", self.sender(), self.sequence())
    }
}

/// A decimal number up to `:`, and what follows.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let end = text.iter().take(8).position(|byte| *byte == b':')?;
    let mut number = 0;
    for digit in &text[..end] {
        number = number * 10 + u32::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    (end > 0).then_some((number, &text[end + 1..]))
}

/// How much of the order a member must have heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// In before the first message and gone after the last.
    Whole,
    /// It came late, or went early, or both.
    Part,
}

/// What one member heard, in the order it heard it.
pub struct Log {
    member: String,
    stay: Stay,
    /// The sender this member is, if it speaks.
    own: Option<u16>,
    received: Vec<Id>,
    spoilt: Option<String>,
}

impl Log {
    pub fn of(member: &str, stay: Stay) -> Self {
        Self { member: member.to_owned(), stay, own: None, received: Vec::new(), spoilt: None }
    }

    /// The log of a sender that stayed until it had heard its own last message.
    pub fn of_sender(sender: u16, stay: Stay) -> Self {
        let log = Self::of(&format!("sender {sender}"), stay);
        Self { own: Some(sender), ..log }
    }

    pub fn receive(&mut self, text: &[u8]) -> Option<Id> {
        let id = Id::of_text(text);
        match id {
            Some(id) => self.received.push(id),
            None => self.spoilt = Some(String::from_utf8_lossy(text).into_owned()),
        }
        id
    }

    /// It stayed to the end after all.
    pub fn is_whole(&mut self) {
        self.stay = Stay::Whole;
    }

    /// Messages heard.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.received.len()
    }
}

/// The law of the room that a log breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    Ordered,
    Unique,
    Contiguous,
    FifoPerSender,
    SelfHeard,
    Intact,
    /// A position carries one message, for everybody. These are checked by [`super::positions`].
    Placed,
    /// What a client does not get is told by gaps, exactly.
    Accounted,
    /// What a client said is acknowledged once, at its position.
    Acknowledged,
    /// A client gets only what it wants.
    Wanted,
}

#[derive(Debug)]
pub struct Breach {
    pub law: Law,
    pub member: String,
    pub what: String,
}

/// All logs of one room, and what its strict senders said.
#[derive(Default)]
pub struct History {
    logs: Vec<Log>,
    published: BTreeMap<u16, u32>,
}

impl History {
    /// `sender` said this many messages, numbered from 0.
    pub fn published(&mut self, sender: u16, messages: u32) {
        self.published.insert(sender, messages);
    }

    pub fn received(&mut self, log: Log) {
        self.logs.push(log);
    }

    /// Deliveries checked, or every law that some log breaks.
    pub fn check(&self) -> Result<usize, Vec<Breach>> {
        let mut breaches = Vec::new();
        let order = Order::explaining(&self.logs, &mut breaches);
        check_senders("everyone", order.ids.iter().copied(), &mut breaches);
        for log in &self.logs {
            order.check(log, &mut breaches);
        }
        for log in &self.logs {
            self.check_complete(log, &mut breaches);
        }
        if !breaches.is_empty() {
            return Err(breaches);
        }
        Ok(self.logs.iter().map(|log| log.received.len()).sum())
    }

    /// Panics with the first breaches.
    pub fn holds(&self) -> usize {
        self.check().unwrap_or_else(|mut breaches| {
            let all = breaches.len();
            breaches.truncate(10);
            panic!("{all} breaches, among them {breaches:#?}")
        })
    }

    fn check_complete(&self, log: &Log, breaches: &mut Vec<Breach>) {
        let mut breach = |law, what| breaches.push(log.breach(law, what));
        if let Some(text) = &log.spoilt {
            breach(Law::Intact, format!("heard {text:?}"));
        }
        let mut counts = BTreeMap::new();
        for run in log.received.chunk_by(|a, b| a.sender() == b.sender()) {
            *counts.entry(run[0].sender()).or_insert(0) += run.len() as u32;
        }
        for sender in counts.keys().filter(|sender| **sender < LOOSE) {
            if !self.published.is_empty() && !self.published.contains_key(sender) {
                breach(Law::Ordered, format!("heard sender {sender}, who said nothing"));
            }
        }
        for (sender, published) in &self.published {
            let received = counts.get(sender).copied().unwrap_or(0);
            let what = format!("heard {received} of the {published} messages of sender {sender}");
            if received != *published && log.own == Some(*sender) {
                breach(Law::SelfHeard, what);
            } else if received != *published && log.stay == Stay::Whole {
                breach(Law::Contiguous, what);
            }
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} messages", self.member, self.received.len())
    }
}

impl Log {
    fn breach(&self, law: Law, what: String) -> Breach {
        let member = self.member.clone();
        Breach { law, member, what }
    }
}

/// FIFO per sender and, as the order has no gaps, no sequence left out.
fn check_senders(member: &str, ids: impl Iterator<Item = Id>, breaches: &mut Vec<Breach>) {
    let mut last = BTreeMap::new();
    for id in ids.filter(|id| !id.is_loose()) {
        let Some(before) = last.insert(id.sender(), id) else {
            continue;
        };
        let law = if id < before {
            Law::FifoPerSender
        } else if id.sequence() > before.sequence() + 1 {
            Law::Contiguous
        } else {
            continue;
        };
        breaches.push(Breach { law, member: member.to_owned(), what: format!("{id:?} after {before:?}") });
        return;
    }
}

/// The one order: the longest log, made longer at its ends by the logs that overlap it.
struct Order {
    ids: VecDeque<Id>,
    places: Places,
    /// Where `ids[0]` is in `places`; falls as the order grows at its head.
    head: u32,
}

impl Order {
    fn explaining(logs: &[Log], breaches: &mut Vec<Breach>) -> Self {
        let mut order = Self { ids: VecDeque::new(), places: Places::default(), head: Places::MIDDLE };
        let mut others: Vec<&Log> = logs.iter().filter(|log| !log.received.is_empty()).collect();
        others.sort_by_key(|log| std::cmp::Reverse(log.received.len()));
        if let Some(longest) = others.first() {
            for id in &longest.received {
                if !order.append(*id) {
                    breaches.push(longest.breach(Law::Unique, format!("{id:?} twice")));
                }
            }
        }
        loop {
            let before = others.len();
            others.retain(|log| !order.absorb(log));
            if others.len() == before {
                break;
            }
        }
        for log in others {
            breaches.push(log.breach(Law::Ordered, "shares nothing with the others".to_owned()));
        }
        order
    }

    fn append(&mut self, id: Id) -> bool {
        let fresh = self.places.of(id).is_none();
        if fresh {
            self.places.set(id, self.head + self.ids.len() as u32);
            self.ids.push_back(id);
        }
        fresh
    }

    /// Takes from the log what lies beyond either end; false if the log does not overlap the order.
    fn absorb(&mut self, log: &Log) -> bool {
        let known = |id: &Id| self.places.of(*id).is_some();
        if !log.received.iter().any(known) {
            return false;
        }
        let (first, last) = (self.ids[0], self.ids[self.ids.len() - 1]);
        if let Some(at) = log.received.iter().rposition(|id| *id == last) {
            for id in &log.received[at + 1..] {
                self.append(*id);
            }
        }
        if let Some(at) = log.received.iter().position(|id| *id == first) {
            for id in log.received[..at].iter().rev() {
                if self.places.of(*id).is_none() {
                    self.head -= 1;
                    self.places.set(*id, self.head);
                    self.ids.push_front(*id);
                }
            }
        }
        true
    }

    /// The log must be a run of the order.
    fn check(&self, log: &Log, breaches: &mut Vec<Breach>) {
        let start = log.received.first().and_then(|id| self.places.of(*id));
        let start = start.map_or(0, |place| (place - self.head) as usize);
        let run = self.ids.range(start..);
        let Some(at) = log.received.iter().zip(run).position(|(a, b)| a != b) else {
            let beyond = log.received.get(self.ids.len() - start);
            if let Some(id) = beyond {
                breaches.push(log.breach(self.law_broken(log, *id, None), format!("{id:?} last")));
            }
            return;
        };
        let (received, due) = (log.received[at], self.ids[start + at]);
        let law = self.law_broken(log, received, Some(due));
        let what = format!("as number {at} heard {received:?} where {due:?} was due");
        breaches.push(log.breach(law, what));
        check_senders(&log.member, log.received.iter().copied(), breaches);
    }

    fn law_broken(&self, log: &Log, received: Id, due: Option<Id>) -> Law {
        let times = log.received.iter().filter(|id| **id == received).count();
        if times > 1 {
            return Law::Unique;
        }
        match due {
            // The order goes on to what was heard, and what was due never comes.
            Some(due) if self.places.of(received) > self.places.of(due) && !log.received.contains(&due) => {
                Law::Contiguous
            }
            _ => Law::Ordered,
        }
    }
}

/// Where each message lies in the order, by sender and sequence.
#[derive(Default)]
struct Places(Vec<Vec<u32>>);

impl Places {
    const NOWHERE: u32 = u32::MAX;
    const MIDDLE: u32 = u32::MAX / 2;

    fn of(&self, id: Id) -> Option<u32> {
        let of_sender = self.0.get(usize::from(id.sender()))?;
        let place = of_sender.get(id.sequence() as usize)?;
        (*place != Self::NOWHERE).then_some(*place)
    }

    fn set(&mut self, id: Id, place: u32) {
        let (sender, sequence) = (usize::from(id.sender()), id.sequence() as usize);
        if self.0.len() <= sender {
            self.0.resize(sender + 1, Vec::new());
        }
        let of_sender = &mut self.0[sender];
        if of_sender.len() <= sequence {
            of_sender.resize(sequence + 1, Self::NOWHERE);
        }
        of_sender[sequence] = place;
    }
}
