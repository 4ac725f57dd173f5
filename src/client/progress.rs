//! How far a session has got in its room's order.
//!
//! Recognises events that were already delivered, and tracks whether a finished session has received its own last
//! message.

use super::types::{Event, Gap, Goodbye, Join, Position, Start, Welcome};
use std::collections::VecDeque;

/// Own connection ids to remember. A connection's messages come back soon after it, if at all.
const OWN_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Progress {
    join: Join,
    /// Everything up to here was delivered, filtered out, or reported as a gap.
    cursor: Position,
    /// Position of the session's last own message, while the cursor is before it.
    own_last: Option<Position>,
    /// Connections on which the session has published, newest last; only with `suppress_echo`.
    own_connections: VecDeque<String>,
}

impl Progress {
    pub(super) fn new(join: Join, welcome: &Welcome) -> Self {
        // The welcome's position is behind a possible gap, which the caller would miss if the call broke before it.
        let cursor = match &join.start {
            Start::After(position) => position.clone(),
            Start::Tail | Start::Earliest | Start::Last(_) => welcome.position.clone(),
        };
        Self { join, cursor, own_last: None, own_connections: VecDeque::new() }
    }

    /// The position up to which everything is settled.
    pub(super) fn cursor(&self) -> &Position {
        &self.cursor
    }

    /// How to resume in another call. With `everything`, the server sends filtered events too, so that the cursor passes
    /// them.
    pub(super) fn resume(&self, everything: bool) -> Join {
        let mut join = Join { start: Start::After(self.cursor.clone()), ..self.join.clone() };
        if everything {
            join.kinds.clear();
            join.suppress_echo = false;
        }
        join
    }

    /// Advances past an event; returns whether to deliver it.
    pub(super) fn accept(&mut self, event: &Event) -> bool {
        if self.cursor.covers(&event.position) {
            return false;
        }
        self.advance_to(event.position.clone());
        let wanted_kind = self.join.kinds.is_empty() || self.join.kinds.contains(&event.kind);
        let is_own = |id: &str| self.own_connections.iter().any(|own| own == id);
        wanted_kind && !event.sender.as_ref().is_some_and(|sender| is_own(&sender.connection_id))
    }

    /// Advances past a reported gap.
    pub(super) fn skip(&mut self, gap: &Gap) {
        if !self.cursor.covers(&gap.to) {
            self.advance_to(gap.to.clone());
        }
    }

    /// Advances to the goodbye's position on a filtered call: the events in between were filtered out.
    pub(super) fn leave(&mut self, goodbye: &Goodbye) {
        if goodbye.position.covers(&self.cursor) {
            self.advance_to(goodbye.position.clone());
        }
    }

    /// Remembers a connection on which the session publishes.
    pub(super) fn record_own_connection(&mut self, connection_id: &str) {
        if self.join.suppress_echo && self.own_connections.back().is_none_or(|last| last != connection_id) {
            if self.own_connections.len() == OWN_MAX {
                self.own_connections.pop_front();
            }
            self.own_connections.push_back(connection_id.to_owned());
        }
    }

    /// Records the position of an own message.
    pub(super) fn expect_own(&mut self, position: &Position) {
        let is_later = self.own_last.as_ref().is_none_or(|own_last| !own_last.covers(position));
        if is_later && !self.cursor.covers(position) {
            self.own_last = Some(position.clone());
        }
    }

    /// Whether everything up to the last known own message was delivered.
    pub(super) fn has_received_own(&self) -> bool {
        self.own_last.is_none()
    }

    fn advance_to(&mut self, position: Position) {
        if let Some(own_last) = &self.own_last {
            let left_its_epoch = own_last.epoch == self.cursor.epoch && own_last.epoch != position.epoch;
            if left_its_epoch || position.covers(own_last) {
                self.own_last = None;
            }
        }
        self.cursor = position;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Member, Reason};
    use std::time::SystemTime;

