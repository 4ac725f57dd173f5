//! What clients of both APIs met in a room, over all their connections, as they met it.
//!
//! It judges nothing but what needs no other client: that a text is intact, and of one epoch. Whether it all fits is the
//! check of [`super::positions`]. It knows no server.

use std::{fmt, ops::Range};

use super::{
    history::{Breach, Id, Law},
    v1_member::{Body, Incoming, Position, Start, Why},
};

/// The sender of a room's last message, which tells all to go.
pub const BELL: u16 = 2999;

/// Every eighth message of a sender with an odd number is a move, in bytes: clients of `hello.ChatRoom` do not get it.
pub fn is_move(id: Id) -> bool {
    id.sender() % 2 == 1 && id.sender() != BELL && id.sequence() % 8 == 7
}

/// The kind by which a message is said.
pub fn kind_of(id: Id) -> &'static str {
    match id.sender() {
        BELL => "bell",
        _ if is_move(id) => "move",
        _ => "chat",
    }
}

/// What a client wants to hear.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wants {
    /// All, if none.
    pub kinds: &'static [&'static str],
    /// A sender that it does not want to hear: itself. The server does not know whose it is what comes again from a
    /// connection of before.
    pub not_from: Option<u16>,
    /// It is a client of `hello.ChatRoom`.
    pub no_moves: bool,
}

impl Wants {
    pub(super) fn id(&self, id: Id) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind_of(id)))
            && self.not_from != Some(id.sender())
            && !(self.no_moves && is_move(id))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// It is in and gets everything after `at`; it had asked for everything after `asked`.
    Came {
        asked: Option<u64>,
        at: u64,
    },
    Incoming(u64, Id),
    Missed {
        from: u64,
        to: u64,
        count: u64,
        why: Why,
    },
    Acked {
        sequence: u32,
        at: u64,
        repeated: bool,
    },
    /// It was told that it has everything up to here.
    Went(u64),
}

/// What one client of `chatroom.v1` met.
pub struct Track {
    pub(super) member: String,
    /// The sender that it is, if it speaks; then the number of its messages.
    pub(super) own: Option<(u16, u32)>,
    pub(super) wants: Wants,
    pub(super) steps: Vec<Step>,
    pub(super) epoch: String,
    asked: Option<u64>,
    pub(super) spoilt: Option<String>,
    /// It stayed until the last message.
    pub(super) to_the_end: bool,
}

impl Track {
    pub fn of(member: &str, wants: Wants) -> Self {
        Self {
            member: member.to_owned(),
            own: None,
            wants,
            steps: Vec::new(),
            epoch: String::new(),
            asked: None,
            spoilt: None,
            to_the_end: false,
        }
    }

    /// The track of a sender.
    pub fn of_sender(sender: u16, wants: Wants) -> Self {
        Self { own: Some((sender, 0)), ..Self::of(&format!("sender {sender}"), wants) }
    }

    /// It has said so many, numbered from 0.
    pub fn has_published(&mut self, messages: u32) {
        let (_, published) = self.own.as_mut().expect("a sender");
        *published = messages;
    }

    /// How to go on where it is; at the tail if it was nowhere yet.
    pub fn resumes(&mut self) -> Start {
        self.asked = self.last();
        self.asked.map_or(Start::Tail, |offset| Start::After(self.epoch.clone(), offset))
    }

    /// It was in no room yet.
    pub fn is_new(&self) -> bool {
        self.steps.is_empty()
    }

    /// Everything up to here is known.
    fn last(&self) -> Option<u64> {
        self.steps.iter().rev().find_map(|step| match step {
            Step::Came { at: offset, .. } | Step::Incoming(offset, _) | Step::Went(offset) => Some(*offset),
            Step::Missed { to, .. } => Some(*to),
            Step::Acked { at, repeated, .. } => Some(*at).filter(|_| !repeated),
        })
    }

    /// Takes it down; the message, if it is one.
    pub fn receive(&mut self, received: &Incoming<'_>) -> Option<Id> {
        match *received {
            Incoming::Welcome(position) => {
                let at = self.offset(position);
                self.steps.push(Step::Came { asked: self.asked, at });
            }
            Incoming::Event(event) => {
                let (Body::Text(words) | Body::Data(words)) = event.body;
                let is_data = matches!(event.body, Body::Data(_));
                let id = Id::of_text(words);
                let Some(id) = id.filter(|id| is_move(*id) == is_data && kind_of(*id) == event.kind) else {
                    self.spoilt = Some(format!("{:?} {}", event.kind, String::from_utf8_lossy(words)));
                    return None;
                };
                let offset = self.offset(event.position);
                self.steps.push(Step::Incoming(offset, id));
                return Some(id);
            }
            Incoming::Ack { reference, position, repeated } => match reference.parse() {
                Ok(sequence) => {
                    let at = self.offset(position);
                    self.steps.push(Step::Acked { sequence, at, repeated });
                }
                Err(_) => self.spoilt = Some(format!("an acknowledgement of {reference:?}")),
            },
            Incoming::Gap { from, to, count, why } => {
                let (from, to) = (self.offset(from), self.offset(to));
                self.steps.push(Step::Missed { from, to, count, why });
            }
            Incoming::Presence => {}
            Incoming::Goodbye { position, .. } => {
                let at = self.offset(position);
                self.steps.push(Step::Went(at));
            }
        }
        None
    }

    fn offset(&mut self, position: Position<'_>) -> u64 {
        if self.epoch.is_empty() {
            position.epoch.clone_into(&mut self.epoch);
        }
        if self.epoch != position.epoch {
            self.spoilt = Some(format!("the epoch {} after {}", position.epoch, self.epoch));
        }
        position.offset
    }

    /// It stayed to the end.
    pub fn is_complete(&mut self) {
        self.to_the_end = true;
    }

    pub(super) fn breach(&self, law: Law, what: String) -> Breach {
        Breach { law, member: self.member.clone(), what }
    }
}

impl fmt::Debug for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = &self.steps[self.steps.len().saturating_sub(5)..];
        write!(f, "{} after {} steps, the last of them {last:?}", self.member, self.steps.len())
    }
}

/// What one connection of `hello.ChatRoom` heard.
pub struct HelloLog {
    pub(super) member: String,
    pub(super) received: Vec<Id>,
    /// What it said itself, and stayed to hear.
    pub(super) own: Option<(u16, Range<u32>)>,
    pub(super) spoilt: Option<String>,
    pub(super) to_the_end: bool,
}

impl HelloLog {
    pub fn of(member: &str) -> Self {
        let member = member.to_owned();
        Self { member, received: Vec::new(), own: None, spoilt: None, to_the_end: false }
    }

    pub fn receive(&mut self, text: &[u8]) -> Option<Id> {
        let id = Id::of_text(text).filter(|id| !is_move(*id));
        match id {
            Some(id) => self.received.push(id),
            None => self.spoilt = Some(String::from_utf8_lossy(text).into_owned()),
        }
        id
    }

    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// It said these and stayed to hear them.
    pub fn has_published(&mut self, sender: u16, messages: Range<u32>) {
        self.own = Some((sender, messages));
    }

    pub fn is_complete(&mut self) {
        self.to_the_end = true;
    }
}
