//! The check of positions passes what is right and finds everything that is planted.

use crate::common::{
    history::{Breach, Id, Law},
    positions::{Account, Chronicle},
    track::{HelloLog, Track, Wants, is_move, kind_of},
    v1_member::{Body, Event, Incoming, Position, Start, Why},
};

const EPOCH: &str = "0123456789abcdef";

/// Three senders' messages in the order of their positions, which begin at 1; sender 1 also moves.
fn order() -> Vec<Id> {
    let senders = [0, 1, 1, 2, 1, 0, 1, 1, 2, 1, 1, 0, 1, 2];
    let mut next = [0; 3];
    let publish = |sender: u16| {
        let sequence = &mut next[usize::from(sender)];
        *sequence += 1;
        Id::new(sender, *sequence - 1)
    };
    senders.map(publish).to_vec()
}

/// The place of the move, which clients of hello.ChatRoom do not get.
const MOVE: usize = 13;

fn at(offset: u64) -> Position<'static> {
    Position { epoch: EPOCH, offset }
}

trait Plants {
    fn comes(&mut self, offset: u64);
    fn receives(&mut self, offset: u64, id: Id);
    fn misses(&mut self, from: u64, to: u64, count: u64);
    fn receives_all(&mut self, offsets: std::ops::RangeInclusive<u64>);
    fn is_acked(&mut self, sequence: u32, offset: u64);
}

impl Plants for Track {
    fn comes(&mut self, offset: u64) {
        self.receive(&Incoming::Welcome(at(offset)));
    }

    fn receives(&mut self, offset: u64, id: Id) {
        let words = id.text(3);
        let body = if is_move(id) { Body::Data(words.as_bytes()) } else { Body::Text(words.as_bytes()) };
        let received =
            self.receive(&Incoming::Event(Event { position: at(offset), kind: kind_of(id), body }));
        assert_eq!(received, Some(id));
    }

    fn misses(&mut self, from: u64, to: u64, count: u64) {
        self.receive(&Incoming::Gap { from: at(from), to: at(to), count, why: Why::Slow });
    }

    fn receives_all(&mut self, offsets: std::ops::RangeInclusive<u64>) {
        for offset in offsets {
            self.receives(offset, order()[offset as usize - 1]);
        }
    }

    fn is_acked(&mut self, sequence: u32, offset: u64) {
        self.receive(&Incoming::Ack {
            reference: &sequence.to_string(),
            position: at(offset),
            repeated: false,
        });
    }
}

/// One who heard everything, so that the order is known, and somebody else.
fn check_beside(other: Track) -> Result<Account, Vec<Breach>> {
    let mut chronicle = Chronicle::default();
    let mut whole = Track::of("whole", Wants::default());
    whole.comes(0);
    whole.receives_all(1..=14);
    whole.is_complete();
    chronicle.met(whole);
    chronicle.met(other);
    for (sender, published) in [(0, 3), (1, 8), (2, 3)] {
        chronicle.published(sender, published);
    }
    chronicle.check()
}

/// Somebody who met this.
fn someone(meets: impl FnOnce(&mut Track)) -> Track {
    let mut track = Track::of("someone", Wants::default());
    track.comes(0);
    meets(&mut track);
    track
}

#[track_caller]
fn breaks(law: Law, track: Track) {
    let breaches = check_beside(track).unwrap_err();
    assert!(breaches.iter().any(|breach| breach.law == law), "{breaches:?}");
}

#[test]
fn fixture_has_a_move() {
    let moves: Vec<usize> = (1..=14).filter(|offset| is_move(order()[offset - 1])).collect();
    assert_eq!(moves, [MOVE]);
}

#[test]
fn exact_account_holds() {
    let track = someone(|track| {
        track.receives_all(1..=4);
        track.misses(5, 7, 3);
        track.receives_all(8..=9);
        assert_eq!(track.resumes(), Start::After(EPOCH.to_owned(), 9));
        track.comes(11);
        track.misses(10, 11, 2);
        track.receives_all(12..=14);
        track.is_complete();
    });
    let account = check_beside(track).unwrap();
    assert_eq!((account.deliveries, account.connections, account.resumed), (23, 3, 1));
    assert_eq!((account.gaps_for(Why::Slow), account.missed()), ((2, 5), 5));
}

#[test]
fn unreported_gap_is_found() {
    breaks(
        Law::Contiguous,
        someone(|track| {
            track.receives_all(1..=4);
            track.receives_all(6..=7);
        }),
    );
}

#[test]
fn short_gap_is_found() {
    for (from, to) in [(5, 6), (6, 7), (6, 6)] {
        breaks(
            Law::Contiguous,
            someone(|track| {
                track.receives_all(1..=4);
                track.misses(from, to, to - from + 1);
                track.receives_all(8..=9);
            }),
        );
    }
}

#[test]
fn overlapping_gap_is_found() {
    breaks(
        Law::Accounted,
        someone(|track| {
            track.receives_all(1..=4);
            track.misses(4, 7, 4);
        }),
    );
    breaks(
        Law::Unique,
        someone(|track| {
            track.receives_all(1..=4);
            track.misses(5, 8, 4);
            track.receives_all(8..=9);
        }),
    );
}

#[test]
fn wrong_gap_count_is_found() {
    for count in [0, 2, 4] {
        breaks(
            Law::Accounted,
            someone(|track| {
                track.receives_all(1..=4);
                track.misses(5, 7, count);
                track.receives_all(8..=9);
            }),
        );
    }
}

#[test]
fn two_messages_at_one_position_are_found() {
    breaks(
        Law::Placed,
        someone(|track| {
            track.receives(1, order()[1]);
            track.receives(2, order()[0]);
        }),
    );
}