    fn at(epoch: &str, offset: u64) -> Position {
        Position { epoch: epoch.into(), offset }
    }

    fn progress(join: Join, position: Position) -> Progress {
        let welcome =
            Welcome { connection_id: "me".into(), room: "r".into(), position, max_message_bytes: 0 };
        Progress::new(join, &welcome)
    }

    fn event(position: Position, kind: &str, from: &str) -> Event {
        let sender = Some(Member { connection_id: from.into(), ..Default::default() });
        Event { position, time: SystemTime::UNIX_EPOCH, sender, kind: kind.into(), body: None }
    }

    #[test]
    fn events_are_accepted_once_per_epoch() {
        let mut progress = progress(Join::default(), at("a", 5));
        assert!(!progress.accept(&event(at("a", 5), "", "")));
        assert!(progress.accept(&event(at("a", 6), "", "")));
        assert!(!progress.accept(&event(at("a", 6), "", "")));
        progress.skip(&Gap { from: at("b", 1), to: at("b", 0), count: 0, reason: Reason::Epoch });
        assert_eq!(progress.resume(false).start, Start::After(at("b", 0)));
        assert!(progress.accept(&event(at("b", 1), "", "")));
    }

    #[test]
    fn gap_before_the_first_event_survives_a_lost_call() {
        let join = Join { start: Start::After(at("a", 5)), ..Join::default() };
        let mut progress = progress(join, at("a", 9));
        assert_eq!(progress.resume(false).start, Start::After(at("a", 5)));
        progress.skip(&Gap { from: at("a", 6), to: at("a", 9), count: 4, reason: Reason::Retention });
        assert_eq!(progress.resume(false).start, Start::After(at("a", 9)));
    }

    #[test]
    fn filtered_events_only_move_the_cursor() {
        let join = Join { kinds: vec!["move".into()], suppress_echo: true, ..Join::default() };
        let mut progress = progress(join, at("a", 0));
        progress.record_own_connection("me");
        assert!(!progress.accept(&event(at("a", 1), "chat", "you")));
        assert!(!progress.accept(&event(at("a", 2), "move", "me")));
        assert!(progress.accept(&event(at("a", 3), "move", "you")));
        let everything = progress.resume(true);
        assert!(everything.kinds.is_empty() && !everything.suppress_echo);
        assert_eq!(everything.start, Start::After(at("a", 3)));
        assert_eq!(progress.resume(false).kinds, ["move"]);
    }

    #[test]
    fn own_last_message_is_received_once_passed_or_epoch_left() {
        let mut progress = progress(Join::default(), at("a", 5));
        progress.expect_own(&at("a", 3));
        assert!(progress.has_received_own());
        progress.expect_own(&at("a", 7));
        progress.expect_own(&at("a", 6));
        assert!(progress.accept(&event(at("a", 6), "", "")) && !progress.has_received_own());
        assert!(progress.accept(&event(at("a", 7), "", "")) && progress.has_received_own());
        progress.expect_own(&at("a", 9));
        progress.expect_own(&at("b", 2));
        assert!(progress.accept(&event(at("b", 1), "", "")) && !progress.has_received_own());
        assert!(progress.accept(&event(at("b", 2), "", "")) && progress.has_received_own());
        progress.expect_own(&at("b", 9));
        assert!(progress.accept(&event(at("c", 1), "", "")) && progress.has_received_own());
    }

    #[test]
    fn own_connection_ids_are_bounded() {
        let mut progress = progress(Join { suppress_echo: true, ..Join::default() }, at("a", 0));
        for n in 0..1000 {
            progress.record_own_connection(&n.to_string());
            progress.record_own_connection(&n.to_string());
        }
        assert_eq!(progress.own_connections.len(), OWN_MAX);
        assert!(
            !progress.accept(&event(at("a", 1), "", "999")) && progress.accept(&event(at("a", 2), "", "0"))
        );
    }
}
