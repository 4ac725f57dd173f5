//! The log against a plain list, at every position, over every bound.

use super::*;
use proptest::prelude::*;

const FOREVER: Duration = Duration::from_secs(3600);

fn roomy() -> Retention {
    Retention { bytes: u64::MAX, messages: u64::MAX, age: FOREVER }
}

fn append(writer: &mut LogWriter, text: &str) {
    writer.append(Bytes::copy_from_slice(text.as_bytes()), 1, Instant::now(), Instant::now());
}

/// Reads from `cursor` until the tail, and returns what was read and where it ended.
fn read_on(log: &Log, mut cursor: Cursor) -> Option<(Vec<u8>, Cursor)> {
    let mut bytes = Vec::new();
    loop {
        match log.read(&cursor) {
            Read::Frames(frames, next, _) => {
                assert_eq!(next.bytes - cursor.bytes, frames.len() as u64);
                bytes.extend_from_slice(&frames);
                cursor = next;
            }
            Read::Empty => return Some((bytes, cursor)),
            Read::Lost => return None,
        }
    }
}

#[test]
fn a_new_log_is_empty_and_its_first_message_has_offset_one() {
    let (log, mut writer) = log(roomy());
    assert_eq!(log.tail(), Cursor::START);
    assert_eq!(log.read(&Cursor::START), Read::Empty);
    assert_eq!(writer.next_offset(), 1);
    append(&mut writer, "one");
    assert!(matches!(log.read(&Cursor::START), Read::Frames(..)));
    assert_eq!(log.tail(), Cursor { segment: 2, offset: 2, bytes: 3 });
}

