//! The log against a plain list, at every position, over every limit.

use super::budget::{Account, Budget};
use super::position::{Cursor, Epoch};
use super::ring::*;
use super::segment::{Entry, Segment};
use super::view::View;
use crate::hub::log::segment::Sequencing;
use crate::hub::log::view::Filter;
use crate::hub::payload::{EventMeta, Payload};
use crate::hub::wire_form::{ByForm, WireForm};
use bytes::BytesMut;
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FOREVER: Duration = Duration::from_secs(3600);
const FORMS: [WireForm; 2] = WireForm::ALL;

/// Only the first form is in use.
fn primary_only() -> ByForm<bool> {
    ByForm::from_fn(|form| form == WireForm::Primary)
}

/// A message that is its bytes; in the second form each of them twice.
#[derive(Debug)]
struct Text(Vec<u8>);

impl Payload for Text {
    fn size(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, form: WireForm, _: &EventMeta, out: &mut BytesMut) {
        for byte in &self.0 {
            out.extend_from_slice(&[*byte; 2][..=form as usize]);
        }
    }
}

fn roomy() -> Retention {
    Retention { bytes: u64::MAX, messages: u64::MAX, age: FOREVER }
}

fn new(retention: Retention) -> (Arc<Log<Text>>, LogWriter<Text>) {
    log(Epoch::random(), retention)
}

fn append_at(writer: &mut LogWriter<Text>, texts: &[&[u8]], at: Instant) {
    let first = writer.next_offset();
    let entries = texts.iter().zip(first..).map(|(text, offset)| Entry {
        offset,
        sequencing: Sequencing::Assigned,
        message: Text(text.to_vec()),
    });
    let entries = entries.collect();
    writer.append(entries, primary_only(), at, at);
}

fn append(writer: &mut LogWriter<Text>, texts: &[&[u8]]) {
    append_at(writer, texts, Instant::now());
}

fn read(log: &Log<Text>, cursor: &Cursor) -> Read {
    log.read(cursor, &mut View::all(FORMS[0]), usize::MAX)
}

/// Reads from `cursor` until the tail, and returns what was read and where it ended.
fn read_on(log: &Log<Text>, cursor: Cursor) -> Option<(Vec<u8>, Cursor)> {
    read_through(log, cursor, &mut View::all(FORMS[0]))
}

fn read_through(log: &Log<Text>, mut cursor: Cursor, view: &mut View<Text>) -> Option<(Vec<u8>, Cursor)> {
    let mut bytes = Vec::new();
    loop {
        match log.read(&cursor, view, usize::MAX) {
            Read::Frames(frames, next, _) => {
                bytes.extend_from_slice(&frames);
                cursor = next;
            }
            Read::Empty => return Some((bytes, cursor)),
            Read::NeedsCapacity(needed) => panic!("{needed} bytes do not fit"),
            Read::Lost => return None,
        }
    }
}

#[test]
fn new_log_is_empty_and_starts_at_offset_one() {
    let (log, mut writer) = new(roomy());
    assert_eq!(log.tail(), Cursor::START);
    assert_eq!(read(&log, &Cursor::START), Read::Empty);
    assert_eq!((writer.next_offset(), log.oldest().offset), (1, 1));
    append(&mut writer, &[b"one"]);
    assert!(matches!(read(&log, &Cursor::START), Read::Frames(..)));
    assert_eq!(log.tail(), Cursor { segment: 2, offset: 2, bytes: 3 });
}

#[test]
fn every_position_reads_exactly_what_comes_after_it() {
    let (log, mut writer) = new(roomy());
    let mut cursors = vec![log.tail()];
    let mut all = Vec::new();
    for n in 0..1000 {
        let text = format!("{n};");
        append(&mut writer, &[text.as_bytes()]);
        all.extend_from_slice(text.as_bytes());
        cursors.push(log.tail());
    }
    for cursor in cursors {
        let (bytes, end) = read_on(&log, cursor).unwrap();
        assert_eq!(bytes, all[cursor.bytes as usize..]);
        assert_eq!(end, log.tail());
    }
}

