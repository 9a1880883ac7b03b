//! Appending, attesting, reading, releasing.

use std::{fs, thread};

use bytes::Bytes;
use sigillo_model::{block::BlockBuilder, ids::Epoch};
use sigillo_spool::{Frame, MARKS_MAX, Marks, Options, Place, Spool, SpoolError, open};

use crate::support::*;

#[test]
fn what_is_appended_is_read_in_order() {
    let folder = Folder::new();
    assert!(folder.open().spool.is_none());
    let mut spool = folder.create();
    assert_eq!(spool.append(&mut block(["a", "b"]), &[mark("f", "2")]).unwrap(), Place { epoch: EPOCH, end: seq(2) });
    assert_eq!(read_from(&spool, 0, 0), [], "nothing is durable yet");
    spool.release(EPOCH, seq(2), u64::MAX).unwrap();
    assert_eq!(spool.state().released, seq(0), "what is not durable can't have been acknowledged");
    spool.attest(100, seen()).unwrap();
    spool.append(&mut block(["c"]), &[mark("f", "3"), mark("g", "1")]).unwrap();
    assert_eq!(read_from(&spool, 0, 0), [batch(0, &["a", "b"]), Read::Head(100)]);
    // The clock was set back.
    spool.attest(50, seen()).unwrap();
    let whole = [batch(0, &["a", "b"]), Read::Head(100), batch(2, &["c"]), Read::Head(101)];
    assert_eq!(read_from(&spool, 0, 0), whole);
    assert_eq!(read_from(&spool, 2, 0), [&whole[1..2], &whole[2..]].concat());
    assert_eq!(read_from(&spool, 2, 100), whole[2..]);
    assert_eq!(read_from(&spool, 3, 101), []);
    let marks = Marks::from([mark("f", "3"), mark("g", "1")]);
    assert_eq!(*spool.marks(), marks);
    let state = spool.state();
    drop(spool);
    let spool = folder.reopen();
    assert_eq!(spool.state(), state);
    assert_eq!((read_from(&spool, 0, 0), spool.marks()), (whole.to_vec(), &marks));
}

#[test]
fn marks_are_kept_and_forgotten_with_and_without_records() {
    let folder = Folder::new();
    let mut spool = folder.create();
    let nothing = || BlockBuilder::default();
    spool.append(&mut nothing(), &[mark("a", "1"), mark("b", "1")]).unwrap();
    spool.append(&mut block(["x"]), &[mark("a", ""), mark("c", "2")]).unwrap();
    spool.append(&mut nothing(), &[]).unwrap();
    spool.sync().unwrap();
    assert_eq!(read_from(&spool, 0, 0), [batch(0, &["x"])]);
    drop(spool);
    assert_eq!(*folder.reopen().marks(), Marks::from([mark("b", "1"), mark("c", "2")]));
}

#[test]
fn marks_keep_their_bounds() {
    let folder = Folder::new();
    let mut spool = folder.create();
    let mut refused = |marks: &[_]| {
        let mut kept = block(["x"]);
        let refused = matches!(spool.append(&mut kept, marks), Err(SpoolError::Mark(_)));
        assert!(!refused || kept.count() == 1);
        refused
    };
    assert!(refused(&[mark("", "1")]));
    assert!(refused(&[mark(&"k".repeat(4_097), "1")]));
    assert!(refused(&[mark("k", &"v".repeat(4_097))]));
    let many: Vec<_> = (0..MARKS_MAX).map(|number| mark(&format!("{number}"), "1")).collect();
    assert!(!refused(&many));
    assert!(refused(&[mark("one more", "1")]));
    assert!(!refused(&[mark("one more", "1"), mark("7", "")]));
    // Each for itself is small, all together are not.
    let large = |key: &str| (key.into(), Bytes::from(vec![b'x'; 4_096]));
    let large: Vec<_> = (0..1_000).map(|number| large(&format!("{}", number + 8))).collect();
    assert!(
        !refused(&large)
            && refused(&large.iter().map(|(key, value)| (format!("{key}0").into(), value.clone())).collect::<Vec<_>>())
    );
    spool.sync().unwrap();
    let marks = spool.marks().clone();
    drop(spool);
    assert_eq!(*folder.reopen().marks(), marks);
}

#[test]
fn segments_follow_each_other_and_go_when_they_are_released() {
    let folder = Folder::new();
    let mut spool = folder.create();
    let mut expected = Vec::new();
    for number in 0..40 {
        let line = noise(number, 10_000);
        spool.append(&mut block([&line]), &[mark("f", &number.to_string())]).unwrap();
        expected.push(Read::Batch(number, vec![line]));
        if number % 10 == 9 {
            spool.attest(number, seen()).unwrap();
            expected.push(Read::Head(number));
        }
    }
    assert_eq!(folder.segments().len(), 6);
    assert_eq!(read_from(&spool, 0, 0), expected);
    let mut behind = spool.reader();
    behind.seek(EPOCH, seq(0), 0).unwrap();
    assert!(matches!(behind.next(), Ok(Some(Frame::Batch(batch))) if batch.first == seq(0)));
    // Heads keep their segment until they are acknowledged, too.
    spool.release(EPOCH, seq(22), 8).unwrap();
    assert_eq!((folder.segments().len(), spool.state().first_retained), (5, seq(7)));
    spool.release(Epoch::new(4), seq(40), 40).unwrap();
    spool.release(EPOCH, seq(22), 19).unwrap();
    assert_eq!((folder.segments().len(), spool.state().first_retained), (3, seq(21)));
    assert!(matches!(spool.reader().seek(EPOCH, seq(20), 0), Err(SpoolError::NotHere { .. })));
    assert!(matches!(spool.reader().seek(EPOCH, seq(41), 0), Err(SpoolError::NotHere { .. })));
    assert!(matches!(spool.reader().seek(Epoch::new(6), seq(30), 0), Err(SpoolError::NotHere { .. })));
    let state = spool.state();
    assert_eq!(state.bytes, folder.segments().iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>());
    let rest = &expected[22 + 2..];
    assert_eq!(read_from(&spool, 22, 19), rest);
    // A reader goes on in the file that it has open, and then behind what was released.
    let firsts = std::iter::from_fn(|| behind.next().unwrap()).map(|frame| match frame {
        Frame::Batch(batch) => batch.first.get(),
        Frame::Head { .. } => 1_000,
    });
    assert!(firsts.take(6).eq(1..=6));
    drop(spool);
    let spool = folder.reopen();
    assert_eq!(read_from(&spool, 22, 19), rest);
    assert_eq!(spool.state(), sigillo_spool::State { released: seq(21), oldest_ns: spool.state().oldest_ns, ..state });
}

