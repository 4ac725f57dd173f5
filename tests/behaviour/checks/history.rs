//! The history checker passes what is right and finds everything that is planted.

use crate::common::history::{Breach, History, Id, LOOSE, Law, Log, Stay};
use proptest::prelude::*;

/// Three members who heard the same nine messages of three senders.
fn right() -> Vec<Vec<Id>> {
    let order = [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (2, 1), (2, 2), (1, 2)];
    vec![order.map(|(sender, sequence)| Id::new(sender, sequence)).to_vec(); 3]
}

fn check(logs: &[Vec<Id>]) -> Result<usize, Vec<Breach>> {
    let mut history = History::default();
    for (member, ids) in logs.iter().enumerate() {
        let mut log = Log::of(&member.to_string(), Stay::Whole);
        for id in ids {
            assert_eq!(log.receive(id.text(3).as_bytes()), Some(*id));
        }
        history.received(log);
    }
    for sender in 0..3 {
        history.published(sender, 3);
    }
    history.check()
}

#[track_caller]
fn breaks(law: Law, logs: &[Vec<Id>]) {
    let breaches = check(logs).unwrap_err();
    assert!(breaches.iter().any(|breach| breach.law == law), "{breaches:?}");
}

#[test]
fn equal_logs_hold() {
    assert_eq!(check(&right()).unwrap(), 27);
}

#[test]
fn swap_is_found() {
    let mut logs = right();
    logs[1].swap(3, 4);
    breaks(Law::Ordered, &logs);
}

#[test]
fn swap_of_one_senders_messages_is_found() {
    let mut logs = right();
    for log in &mut logs {
        log.swap(0, 2);
    }
    breaks(Law::FifoPerSender, &logs);
}

#[test]
fn loss_is_found() {
    let mut logs = right();
    logs[2].remove(4);
    breaks(Law::Contiguous, &logs);
}

#[test]
fn message_lost_for_all_is_found() {
    for lost in 0..9 {
        let mut logs = right();
        for log in &mut logs {
            log.remove(lost);
        }
        breaks(Law::Contiguous, &logs);
    }
}

#[test]
fn duplicate_is_found() {
    for (again, at) in [(3, 4), (3, 8), (8, 9)] {
        let mut logs = right();
        let id = logs[0][again];
        logs[0].insert(at, id);
        breaks(Law::Unique, &logs);
    }
}

#[test]
fn diverging_order_is_found() {
    let mut logs = right();
    logs.push((0..9).map(|sequence| Id::new(7, sequence)).collect());
    breaks(Law::Ordered, &logs);
    let mut logs = right();
    logs[1].insert(5, Id::new(7, 0));
    breaks(Law::Ordered, &logs);
}

#[test]
fn corrupted_text_is_found() {
    let right = Id::new(12, 345).text(4);
    assert!(Id::of_text(right.as_bytes()).is_some());
    for at in 0..right.len() {
        let mut spoilt = right.clone().into_bytes();
        spoilt[at] ^= 1;
        assert_eq!(Id::of_text(&spoilt), None, "{at}");
        assert_eq!(Id::of_text(&right.as_bytes()[..at]), None, "{at}");
    }
    let mut log = Log::of("one", Stay::Part);
    log.receive(b"s1:2:00000000:");
    let mut history = History::default();
    history.received(log);
    assert_eq!(history.check().unwrap_err()[0].law, Law::Intact);
}

#[test]
fn missing_own_message_is_found() {
    let mut history = History::default();
    let mut whole = Log::of("one", Stay::Whole);
    let mut own = Log::of_sender(0, Stay::Part);
    for sequence in 0..5 {
        whole.receive(Id::new(0, sequence).text(0).as_bytes());
    }
    for sequence in 0..4 {
        own.receive(Id::new(0, sequence).text(0).as_bytes());
    }
    history.received(whole);
    history.received(own);
    history.published(0, 5);
    assert_eq!(history.check().unwrap_err()[0].law, Law::SelfHeard);
}

#[test]
fn loose_senders_share_only_the_rooms_order() {
    let ids = [(LOOSE, 4), (LOOSE, 1), (0, 0), (LOOSE, 9)];
    let ids = ids.map(|(sender, sequence)| Id::new(sender, sequence));
    let mut history = History::default();
    history.received(part(&ids));
    history.received(part(&ids[1..3]));
    assert_eq!(history.check().unwrap(), 6);
    history.received(part(&[ids[1], ids[0]]));
    assert_eq!(history.check().unwrap_err()[0].law, Law::Ordered);
}

/// A room's order: three senders' messages, merged at random.
fn orders() -> impl Strategy<Value = Vec<Id>> {
    proptest::collection::vec(0..3_u16, 12..60).prop_map(|senders| {
        let mut next = [0; 3];
        let publish = |sender: u16| {
            let sequence = &mut next[usize::from(sender)];
            *sequence += 1;
            Id::new(sender, *sequence - 1)
        };
        senders.into_iter().map(publish).collect()
    })
}

fn part(ids: &[Id]) -> Log {
    let mut log = Log::of("someone", Stay::Part);
    for id in ids {
        log.receive(id.text(0).as_bytes());
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Members come and go as they like; no two of them need have heard the whole.
    #[test]
    fn overlapping_runs_of_one_order_hold(order in orders(), overlap in 1..6_usize, step in 1..6_usize) {
        let mut history = History::default();
        for start in (0..order.len() - overlap).step_by(step) {
            let end = (start + step + overlap).min(order.len());
            history.received(part(&order[start..end]));
        }
        prop_assert!(history.check().is_ok(), "{:?}", history.check());
    }

    /// Whatever happens to one of three logs between its ends is found.
    #[test]
    fn any_fault_between_the_ends_is_found(order in orders(), at in 1..10_usize, other in 1..10_usize, fault in 0..3) {
        let mut bad = order.clone();
        match fault {
            0 => { bad.remove(at); }
            1 => bad.insert(at, order[other]),
            _ if at == other => return Ok(()),
            _ => bad.swap(at, other),
        }
        let mut history = History::default();
        history.received(part(&order));
        history.received(part(&bad));
        history.received(part(&order));
        prop_assert!(history.check().is_err());
    }
}
