//! Combines the loops' results into the figures of a run and its failures.

use super::control::Control;
use super::counters::Counters;
use super::event_loop::Outcome;
use super::plan::{Plan, Role};
use super::receiver::{self, DeliveryErrors};
use super::transport::{Call, CallState};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// The combined results of a run.
pub(super) struct Verdict {
    pub(super) counters: Counters,
    pub(super) errors: DeliveryErrors,
    /// The highest number of different orders in one room.
    pub(super) orders: Option<usize>,
    /// Rooms with more than one order.
    pub(super) disordered_rooms: usize,
    pub(super) joined: usize,
    /// When the last call joined, in nanoseconds since the run began.
    pub(super) connected: u64,
}

impl Verdict {
    /// Combines the outcomes of all loops.
    pub(super) fn of(plan: &Plan, control: &Control, outcomes: Vec<Outcome>) -> anyhow::Result<Self> {
        let mut counters = Counters::new(plan)?;
        let mut calls = Vec::new();
        for outcome in outcomes {
            counters.absorb(outcome.counters)?;
            calls.extend(outcome.calls);
        }
        let mut rooms: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
        for call in calls.iter().filter(|call| call.role == Role::Member) {
            rooms.entry(plan.room_of(call.number)).or_default().push(call);
        }
        let mut errors = counters.errors;
        let mut most = None;
        let mut disordered_rooms = 0;
        for (&room, members) in &rooms {
            let expected = expected(plan, control, room, members);
            for member in members {
                errors += member.receiver.errors();
                errors.lost += still_to_come(member, &expected);
            }
            let orders = orders(members, &expected);
            disordered_rooms += usize::from(orders > Some(1));
            most = most.max(orders);
        }
        let last_join = control.progress.iter().map(|progress| progress.last_join.load(Ordering::Relaxed));
        Ok(Self {
            counters,
            errors,
            orders: most,
            disordered_rooms,
            joined: control.sum(|progress| &progress.joined),
            connected: last_join.max().unwrap_or(0),
        })
    }

    /// The failures of the run; empty if it passed.
    pub(super) fn failures(&self) -> Vec<String> {
        let DeliveryErrors { lost, duplicates, overtaken } = self.errors;
        let mut all = Vec::new();
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                all.push(format!("{count} {what}"));
            }
        };
        add(lost, "deliveries lost");
        add(duplicates, "duplicates");
        add(overtaken, "messages came after later ones of their sender");
        add(self.counters.strange, "texts were damaged, or of another room or run");
        add(self.counters.unpublished, "messages were due and the server did not take them");
        if let Some(orders @ 2..) = self.orders {
            all.push(format!("up to {orders} different orders in a room ({} rooms)", self.disordered_rooms));
        }
        for (kind, ends) in &self.counters.failed {
            let words = if ends.message.is_empty() { String::new() } else { format!(" ({})", ends.message) };
            all.push(format!("{} connections: {kind}{words}", ends.count));
        }
        all
    }
}

/// By publisher of a room, how many messages every member must have received at the end: those published, or, if the
/// publisher's call broke, those that any member has received.
fn expected(plan: &Plan, control: &Control, room: u32, members: &[&Call]) -> Vec<u32> {
    let mut expected: Vec<_> = (0..plan.publishers_in(room))
        .map(|slot| control.published[plan.publisher(room, slot)].load(Ordering::Relaxed))
        .collect();
    for member in members {
        for (expected, reached) in expected.iter_mut().zip(member.receiver.reached()) {
            *expected = reached.max(*expected);
        }
    }
    expected
}

/// The outstanding messages of a joined member. Ended calls are reported separately.
fn still_to_come(member: &Call, expected: &[u32]) -> u64 {
    if member.state != CallState::Joined {
        return 0;
    }
    let behind = |(slot, &published): (usize, &u32)| u64::from(member.receiver.behind(slot, published));
    expected.iter().enumerate().map(behind).sum()
}

/// The number of orders among members that joined before the first message and miss none: the order of others cannot be
/// compared.
fn orders(members: &[&Call], expected: &[u32]) -> Option<usize> {
    let comparable = |member: &&&Call| {
        !member.renewed
            && member.receiver.errors() == DeliveryErrors::default()
            && still_to_come(member, expected) == 0
    };
    let received = members.iter().filter(comparable).map(|member| &member.receiver);
    receiver::orders(received)
}
