//! Where a session is in its room's order.
//!
//! Promises that what was handed over once is recognised when it comes again, and that a session which has finished
//! knows whether it has heard itself out.

use super::types::{Event, Gap, Goodbye, Join, Position, Start, Welcome};
use std::collections::VecDeque;

/// Ids of own connections to remember. What was said on one comes back soon after, if at all.
const OWN_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Place {
    wish: Join,
    /// Everything up to here was handed over, or is not wanted, or was reported missing.
    cursor: Position,
    /// The last position of an own message, as long as the cursor is before it.
    owed: Option<Position>,
    /// The connections on which the session has said something, newest last; only if its echo is not wanted.
    own: VecDeque<String>,
}

impl Place {
    pub(super) fn new(wish: Join, welcome: &Welcome) -> Self {
        // The welcome is after a gap of which the caller has not heard yet, and might not if the call broke now.
        let cursor = match &wish.start {
            Start::After(position) => position.clone(),
            Start::Tail | Start::Earliest | Start::Last(_) => welcome.position.clone(),
        };
        Self { wish, cursor, owed: None, own: VecDeque::new() }
    }

    /// Everything up to here is settled.
    pub(super) fn cursor(&self) -> &Position {
        &self.cursor
    }

    /// How to go on in another call. With `everything`, what is not wanted comes too, so that the cursor passes it.
    pub(super) fn resume(&self, everything: bool) -> Join {
        let mut join = Join { start: Start::After(self.cursor.clone()), ..self.wish.clone() };
        if everything {
            join.kinds.clear();
            join.suppress_echo = false;
        }
        join
    }

    /// An event has come: whether to hand it over.
    pub(super) fn is_news(&mut self, event: &Event) -> bool {
        if self.cursor.covers(&event.position) {
            return false;
        }
        self.go_to(event.position.clone());
        let wanted_kind = self.wish.kinds.is_empty() || self.wish.kinds.contains(&event.kind);
        let is_own = |id: &str| self.own.iter().any(|own| own == id);
        wanted_kind && !event.sender.as_ref().is_some_and(|sender| is_own(&sender.connection_id))
    }

    /// A gap was reported.
    pub(super) fn skip(&mut self, gap: &Gap) {
        if !self.cursor.covers(&gap.to) {
            self.go_to(gap.to.clone());
        }
    }

    /// The server has said goodbye to a call that was filtered: what it left out at the end needs no second look.
    pub(super) fn leave(&mut self, goodbye: &Goodbye) {
        if goodbye.position.covers(&self.cursor) {
            self.go_to(goodbye.position.clone());
        }
    }

    /// Something is said on this connection for the first time.
    pub(super) fn speaks_as(&mut self, connection_id: &str) {
        if self.wish.suppress_echo && self.own.back().is_none_or(|last| last != connection_id) {
            if self.own.len() == OWN_MAX {
                self.own.pop_front();
            }
            self.own.push_back(connection_id.to_owned());
        }
    }

    /// Something that the session said is there.
    pub(super) fn owes(&mut self, position: &Position) {
        let is_later = self.owed.as_ref().is_none_or(|owed| !owed.covers(position));
        if is_later && !self.cursor.covers(position) {
            self.owed = Some(position.clone());
        }
    }

    /// Whether everything up to the session's own last message was handed over, as far as is known.
    pub(super) fn has_heard_itself(&self) -> bool {
        self.owed.is_none()
    }

    fn go_to(&mut self, position: Position) {
        if let Some(owed) = &self.owed {
            let left_its_epoch = owed.epoch == self.cursor.epoch && owed.epoch != position.epoch;
            if left_its_epoch || position.covers(owed) {
                self.owed = None;
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

    fn place(wish: Join, position: Position) -> Place {
        let welcome =
            Welcome { connection_id: "me".into(), room: "r".into(), position, max_message_bytes: 0 };
        Place::new(wish, &welcome)
    }

    fn event(position: Position, kind: &str, from: &str) -> Event {
        let sender = Some(Member { connection_id: from.into(), ..Default::default() });
        Event { position, time: SystemTime::UNIX_EPOCH, sender, kind: kind.into(), body: None }
    }

    #[test]
    fn nothing_is_news_twice_but_another_epoch_is() {
        let mut place = place(Join::default(), at("a", 5));
        assert!(!place.is_news(&event(at("a", 5), "", "")));
        assert!(place.is_news(&event(at("a", 6), "", "")));
        assert!(!place.is_news(&event(at("a", 6), "", "")));
        let (from, to) = (at("b", 1), at("b", 0));
        place.skip(&Gap { from, to, count: 0, reason: Reason::Epoch });
        assert_eq!(place.resume(false).start, Start::After(at("b", 0)));
        assert!(place.is_news(&event(at("b", 1), "", "")));
    }

    #[test]
    fn a_gap_before_the_first_event_is_not_forgotten_with_its_call() {
        let wish = Join { start: Start::After(at("a", 5)), ..Join::default() };
        let mut place = place(wish, at("a", 9));
        assert_eq!(place.resume(false).start, Start::After(at("a", 5)));
        let (from, to) = (at("a", 6), at("a", 9));
        place.skip(&Gap { from, to, count: 4, reason: Reason::Retention });
        assert_eq!(place.resume(false).start, Start::After(at("a", 9)));
    }

    #[test]
    fn what_is_not_wanted_moves_the_cursor_only() {
        let wish = Join { kinds: vec!["move".into()], suppress_echo: true, ..Join::default() };
        let mut place = place(wish, at("a", 0));
        place.speaks_as("me");
        assert!(!place.is_news(&event(at("a", 1), "chat", "you")));
        assert!(!place.is_news(&event(at("a", 2), "move", "me")));
        assert!(place.is_news(&event(at("a", 3), "move", "you")));
        let everything = place.resume(true);
        assert!(everything.kinds.is_empty() && !everything.suppress_echo);
        assert_eq!(everything.start, Start::After(at("a", 3)));
        assert_eq!(place.resume(false).kinds, ["move"]);
    }

    #[test]
    fn it_has_heard_itself_when_the_cursor_passed_its_last_message_or_left_its_epoch() {
        let mut place = place(Join::default(), at("a", 5));
        place.owes(&at("a", 3));
        assert!(place.has_heard_itself());
        place.owes(&at("a", 7));
        place.owes(&at("a", 6));
        assert!(place.is_news(&event(at("a", 6), "", "")) && !place.has_heard_itself());
        assert!(place.is_news(&event(at("a", 7), "", "")) && place.has_heard_itself());
        place.owes(&at("a", 9));
        place.owes(&at("b", 2));
        assert!(place.is_news(&event(at("b", 1), "", "")) && !place.has_heard_itself());
        assert!(place.is_news(&event(at("b", 2), "", "")) && place.has_heard_itself());
        place.owes(&at("b", 9));
        assert!(place.is_news(&event(at("c", 1), "", "")) && place.has_heard_itself());
    }

    #[test]
    fn own_connections_are_remembered_up_to_a_bound() {
        let mut place = place(Join { suppress_echo: true, ..Join::default() }, at("a", 0));
        for n in 0..1000 {
            place.speaks_as(&n.to_string());
            place.speaks_as(&n.to_string());
        }
        assert_eq!(place.own.len(), OWN_MAX);
        assert!(!place.is_news(&event(at("a", 1), "", "999")) && place.is_news(&event(at("a", 2), "", "0")));
    }
}
