//! The spool in `tests/golden`: what this version writes, and every later one must read.
//!
//! `SIGILLO_BLESS=1` writes it anew. Only a new format version may do that.

use std::{env, fs, path::Path};

use sigillo_model::{block::BlockBuilder, ids::Epoch};
use sigillo_spool::{Marks, Place};

use crate::support::*;

/// From the package's folder, in which cargo runs its tests.
const DIR: &str = "../../tests/golden/v3/spool";

fn write() {
    let folder = Folder::new();
    let mut spool = folder.create();
    spool.append(&mut block(["line 0"]), &[mark("file a", "7"), mark("file b", "1")]).unwrap();
    spool.rechain(identity(), Epoch::new(6), None, (EPOCH, seq(0)), false, (0, seen())).unwrap();
    spool.append(&mut block(["line 1", "line 2"]), &[mark("file a", "21")]).unwrap();
    spool.attest(1_764_000_000_000_000_000, seen()).unwrap();
    spool.append(&mut BlockBuilder::default(), &[mark("file b", "")]).unwrap();
    spool.append(&mut block(["line 3"]), &[mark("file a", "28")]).unwrap();
    spool.sync().unwrap();
    drop(spool);
    fs::remove_file(folder.path().join("lock")).unwrap();
    let _ = fs::remove_dir_all(DIR);
    copy_dir(&folder.path(), Path::new(DIR));
}

#[test]
fn the_golden_spool_is_read_and_written_on() {
    if env::var_os("SIGILLO_BLESS").is_some() {
        write();
    }
    let folder = Folder::new();
    copy_dir(Path::new(DIR), &folder.path());
    let mut spool = folder.reopen();
    let time = 1_764_000_000_000_000_000;
    let mut whole =
        vec![batch(0, &["line 0"]), batch(1, &["line 1", "line 2"]), Read::Head(time), batch(3, &["line 3"])];
    assert_eq!(read_from(&spool, 0, 0), whole);
    assert_eq!(*spool.marks(), Marks::from([mark("file a", "28")]));
    let state = spool.state();
    assert_eq!((state.identity, state.epoch, state.unattested), (identity(), Epoch::new(6), 1));
    assert!(state.oldest_ns > 0);
    let place = spool.append(&mut block(["line 4"]), &[]).unwrap();
    assert_eq!(place, Place { epoch: Epoch::new(6), end: seq(5) });
    spool.attest(0, seen()).unwrap();
    whole.extend([batch(4, &["line 4"]), Read::Head(time + 1)]);
    assert_eq!(read_from(&spool, 0, 0), whole);
}