#[test]
fn large_segment_is_shared_and_small_ones_are_joined() {
    let (log, mut writer) = new(roomy());
    append(&mut writer, &[&[1; COPY_BELOW]]);
    let small = [2; COPY_BELOW - 1];
    for _ in 0..20 {
        append(&mut writer, &[&small]);
    }
    let read_first = || match read(&log, &Cursor::START) {
        Read::Frames(first, next, _) => (first, next),
        other => panic!("{other:?}"),
    };
    let ((first, next), (again, _)) = (read_first(), read_first());
    assert_eq!((first.len(), next.offset), (COPY_BELOW, 2));
    assert_eq!(first.as_ptr(), again.as_ptr(), "shared");
    let Read::Frames(joined, next, _) = read(&log, &next) else { panic!("small ones") };
    assert_eq!(joined.len(), FRAME_BYTES_MAX / small.len() * small.len());
    assert_eq!(next.offset, 2 + (joined.len() / small.len()) as u64);
}

#[test]
fn retention_by_messages_keeps_the_newest() {
    let (log, mut writer) = new(Retention { messages: 10, ..roomy() });
    for n in 0..100 {
        append(&mut writer, &[format!("{n:02}").as_bytes()]);
    }
    assert_eq!((log.retained().1, log.oldest().offset), (10, 91));
    assert_eq!(read(&log, &Cursor { segment: 90, offset: 90, bytes: 178 }), Read::Lost);
    let (bytes, _) = read_on(&log, Cursor { segment: 91, offset: 91, bytes: 180 }).unwrap();
    assert_eq!(bytes, b"90919293949596979899");
}

/// Bytes of a segment of one message of this length, beside its frames.
fn held_without_frames(len: usize) -> u64 {
    (size_of::<Segment<Text>>() + 16 + size_of::<Entry<Text>>() + len) as u64
}

/// Bytes of the frames of a segment of one message.
fn held_for_frames(len: usize) -> u64 {
    len as u64 + 24 + 4
}

#[test]
fn retention_by_bytes_counts_what_is_held_and_keeps_the_newest() {
    let footprint = held_without_frames(100) + held_for_frames(100);
    let (log, mut writer) = new(Retention { bytes: 3 * footprint, ..roomy() });
    for _ in 0..10 {
        append(&mut writer, &[&[b'x'; 100]]);
    }
    assert_eq!(log.retained(), (3 * footprint, 3));
    // A reader of the second form takes nothing from others, but its bytes are counted.
    let oldest = log.oldest();
    assert_eq!(read_through(&log, oldest, &mut View::all(FORMS[1])).unwrap().0.len(), 600);
    writer.trim(Instant::now());
    let held = 3 * (footprint + held_for_frames(200));
    assert_eq!((log.retained(), log.oldest()), ((held, 3), oldest));
    append(&mut writer, &[&[b'y'; 5000]]);
    assert_eq!(log.retained().1, 1, "larger than the bound, yet everyone can still read it");
}

#[test]
fn retention_by_age_empties_the_log_without_a_new_message() {
    let (log, mut writer) = new(Retention { age: Duration::from_secs(10), ..roomy() });
    let start = Instant::now();
    append_at(&mut writer, &[b"old"], start);
    append_at(&mut writer, &[b"new"], start + Duration::from_secs(8));
    let old = Cursor::START;
    writer.trim(start + Duration::from_secs(10));
    assert_eq!(log.retained().1, 2, "not older than the bound");
    writer.trim(start + Duration::from_secs(11));
    assert_eq!(read(&log, &old), Read::Lost);
    assert_eq!(log.retained().1, 1);
    writer.trim(start + Duration::from_secs(60));
    assert_eq!(log.retained(), (0, 0));
    assert_eq!(log.tail(), Cursor { segment: 3, offset: 3, bytes: 6 });
    assert_eq!((read(&log, &log.tail()), log.oldest()), (Read::Empty, log.tail()));
    assert_eq!(log.waiting_since(1), None, "nothing is left that could wait");
}

#[test]
fn ring_grows_and_shrinks() {
    let (log, mut writer) = new(Retention { age: Duration::from_secs(10), ..roomy() });
    let start = Instant::now();
    for n in 0..5000u32 {
        append_at(&mut writer, &[&n.to_be_bytes()], start);
    }
    assert_eq!(log.ring.load().slots.len(), 8192);
    let (bytes, _) = read_on(&log, Cursor::START).unwrap();
    assert_eq!(bytes.len(), 4 * 5000);
    for _ in 0..10 {
        writer.trim(start + Duration::from_secs(11));
    }
    assert_eq!(log.ring.load().slots.len(), RING_MIN);
}

