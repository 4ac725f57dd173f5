//! Where a connection starts to receive, and what it misses.

use crate::hub::log::position::{Cursor, Epoch, Position};
use crate::hub::log::{Log, Seek};
use crate::hub::payload::Payload;

/// Where to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the tail: messages from now on.
    #[default]
    Tail,
    /// At the oldest retained message.
    Earliest,
    /// At most this many retained messages before the tail.
    Last(u64),
    /// After the message with this epoch and offset.
    After(Epoch, u64),
}

/// Messages that a connection does not receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub from: Position,
    /// The last of them; before the first if only messages of another epoch are missing.
    pub to: Position,
    /// Why they are missing.
    pub reason: GapReason,
}

impl Gap {
    /// How many messages of this epoch are missing.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.to.offset + 1).saturating_sub(self.from.offset)
    }
}

/// Why messages are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// They are no longer retained.
    Retention,
    /// The position belongs to another life of the room.
    Epoch,
    /// The connection was too slow, and the room skips messages for slow connections.
    Slow,
}

impl GapReason {
    /// Its name in statuses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Epoch => "epoch",
            Self::Slow => "slow",
        }
    }
}

/// Why a connection cannot start at the requested position.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The position is beyond the last message, which is this.
    #[error("the room's last position is {0}")]
    Beyond(Position),
    /// These messages are missing, and the connection does not accept gaps.
    #[error("{}", in_words(.0))]
    Missing(Gap),
}

fn in_words(gap: &Gap) -> String {
    let Gap { from, to, reason } = gap;
    let not_retained = match gap.count() {
        0 => None,
        count => Some(format!("{count} messages from {from} to {to} are not retained")),
    };
    let began_anew =
        (*reason == GapReason::Epoch).then(|| format!("the room began anew since then, as {}", from.epoch));
    began_anew.into_iter().chain(not_retained).collect::<Vec<_>>().join("; ")
}

impl Start {
    /// The cursor in a log, and what is missing before it.
    ///
    /// # Errors
    /// [`StartError::Beyond`] if the position is beyond the tail.
    pub fn find<M: Payload>(self, log: &Log<M>) -> Result<(Cursor, Option<Gap>), StartError> {
        let epoch = log.epoch();
        let at = |offset| Position { epoch, offset };
        let missing = |from, to: &Cursor, reason| Gap { from: at(from), to: at(to.offset - 1), reason };
        match self {
            Self::Tail => Ok((log.tail(), None)),
            Self::Earliest => Ok((log.oldest(), None)),
            Self::Last(count) => match log.seek(log.tail().offset.saturating_sub(count)) {
                Seek::Found(cursor) | Seek::Before(cursor) | Seek::Beyond(cursor) => Ok((cursor, None)),
            },
            Self::After(of, offset) if of == epoch => match log.seek(offset.saturating_add(1)) {
                Seek::Found(cursor) => Ok((cursor, None)),
                Seek::Before(oldest) => {
                    Ok((oldest, Some(missing(offset + 1, &oldest, GapReason::Retention))))
                }
                Seek::Beyond(tail) => Err(StartError::Beyond(at(tail.offset - 1))),
            },
            Self::After(..) => {
                let oldest = log.oldest();
                Ok((oldest, Some(missing(1, &oldest, GapReason::Epoch))))
            }
        }
    }
}
