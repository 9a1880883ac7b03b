use std::collections::HashMap;

use sigillo_journal::{Journal, Options};
use sigillo_model::{
    batch::epoch_opening,
    head::HeadKey,
    ids::{NodeHash, Origin},
    statement, tree,
};
use tempfile::TempDir;

use super::*;
use crate::clock::Clock;

const EPOCH: Epoch = Epoch::new(1);

fn origin() -> Origin {
    Origin::new("localhost/heads").unwrap()
}

/// A journal, and what it says of heads.
struct Bench {
    dir: TempDir,
    heads: Heads,
    /// Own records that the start looked at.
    read: u64,
}

impl Bench {
    fn open(dir: TempDir, snapshot_after: u64) -> Self {
        let journal = Journal::open(&Options::new(dir.path(), origin())).unwrap().journal;
        let history = read(&journal.reader()).unwrap();
        let read = history.records;
        let own = Own::start(journal.clone(), Arc::new(Clock::default()), "here");
        Self { dir, heads: Heads { snapshot_after, ..Heads::new(journal, own, history) }, read }
    }

    async fn again(self, snapshot_after: u64) -> Self {
        let before = self.known();
        self.heads.journal.clone().close().await.unwrap();
        let again = Self::open(self.dir, snapshot_after);
        let keys = |known: &HashMap<SourceId, Known>| {
            known.iter().map(|(source, known)| (*source, (known.key, known.time_ns))).collect::<HashMap<_, _>>()
        };
        assert_eq!(keys(&again.known()), keys(&before), "a start knows what the stop knew");
        again
    }

    fn known(&self) -> HashMap<SourceId, Known> {
        let known = |(source, heads): (&SourceId, &Arc<SourceHeads>)| Some((*source, heads.state().known?));
        self.heads.sources().iter().filter_map(known).collect()
    }

    async fn end(self) {
        self.heads.journal.clone().close().await.unwrap();
    }
}

/// A source without batches, which signs all the same.
struct Signer {
    name: String,
    key: HeadKey,
    time_ns: u64,
}

impl Signer {
    async fn register(bench: &Bench, name: &str, seed: u8) -> Self {
        let (name, key) = (name.to_owned(), HeadKey::from_seed([seed; 32]));
        let source = SourceId::from_name(&name);
        let registered = bench.heads.register(source, &name, key.public(), String::new(), || Some(0)).await;
        assert_eq!(registered, Ok(Registered::Now));
        Self { name, key, time_ns: 0 }
    }

    async fn sign(&mut self, bench: &Bench) {
        let note = self.note();
        let source = SourceId::from_name(&self.name);
        let taken = bench.heads.take(source, &self.name, note.as_bytes(), None).await.unwrap();
        assert_eq!(taken, self.time_ns);
    }

    fn note(&mut self) -> String {
        let source = SourceId::from_name(&self.name);
        let next = self.key.clone().ratchet();
        self.time_ns += 1;
        let head = SignedHead {
            origin: origin(),
            source,
            epoch: EPOCH,
            next: SourceSeq::new(0),
            batch_hash: epoch_opening(&origin(), source, EPOCH, None),
            time_ns: self.time_ns,
            seen: (0, tree::empty()),
            next_key: next.public(),
        };
        let note = head.sign(&self.key).unwrap();
        self.key = next;
        note
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_reads_down_to_the_newest_snapshot() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), 8);
    assert_eq!((bench.known().len(), bench.read), (0, 0));
    let mut signers = Vec::new();
    for (seed, name) in [(0, "a"), (1, "b"), (2, "c")] {
        signers.push(Signer::register(&bench, name, seed).await);
    }
    for signer in &mut signers[..2] {
        signer.sign(&bench).await;
    }
    bench.heads.attend().await;
    let bench = bench.again(8).await;
    assert_eq!(bench.read, 5, "no snapshot was due");
    // Four times as many as sources.
    for _ in 0..7 {
        signers[0].sign(&bench).await;
    }
    bench.heads.attend().await;
    signers[1].sign(&bench).await;
    let mut bench = bench.again(8).await;
    assert_eq!(bench.read, 2, "a head and the snapshot before it");
    // They go on with what the snapshot says, and a key that nobody announced counts from its registration.
    for signer in &mut signers {
        signer.sign(&bench).await;
    }
    signers[2] = Signer::register(&bench, "c", 99).await;
    for _ in 0..2 {
        bench = bench.again(u64::MAX).await;
        signers[2].sign(&bench).await;
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_not_whole_ends_no_reading() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), u64::MAX);
    let mut signer = Signer::register(&bench, "a", 1).await;
    signer.sign(&bench).await;
    let key = HeadKey::from_seed([7; 32]).public();
    let known = |number: u32| {
        (SourceId::from_name(&format!("many {number}")), Known { key, time_ns: u64::from(number), covered: None })
    };
    let many = history::snapshot(&origin(), 2, (0..9_000).map(known).collect());
    assert_eq!(many.len(), 3);
    for event in many.iter().take(2).cloned() {
        bench.heads.own.record(event).await.unwrap();
    }
    bench.heads.journal.clone().close().await.unwrap();
    let bench = Bench::open(bench.dir, u64::MAX);
    assert_eq!((bench.read, bench.known().len()), (4, 8_193), "all of it, and the lines of the parts that are there");
    signer.sign(&bench).await;
    // Another one, whole: what is before it is not read.
    for event in history::snapshot(&origin(), 5, bench.known().into_iter().collect()) {
        bench.heads.own.record(event).await.unwrap();
    }
    let bench = bench.again(u64::MAX).await;
    assert_eq!((bench.read, bench.known().len()), (3, 8_193));
    signer.sign(&bench).await;
    bench.end().await;
}