#[test]
fn the_key_that_is_due_is_found_at_any_time() {
    let folder = Folder::new();
    let mut spool = folder.create();
    let mut keys = vec![(0, spool.key_after(0).unwrap())];
    for number in 1..30 {
        spool.append(&mut block([noise(number, 5_000)]), &[]).unwrap();
        spool.attest(number * 10, seen()).unwrap();
        keys.push((number * 10, spool.key_after(u64::MAX).unwrap()));
    }
    for (time, key) in &keys {
        assert_eq!(spool.key_after(*time).unwrap(), *key);
        assert_eq!(spool.reader().key_after(time + 9).unwrap(), *key);
    }
    spool.release(EPOCH, seq(20), 200).unwrap();
    let retained = spool.key_after(0).unwrap();
    let place = keys.iter().position(|(_, key)| *key == retained).unwrap();
    assert!((1..=20).contains(&place), "the key of the first head that is retained: {place}");
}

#[test]
fn what_is_full_takes_nothing_until_something_is_released() {
    let folder = Folder::new();
    let options = Options { segment_bytes: 8 << 20, max_bytes: 16 << 20, ..Options::new(folder.path()) };
    let mut spool = Spool::create(&options, identity(), EPOCH, None, Marks::new()).unwrap();
    let lines = |number: u64| (0..4).map(move |line| noise(number * 4 + line, 1 << 20));
    let mut number = 0;
    let mut kept = loop {
        let mut lines = block(lines(number));
        match spool.append(&mut lines, &[mark("n", &number.to_string())]) {
            Ok(_) => number += 1,
            Err(error) => {
                assert!(error.is_full());
                break lines;
            }
        }
    };
    assert_eq!((number, kept.count()), (3, 4), "the records are where they were");
    assert_eq!(spool.marks()["n"], "2");
    // A head still finds room.
    spool.attest(1, seen()).unwrap();
    assert!(spool.append(&mut kept, &[]).unwrap_err().is_full());
    spool.release(EPOCH, seq(12), 1).unwrap();
    let place = spool.append(&mut kept, &[mark("n", "3")]).unwrap();
    assert_eq!((place.end, kept.count()), (seq(16), 0));
    spool.sync().unwrap();
    assert_eq!(read_from(&spool, 12, 1), [Read::Batch(12, lines(3).collect())]);
    // Even if all of it lies in one segment.
    for number in 4..12 {
        spool.append(&mut block(lines(number)), &[]).unwrap();
        spool.sync().unwrap();
        spool.release(EPOCH, seq(number * 4 + 4), 1).unwrap();
    }
    assert!(spool.state().bytes <= 16 << 20);
}

#[test]
fn a_reader_on_another_thread_sees_everything_once() {
    let folder = Folder::new();
    let mut spool = folder.create();
    let mut reader = spool.reader();
    reader.seek(EPOCH, seq(0), 0).unwrap();
    let mut key = spool.key_after(0).unwrap();
    let last = 400;
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        while all.last().is_none_or(|read| *read != Read::Head(last)) {
            all.extend(drain(&mut reader, &identity(), EPOCH, None, &mut key));
            thread::yield_now();
        }
        all
    });
    for number in 0..=last {
        spool.append(&mut block([noise(number, 1_000)]), &[]).unwrap();
        match number % 10 {
            0 => spool.attest(number, seen()).unwrap(),
            5 => drop(spool.sync().unwrap()),
            _ => {}
        }
    }
    let expected = (0..=last).flat_map(|number| {
        let batch = Read::Batch(number, vec![noise(number, 1_000)]);
        // A head's time is greater than that of the one before.
        [Some(batch), (number % 10 == 0).then_some(Read::Head(number.max(1)))].into_iter().flatten()
    });
    assert_eq!(reading.join().unwrap(), expected.collect::<Vec<_>>());
}

#[test]
fn a_second_process_is_kept_out() {
    let folder = Folder::new();
    let spool = folder.create();
    assert!(matches!(open(&folder.options()), Err(SpoolError::Locked(_))));
    drop(spool);
    let again = Spool::create(&folder.options(), identity(), EPOCH, None, Marks::new());
    assert!(matches!(again, Err(SpoolError::Exists(_))));
    let bad = Options { max_bytes: 1, ..folder.options() };
    assert!(matches!(open(&bad), Err(SpoolError::Options(_))));
}
