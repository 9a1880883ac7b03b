use std::fs::OpenOptions;

use sigillo_model::{record::RecordRef, tree};

use super::*;

fn spool(dir: &tempfile::TempDir) -> Spool {
    let identity = Identity { origin: Origin::new("a.example").unwrap(), source: SourceId::from_name("a") };
    let options = Options::new(dir.path().join("spool"));
    Spool::create(&options, identity, Epoch::new(1), None, Marks::new()).unwrap()
}

fn block() -> BlockBuilder {
    let mut block = BlockBuilder::default();
    block.push(RecordRef { content: Some(b"x"), ..RecordRef::default() }).unwrap();
    block
}

/// In place of the segment, a device: what is written there fails, or vanishes and can't be synced.
fn replace(spool: &mut Spool, device: &str) {
    spool.active.file = OpenOptions::new().write(true).open(device).unwrap();
}

#[test]
fn after_a_failed_sync_only_opening_anew_helps() {
    for attest in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = spool(&dir);
        spool.append(&mut block(), &[]).unwrap();
        spool.sync().unwrap();
        let key = spool.key.key().public();
        replace(&mut spool, "/dev/null");
        let place = spool.append(&mut block(), &[]).unwrap();
        assert_eq!(place.end, SourceSeq::new(2));
        let seen = (0, tree::empty());
        let failed = if attest { spool.attest(1, seen) } else { spool.sync().map(drop) };
        assert!(matches!(failed, Err(SpoolError::Io { .. })));
        assert_eq!((spool.state().synced, spool.key.key().public()), (SourceSeq::new(1), key));
        assert!(matches!(spool.sync(), Err(SpoolError::Poisoned)));
        assert!(matches!(spool.attest(1, seen), Err(SpoolError::Poisoned)));
        assert!(matches!(spool.append(&mut block(), &[]), Err(SpoolError::Poisoned)));
        assert!(matches!(spool.release(Epoch::new(1), SourceSeq::new(1), 0), Err(SpoolError::Poisoned)));
        let options = spool.options.clone();
        drop(spool);
        let opened = crate::open(&options).unwrap();
        assert_eq!((opened.damage, opened.spool.unwrap().state().next), (None, SourceSeq::new(1)));
    }
}

#[test]
fn what_can_not_be_cut_back_poisons() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = spool(&dir);
    // It is full, and a device can't be cut.
    replace(&mut spool, "/dev/full");
    let mut kept = block();
    assert!(matches!(spool.append(&mut kept, &[]), Err(SpoolError::Poisoned)));
    assert_eq!(kept.count(), 1);
    assert!(matches!(spool.sync(), Err(SpoolError::Poisoned)));
}

#[test]
fn numbers_end_without_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = spool(&dir);
    spool.tip.next = SourceSeq::new(u64::MAX);
    let mut kept = block();
    assert!(matches!(spool.append(&mut kept, &[]), Err(SpoolError::Overflow(_))));
    assert_eq!(kept.count(), 1);
    spool.tip.head_time_ns = u64::MAX;
    assert!(matches!(spool.attest(1, (0, tree::empty())), Err(SpoolError::Overflow(_))));
    spool.active.number = u64::MAX;
    assert!(matches!(spool.roll(), Err(SpoolError::Overflow(_))));
}

#[test]
fn what_does_not_give_its_hash_is_not_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = spool(&dir);
    for wrong in [false, true, false] {
        let mut batch = spool.seal(&mut block()).unwrap();
        if wrong {
            batch.secret = BatchSecret::new([7; 32]);
        }
        frame::encode_batch(&mut spool.frame, spool.active.spot(), 1, &batch, &[]);
        spool.write().unwrap();
        (spool.tip.next, spool.tip.hash) = (batch.end(), batch.hash);
    }
    let (epoch, from) = (spool.epoch, SourceSeq::new(0));
    let done = spool
        .rechain(
            spool.identity.clone(),
            Epoch::new(2),
            None,
            (epoch, from),
            false,
            (0, (0, sigillo_model::tree::empty())),
        )
        .unwrap();
    assert_eq!((done.batches, spool.state().next), (2, SourceSeq::new(2)));
    let lost = crate::Lost { epoch, from: SourceSeq::new(1), to: Some(SourceSeq::new(2)) };
    assert_eq!(done.damage.lost, [lost]);
}
