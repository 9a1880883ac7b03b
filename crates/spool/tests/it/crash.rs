//! What a crash leaves: torn ends, steps that were done in part.

use std::fs;

use sigillo_spool::Marks;

use crate::support::*;

#[test]
fn whatever_of_the_last_segment_is_there_its_whole_frames_are() {
    let folder = Folder::new();
    let mut spool = folder.create();
    let mut ends = Vec::new();
    spool.append(&mut block(["durable"]), &[mark("f", "0")]).unwrap();
    spool.attest(10, seen()).unwrap();
    for number in 1..6 {
        ends.push(spool.state().bytes);
        spool.append(&mut block([format!("line {number}")]), &[mark("f", &number.to_string())]).unwrap();
    }
    let whole = spool.state().bytes;
    for length in ends[0]..whole {
        // Of what was never synced, other pages may be there.
        for filler in [&b""[..], &[0; 100], &noise(length, 300)] {
            let copy = folder.copy();
            let mut bytes = fs::read(&folder.segments()[0]).unwrap();
            bytes.truncate(usize::try_from(length).unwrap());
            bytes.extend(filler);
            fs::write(&copy.segments()[0], bytes).unwrap();
            let opened = copy.open();
            assert_eq!(opened.damage, None, "{length}");
            let there = ends.iter().rposition(|end| *end <= length).unwrap();
            assert_eq!(opened.torn_bytes, length - ends[there] + filler.len() as u64);
            let mut spool = opened.spool.unwrap();
            let mark = there.to_string();
            assert_eq!(*spool.marks(), Marks::from([crate::support::mark("f", &mark)]));
            // And it goes on.
            spool.append(&mut block(["after"]), &[]).unwrap();
            spool.attest(11, seen()).unwrap();
            let read = read_from(&spool, 0, 0);
            assert_eq!(read.len(), there + 4);
            drop(spool);
            assert_eq!(read_from(&copy.reopen(), 0, 0), read);
        }
    }
}

/// What stood before and after something that takes several steps.
struct Steps {
    before: Folder,
    after: Folder,
}

impl Steps {
    fn of(spool: &mut sigillo_spool::Spool, folder: &Folder, act: impl FnOnce(&mut sigillo_spool::Spool)) -> Self {
        let before = folder.copy();
        act(spool);
        Self { before, after: folder.copy() }
    }

    fn mixed(&self, from_before: &str) -> Folder {
        let mixed = self.after.copy();
        fs::copy(self.before.path().join(from_before), mixed.path().join(from_before)).unwrap();
        mixed
    }
}

#[test]
fn the_key_follows_the_head_whenever_a_crash_comes() {
    let folder = Folder::new();
    let mut spool = folder.create();
    spool.append(&mut block(["a"]), &[]).unwrap();
    spool.attest(1, seen()).unwrap();
    spool.append(&mut block(["b"]), &[]).unwrap();
    let steps = Steps::of(&mut spool, &folder, |spool| spool.attest(2, seen()).unwrap());
    let whole = read_from(&spool, 0, 0);

    // The head is durable, the key is still the one that signed it.
    let head_only = steps.mixed("head-key");
    // The next key is durable, the one before not yet overwritten.
    let both = steps.after.copy();
    let [old, new] = [&steps.before, &steps.after].map(|folder| fs::read(folder.path().join("head-key")).unwrap());
    assert!(old.iter().zip(&new).all(|(old, new)| *old == 0 || *new == 0), "one place is zeros");
    let merged: Vec<u8> = old.iter().zip(&new).map(|(old, new)| old | new).collect();
    fs::write(both.path().join("head-key"), &merged).unwrap();
    for crashed in [head_only, both, steps.after.copy()] {
        let mut spool = crashed.reopen();
        assert_eq!(read_from(&spool, 0, 0), whole);
        let key = fs::read(crashed.path().join("head-key")).unwrap();
        assert_eq!(key, new, "the old key is gone");
        spool.attest(3, seen()).unwrap();
        assert_eq!(read_from(&spool, 0, 0).len(), whole.len() + 1);
        drop(spool);
        crashed.reopen();
    }
    // A key that is ahead of the heads means that heads are missing.
    let behind = steps.before.copy();
    fs::write(behind.path().join("head-key"), &new).unwrap();
    assert!(behind.open().damage.is_some());
}

