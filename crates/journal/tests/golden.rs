//! Journals of every released format, which every later version must open and find intact.
//!
//! `SIGILLO_BLESS=1` writes that of the newest anew. Only a new format version may do that.

use std::{env, fs, path::Path};

use sigillo_journal::{Direction, Journal, Options, Submission, TenantRun, verify};
use sigillo_model::{
    batch::{self, Batch},
    block::{BlockBuilder, Inflater},
    class::Class,
    envelope::Flags,
    ids::{BatchSecret, Epoch, Origin, ReceiptTime, SourceId, SourceSeq, TenantId},
    record::RecordRef,
};

// Relative to the package, in which cargo runs its tests: a path fixed when compiling would be that of another checkout, where
// several share one target directory.
const FIRST: &str = "../../tests/golden/v1/journal";
const SECOND: &str = "../../tests/golden/v2/journal";

/// Both hold the same records: one chain, and one root, though the first format stores none.
const ROOT: &str = "9dcfc12be352aecb2922ad24b37af15851f32ae222d494db4fef455336c5c909";

#[tokio::test]
async fn the_first_format_is_read() {
    is_read(FIRST).await;
}

#[tokio::test]
async fn the_second_format_is_read() {
    if env::var_os("SIGILLO_BLESS").is_some() {
        write(Path::new(SECOND)).await;
    }
    is_read(SECOND).await;
}

async fn is_read(dir: &str) {
    // Opening changes files; a test must not change the golden ones.
    let copy = tempfile::tempdir().unwrap();
    copy_tree(Path::new(dir), copy.path());

    let report = verify::verify(copy.path(), |_| ()).unwrap();
    assert_eq!((report.records, report.entries), (600, 4));
    assert_eq!(report.head.root.to_string(), ROOT);

    let opened = Journal::open(&Options::new(copy.path(), origin())).unwrap();
    assert!(!opened.created && !opened.unclean);
    assert_eq!(opened.journal.head(), report.head);
    let counts: Vec<u32> = opened
        .journal
        .reader()
        .entries(0..u64::MAX, Direction::Forward)
        .map(|stored| stored.unwrap().entry().unwrap().count)
        .collect();
    assert_eq!(counts, [257, 1, 42, 300]);
    opened.journal.close().await.unwrap();
    // Whatever it was, it is of the newest format now.
    assert_eq!(verify::verify(copy.path(), |_| ()), Ok(report));
}

fn origin() -> Origin {
    Origin::new("golden.example/v1").unwrap()
}

async fn write(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
    let journal = Journal::open(&Options::new(dir, origin())).unwrap().journal;
    let plan = [("web-1", 257_u32), ("panel", 1), ("web-1", 42), ("backup-1", 300)];
    for (batch, (name, records)) in (1..).zip(plan) {
        let source = SourceId::from_name(name);
        let epoch = Epoch::new(7);
        let (first, previous) = match journal.source(source) {
            Some(state) => (state.next, state.head),
            None => (SourceSeq::new(0), journal.epoch_opening(source, epoch)),
        };
        let mut builder = BlockBuilder::default();
        for index in 0..records {
            let content = format!("{name} record {index} of batch {batch}");
            let personal = (index % 3 == 0).then_some(b"somebody".as_slice());
            builder.push(RecordRef { core: Some(b"core"), personal, content: Some(content.as_bytes()) }).unwrap();
        }
        let secret = BatchSecret::new([batch; 32]);
        let batch = Batch::seal(&mut builder, source, epoch, first, previous, secret, 1).unwrap();
        let mut inflater = Inflater::default();
        let commitments = batch::commitments(&batch.secret, &batch.open(&mut inflater).unwrap());
        let run = |tenant, records| TenantRun {
            tenant: TenantId::from_name(tenant),
            retention: Class::Service.retention(),
            flags: Flags::default(),
            records,
        };
        let runs = if records > 1 { vec![run("acme", records - 1), run("provider", 1)] } else { vec![run("acme", 1)] };
        let received = ReceiptTime::new(1_764_000_000_000_000_000);
        journal
            .submit(Submission { source, class: Class::Service.id(), batch, commitments, runs, received })
            .await
            .unwrap();
    }
    journal.close().await.unwrap();
    // What the database writes for people and for itself is not part of the format.
    for entry in fs::read_dir(dir.join("journal")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if ["LOG", "LOCK", "IDENTITY", "OPTIONS"].iter().any(|prefix| name.starts_with(prefix)) {
            fs::remove_file(path).unwrap();
        }
    }
    fs::remove_file(dir.join("lock")).unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
