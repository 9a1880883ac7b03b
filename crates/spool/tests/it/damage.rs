//! What was durable and is not what it was: found at the opening, and what is intact is carried over.

use std::{fs, path::PathBuf};

use proptest::prelude::*;
use sigillo_model::ids::Epoch;
use sigillo_spool::{Lost, Spool, SpoolError, set_aside};

use crate::support::*;

const NEW: Epoch = Epoch::new(9);

fn small() -> Folder {
    let folder = Folder::new();
    let mut spool = folder.create();
    for number in 0..4 {
        spool.append(&mut block([format!("line {number}")]), &[mark("f", &number.to_string())]).unwrap();
        spool.sync().unwrap();
    }
    spool.attest(7, seen()).unwrap();
    folder
}

fn large() -> Folder {
    let folder = Folder::new();
    let mut spool = folder.create();
    for number in 0..40 {
        spool.append(&mut block([noise(number, 10_000)]), &[mark("f", &number.to_string())]).unwrap();
    }
    spool.attest(7, seen()).unwrap();
    folder
}

/// Which lines are there after what is intact was carried over; they are read and checked twice.
fn salvage(mut spool: Spool, folder: &Folder) -> Vec<Vec<u8>> {
    assert!(matches!(spool.append(&mut block(["x"]), &[]), Err(SpoolError::Damaged)));
    assert!(matches!(spool.attest(1, seen()), Err(SpoolError::Damaged)));
    let next = spool.state().head_time_ns;
    spool.rechain(identity(), NEW, None, (EPOCH, seq(0)), false, (0, seen())).unwrap();
    let read = read_from(&spool, 0, next);
    spool.append(&mut block(["after"]), &[]).unwrap();
    spool.attest(8, seen()).unwrap();
    let again = read_from(&spool, 0, next);
    assert_eq!(again.len(), read.len() + 2);
    drop(spool);
    assert_eq!(read_from(&folder.reopen(), 0, next), again);
    read.into_iter().flat_map(|read| if let Read::Batch(_, lines) = read { lines } else { Vec::new() }).collect()
}

#[test]
fn every_flipped_byte_is_found_and_costs_its_own_batch_alone() {
    let folder = small();
    let segment = fs::read(&folder.segments()[0]).unwrap();
    let all: Vec<Vec<u8>> = (0..4).map(|number| format!("line {number}").into_bytes()).collect();
    for at in 0..segment.len() {
        let copy = folder.copy();
        let mut bytes = segment.clone();
        bytes[at] ^= 0x41;
        fs::write(&copy.segments()[0], bytes).unwrap();
        let opened = copy.open();
        let damage = opened.damage.expect("found");
        let Some(spool) = opened.spool else {
            // The only header.
            let aside = set_aside(&copy.options()).unwrap();
            assert!(aside.exists() && copy.open().spool.is_none());
            copy.create();
            continue;
        };
        let lost: Vec<u64> = damage.lost.iter().filter(|lost| lost.to.is_some()).map(|lost| lost.from.get()).collect();
        let left = salvage(spool, &copy);
        let expected = all.iter().enumerate().filter(|(index, _)| !lost.contains(&(*index as u64)));
        assert_eq!(left, expected.map(|(_, line)| line.clone()).collect::<Vec<_>>(), "byte {at}: {damage:?}");
        assert!(lost.len() <= 1);
    }
}

#[test]
fn every_flipped_byte_of_the_key_is_found_or_makes_no_difference() {
    let folder = small();
    let key = fs::read(folder.path().join("head-key")).unwrap();
    let mut found = 0;
    for at in 0..key.len() {
        let copy = folder.copy();
        let mut bytes = key.clone();
        bytes[at] ^= 0x41;
        fs::write(copy.path().join("head-key"), bytes).unwrap();
        let opened = copy.open();
        if opened.damage.is_some() {
            found += 1;
            assert_eq!(salvage(opened.spool.unwrap(), &copy).len(), 4);
        } else {
            opened.spool.unwrap().attest(9, seen()).unwrap();
        }
    }
    assert_eq!(found, 48);
    fs::remove_file(folder.path().join("head-key")).unwrap();
    assert!(folder.open().damage.is_some());
}

#[test]
fn a_cut_below_the_last_head_is_found() {
    let folder = small();
    let segment = fs::read(&folder.segments()[0]).unwrap();
    for length in 0..segment.len() {
        let copy = folder.copy();
        fs::write(&copy.segments()[0], &segment[..length]).unwrap();
        let opened = copy.open();
        assert!(opened.damage.is_some(), "{length}");
    }
}

