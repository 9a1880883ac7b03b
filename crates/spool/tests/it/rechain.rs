//! The same records in another epoch or journal, whenever a crash comes.

use std::fs;

use sigillo_model::{
    batch::epoch_opening,
    ids::{BatchHash, Epoch, Origin},
};
use sigillo_spool::{Frame, Identity, Marks, Options, Spool, SpoolError};

use crate::support::*;

const NEW: Epoch = Epoch::new(9);

fn filled(folder: &Folder) -> Spool {
    let mut spool = folder.create();
    for number in 0..40 {
        spool
            .append(&mut block([noise(number, 10_000)]), &[mark(&format!("f{}", number % 3), &number.to_string())])
            .unwrap();
        if number % 15 == 14 {
            spool.attest(number, seen()).unwrap();
        }
    }
    spool.sync().unwrap();
    spool
}

/// What was batch `first` and later in the old epoch.
fn carried(first: u64) -> Vec<Read> {
    (first..40).map(|number| Read::Batch(number - first, vec![noise(number, 10_000)])).collect()
}

#[test]
fn the_same_records_follow_in_another_epoch() {
    for (from, skip) in
        [(0, false), (3, false), (7, false), (22, true), (35, true), (39, true), (40, false), (50, false)]
    {
        let folder = Folder::new();
        let mut spool = filled(&folder);
        let (marks, key) = (spool.marks().clone(), spool.key_after(u64::MAX).unwrap());
        let mut reader = spool.reader();
        reader.seek(EPOCH, seq(0), 0).unwrap();
        let before = Some(BatchHash::new([3; 32]));
        let done = spool.rechain(identity(), NEW, before, (EPOCH, seq(from)), skip, (0, seen())).unwrap();
        let first = (from + u64::from(skip)).min(40);
        assert_eq!((done.batches, done.records), (40 - first, 40 - first));
        assert_eq!(done.skipped.map(|batch| (batch.epoch, batch.first)), skip.then_some((EPOCH, seq(from))));
        assert!(matches!(reader.next(), Err(SpoolError::Moved)));
        for round in 0..2 {
            assert_eq!(*spool.marks(), marks);
            assert_eq!(spool.key_after(0).unwrap(), key, "heads go on under the same key");
            let state = spool.state();
            assert_eq!((state.epoch, state.next.get(), state.first_retained.get()), (NEW, 40 - first, 0));
            assert_eq!((state.unattested, state.head_time_ns), (40 - first, 29));
            let mut reader = spool.reader();
            reader.seek(NEW, seq(0), state.head_time_ns).unwrap();
            let opening = epoch_opening(&identity().origin, identity().source, NEW, before);
            let read = drain(&mut reader, &identity(), NEW, Some(opening), &mut key.clone());
            assert_eq!(read, carried(first));
            if round == 0 {
                drop(spool);
                spool = folder.reopen();
            }
        }
        spool.attest(5, seen()).unwrap();
        assert_eq!(spool.state().head_time_ns, 30);
        assert!(spool.rechain(identity(), NEW, None, (NEW, seq(0)), false, (0, seen())).is_err());
    }
}

#[test]
fn heads_are_signed_where_the_journal_would_miss_them() {
    // By their number, and by their bytes.
    for (lines, bytes, at_most) in [(600, 100, 128), (40, 10_000, 5)] {
        let folder = Folder::new();
        let options = Options { segment_bytes: 1 << 20, head_bytes: 50_000, ..folder.options() };
        let mut spool = Spool::create(&options, identity(), EPOCH, None, Marks::new()).unwrap();
        for number in 0..lines {
            spool.append(&mut block([noise(number, bytes)]), &[]).unwrap();
        }
        spool.sync().unwrap();
        let key = spool.key_after(0).unwrap();
        let key_file = fs::read(folder.path().join("head-key")).unwrap();
        spool.rechain(identity(), NEW, None, (EPOCH, seq(0)), false, (70, seen())).unwrap();
        let check = |spool: &Spool| {
            assert_eq!(spool.key_after(0).unwrap(), key, "the first head has the key that was announced");
            let read = read_from(spool, 0, 0);
            let heads: Vec<u64> =
                read.iter().filter_map(|read| if let Read::Head(time) = read { Some(*time) } else { None }).collect();
            assert_eq!(heads, (70..70 + heads.len() as u64).collect::<Vec<_>>());
            let longest = read.split(|read| matches!(read, Read::Head(_))).map(<[Read]>::len).max();
            assert_eq!((read.len(), longest), (heads.len() + usize::try_from(lines).unwrap(), Some(at_most)));
        };
        check(&spool);
        // A crash when the segment is durable, and before its keys are destroyed.
        drop(spool);
        assert_ne!(fs::read(folder.path().join("head-key")).unwrap(), key_file);
        fs::write(folder.path().join("head-key"), key_file).unwrap();
        let mut spool = folder.reopen();
        check(&spool);
        spool.append(&mut block(["after"]), &[]).unwrap();
        spool.attest(0, seen()).unwrap();
        drop(spool);
        // Its keys continue each other.
        assert!(matches!(read_from(&folder.reopen(), 0, 0).last(), Some(Read::Head(_))));
    }
}

