//! A disk that is really full, in the middle of a frame.

use std::{fs, path::Path, process::Command};

use sigillo_spool::{Marks, Options, Spool, open};

use crate::support::*;

/// A file system of its own, of a fixed size; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn new(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        status.is_ok_and(|status| status.success()).then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn skipped() {
    let why = b"SKIPPED: a file system of a fixed size can't be mounted here (this takes root)\n";
    std::io::Write::write_all(&mut std::io::stdout(), why).unwrap();
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_others_fill_is_given_back_what_was_acknowledged() {
    let Some(disk) = SmallDisk::new(2) else {
        skipped();
        return;
    };
    let options = Options { segment_bytes: 8 << 20, max_bytes: 16 << 20, ..Options::new(disk.path().join("spool")) };
    let mut spool = Spool::create(&options, identity(), EPOCH, None, Marks::new()).unwrap();
    let mut next = 0;
    for round in 1..4 {
        while spool.append(&mut block([noise(next, 20_000)]), &[]).is_ok() {
            next += 1;
        }
        fs::write(disk.path().join(format!("others-{round}")), vec![1; 2 << 20]).unwrap_err();
        spool.sync().unwrap();
        // In one segment, which has room for much more.
        spool.release(EPOCH, seq(next), 0).unwrap();
        spool.append(&mut block([noise(next, 20_000)]), &[]).unwrap();
        next += 1;
        let kept = fs::metadata(options.dir.join("reserve")).unwrap().len();
        assert_eq!(kept, 256 << 10, "for the next time");
    }
    assert!(next > 70, "{next}");
    spool.sync().unwrap();
    drop(spool);
    assert_eq!(open(&options).unwrap().spool.unwrap().state().next, seq(next));
}

#[test]
fn a_full_disk_loses_nothing_and_leaves_nothing_half_written() {
    let Some(disk) = SmallDisk::new(2) else {
        skipped();
        return;
    };
    let options = Options { segment_bytes: 256 << 10, max_bytes: 16 << 20, ..Options::new(disk.path().join("spool")) };
    let mut spool = Spool::create(&options, identity(), EPOCH, None, Marks::new()).unwrap();
    let line = |number| noise(number, 50_000);
    let (mut next, mut heads, mut refusals) = (0_u64, 0_u64, 0);
    for round in 0..6 {
        let mut kept = loop {
            let mut kept = block([line(next)]);
            match spool.append(&mut kept, &[mark("n", &next.to_string())]) {
                Ok(_) => next += 1,
                Err(error) => {
                    assert!(error.is_full(), "{error}");
                    break kept;
                }
            }
        };
        refusals += 1;
        assert_eq!(kept.count(), 1);
        spool.sync().unwrap();
        // As it is on the disk now, a frame was not begun.
        if round % 2 == 0 {
            drop(spool);
            let opened = open(&options).unwrap();
            assert_eq!((opened.torn_bytes, opened.damage), (0, None));
            spool = opened.spool.unwrap();
        }
        assert_eq!(spool.state().next, seq(next));
        assert_eq!(spool.marks()["n"], (next - 1).to_string());
        assert!(spool.append(&mut kept, &[]).unwrap_err().is_full());
        // Another epoch needs a segment of room at a time, and there is none.
        if round == 3 {
            let epoch = sigillo_model::ids::Epoch::new(9);
            let before = read_from(&spool, spool.state().first_retained.get(), heads);
            let error = spool.rechain(identity(), epoch, None, (EPOCH, seq(0)), false, (0, seen())).unwrap_err();
            assert!(error.is_full(), "{error}");
            assert_eq!(read_from(&spool, spool.state().first_retained.get(), heads), before);
            let begun = |name: &str| name.contains(".new");
            assert!(
                fs::read_dir(&options.dir).unwrap().all(|entry| !begun(entry.unwrap().file_name().to_str().unwrap()))
            );
        }
        let first = spool.state().first_retained.get();
        let all: Vec<Read> = (first..next).map(|number| Read::Batch(number, vec![line(number)])).collect();
        assert_eq!(read_from(&spool, first, heads), all);
        spool.release(EPOCH, seq(next), heads).unwrap();
        spool.append(&mut kept, &[mark("n", &next.to_string())]).unwrap();
        next += 1;
        heads += 1;
        spool.attest(heads, seen()).unwrap();
        spool.release(EPOCH, seq(next), heads).unwrap();
    }
    assert_eq!(refusals, 6);
    let segments = fs::read_dir(&options.dir).unwrap().count();
    assert!(segments <= 4, "what is released was given back: {segments}");
}
