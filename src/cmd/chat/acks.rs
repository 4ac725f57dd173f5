//! Merges acknowledgements into the order of received items.
//!
//! The client library delivers acknowledgements separately from events. An acknowledgement is known before any item that
//! follows it is received; positions show which items it precedes.

use crate::client::{Ack, Error, Incoming, Position, Receipt};
use futures_util::FutureExt as _;
use tokio::sync::mpsc;

/// Lines whose acknowledgement is pending or not printed yet.
const AWAITED_MAX: usize = 64;

/// A published line.
pub(super) struct Acked {
    /// The line's number in the input.
    pub(super) line: u64,
    pub(super) ack: Ack,
}

/// The pending acknowledgements, in the order of the lines.
pub(super) struct Acks {
    receipts: mpsc::Receiver<(u64, Receipt)>,
    awaited: Option<(u64, Receipt)>,
    next: Option<Result<Acked, Error>>,
}

impl Acks {
    /// The acknowledgements, and a sender for the lines' receipts, each with its line's number.
    pub(super) fn new() -> (mpsc::Sender<(u64, Receipt)>, Self) {
        let (sender, receipts) = mpsc::channel(AWAITED_MAX);
        (sender, Self { receipts, awaited: None, next: None })
    }

    /// The next acknowledgement; `None` after the last. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Result<Acked, Error>> {
        self.fetch().await;
        self.next.take()
    }

    /// The next acknowledgement, if it precedes `incoming`.
    pub(super) fn before(&mut self, incoming: &Incoming) -> Option<Acked> {
        // `unconstrained`, so that tokio's budget cannot hide a ready receipt.
        tokio::task::unconstrained(self.fetch()).now_or_never()?;
        let is_before =
            |next: &mut Result<Acked, _>| next.as_ref().is_ok_and(|acked| precedes(&acked.ack, incoming));
        self.next.take_if(is_before)?.ok()
    }

    async fn fetch(&mut self) {
        if self.next.is_some() {
            return;
        }
        if self.awaited.is_none() {
            self.awaited = self.receipts.recv().await;
        }
        if let Some((line, receipt)) = &mut self.awaited {
            let line = *line;
            let ack = receipt.await;
            self.awaited = None;
            self.next = Some(ack.map(|ack| Acked { line, ack }));
        }
    }
}

/// Whether a known acknowledgement precedes an item, judged by position. It directly follows its own event; positions of
/// different epochs are unrelated.
fn precedes(ack: &Ack, incoming: &Incoming) -> bool {
    let follows = |other: &Position| ack.position.epoch == other.epoch && ack.position.offset > other.offset;
    let is_at = |other: &Position| ack.position == *other;
    match incoming {
        Incoming::Event(event) => !follows(&event.position) && !is_at(&event.position),
        Incoming::Gap(gap) => !follows(&gap.from) && !is_at(&gap.from),
        // Its position is that of the last item before it.
        Incoming::Goodbye(goodbye) => !follows(&goodbye.position),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Event, Gap, Goodbye, Presence, Reason};
    use std::time::SystemTime;

    fn at(epoch: &str, offset: u64) -> Position {
        Position { epoch: epoch.to_owned(), offset }
    }

    fn event(position: Position) -> Incoming {
        let time = SystemTime::UNIX_EPOCH;
        Incoming::Event(Event { position, time, sender: None, kind: String::new(), body: None })
    }

    #[test]
    fn ack_follows_its_own_event_and_precedes_the_goodbye() {
        let ack = Ack { position: at("e", 7), repeated: false };
        let gap = |from| Incoming::Gap(Gap { from, to: at("e", 20), count: 13, reason: Reason::Slow });
        let goodbye =
            |position| Incoming::Goodbye(Goodbye { reason: "left".to_owned(), retry_after: None, position });
        for (incoming, is_before) in [
            (event(at("e", 6)), false),
            (event(at("e", 7)), false),
            (event(at("e", 8)), true),
            (event(at("f", 1)), true),
            (gap(at("e", 8)), true),
            (gap(at("e", 3)), false),
            (goodbye(at("e", 7)), true),
            (goodbye(at("e", 6)), false),
            (Incoming::Presence(Presence::default()), false),
        ] {
            assert_eq!(precedes(&ack, &incoming), is_before, "{incoming:?}");
        }
    }
}