/// What is done to the segments, what is then lost, and how many lines are left.
type Case = (&'static str, fn(&[PathBuf], &Folder), &'static [(u64, Option<u64>)], usize);

#[test]
fn segments_that_are_missing_swapped_or_old_are_found() {
    let cases: [Case; 6] = [
        ("missing", |paths, _| fs::remove_file(&paths[2]).unwrap(), &[(14, Some(21))], 33),
        ("the last is missing", |paths, _| fs::remove_file(&paths[5]).unwrap(), &[(35, None)], 35),
        (
            "swapped",
            |paths, folder| {
                let aside = folder.path().join("aside");
                fs::rename(&paths[1], &aside).unwrap();
                fs::rename(&paths[2], &paths[1]).unwrap();
                fs::rename(&aside, &paths[2]).unwrap();
            },
            &[(7, Some(21))],
            26,
        ),
        (
            "an older copy",
            |paths, _| {
                let bytes = fs::read(&paths[3]).unwrap();
                fs::write(&paths[3], &bytes[..bytes.len() - 15_000]).unwrap();
            },
            &[(26, Some(28))],
            38,
        ),
        ("emptied", |paths, _| fs::write(&paths[3], []).unwrap(), &[(21, Some(28))], 33),
        (
            "grown",
            |paths, _| {
                let mut bytes = fs::read(&paths[3]).unwrap();
                bytes.extend(fs::read(&paths[4]).unwrap());
                fs::write(&paths[3], bytes).unwrap();
            },
            &[],
            40,
        ),
    ];
    for (name, act, lost, left) in cases {
        let folder = large();
        act(&folder.segments(), &folder);
        let opened = folder.open();
        let damage = opened.damage.expect(name);
        let lost: Vec<Lost> =
            lost.iter().map(|(from, to)| Lost { epoch: EPOCH, from: seq(*from), to: to.map(seq) }).collect();
        assert_eq!(damage.lost, lost, "{name}: {damage:?}");
        assert_eq!(salvage(opened.spool.unwrap(), &folder).len(), left, "{name}: {damage:?}");
    }
}

#[test]
fn a_spool_of_another_time_is_found_by_its_key() {
    let folder = large();
    let old = folder.copy();
    let mut spool = folder.reopen();
    spool.append(&mut block(["more"]), &[]).unwrap();
    spool.attest(100, seen()).unwrap();
    drop(spool);
    fs::copy(folder.path().join("head-key"), old.path().join("head-key")).unwrap();
    let damage = old.open().damage.unwrap();
    assert_eq!(damage.lost, [Lost { epoch: EPOCH, from: seq(40), to: None }]);
}

#[test]
fn what_rots_while_it_is_read_is_not_sent() {
    let folder = large();
    let spool = folder.reopen();
    let mut reader = spool.reader();
    reader.seek(EPOCH, seq(0), 0).unwrap();
    let path = &folder.segments()[1];
    let mut bytes = fs::read(path).unwrap();
    bytes[1_000] ^= 1;
    fs::write(path, bytes).unwrap();
    let error = std::iter::repeat_with(|| reader.next()).find_map(Result::err).unwrap();
    assert!(matches!(error, SpoolError::Rotten { segment: 2, .. }), "{error}");
}

/// Bytes of one of the frames of [`large`], which are alike but for the digits of their marks.
fn frame_bytes(folder: &Folder) -> usize {
    let bytes = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let header =
        u64::from(u32::from_be_bytes(fs::read(&folder.segments()[2]).unwrap()[16..20].try_into().unwrap())) + 28;
    usize::try_from((bytes(&folder.segments()[2]) - header) / 7).unwrap()
}