#[test]
fn message_at_two_positions_is_found() {
    breaks(
        Law::Unique,
        someone(|track| {
            track.receives_all(1..=14);
            track.receives(15, order()[13]);
        }),
    );
}

#[test]
fn duplicate_after_resume_is_found() {
    breaks(
        Law::Unique,
        someone(|track| {
            track.receives_all(1..=4);
            track.resumes();
            track.comes(3);
            track.receives_all(4..=9);
        }),
    );
    breaks(
        Law::Unique,
        someone(|track| {
            track.receives_all(1..=4);
            track.resumes();
            track.comes(4);
            track.receives_all(4..=9);
        }),
    );
}

#[test]
fn loss_over_resume_is_found() {
    breaks(
        Law::Accounted,
        someone(|track| {
            track.receives_all(1..=4);
            track.resumes();
            track.comes(6);
            track.receives_all(7..=9);
        }),
    );
}

#[test]
fn missing_end_is_found() {
    breaks(
        Law::Contiguous,
        someone(|track| {
            track.receives_all(1..=13);
            track.is_complete();
        }),
    );
}

#[test]
fn swap_is_found() {
    breaks(
        Law::Ordered,
        someone(|track| {
            track.receives_all(1..=4);
            track.receives_all(6..=6);
            track.receives_all(5..=5);
        }),
    );
}

#[test]
fn other_epoch_is_found() {
    breaks(
        Law::Intact,
        someone(|track| {
            track.receives_all(1..=4);
            let other = Position { epoch: "fedcba9876543210", offset: 5 };
            track.receive(&Incoming::Goodbye { reason: "left", position: other });
        }),
    );
}

#[test]
fn kind_filter_misses_no_other_kind() {
    let chats = Wants { kinds: &["chat"], ..Wants::default() };
    let chatter = |offsets: &[u64]| {
        let mut track = Track::of("chatter", chats);
        track.comes(0);
        for offset in offsets {
            track.receives_all(*offset..=*offset);
        }
        track.is_complete();
        track
    };
    let others: Vec<u64> = (1..=14).filter(|offset| *offset != MOVE as u64).collect();
    assert!(check_beside(chatter(&others)).is_ok());
    breaks(Law::Wanted, chatter(&(1..=14).collect::<Vec<_>>()));
    breaks(Law::Contiguous, chatter(&others[1..]));
    breaks(Law::Contiguous, chatter(&others[..12]));
}

/// Sender 0, whose messages are at 1, 6 and 12.
fn sender(acks: &[(u32, u64)]) -> Track {
    let mut track = Track::of_sender(0, Wants { not_from: Some(0), ..Wants::default() });
    track.comes(0);
    for offset in 1..=15 {
        if offset <= 14 && ![1, 6, 12].contains(&offset) {
            track.receives_all(offset..=offset);
        }
        for (sequence, at) in acks.iter().filter(|(_, at)| *at == offset) {
            track.is_acked(*sequence, *at);
        }
    }
    track.has_published(3);
    track
}

#[test]
fn ack_at_wrong_position_is_found() {
    let account = check_beside(sender(&[(0, 1), (1, 6), (2, 12)])).unwrap();
    assert_eq!(account.acks, 3);
    breaks(Law::Acknowledged, sender(&[(0, 1), (1, 6)]));
    breaks(Law::Acknowledged, sender(&[(0, 1), (1, 6), (1, 6), (2, 12)]));
    breaks(Law::Placed, sender(&[(0, 1), (1, 6), (2, 11)]));
    breaks(Law::Unique, sender(&[(0, 1), (1, 6), (2, 15)]));
}

#[test]
fn unwanted_echo_is_found() {
    let mut track = Track::of_sender(0, Wants { not_from: Some(0), ..Wants::default() });
    track.comes(0);
    track.receives_all(1..=1);
    track.is_acked(0, 1);
    track.has_published(1);
    breaks(Law::Wanted, track);
}

#[test]
fn missing_own_message_is_found() {
    let mut track = Track::of_sender(0, Wants::default());
    track.comes(0);
    track.receives_all(1..=5);
    track.receives_all(7..=14);
    breaks(Law::SelfHeard, track);
}

#[test]
fn hello_shares_the_order() {
    let check = |offsets: &[usize]| {
        let mut log = HelloLog::of("someone");
        for offset in offsets {
            log.receive(order()[offset - 1].text(0).as_bytes());
        }
        log.is_complete();
        let mut chronicle = Chronicle::default();
        let mut whole = Track::of("whole", Wants::default());
        whole.comes(0);
        whole.receives_all(1..=14);
        chronicle.met(whole);
        chronicle.received(log);
        for (sender, published) in [(0, 3), (1, 8), (2, 3)] {
            chronicle.published(sender, published);
        }
        chronicle.check().map_err(|breaches| breaches[0].law)
    };
    assert!(check(&[5, 6, 7, 8, 9, 10, 11, 12, 14]).is_ok());
    assert_eq!(check(&[5, 6, 7, 8, 9, 10, 11, 12, 13, 14]).unwrap_err(), Law::Intact);
    assert_eq!(check(&[5, 6, 7, 8, 9, 10, 11, 12]).unwrap_err(), Law::Contiguous);
    assert_eq!(check(&[5, 7, 8, 9, 10, 11, 12, 14]).unwrap_err(), Law::Contiguous);
    assert_eq!(check(&[5, 5, 6]).unwrap_err(), Law::Unique);
    assert_eq!(check(&[5, 7, 6]).unwrap_err(), Law::Contiguous);
}
