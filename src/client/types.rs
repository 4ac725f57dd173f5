//! What callers and servers tell each other, as callers see it: what the contract promises is there.

use crate::client::Error;
use crate::wire::v1;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use tonic::Status;

pub use crate::wire::v1::gap::Reason;
pub use crate::wire::v1::{Member, Presence};

/// Where in a room's order something is. As text it is `epoch:offset`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which life of the room. Opaque: another one has nothing to do with this.
    pub epoch: String,
    /// Which message in it: the first has 1, each next one more.
    pub offset: u64,
}

impl Position {
    /// Whether both are of one life of the room, and this is at the other or after it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.offset >= other.offset
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

/// The text is not `epoch:offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a position is epoch:offset, like 1f0c5a9b3e7d2846:17")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (epoch, offset) = text.rsplit_once(':').ok_or(InvalidPosition)?;
        let offset = offset.parse().map_err(|_| InvalidPosition)?;
        if epoch.is_empty() { Err(InvalidPosition) } else { Ok(Self { epoch: epoch.to_owned(), offset }) }
    }
}

impl From<Position> for v1::Position {
    fn from(Position { epoch, offset }: Position) -> Self {
        Self { epoch, offset }
    }
}

impl From<v1::Position> for Position {
    fn from(v1::Position { epoch, offset }: v1::Position) -> Self {
        Self { epoch, offset }
    }
}

fn position(given: Option<v1::Position>) -> Result<Position, Error> {
    given.map(Position::from).ok_or(Error::Contract("something has no position"))
}

/// Where to begin to hear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on.
    #[default]
    Tail,
    /// With the oldest that is retained.
    Earliest,
    /// With the last so many that are retained.
    Last(u64),
    /// With what comes after this position.
    After(Position),
}

impl Start {
    pub(super) fn to_wire(&self, strict: bool) -> v1::Start {
        use v1::start::{At, Earliest, Tail};
        let at = match self {
            Self::Tail => At::Tail(Tail {}),
            Self::Earliest => At::Earliest(Earliest {}),
            Self::Last(count) => At::Last(*count),
            Self::After(position) => At::After(position.clone().into()),
        };
        v1::Start { at: Some(at), strict }
    }
}

/// How to join a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// The room: 1 to 128 of `A-Z a-z 0-9 . _ -`; "lobby" if empty. It is made if it does not exist.
    pub room: String,
    /// What to be called: at most 64 characters, no white space around it, no control or invisible characters.
    pub display_name: String,
    /// Where to begin.
    pub start: Start,
    /// Only events of these kinds, at most 32; all if empty.
    pub kinds: Vec<String>,
    /// Does not hear what it says itself, not even what it said before it had to reconnect.
    pub suppress_echo: bool,
    /// Is told who comes and goes.
    pub presence: bool,
    /// Rather ends than misses something: what would be a [`Gap`] at the start or after a reconnect is an
    /// [`Error::Refused`] with `OUT_OF_RANGE`. A room that skips for the slow still does.
    pub strict: bool,
}

impl Join {
    /// Joins this room without a name, from now on.
    pub fn room(room: impl Into<String>) -> Self {
        Self { room: room.into(), ..Self::default() }
    }
}

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A text. It reaches clients of `hello.ChatRoom` too.
    Text(String),
    /// Bytes, of whatever meaning.
    Data(Vec<u8>),
    /// A message of whatever type.
    Any(prost_types::Any),
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Body {
    fn from(data: Vec<u8>) -> Self {
        Self::Data(data)
    }
}

impl From<prost_types::Any> for Body {
    fn from(any: prost_types::Any) -> Self {
        Self::Any(any)
    }
}

impl From<Body> for v1::Body {
    fn from(body: Body) -> Self {
        use v1::body::Body as Wire;
        let body = match body {
            Body::Text(text) => Wire::Text(text),
            Body::Data(data) => Wire::Data(data),
            Body::Any(any) => Wire::Any(any),
        };
        Self { body: Some(body) }
    }
}

fn body(given: Option<v1::Body>) -> Option<Body> {
    use v1::body::Body as Wire;
    Some(match given?.body? {
        Wire::Text(text) => Body::Text(text),
        Wire::Data(data) => Body::Data(data),
        Wire::Any(any) => Body::Any(any),
    })
}

/// What a session hears. More may be added.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Incoming {
    /// Something was said.
    Event(Event),
    /// Something was missed: nothing that the session could have prevented.
    Gap(Gap),
    /// Somebody came or went. Unlike events it has no position: around a reconnect it may come twice or not at all, and
    /// history may bring old ones. For who is here now, see [`Client::list_members`].
    ///
    /// [`Client::list_members`]: super::Client::list_members
    Presence(Presence),
    /// The server has announced the end of the call. The session comes back by itself if `retry_after` is given.
    Goodbye(Goodbye),
    /// The call was lost, or an attempt to come back failed. The session tries again by itself.
    Disconnected(Disconnected),
    /// The session is in again, and goes on where it was.
    Reconnected(Welcome),
}

