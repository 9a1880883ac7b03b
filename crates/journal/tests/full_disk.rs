//! A disk that is really full: RocksDB meets it in the middle of a write, and ingest resumes by itself when there is room.

use std::{fs, path::Path, process::Command};

use sigillo_journal::{Direction, Journal, Options, Receipt, Submission, SubmitError, TenantRun, verify};
use sigillo_model::{
    batch::{self, Batch},
    block::{BlockBuilder, Inflater},
    class::Class,
    envelope::Flags,
    ids::{BatchHash, BatchSecret, Epoch, Origin, ReceiptTime, SourceId, SourceSeq, TenantId},
    record::RecordRef,
};

const EPOCH: Epoch = Epoch::new(1);

/// A file system of its own, of a fixed size; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn new(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn ingest_resumes_when_there_is_room() {
    let Some(disk) = SmallDisk::new(160) else {
        std::io::Write::write_all(
            &mut std::io::stdout(),
            b"SKIPPED: a file system of a fixed size can't be mounted here (this takes root)\n",
        )
        .unwrap();
        return;
    };
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 64 << 20]).unwrap();
    let mut options = Options::new(disk.path(), Origin::new("full.example").unwrap());
    // Without a reserve, so that the database meets the full disk itself.
    options.reserve_bytes = 0;
    let journal = Journal::open(&options).unwrap().journal;

    let source = SourceId::from_name("web-1");
    let mut head = journal.epoch_opening(source, EPOCH);
    let mut next = SourceSeq::new(0);
    let mut receipts: Vec<Receipt> = Vec::new();
    let mut refusals = 0;
    let submission = loop {
        let submission = batch_of(source, next, head, receipts.len());
        match journal.submit(submission.clone()).await {
            Ok(receipt) => {
                (next, head, refusals) = (submission.batch.end(), submission.batch.hash, 0);
                receipts.push(receipt);
            }
            // The database gives up while some room is left, finds it when opened anew, and goes on for a while.
            Err(SubmitError::NoSpace { .. }) if refusals < 2 => refusals += 1,
            Err(SubmitError::NoSpace { .. }) => break submission,
            Err(error) => panic!("{error}"),
        }
        assert!(receipts.len() < 400, "the disk never filled up");
    };
    assert!(receipts.len() > 10, "only {} batches fitted", receipts.len());

    // While it is full, reads go on and nothing is taken.
    let reader = journal.reader();
    assert_eq!(reader.entries(0..u64::MAX, Direction::Forward).map(Result::unwrap).count(), receipts.len());
    assert!(matches!(journal.submit(submission.clone()).await, Err(SubmitError::NoSpace { .. })));

    fs::remove_file(ballast).unwrap();
    receipts.push(journal.submit(submission).await.unwrap());

    let found: Vec<_> = reader
        .entries(0..u64::MAX, Direction::Forward)
        .map(|stored| stored.unwrap().entry().unwrap().batch_hash)
        .collect();
    let expected: Vec<_> = receipts.iter().map(|receipt| receipt.batch_hash).collect();
    assert_eq!(found, expected);
    drop(reader);
    journal.close().await.unwrap();
    assert_eq!(verify::verify(disk.path(), |_| ()).unwrap().entries, found.len() as u64);
}

/// One record of half a mebibyte that does not compress.
fn batch_of(source: SourceId, first: SourceSeq, previous: BatchHash, number: usize) -> Submission {
    let mut noise = vec![0; 512 << 10];
    let mut state = number as u64 + 1;
    for chunk in noise.chunks_mut(8) {
        // xorshift: any noise will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    let mut builder = BlockBuilder::default();
    builder.push(RecordRef { content: Some(&noise), ..RecordRef::default() }).unwrap();
    let batch = Batch::seal(&mut builder, source, EPOCH, first, previous, BatchSecret::new([1; 32]), 1).unwrap();
    let mut inflater = Inflater::default();
    let commitments = batch::commitments(&batch.secret, &batch.open(&mut inflater).unwrap());
    let runs = vec![TenantRun {
        tenant: TenantId::from_name("provider"),
        retention: Class::Service.retention(),
        flags: Flags::default(),
        records: 1,
    }];
    Submission { source, class: Class::Service.id(), batch, commitments, runs, received: ReceiptTime::new(1) }
}