#[test]
fn large_messages_in_no_form_count_once() {
    let (log, mut writer) = new(roomy());
    for n in 0..92 {
        let entry = Entry { offset: n + 1, sequencing: Sequencing::Assigned, message: Text(vec![0; 60_000]) };
        writer.append(vec![entry], ByForm::default(), Instant::now(), Instant::now());
    }
    let (bytes, messages) = log.retained();
    assert_eq!(messages, 92);
    assert!((92 * 60_000..92 * 60_600).contains(&bytes), "{bytes}");
}

#[test]
fn budget_removes_the_oldest_and_counts_late_forms() {
    let budget = Budget::new(10_000);
    let (log, mut writer) = log_within(Epoch::random(), roomy(), &budget);
    for _ in 0..8 {
        append(&mut writer, &[&[0; 500]]);
    }
    let each = held_without_frames(500) + held_for_frames(500);
    let fit = 8.min(10_000 / each);
    assert_eq!((budget.held(), log.retained().1), (fit * each, fit));
    // A reader that writes the second form exceeds it, and the writer pays.
    assert!(read_through(&log, log.oldest(), &mut View::all(FORMS[1])).is_some());
    assert!(budget.is_exceeded());
    let before = budget.held();
    append(&mut writer, &[&[0; 500]]);
    assert!(budget.held() <= before, "{} after {before}", budget.held());
    writer.trim_to_budget();
    assert!(!budget.is_nearly_met() && budget.trimmed() > 0);
    assert_eq!(log.lag(log.oldest().offset, 0).0, log.retained().1);
    // One that nobody has read for long goes as a whole.
    let other = Account::of(&budget);
    other.charge(10_000);
    writer.trim_to_budget();
    assert_eq!((log.retained(), log.oldest()), ((0, 0), log.tail()));
    drop((log, writer));
    assert_eq!(budget.held(), 10_000);
}

#[test]
fn form_written_after_the_trim_is_not_charged() {
    let budget = Budget::new(u64::MAX);
    let (log, mut writer) = log_within(Epoch::random(), roomy(), &budget);
    append(&mut writer, &[&[0; 500]]);
    let segment = log.ring.load().slot(1).load_full().expect("it is retained");
    writer.remove_while(|_, _| true);
    assert_eq!(segment.encoded(FORMS[1]).frames.len(), 1000);
    assert_eq!((budget.held(), log.retained()), (0, (0, 0)));
}

#[test]
fn lag_is_what_the_reader_has_not_read() {
    let (log, mut writer) = new(roomy());
    let start = Instant::now();
    append_at(&mut writer, &[b"1", b"2", b"3", b"4", b"5"], start);
    append_at(&mut writer, &[b"6", b"7", b"8"], start + Duration::from_secs(1));
    assert_eq!(log.lag(1, 0), (8, 8));
    assert_eq!(log.lag(6, 5), (3, 3));
    assert_eq!(log.lag(9, 8), (0, 0));
    assert_eq!(log.waiting_since(2), Some(start + Duration::from_secs(1)));
    assert_eq!(log.waiting_since(3), None);
}

/// Segments of one to five messages, each its own offset as two digits, of which the first are no longer retained.
fn numbered(retained: u64) -> (Arc<Log<Text>>, LogWriter<Text>) {
    let (log, mut writer) = new(Retention { messages: retained, ..roomy() });
    let mut next = 1;
    for count in [3, 1, 5, 2, 4, 1, 1, 5, 3].into_iter().cycle().take(20) {
        let texts: Vec<_> = (next..next + count).map(|offset| format!("{offset:02}")).collect();
        append(&mut writer, &texts.iter().map(String::as_bytes).collect::<Vec<_>>());
        next += count;
    }
    (log, writer)
}

fn from(first: u64, tail: u64) -> Vec<u8> {
    (first..tail).flat_map(|offset| format!("{offset:02}").into_bytes()).collect()
}

#[test]
fn every_offset_is_found() {
    let (log, _writer) = numbered(30);
    let (tail, oldest) = (log.tail().offset, log.oldest().offset);
    assert!(oldest > 1 && log.oldest().offset == oldest);
    for offset in oldest..=tail {
        let Seek::Found(cursor) = log.seek(offset) else { panic!("{offset} is retained") };
        assert_eq!(cursor.offset, offset);
        assert_eq!(log.tail().bytes - cursor.bytes, 2 * (tail - offset));
        let (bytes, end) = read_on(&log, cursor).unwrap();
        assert_eq!((bytes, end), (from(offset, tail), log.tail()));
    }
    for offset in 0..oldest {
        assert_eq!(log.seek(offset), Seek::Before(log.oldest()));
    }
    assert_eq!(log.seek(tail + 1), Seek::Beyond(log.tail()));
}