#[test]
fn what_another_spool_holds_in_the_same_place_is_found() {
    let (folder, other) = (large(), Folder::new());
    let mut spool = other.create();
    for number in 0..40 {
        // The same lengths, other bytes.
        spool.append(&mut block([noise(number + 100, 10_000)]), &[mark("f", &number.to_string())]).unwrap();
    }
    spool.attest(7, seen()).unwrap();
    drop(spool);
    let (ours, theirs) = (folder.segments(), other.segments());
    let whole = |paths: &[PathBuf], index: usize| fs::read(&paths[index]).unwrap();
    assert_eq!(whole(&ours, 2).len(), whole(&theirs, 2).len());
    // A whole segment; one frame, its last and one in the middle; the last segment; its head alone.
    let frame = frame_bytes(&folder);
    let (all, last) = (whole(&ours, 2).len(), whole(&ours, 5).len());
    for (index, from, to) in
        [(2, 0, all), (2, all - frame, all), (2, all - 3 * frame, all - 2 * frame), (5, 0, last), (5, last - 600, last)]
    {
        let copy = folder.copy();
        let mut bytes = whole(&ours, index);
        bytes[from..to].copy_from_slice(&whole(&theirs, index)[from..to]);
        fs::write(&copy.segments()[index], bytes).unwrap();
        assert!(copy.open().damage.is_some(), "segment {index} from {from}");
    }
}

/// What is done to one of the files.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Overwrite(usize, usize),
    Cut(usize),
    Insert(usize, usize),
    Remove(usize, usize),
    /// The first of so many zeros, as a disk gives them.
    Zeros(usize, usize),
    Delete,
    /// Another file's bytes.
    Copy(usize),
    /// Renamed to the number after the last.
    Beyond,
}

fn harm() -> impl Strategy<Value = (usize, Harm)> {
    let place = || (any::<u16>().prop_map(usize::from), 1_usize..20_000);
    let harm = prop_oneof![
        place().prop_map(|(at, length)| Harm::Overwrite(at, length)),
        place().prop_map(|(at, _)| Harm::Cut(at)),
        place().prop_map(|(at, length)| Harm::Insert(at, length)),
        place().prop_map(|(at, length)| Harm::Remove(at, length)),
        place().prop_map(|(at, length)| Harm::Zeros(at, length)),
        Just(Harm::Delete),
        (0_usize..7).prop_map(Harm::Copy),
        Just(Harm::Beyond),
    ];
    (0_usize..7, harm)
}

fn apply(files: &[PathBuf], (index, harm): (usize, Harm)) {
    let path = &files[index % files.len()];
    let Ok(mut bytes) = fs::read(path) else { return };
    let place = |at: usize, length: usize| {
        let at = at % (bytes.len() + 1);
        at..(at + length).min(bytes.len())
    };
    match harm {
        Harm::Overwrite(at, length) => {
            let place = place(at, length);
            let noise = noise(at as u64, place.len());
            bytes[place].copy_from_slice(&noise);
        }
        Harm::Cut(at) => bytes.truncate(place(at, 0).start),
        Harm::Insert(at, length) => {
            let at = place(at, 0).start;
            bytes.splice(at..at, noise(at as u64, length));
        }
        Harm::Remove(at, length) => {
            let place = place(at, length);
            bytes.drain(place);
        }
        Harm::Zeros(at, length) => {
            let place = place(at, length);
            bytes[place].fill(0);
        }
        Harm::Delete => return fs::remove_file(path).unwrap(),
        Harm::Copy(other) => bytes = fs::read(&files[other % files.len()]).unwrap_or(bytes),
        Harm::Beyond => {
            let last = files.iter().rfind(|path| path.exists());
            let Some(number) = last.and_then(|path| path.file_stem()?.to_str()?.parse::<u64>().ok()) else { return };
            let to = path.with_file_name(format!("{:020}.spool", number + 1));
            return fs::rename(path, to).unwrap();
        }
    }
    fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_done_what_is_left_is_carried_over_once(harms in proptest::collection::vec(harm(), 1..4)) {
        let folder = large();
        let mut files = folder.segments();
        let segments = files.len();
        files.insert(0, folder.path().join("head-key"));
        for harm in harms {
            apply(&files, harm);
        }
        let all: Vec<Vec<u8>> = (0..40).map(|number| noise(number, 10_000)).collect();
        let opened = folder.open();
        let left = match (opened.spool, opened.damage) {
            (Some(spool), Some(_)) => salvage(spool, &folder),
            // Nothing that matters was hit, or the oldest segments are missing, which only the journal can tell.
            (Some(spool), None) => {
                let first = spool.state().first_retained.get();
                let read = read_from(&spool, first, 7);
                assert_eq!(read.len(), 40 - usize::try_from(first).unwrap());
                return Ok(());
            }
            (None, damage) => {
                assert!(damage.is_some() || folder.segments().is_empty());
                return Ok(());
            }
        };
        // In order, each at most once, and nothing else.
        let mut rest = all.iter();
        prop_assert!(left.iter().all(|line| rest.any(|other| other == line)), "of {} segments", segments);
    }
}