#[test]
fn a_segment_has_its_name_when_it_is_whole() {
    let folder = Folder::new();
    let mut spool = folder.create();
    let fill = |spool: &mut sigillo_spool::Spool| {
        for number in 0..7 {
            spool.append(&mut block([noise(number, 10_000)]), &[mark("f", &number.to_string())]).unwrap();
        }
        spool.sync().unwrap();
    };
    fill(&mut spool);
    let steps = Steps::of(&mut spool, &folder, |spool| {
        spool.append(&mut block(["in the second"]), &[]).unwrap();
    });
    let [first, second] = &steps.after.segments()[..] else { panic!("two segments") };
    let bytes = fs::read(second).unwrap();
    let header = 28 + usize::try_from(u32::from_be_bytes(bytes[16..20].try_into().unwrap())).unwrap();
    for length in 0..=header {
        // Torn while it was made: it is not there.
        let torn = steps.before.copy();
        let name = torn.path().join(second.file_name().unwrap()).with_extension("spool.new");
        fs::write(&name, &bytes[..length]).unwrap();
        let spool = torn.reopen();
        assert_eq!((spool.state().next, name.exists()), (seq(7), false));
    }
    // Made, and nothing in it.
    let made = steps.after.copy();
    fs::write(made.path().join(second.file_name().unwrap()), &bytes[..header]).unwrap();
    let mut spool = made.reopen();
    spool.append(&mut block(["x"]), &[]).unwrap();
    spool.sync().unwrap();
    assert_eq!(read_from(&spool, 7, 0), [batch(7, &["x"])]);
    // A header that is no header any more was one: that is damage.
    fs::write(made.path().join(second.file_name().unwrap()), &bytes[..header - 1]).unwrap();
    drop(spool);
    assert!(made.open().damage.is_some());
    assert!(first.exists());
}

#[test]
fn segments_are_deleted_from_the_oldest_on() {
    let folder = Folder::new();
    let mut spool = folder.create();
    for number in 0..40 {
        spool.append(&mut block([noise(number, 10_000)]), &[]).unwrap();
    }
    spool.attest(1, seen()).unwrap();
    let steps = Steps::of(&mut spool, &folder, |spool| spool.release(EPOCH, seq(40), 1).unwrap());
    assert_eq!(steps.after.segments().len(), 1);
    for gone in 0..steps.before.segments().len() {
        let crashed = steps.before.copy();
        crashed.segments().iter().take(gone).for_each(|path| fs::remove_file(path).unwrap());
        let spool = crashed.reopen();
        assert_eq!(spool.state().first_retained, seq(7 * gone as u64));
        assert_eq!(read_from(&spool, 38, 0).len(), 3);
    }
}

#[test]
fn pages_of_what_was_never_synced_may_be_there_in_any_order() {
    let folder = Folder::new();
    let mut spool = folder.create();
    spool.append(&mut block(["durable"]), &[]).unwrap();
    spool.sync().unwrap();
    let synced = usize::try_from(spool.state().bytes).unwrap();
    for number in 0..3 {
        spool.append(&mut block([noise(number, 5_000)]), &[]).unwrap();
    }
    let written = fs::read(&folder.segments()[0]).unwrap();
    // The first page of them is missing, the others are there.
    let mut bytes = written.clone();
    bytes[synced..synced + 4_096].fill(0);
    let copy = folder.copy();
    fs::write(&copy.segments()[0], &bytes).unwrap();
    let opened = copy.open();
    assert_eq!((opened.damage, opened.torn_bytes), (None, (written.len() - synced) as u64));
    assert_eq!(read_from(&opened.spool.unwrap(), 0, 0), [batch(0, &["durable"])]);
    // Once they were synced, a later frame tells.
    spool.sync().unwrap();
    spool.append(&mut block(["after"]), &[]).unwrap();
    drop(spool);
    let mut bytes = fs::read(&folder.segments()[0]).unwrap();
    bytes[synced..synced + 4_096].fill(0);
    fs::write(&folder.segments()[0], &bytes).unwrap();
    assert!(folder.open().damage.is_some());
}