#[test]
fn visit_resumes_where_it_broke() {
    let (log, _writer) = numbered(30);
    let (mut cursor, mut all) = (log.oldest(), Vec::new());
    loop {
        let mut taken = 0;
        let next = log.visit(&cursor, u64::MAX, |entry, meta| {
            if taken == 4 {
                return ControlFlow::Break(());
            }
            taken += 1;
            assert_eq!(entry.message.0, format!("{:02}", meta.position.offset).into_bytes());
            all.extend_from_slice(&entry.message.0);
            ControlFlow::Continue(())
        });
        if taken == 0 {
            break;
        }
        cursor = next.unwrap();
    }
    assert_eq!(all, from(log.oldest().offset, log.tail().offset));
    assert_eq!(
        log.visit(&Cursor::START, u64::MAX, |_, _| ControlFlow::Continue(())),
        None,
        "it is not retained"
    );
}

/// Passes even offsets.
struct Even;

impl Filter<Text> for Even {
    fn passes_all(&self, entries: &[Entry<Text>]) -> bool {
        entries.iter().all(|entry| entry.offset.is_multiple_of(2))
    }

    fn append(&mut self, entry: &Entry<Text>, _: &EventMeta, frame: &[u8], out: &mut BytesMut) {
        if entry.offset.is_multiple_of(2) {
            out.extend_from_slice(frame);
        }
    }
}

#[test]
fn view_filters_in_its_own_form() {
    let (log, _writer) = numbered(30);
    let (oldest, tail) = (log.oldest().offset, log.tail().offset);
    for form in WireForm::ALL {
        let wanted = (oldest..tail).filter(|offset| offset.is_multiple_of(2));
        let wanted: Vec<u8> = wanted.flat_map(|offset| from(offset, offset + 1)).collect();
        let wanted: Vec<u8> = wanted.iter().flat_map(|byte| vec![*byte; form as usize + 1]).collect();
        let mut view = View::filtered(form, Even);
        let (bytes, end) = read_through(&log, log.oldest(), &mut view).unwrap();
        assert_eq!((bytes, end), (wanted, log.tail()));
    }
}

proptest! {
    /// Appends of any size under any bounds, with readers at every place they can have stopped at: each reads a
    /// gap-free run up to the tail, or finds that it is lost; and only those before the oldest retained message are lost.
    #[test]
    fn reader_gets_a_gap_free_run_or_is_lost(
        bytes in 1u64..80_000,
        messages in 1u64..300,
        appends in prop::collection::vec((1usize..12_000, 1usize..4), 1..250),
    ) {
        let (log, mut writer) = new(Retention { bytes, messages, age: FOREVER });
        let mut cursors = vec![log.tail()];
        let mut all = Vec::new();
        for (n, (len, count)) in appends.into_iter().enumerate() {
            let text = vec![n as u8; len];
            for _ in 0..count {
                all.extend_from_slice(&text);
            }
            append(&mut writer, &vec![&text[..]; count]);
            cursors.push(log.tail());
        }
        let (kept_bytes, kept_messages) = log.retained();
        let kept_bytes = kept_bytes - log.ring.load().held();
        let newest = cursors[cursors.len() - 2];
        let only_newest = log.lag(newest.offset, newest.bytes).0 == kept_messages;
        prop_assert!(only_newest || (kept_bytes <= bytes && kept_messages <= messages));
        let first_kept = log.tail().offset - kept_messages;
        for cursor in cursors {
            match read_on(&log, cursor) {
                Some((read, end)) => {
                    prop_assert!(cursor.offset >= first_kept);
                    prop_assert_eq!(&read[..], &all[cursor.bytes as usize..]);
                    prop_assert_eq!(end, log.tail());
                }
                None => prop_assert!(cursor.offset < first_kept),
            }
        }
    }
}

/// The last number that the threads below write and read.
const LAST: u64 = 200_000;

