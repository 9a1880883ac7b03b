//! What was durable and is not what it was: found at the opening, and what is intact is carried over.

use std::{fs, path::PathBuf};

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
    spool.rechain(identity(), NEW, None, (EPOCH, seq(0)), false).unwrap();
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