#[test]
fn another_journal_gets_what_is_left() {
    let folder = Folder::new();
    let mut spool = filled(&folder);
    spool.release(EPOCH, seq(20), 14).unwrap();
    let successor = Identity { origin: Origin::new("journal.example.net/2027").unwrap(), ..identity() };
    spool.rechain(successor.clone(), NEW, None, (EPOCH, seq(20)), false, (0, seen())).unwrap();
    assert_eq!(spool.state().identity, successor);
    assert_eq!(read_from(&spool, 0, 29), carried(20));
    assert_eq!(read_from(&folder_after(spool, &folder), 0, 29), carried(20));
}

fn folder_after(spool: Spool, folder: &Folder) -> Spool {
    drop(spool);
    folder.reopen()
}

#[test]
fn a_crash_at_any_step_is_gone_on_with() {
    for (from, skip) in [(0, false), (9, true), (30, false)] {
        let folder = Folder::new();
        let mut spool = filled(&folder);
        let before = folder.copy();
        spool.rechain(identity(), NEW, None, (EPOCH, seq(from)), skip, (0, seen())).unwrap();
        let first = from + u64::from(skip);
        let (old, new) = (before.segments(), folder.segments());
        assert!(new.len() > 1);
        // So many new ones are there, and so many old ones are gone.
        for made in 1..=new.len() {
            // The old segment up to which a new one holds everything.
            let header = fs::read(&new[made - 1]).unwrap();
            let made_from = u64::from_be_bytes(header[28..36].try_into().unwrap());
            let held = |path: &std::path::Path| name(path) <= made_from;
            let held = old.iter().filter(|path| held(path)).count();
            let held_before = if made == 1 {
                0
            } else {
                let header = fs::read(&new[made - 2]).unwrap();
                usize::try_from(u64::from_be_bytes(header[28..36].try_into().unwrap())).unwrap()
            };
            for gone in held_before..=held {
                let crashed = before.copy();
                crashed.segments().iter().take(gone).for_each(|path| fs::remove_file(path).unwrap());
                for path in &new[..made] {
                    fs::copy(path, crashed.path().join(path.file_name().unwrap())).unwrap();
                }
                // And the next one was begun.
                fs::write(crashed.path().join(format!("{:020}.spool.new", name(&new[made - 1]) + 1)), b"sigillo")
                    .unwrap();
                for round in 0..2 {
                    let spool = crashed.reopen();
                    assert_eq!(spool.state().epoch, NEW, "made {made}, gone {gone}, round {round}");
                    assert_eq!(read_from(&spool, 0, 29), carried(first));
                    assert_eq!(spool.marks(), spool_marks(&before).marks());
                    assert_eq!(crashed.segments().len(), new.len());
                }
            }
        }
    }
}

fn spool_marks(folder: &Folder) -> Spool {
    folder.copy().reopen()
}

fn name(path: &std::path::Path) -> u64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn the_batch_that_is_left_out_can_be_written_away_before() {
    let folder = Folder::new();
    let mut spool = filled(&folder);
    let mut reader = spool.reader();
    reader.seek(EPOCH, seq(12), u64::MAX).unwrap();
    let Ok(Some(Frame::Batch(first))) = reader.next() else { panic!("a batch") };
    let done = spool.rechain(identity(), NEW, None, (EPOCH, seq(12)), true, (0, seen())).unwrap();
    assert_eq!(done.skipped, Some(first));
}