#[test]
fn every_position_reads_exactly_what_comes_after_it() {
    let (log, mut writer) = log(roomy());
    let mut cursors = vec![log.tail()];
    let mut all = Vec::new();
    for n in 0..1000 {
        let text = format!("{n};");
        append(&mut writer, &text);
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
fn one_large_segment_is_shared_and_small_ones_are_joined_up_to_the_frame_limit() {
    let (log, mut writer) = log(roomy());
    let large = Bytes::from(vec![1; COPY_BELOW]);
    writer.append(large.clone(), 10, Instant::now(), Instant::now());
    let small = vec![2; COPY_BELOW - 1];
    for _ in 0..20 {
        writer.append(Bytes::from(small.clone()), 1, Instant::now(), Instant::now());
    }
    let Read::Frames(first, next, _) = log.read(&Cursor::START) else { panic!("the large one") };
    assert_eq!(first.as_ptr(), large.as_ptr());
    assert_eq!(next.offset, 11);
    let Read::Frames(joined, next, _) = log.read(&next) else { panic!("small ones") };
    assert_eq!(joined.len(), FRAME_BYTES_MAX / small.len() * small.len());
    assert_eq!(next.offset, 11 + (joined.len() / small.len()) as u64);
}

#[test]
fn retention_by_messages_keeps_the_newest() {
    let (log, mut writer) = log(Retention { messages: 10, ..roomy() });
    for n in 0..100 {
        append(&mut writer, &format!("{n:02}"));
    }
    assert_eq!(log.retained().1, 10);
    assert_eq!(log.read(&Cursor { segment: 90, offset: 90, bytes: 178 }), Read::Lost);
    let (bytes, _) = read_on(&log, Cursor { segment: 91, offset: 91, bytes: 180 }).unwrap();
    assert_eq!(bytes, b"90919293949596979899");
}

#[test]
fn retention_by_bytes_counts_overheads_and_always_keeps_the_newest() {
    let footprint = 100 + SEGMENT_OVERHEAD;
    let (log, mut writer) = log(Retention { bytes: 3 * footprint, ..roomy() });
    for _ in 0..10 {
        append(&mut writer, &"x".repeat(100));
    }
    assert_eq!(log.retained(), (3 * footprint, 3));
    append(&mut writer, &"y".repeat(5000));
    assert_eq!(log.retained().1, 1, "larger than the bound, yet everyone can still read it");
}

#[test]
fn retention_by_age_empties_the_log_without_a_new_message() {
    let (log, mut writer) = log(Retention { age: Duration::from_secs(10), ..roomy() });
    let start = Instant::now();
    writer.append(Bytes::from_static(b"old"), 1, start, start);
    writer.append(
        Bytes::from_static(b"new"),
        1,
        start + Duration::from_secs(8),
        start + Duration::from_secs(8),
    );
    let old = Cursor::START;
    writer.trim(start + Duration::from_secs(10));
    assert_eq!(log.retained().1, 2, "not older than the bound");
    writer.trim(start + Duration::from_secs(11));
    assert_eq!(log.read(&old), Read::Lost);
    assert_eq!(log.retained().1, 1);
    writer.trim(start + Duration::from_secs(60));
    assert_eq!(log.retained(), (0, 0));
    assert_eq!(log.tail(), Cursor { segment: 3, offset: 3, bytes: 6 });
    assert_eq!(log.read(&log.tail()), Read::Empty);
    assert_eq!(log.waiting_since(1), None, "nothing is left that could wait");
}

#[test]
fn the_ring_grows_with_what_is_retained_and_shrinks_again() {
    let (log, mut writer) = log(Retention { age: Duration::from_secs(10), ..roomy() });
    let start = Instant::now();
    for n in 0..5000u32 {
        writer.append(Bytes::copy_from_slice(&n.to_be_bytes()), 1, start, start);
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
fn lag_is_what_the_reader_has_not_taken() {
    let (log, mut writer) = log(roomy());
    let start = Instant::now();
    writer.append(Bytes::from_static(b"12345"), 5, start, start);
    writer.append(
        Bytes::from_static(b"678"),
        3,
        start + Duration::from_secs(1),
        start + Duration::from_secs(1),
    );
    assert_eq!(log.lag(1, 0), (8, 8));
    assert_eq!(log.lag(6, 5), (3, 3));
    assert_eq!(log.lag(9, 8), (0, 0));
    assert_eq!(log.waiting_since(2), Some(start + Duration::from_secs(1)));
    assert_eq!(log.waiting_since(3), None);
}

proptest! {
    /// Appends of any size under any bounds, with readers at every place they can have stopped at: each reads a
    /// gap-free run up to the tail, or is told that it is lost; and lost are only those before the oldest kept.
    #[test]
    fn a_reader_gets_a_gap_free_run_or_is_told(
        bytes in 1u64..40_000,
        messages in 1u64..300,
        appends in prop::collection::vec((1usize..12_000, 1u64..4), 1..250),
    ) {
        let (log, mut writer) = log(Retention { bytes, messages, age: FOREVER });
        let mut cursors = vec![log.tail()];
        let mut all = Vec::new();
        for (n, (len, count)) in appends.into_iter().enumerate() {
            let frames = vec![n as u8; len];
            all.extend_from_slice(&frames);
            writer.append(Bytes::from(frames), count, Instant::now(), Instant::now());
            cursors.push(log.tail());
        }
        let (kept_bytes, kept_messages) = log.retained();
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

/// Readers on other threads, while the writer appends, trims, grows and shrinks as fast as it can.
#[test]
fn concurrent_readers_see_every_byte_in_order_or_are_told() {
    let (log, mut writer) = log(Retention { messages: 500, ..roomy() });
    let read_all = |log: Arc<Log>| {
        move || {
            let (mut cursor, mut lost) = (log.tail(), 0);
            while cursor.offset <= LAST {
                match log.read(&cursor) {
                    Read::Frames(frames, next, _) => {
                        let numbers = frames.chunks(8).map(|b| u64::from_be_bytes(b.try_into().unwrap()));
                        assert!(numbers.eq(cursor.offset..next.offset), "a gap or a swap");
                        cursor = next;
                    }
                    Read::Lost => {
                        lost += 1;
                        cursor = log.tail();
                    }
                    Read::Empty => std::thread::yield_now(),
                }
            }
            lost
        }
    };
    let readers: Vec<_> = (0..3).map(|_| std::thread::spawn(read_all(Arc::clone(&log)))).collect();
    let mut next = 1u64;
    while next <= LAST {
        let batch = next..(next + 1 + next % 7).min(LAST + 1);
        let frames: Vec<u8> = batch.clone().flat_map(u64::to_be_bytes).collect();
        writer.append(Bytes::from(frames), batch.end - batch.start, Instant::now(), Instant::now());
        next = batch.end;
    }
    for reader in readers {
        reader.join().unwrap();
    }
}