/// Something was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place in the room's order.
    pub position: Position,
    /// When the server gave it its place, by the server's clock.
    pub time: SystemTime,
    /// Who said it; `None` for the server's own words.
    pub sender: Option<Member>,
    /// What sort of thing it is.
    pub kind: String,
    /// What was said; `None` when it is of a sort that this version does not know.
    pub body: Option<Body>,
}

impl Event {
    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.body {
            Some(Body::Text(text)) => Some(text),
            _ => None,
        }
    }
}

impl TryFrom<v1::Event> for Event {
    type Error = Error;

    fn try_from(event: v1::Event) -> Result<Self, Error> {
        let time = event.time.and_then(|time| SystemTime::try_from(time).ok());
        Ok(Self {
            position: position(event.position)?,
            time: time.ok_or(Error::Contract("an event has no time"))?,
            sender: event.sender,
            kind: event.kind,
            body: body(event.body),
        })
    }
}

/// Messages that the session does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first of them; after a change of epoch the first of the new one.
    pub from: Position,
    /// The last of them; before `from` when only the old epoch's are missing.
    pub to: Position,
    /// How many of this epoch.
    pub count: u64,
    /// Why.
    pub reason: Reason,
}

impl TryFrom<v1::Gap> for Gap {
    type Error = Error;

    fn try_from(gap: v1::Gap) -> Result<Self, Error> {
        let reason = gap.reason();
        Ok(Self { from: position(gap.from)?, to: position(gap.to)?, count: gap.count, reason })
    }
}

/// The client is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its id, a UUID; another after each reconnect.
    pub connection_id: String,
    /// The room it is in.
    pub room: String,
    /// It gets everything after this.
    pub position: Position,
    /// Longest message that it may send, in bytes of its encoding; 0 if the server does not tell.
    pub max_message_bytes: u64,
}

impl TryFrom<v1::Welcome> for Welcome {
    type Error = Error;

    fn try_from(welcome: v1::Welcome) -> Result<Self, Error> {
        let v1::Welcome { connection_id, room, max_message_bytes, .. } = welcome;
        Ok(Self { connection_id, room, position: position(welcome.position)?, max_message_bytes })
    }
}

/// The call is about to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Why, in one word, like "shutdown"; "left" when the session had finished.
    pub reason: String,
    /// When the server wants the session back: not earlier. `None`: not at all.
    pub retry_after: Option<Duration>,
    /// The session has got everything up to here.
    pub position: Position,
}

impl Goodbye {
    /// A farewell that says less than it should is one all the same: `here` is where the session is.
    pub(super) fn new(goodbye: v1::Goodbye, here: &Position) -> Self {
        // A negative time is none.
        let retry_after = goodbye.retry_after.map(|after| Duration::try_from(after).unwrap_or_default());
        let position = goodbye.position.map_or_else(|| here.clone(), Position::from);
        Self { reason: goodbye.reason, retry_after, position }
    }
}

/// The call was lost, or an attempt to come back failed.
#[derive(Clone, Debug)]
pub struct Disconnected {
    /// Why.
    pub why: Status,
    /// After which time the session tries again.
    pub retry_in: Duration,
}

/// Something that was said has its position: everyone who is there gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Its position.
    pub position: Position,
    /// It had been said before: this was its repetition after a reconnect.
    pub repeated: bool,
}

impl Ack {
    pub(super) fn new(given: Option<v1::Position>, repeated: bool) -> Result<Self, Error> {
        Ok(Self { position: position(given)?, repeated })
    }
}

/// A room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its name.
    pub name: String,
    /// How many are in it.
    pub members: u64,
    /// The position of its last message.
    pub last_position: Position,
    /// The position of the oldest message that it retains; the one after the last when it retains none.
    pub oldest_position: Position,
}

impl TryFrom<v1::Room> for Room {
    type Error = Error;

    fn try_from(room: v1::Room) -> Result<Self, Error> {
        let (last_position, oldest_position) =
            (position(room.last_position)?, position(room.oldest_position)?);
        Ok(Self { name: room.name, members: room.members, last_position, oldest_position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_its_text() {
        let position = Position { epoch: "1f0c5a9b3e7d2846".into(), offset: 17 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for wrong in ["", "17", ":17", "e:", "e:-1", "e:x", "e:1 "] {
            assert_eq!(wrong.parse::<Position>(), Err(InvalidPosition), "{wrong}");
        }
    }

    #[test]
    fn only_positions_of_one_epoch_compare() {
        let at = |epoch: &str, offset| Position { epoch: epoch.into(), offset };
        assert!(at("a", 2).covers(&at("a", 2)) && at("a", 3).covers(&at("a", 2)));
        assert!(!at("a", 1).covers(&at("a", 2)) && !at("b", 3).covers(&at("a", 2)));
    }

    #[test]
    fn a_body_of_a_later_version_is_none_and_the_event_is_there() {
        let event = v1::Event {
            position: Some(v1::Position { epoch: "e".into(), offset: 1 }),
            time: Some(prost_types::Timestamp::default()),
            body: Some(v1::Body { body: None }),
            ..Default::default()
        };
        assert_eq!(Event::try_from(event).unwrap().body, None);
        assert!(Event::try_from(v1::Event::default()).is_err());
    }
}
