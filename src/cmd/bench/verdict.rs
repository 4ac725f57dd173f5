//! All that the loops have seen, put together: the figures of a run, and whether all was as it must be.

use super::control::Control;
use super::event_loop::Outcome;
use super::plan::{Plan, Role};
use super::receiver::{self, Faults};
use super::tally::Tally;
use super::transport::{Call, Standing};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// What came of a run.
pub(super) struct Result {
    pub(super) tally: Tally,
    pub(super) faults: Faults,
    /// The most orders that one room has heard, and in how many rooms there was more than one.
    pub(super) orders: Option<usize>,
    pub(super) disordered_rooms: usize,
    pub(super) joined: usize,
    /// When the last call joined, in nanoseconds since the run began.
    pub(super) connected: u64,
}

impl Result {
    /// The sum of all loops.
    pub(super) fn of(plan: &Plan, control: &Control, outcomes: Vec<Outcome>) -> anyhow::Result<Self> {
        let mut tally = Tally::new(plan)?;
        let mut calls = Vec::new();
        for outcome in outcomes {
            tally.absorb(outcome.tally)?;
            calls.extend(outcome.calls);
        }
        let mut rooms: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
        for call in calls.iter().filter(|call| call.role == Role::Member) {
            rooms.entry(plan.room_of(call.number)).or_default().push(call);
        }
        let mut faults = tally.faults;
        let (mut most, mut disordered_rooms) = (None, 0);
        for (&room, members) in &rooms {
            let expected = expected(plan, control, room, members);
            for member in members {
                faults += member.receiver.faults();
                faults.lost += still_to_come(member, &expected);
            }
            let orders = orders(members, &expected);
            disordered_rooms += usize::from(orders > Some(1));
            most = most.max(orders);
        }
        let last_join = control.progress.iter().map(|progress| progress.last_join.load(Ordering::Relaxed));
        Ok(Self {
            tally,
            faults,
            orders: most,
            disordered_rooms,
            joined: control.sum(|progress| &progress.joined),
            connected: last_join.max().unwrap_or(0),
        })
    }

    /// Why the run is none that a server can be proud of; nothing if it is.
    pub(super) fn complaints(&self) -> Vec<String> {
        let Faults { lost, duplicates, overtaken } = self.faults;
        let mut all = Vec::new();
        let mut complain = |count: u64, what: &str| {
            if count > 0 {
                all.push(format!("{count} {what}"));
            }
        };
        complain(lost, "deliveries lost");
        complain(duplicates, "duplicates");
        complain(overtaken, "messages came after later ones of their sender");
        complain(self.tally.strange, "texts were damaged, or of another room or run");
        complain(self.tally.unsaid, "messages were due and the server did not take them");
        if let Some(orders @ 2..) = self.orders {
            all.push(format!("up to {orders} different orders in a room ({} rooms)", self.disordered_rooms));
        }
        for (kind, ends) in &self.tally.failed {
            let words = if ends.words.is_empty() { String::new() } else { format!(" ({})", ends.words) };
            all.push(format!("{} connections: {kind}{words}", ends.count));
        }
        all
    }
}

/// By publisher of a room, how many messages everyone is to have heard at the end: what it has said, or, if its call
/// broke and nobody knows how much the server took, what anybody has heard.
fn expected(plan: &Plan, control: &Control, room: u32, members: &[&Call]) -> Vec<u32> {
    let mut expected: Vec<_> = (0..plan.publishers_in(room))
        .map(|slot| control.said[plan.publisher(room, slot)].load(Ordering::Relaxed))
        .collect();
    for member in members {
        for (expected, reached) in expected.iter_mut().zip(member.receiver.reached()) {
            *expected = reached.max(*expected);
        }
    }
    expected
}

/// What a member that is in should have heard and has not. One whose call was ended was told so.
fn still_to_come(member: &Call, expected: &[u32]) -> u64 {
    if member.standing != Standing::In {
        return 0;
    }
    let behind = |(slot, &said): (usize, &u32)| u64::from(member.receiver.behind(slot, said));
    expected.iter().enumerate().map(behind).sum()
}

/// Those who came late or miss something have an order of their own, which says nothing.
fn orders(members: &[&Call], expected: &[u32]) -> Option<usize> {
    let comparable = |member: &&&Call| {
        !member.renewed
            && member.receiver.faults() == Faults::default()
            && still_to_come(member, expected) == 0
    };
    let heard = members.iter().filter(comparable).map(|member| &member.receiver);
    receiver::orders(heard)
}