/// Readers on other threads, while the writer appends, trims, grows and shrinks as fast as it can: they read on, start
/// anew in the middle of what is retained, and some use a form that nobody has encoded.
#[test]
fn concurrent_readers_see_every_byte_in_order_or_are_lost() {
    let (log, mut writer) = new(Retention { messages: 500, ..roomy() });
    let read_all = |log: Arc<Log<Text>>, form: WireForm| {
        move || {
            let (mut cursor, mut lost) = (log.tail(), 0);
            while cursor.offset <= LAST {
                match log.read(&cursor, &mut View::all(form), usize::MAX) {
                    Read::Frames(frames, next, _) => {
                        let bytes: Vec<u8> = frames.iter().step_by(form as usize + 1).copied().collect();
                        let numbers = bytes.chunks(8).map(|b| u64::from_be_bytes(b.try_into().unwrap()));
                        assert!(numbers.eq(cursor.offset..next.offset), "a gap or a swap");
                        cursor = next;
                    }
                    Read::Lost => {
                        lost += 1;
                        let (oldest, tail) = (log.oldest(), log.tail());
                        let middle = oldest.offset.midpoint(tail.offset);
                        let (Seek::Found(found) | Seek::Before(found) | Seek::Beyond(found)) =
                            log.seek(middle);
                        assert!(found.offset >= middle);
                        cursor = found;
                    }
                    Read::NeedsCapacity(needed) => panic!("{needed} bytes do not fit"),
                    Read::Empty => std::thread::yield_now(),
                }
            }
            lost
        }
    };
    let readers =
        [FORMS[0], FORMS[0], FORMS[1]].map(|form| std::thread::spawn(read_all(Arc::clone(&log), form)));
    let mut next = 1u64;
    while next <= LAST {
        let batch = next..(next + 1 + next % 7).min(LAST + 1);
        let texts: Vec<_> = batch.clone().map(u64::to_be_bytes).collect();
        append(&mut writer, &texts.iter().map(|text| &text[..]).collect::<Vec<_>>());
        next = batch.end;
    }
    for reader in readers {
        reader.join().unwrap();
    }
}

/// Passes even offsets, each twice.
struct Evens;

impl Filter<Text> for Evens {
    fn passes_all(&self, _: &[Entry<Text>]) -> bool {
        false
    }

    fn append(&mut self, entry: &Entry<Text>, _: &EventMeta, frame: &[u8], out: &mut BytesMut) {
        if entry.offset.is_multiple_of(2) {
            out.extend_from_slice(frame);
            out.extend_from_slice(frame);
        }
    }
}

fn append_places(writer: &mut LogWriter<Text>, messages: &[(usize, bool)]) {
    let mut offset = writer.next_offset();
    let entries = messages.iter().map(|(len, placed)| {
        let sequencing = if *placed { Sequencing::Assigned } else { Sequencing::Ephemeral };
        let entry = Entry { offset, sequencing, message: Text(vec![offset as u8; *len]) };
        offset += u64::from(*placed);
        entry
    });
    let entries = entries.collect();
    let now = Instant::now();
    writer.append(entries, primary_only(), now, now);
}

proptest! {
    /// Whatever capacity each read has, the same bytes come in the same order, cut between messages only.
    #[test]
    fn reads_fit_their_capacity_and_add_up_to_the_whole(
        segments in prop::collection::vec(prop::collection::vec((1usize..3000, prop::bool::weighted(0.8)), 1..12), 1..12),
        capacities in prop::collection::vec(0usize..12_000, 1..40),
        selects in any::<bool>(),
    ) {
        let (log, mut writer) = new(roomy());
        for messages in &segments {
            append_places(&mut writer, messages);
        }
        let view = || if selects { View::filtered(FORMS[0], Evens) } else { View::all(FORMS[0]) };
        let (all, end) = read_through(&log, Cursor::START, &mut view()).expect("nothing is trimmed");
        let (mut bytes, mut cursor, mut view) = (Vec::new(), Cursor::START, view());
        let mut capacities = capacities.into_iter().cycle();
        let mut capacity = 0;
        while cursor != end {
            match log.read(&cursor, &mut view, capacity) {
                Read::Frames(frames, next, _) => {
                    prop_assert!(frames.len() <= capacity, "{} bytes in {capacity}", frames.len());
                    prop_assert!((next.segment, next.offset) > (cursor.segment, cursor.offset), "no progress");
                    bytes.extend_from_slice(&frames);
                    cursor = next;
                    capacity = capacities.next().unwrap_or(1);
                }
                Read::NeedsCapacity(needed) => {
                    prop_assert!(needed > capacity);
                    capacity = needed;
                }
                other => panic!("{other:?}"),
            }
        }
        prop_assert_eq!(bytes, all);
        prop_assert_eq!(log.read(&cursor, &mut view, 1), Read::Empty);
    }
}