/// On one thread, so that both records wait when the task that writes them looks: they go into one batch.
#[tokio::test]
async fn of_two_records_in_one_batch_the_later_one_counts() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), u64::MAX);
    let mut signer = Signer::register(&bench, "a", 1).await;
    let mut event = || Event::new(history::HEAD).original(signer.note());
    let (first, second) = (event(), event());
    let (first, second) = tokio::join!(bench.heads.own.record(first), bench.heads.own.record(second));
    assert_eq!((first, second), (Ok(()), Ok(())));
    let reader = bench.heads.journal.reader();
    assert_eq!(reader.source_entries_newest_first(own::source()).count(), 2);
    assert_eq!(read(&reader).unwrap().known[&SourceId::from_name("a")].time_ns, signer.time_ns);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_missing_after_so_many_batches_and_so_long() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), u64::MAX);
    let (start, stranger) = (Instant::now(), SourceId::from_name("no key"));
    assert_eq!(bench.heads.count_batch(stranger, start), None);
    let mut signer = Signer::register(&bench, "a", 1).await;
    let source = SourceId::from_name(&signer.name);
    let count = |after: Duration| bench.heads.count_batch(source, start + after);
    let second = Duration::from_secs(1);
    for _ in 0..BATCHES_MAX {
        assert_eq!(count(second), None);
    }
    // No new stream ends it. Who was told may send as many again, and the head among them.
    bench.heads.begin(source).await.unwrap();
    assert_eq!(count(second), Some(Missing { batches: BATCHES_MAX + 1, during: Duration::ZERO }));
    for _ in 0..BATCHES_MAX {
        assert_eq!(count(second), None);
    }
    // A head ends it, also when it says that nothing came.
    signer.sign(&bench).await;
    assert_eq!(count(10 * second), None);
    assert_eq!(count(10 * second + WITHOUT_HEAD_MAX), None);
    // That one was long on its way, and so is a head behind it; this one came although none was.
    assert_eq!(count(11 * second + WITHOUT_HEAD_MAX), None);
    let late = count(11 * second + WITHOUT_HEAD_MAX);
    assert_eq!(late, Some(Missing { batches: 4, during: second + WITHOUT_HEAD_MAX }));
    // Who was away is not late.
    assert_eq!(count(300 * second), None);
    bench.heads.begin(source).await.unwrap();
    assert_eq!(count(500 * second), None);
    assert_eq!(count(501 * second + WITHOUT_HEAD_MAX), None);
    assert!(count(501 * second + WITHOUT_HEAD_MAX).is_some());
    signer.sign(&bench).await;
    assert_eq!(count(999 * second), None);
    bench.end().await;
}

#[test]
fn what_is_recorded_of_heads_is_never_erased() {
    let key = HeadKey::from_seed([1; 32]);
    let source = SourceId::from_name("a");
    let head = SignedHead {
        origin: origin(),
        source,
        epoch: EPOCH,
        next: SourceSeq::new(0),
        batch_hash: BatchHash::new([0; 32]),
        time_ns: 1,
        seen: (0, NodeHash::new([0; 32])),
        next_key: key.public(),
    };
    let texts = [
        head.sign(&key).unwrap(),
        SourceKey { source, key: key.public() }.text(&origin()),
        String::from_utf8(history::snapshot(&origin(), 0, Vec::new()).remove(0).into_original()).unwrap(),
    ];
    for text in texts {
        let content = sigillo_proto::v1::ContentPart { original: text.into_bytes().into(), ..Default::default() };
        assert!(statement::is_statement(&prost::Message::encode_to_vec(&content)));
    }
}
