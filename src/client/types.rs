//! The messages of `chatroom.v1` as callers see them: fields that the contract guarantees are not optional here.

use super::error::Error;
use crate::wire::v1;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use tonic::Status;

pub use crate::wire::v1::gap::Reason;
pub use crate::wire::v1::{Member, Presence};

/// A position in a room's order. As text it is `epoch:offset`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Epoch of the room's log. Opaque: positions of different epochs do not compare.
    pub epoch: String,
    /// Number of the message within the epoch, from 1.
    pub offset: u64,
}

impl Position {
    /// Whether both have the same epoch and this one is at or after the other.
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
#[error("a position must be epoch:offset, like 1f0c5a9b3e7d2846:17")]
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
    given.map(Position::from).ok_or(Error::Contract("a message has no position"))
}

/// Where to start receiving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the tail: only new events.
    #[default]
    Tail,
    /// At the oldest retained event.
    Earliest,
    /// At the last so many retained events.
    Last(u64),
    /// After this position.
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
    /// The room: 1 to 128 of `A-Z a-z 0-9 . _ -`; "lobby" if empty. Created if it does not exist.
    pub room: String,
    /// Display name: at most 64 characters, no surrounding white space, no control or invisible characters.
    pub display_name: String,
    /// Where to start receiving.
    pub start: Start,
    /// Receive only events of these kinds, at most 32; all if empty.
    pub kinds: Vec<String>,
    /// Do not receive the session's own messages, including those published before a reconnect.
    pub suppress_echo: bool,
    /// Receive [`Incoming::Presence`].
    pub presence: bool,
    /// Fail instead of skipping: a [`Gap`] at the start or after a reconnect becomes an [`Error::Refused`] with
    /// `OUT_OF_RANGE`. Does not affect rooms whose slow policy is to skip.
    pub strict: bool,
}

impl Join {
    /// Joins this room at the tail, without a display name.
    pub fn room(room: impl Into<String>) -> Self {
        Self { room: room.into(), ..Self::default() }
    }
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A text. Clients of `hello.ChatRoom` receive it too.
    Text(String),
    /// Bytes of any meaning.
    Data(Vec<u8>),
    /// A protobuf message of any type.
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

/// What a session receives. Variants may be added.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Incoming {
    /// A message was published.
    Event(Event),
    /// Events that the session cannot receive.
    Gap(Gap),
    /// A member joined or left. Unlike events it has no position: around a reconnect it may arrive twice or not at all,
    /// and history may contain old ones. For the current members, see [`Client::list_members`].
    ///
    /// [`Client::list_members`]: super::Client::list_members
    Presence(Presence),
    /// The server announced the end of the call. The session reconnects by itself if `retry_after` is set.
    Goodbye(Goodbye),
    /// The call was lost, or a reconnection attempt failed. The session retries by itself.
    Disconnected(Disconnected),
    /// The session has rejoined and resumes at its position.
    Reconnected(Welcome),
}

/// A published message.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its position in the room's order.
    pub position: Position,
    /// When the server assigned the position, by the server's clock.
    pub time: SystemTime,
    /// The publisher; `None` for announcements of the server.
    pub sender: Option<Member>,
    /// Its kind, for filters.
    pub kind: String,
    /// Its content; `None` if this version does not know the type.
    pub body: Option<Body>,
}

impl Event {
    /// The text, if the body is one.
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

/// Events that the session does not receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first of them; after a change of epoch, the first of the new epoch.
    pub from: Position,
    /// The last of them; before `from` if only events of the old epoch are missing.
    pub to: Position,
    /// How many of this epoch are missing.
    pub count: u64,
    /// Why they are missing.
    pub reason: Reason,
}

impl TryFrom<v1::Gap> for Gap {
    type Error = Error;

    fn try_from(gap: v1::Gap) -> Result<Self, Error> {
        let reason = gap.reason();
        Ok(Self { from: position(gap.from)?, to: position(gap.to)?, count: gap.count, reason })
    }
}

/// The server's confirmation of a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Id of the connection, a UUID; a new one after each reconnect.
    pub connection_id: String,
    /// The room.
    pub room: String,
    /// The session receives everything after this.
    pub position: Position,
    /// Longest message that the server accepts, in encoded bytes; 0 if it does not say.
    pub max_message_bytes: u64,
}

impl TryFrom<v1::Welcome> for Welcome {
    type Error = Error;

    fn try_from(welcome: v1::Welcome) -> Result<Self, Error> {
        let v1::Welcome { connection_id, room, max_message_bytes, .. } = welcome;
        Ok(Self { connection_id, room, position: position(welcome.position)?, max_message_bytes })
    }
}

/// The server's announcement that the call is about to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The reason in one word, like "shutdown"; "left" if the session had finished.
    pub reason: String,
    /// The earliest time to reconnect; `None` if the server asks the client to stay away.
    pub retry_after: Option<Duration>,
    /// The session has received everything up to here.
    pub position: Position,
}

impl Goodbye {
    /// Accepts an incomplete goodbye; `here` is the session's own position.
    pub(super) fn new(goodbye: v1::Goodbye, here: &Position) -> Self {
        // A negative duration counts as zero.
        let retry_after = goodbye.retry_after.map(|after| Duration::try_from(after).unwrap_or_default());
        let position = goodbye.position.map_or_else(|| here.clone(), Position::from);
        Self { reason: goodbye.reason, retry_after, position }
    }
}

/// A lost call, or a failed reconnection attempt.
#[derive(Clone, Debug)]
pub struct Disconnected {
    /// The status.
    pub why: Status,
    /// Delay before the next attempt.
    pub retry_in: Duration,
}

/// A publish was accepted at this position; every member receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Its position.
    pub position: Position,
    /// The message had already been published: this was a resend after a reconnect.
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
    /// Number of members.
    pub members: u64,
    /// Position of its last message.
    pub last_position: Position,
    /// Position of its oldest retained message; one past the last if it retains none.
    pub oldest_position: Position,
}

impl TryFrom<v1::Room> for Room {
    type Error = Error;

    fn try_from(room: v1::Room) -> Result<Self, Error> {
        let last_position = position(room.last_position)?;
        let oldest_position = position(room.oldest_position)?;
        Ok(Self { name: room.name, members: room.members, last_position, oldest_position })
    }
}

/// One item of a room's retained history.
#[derive(Clone, Debug, PartialEq)]
pub enum HistoryItem {
    /// A retained event.
    Event(Event),
    /// Events of the requested range that are not retained.
    Gap(Gap),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_round_trips_as_text() {
        let position = Position { epoch: "1f0c5a9b3e7d2846".into(), offset: 17 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for wrong in ["", "17", ":17", "e:", "e:-1", "e:x", "e:1 "] {
            assert_eq!(wrong.parse::<Position>(), Err(InvalidPosition), "{wrong}");
        }
    }

    #[test]
    fn positions_compare_only_within_an_epoch() {
        let at = |epoch: &str, offset| Position { epoch: epoch.into(), offset };
        assert!(at("a", 2).covers(&at("a", 2)) && at("a", 3).covers(&at("a", 2)));
        assert!(!at("a", 1).covers(&at("a", 2)) && !at("b", 3).covers(&at("a", 2)));
    }

    #[test]
    fn unknown_body_keeps_the_event() {
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
