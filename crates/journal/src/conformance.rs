//! What every store must keep: the journal on RocksDB and on memory, under a schedule of faults, against a plain `Vec`.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::Bound,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use proptest::prelude::*;
use sigillo_model::{
    audit::Walker,
    batch::{self, Batch},
    block::{Block, BlockBuilder, Inflater},
    class::Class,
    envelope::Flags,
    ids::{BatchHash, BatchSecret, Epoch, Origin, ReceiptTime, RetentionId, SourceId, SourceSeq, TenantId},
    record::{Record, RecordRef},
    state::JournalState,
    statement::journal_source,
};

use crate::{
    Direction, Journal, OpenError, Opened, Options, Receipt, Refusal, StoreError, StoreErrorKind, Submission,
    SubmitError, TenantRun, conformance_tree,
    layout::{self, Table},
    options, recover,
    store::{KeyRange, Pair, RocksStore, Store, WriteSet},
    verify,
};

/// A store in memory. Cloning it is what a restart finds.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore(pub(crate) Arc<Mutex<Rows>>);

pub(crate) type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

impl Store for MemoryStore {
    fn commit(&self, writes: WriteSet) -> Result<(), StoreError> {
        let mut rows = self.0.lock().unwrap();
        rows.extend(writes.puts.into_iter().map(|(table, key, value)| ((table, key), value)));
        for key in writes.deletes {
            rows.remove(&key);
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().unwrap().get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], direction: Direction, max: usize) -> Result<Vec<Pair>, StoreError> {
        let map = self.0.lock().unwrap();
        let at = Bound::Included((table, from.to_vec()));
        let entries: Box<dyn Iterator<Item = _>> = match direction {
            Direction::Forward => Box::new(map.range((at, Bound::Unbounded))),
            Direction::Backward => Box::new(map.range((Bound::Unbounded, at)).rev()),
        };
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        for ((_, key), value) in entries.take_while(|((of, _), _)| *of == table) {
            pairs.push((key.clone().into(), value.clone().into()));
            bytes += value.len();
            if bytes >= max {
                break;
            }
        }
        Ok(pairs)
    }

    fn forget(&self, _: Table, _: &[KeyRange], goes_on: &dyn Fn() -> bool) -> Result<bool, StoreError> {
        Ok(goes_on())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn reopen_read_only(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn reopen(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What becomes of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Good,
    /// An error, and nothing was written.
    Lost,
    /// An error, but everything was written.
    Kept,
    /// The disk was full, and nothing was written.
    FullLost,
    /// The disk was full, but everything was written.
    FullKept,
}

/// Faults on the way to a store.
pub(crate) struct Faulty {
    inner: Arc<dyn Store>,
    pub(crate) fates: Mutex<VecDeque<Fate>>,
    /// Of commits that carry removals out.
    pub(crate) carried: Mutex<VecDeque<Fate>>,
    free_bytes: AtomicU64,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            fates: Mutex::default(),
            carried: Mutex::default(),
            free_bytes: AtomicU64::new(u64::MAX),
        })
    }
}

impl Store for Faulty {
    fn commit(&self, writes: WriteSet) -> Result<(), StoreError> {
        let touches = |wanted| {
            let mut tables = writes.puts.iter().map(|(table, ..)| *table).chain(writes.deletes.iter().map(|row| row.0));
            tables.any(|table| table == wanted)
        };
        let carries = touches(Table::Pending) && !touches(Table::Meta);
        let fates = if carries { &self.carried } else { &self.fates };
        let fate = fates.lock().unwrap().pop_front().unwrap_or(Fate::Good);
        if matches!(fate, Fate::Good | Fate::Kept | Fate::FullKept) {
            self.inner.commit(writes)?;
        }
        let kind = match fate {
            Fate::Good => return Ok(()),
            Fate::Lost | Fate::Kept => StoreErrorKind::Failed,
            Fate::FullLost | Fate::FullKept => StoreErrorKind::NoSpace,
        };
        Err(StoreError { kind, message: format!("injected: {fate:?}") })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], direction: Direction, max: usize) -> Result<Vec<Pair>, StoreError> {
        self.inner.scan(table, from, direction, max)
    }

    fn forget(&self, table: Table, keys: &[KeyRange], goes_on: &dyn Fn() -> bool) -> Result<bool, StoreError> {
        self.inner.forget(table, keys, goes_on)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.free_bytes.load(Ordering::Relaxed))
    }

    fn reopen_read_only(&self) -> Result<(), StoreError> {
        self.inner.reopen_read_only()
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.inner.reopen()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

/// Number of the sender of the product's own records, statements among them.
pub(crate) const OWN: u8 = 3;

/// One thing that happens to a journal.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// The source's next batch, of so many records, spread over tenants.
    Send {
        source: u8,
        records: u32,
        fate: Fate,
    },
    /// Batches of several sources at once: one frame, if the writer is quick.
    SendTogether {
        records: u32,
    },
    /// A batch that was acknowledged is sent again.
    Repeat {
        which: prop::sample::Index,
    },
    /// Other records under numbers that were used.
    Fork {
        which: prop::sample::Index,
    },
    /// A batch too far.
    Gap {
        source: u8,
    },
    /// The source lost its state and begins anew.
    NewEpoch {
        source: u8,
    },
    /// The disk fills up; then there is room again.
    FullDisk {
        source: u8,
    },
    Restart,
    /// Parts of records are erased by order; what becomes of the order's commit, and of the first commit that carries it out.
    Erase {
        targets: Vec<(prop::sample::Index, u8)>,
        fate: Fate,
        carried: Fate,
    },
    /// From now on records of every other place in a batch are kept for no time at all.
    Keep,
    /// What is due is purged.
    Purge {
        fate: Fate,
        carried: Fate,
    },
    /// Minutes go by.
    Later,
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Good), 1 => Just(Fate::Lost), 1 => Just(Fate::Kept), 1 => Just(Fate::FullLost), 1 => Just(Fate::FullKept),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let targets = || proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..8), 1..6);
    let act = prop_oneof![
        8 => (0..3_u8, prop_oneof![4 => 1..9_u32, 1 => 200..700_u32], fates())
            .prop_map(|(source, records, fate)| Act::Send { source, records, fate }),
        3 => (1..5_u32).prop_map(|records| Act::SendTogether { records }),
        2 => any::<prop::sample::Index>().prop_map(|which| Act::Repeat { which }),
        2 => any::<prop::sample::Index>().prop_map(|which| Act::Fork { which }),
        1 => (0..3_u8).prop_map(|source| Act::Gap { source }),
        1 => (0..3_u8).prop_map(|source| Act::NewEpoch { source }),
        1 => (0..3_u8).prop_map(|source| Act::FullDisk { source }),
        2 => Just(Act::Restart),
        3 => (targets(), fates(), fates()).prop_map(|(targets, fate, carried)| Act::Erase { targets, fate, carried }),
        1 => Just(Act::Keep),
        2 => (fates(), fates()).prop_map(|(fate, carried)| Act::Purge { fate, carried }),
        2 => Just(Act::Later),
    ];
    proptest::collection::vec(act, 1..40)
}

/// A sender that keeps a batch until it has its receipt.
pub(crate) struct Sender {
    pub(crate) id: SourceId,
    pub(crate) epoch: Epoch,
    pub(crate) next: SourceSeq,
    pub(crate) head: BatchHash,
    pub(crate) unacknowledged: Option<Batch>,
}

/// A journal under test, with what must be in it.
pub(crate) struct Trial {
    pub(crate) options: Options,
    pub(crate) durable: Arc<dyn Store>,
    reopen: fn(&Path, &Arc<dyn Store>) -> Arc<dyn Store>,
    pub(crate) store: Arc<Faulty>,
    pub(crate) journal: Option<Journal>,
    pub(crate) senders: Vec<Sender>,
    /// The oracle: every acknowledged batch, with the receipt it got.
    acknowledged: Vec<(SourceId, Batch, Receipt)>,
    pub(crate) clock: u64,
    /// What is to be gone: parts by sequence, and how far the short retention class is purged.
    pub(crate) gone: BTreeMap<u64, u8>,
    pub(crate) purged_to: u64,
}

pub(crate) fn origin() -> Origin {
    Origin::new("test.example/journal").unwrap()
}

pub(crate) fn open(store: Arc<dyn Store>, options: &Options) -> Result<Opened, OpenError> {
    let exists = store.get(Table::Meta, layout::FORMAT_KEY)?.is_some();
    let head_file = recover::head_file(&options::head_path(&options.dir), &options.origin, exists)?;
    let recovered = recover::recover(&store, &options.origin, &head_file)?;
    let recovered = recover::upgrade(&store, recovered)?;
    Journal::open_store(store, options, recovered, None)
}

impl Trial {
    pub(crate) fn new(
        dir: &Path,
        durable: Arc<dyn Store>,
        reopen: fn(&Path, &Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Self {
        let options = Options::new(dir, origin());
        let store = Faulty::new(durable.clone());
        let opened = open(store.clone(), &options).unwrap();
        assert!(opened.created && !opened.unclean);
        let senders = (0..=OWN)
            .map(|number| {
                let id =
                    if number == OWN { journal_source() } else { SourceId::from_name(&format!("source-{number}")) };
                let epoch = Epoch::new(1);
                Sender {
                    id,
                    epoch,
                    next: SourceSeq::new(0),
                    head: opened.journal.epoch_opening(id, epoch),
                    unacknowledged: None,
                }
            })
            .collect();
        let journal = Some(opened.journal);
        Self {
            options,
            durable,
            reopen,
            store,
            journal,
            senders,
            acknowledged: Vec::new(),
            clock: 1_000,
            gone: BTreeMap::new(),
            purged_to: 0,
        }
    }

    pub(crate) fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    pub(crate) async fn act(&mut self, act: &Act) {
        match act {
            Act::Send { source, records, fate } => {
                self.settle().await;
                self.make(usize::from(*source), *records);
                self.store.fates.lock().unwrap().push_back(*fate);
                let sent = self.send(usize::from(*source)).await;
                assert_eq!(sent.is_ok(), *fate == Fate::Good, "{sent:?}");
            }
            Act::SendTogether { records } => {
                self.settle().await;
                let mut pending = Vec::new();
                for source in 0..self.senders.len() {
                    self.make(source, *records);
                    let submission = self.submission(source);
                    pending.push(self.journal().enqueue(submission).await.unwrap());
                }
                for (source, pending) in pending.into_iter().enumerate() {
                    let receipt = pending.await.unwrap();
                    self.acknowledge(source, receipt);
                }
            }
            Act::Repeat { which } => {
                self.settle().await;
                if self.acknowledged.is_empty() {
                    return;
                }
                let (source, batch, receipt) = self.acknowledged[which.index(self.acknowledged.len())].clone();
                let again = self.journal().submit(self.submit_as(source, batch)).await.unwrap();
                assert_eq!(again, Receipt { repeated: true, ..receipt });
            }
            Act::Fork { which } => {
                self.settle().await;
                if self.acknowledged.is_empty() {
                    return;
                }
                let (source, batch, _) = &self.acknowledged[which.index(self.acknowledged.len())];
                let other = batch_of(*source, batch.epoch, batch.first, batch.previous, batch.count, "other");
                let refused = self.journal().submit(self.submit_as(*source, other)).await;
                assert!(matches!(refused, Err(SubmitError::Refused(Refusal::Fork { .. }))), "{refused:?}");
            }
            Act::Gap { source } => {
                self.settle().await;
                let sender = &self.senders[usize::from(*source)];
                let far = SourceSeq::new(sender.next.get() + 1);
                let batch = batch_of(sender.id, sender.epoch, far, sender.head, 1, "far");
                let refused = self.journal().submit(self.submit_as(sender.id, batch)).await;
                assert!(matches!(refused, Err(SubmitError::Refused(Refusal::Gap { .. }))), "{refused:?}");
            }
            Act::NewEpoch { source } => {
                self.settle().await;
                let sender = &self.senders[usize::from(*source)];
                let epoch = Epoch::new(sender.epoch.get() + 7);
                let head = self.journal().epoch_opening(sender.id, epoch);
                let sender = &mut self.senders[usize::from(*source)];
                (sender.epoch, sender.next, sender.head) = (epoch, SourceSeq::new(0), head);
            }
            Act::FullDisk { source } => {
                self.settle().await;
                self.store.free_bytes.store(1 << 20, Ordering::Relaxed);
                self.make(usize::from(*source), 2);
                let refused = self.send(usize::from(*source)).await;
                assert!(matches!(refused, Err(SubmitError::NoSpace { .. })), "{refused:?}");
                self.store.free_bytes.store(u64::MAX, Ordering::Relaxed);
                self.send(usize::from(*source)).await.unwrap();
            }
            Act::Restart => self.restart().await,
            Act::Erase { targets, fate, carried } => self.erase(targets, *fate, *carried).await,
            Act::Keep => self.keep().await,
            Act::Purge { fate, carried } => self.purge(*fate, *carried).await,
            Act::Later => self.clock += 180_000_000_000,
        }
    }

    /// Sends again what is not acknowledged, after a restart where that is what it takes.
    pub(crate) async fn settle(&mut self) {
        for source in 0..self.senders.len() {
            if self.senders[source].unacknowledged.is_none() {
                continue;
            }
            if let Err(SubmitError::Poisoned(_)) = self.send(source).await {
                self.restart().await;
                self.send(source).await.unwrap();
            }
        }
    }

    pub(crate) async fn restart(&mut self) {
        let journal = self.journal.take().unwrap();
        let size = journal.head().size;
        let closed = journal.close().await.is_ok();
        self.store = Faulty::new((self.reopen)(&self.options.dir, &self.durable));
        self.durable = self.store.inner.clone();
        let opened = open(self.store.clone(), &self.options).unwrap();
        assert!(!opened.created);
        assert_eq!(opened.unclean, !closed);
        assert!(opened.journal.head().size >= size);
        self.journal = Some(opened.journal);
    }

    pub(crate) fn make(&mut self, source: usize, records: u32) {
        let sender = &mut self.senders[source];
        assert!(sender.unacknowledged.is_none());
        sender.unacknowledged = Some(batch_of(sender.id, sender.epoch, sender.next, sender.head, records, "true"));
    }

    pub(crate) fn submission(&mut self, source: usize) -> Submission {
        self.clock += 1;
        let sender = &self.senders[source];
        self.submit_as(sender.id, sender.unacknowledged.clone().unwrap())
    }

    pub(crate) async fn send(&mut self, source: usize) -> Result<Receipt, SubmitError> {
        let submission = self.submission(source);
        let receipt = self.journal().submit(submission).await?;
        self.acknowledge(source, receipt);
        Ok(receipt)
    }

    fn acknowledge(&mut self, source: usize, receipt: Receipt) {
        let sender = &mut self.senders[source];
        let batch = sender.unacknowledged.take().unwrap();
        (sender.next, sender.head) = (batch.end(), batch.hash);
        self.acknowledged.push((sender.id, batch, Receipt { repeated: false, ..receipt }));
    }

    pub(crate) fn submit_as(&self, source: SourceId, batch: Batch) -> Submission {
        let mut inflater = Inflater::default();
        let commitments = batch::commitments(&batch.secret, &batch.open(&mut inflater).unwrap());
        let runs = (0..batch.count)
            .map(|record| TenantRun {
                tenant: TenantId::from_name(&format!("tenant-{}", record / 2 % 3)),
                retention: RetentionId::new(3 + u16::try_from(record % 2).unwrap()),
                flags: Flags::default(),
                records: 1,
            })
            .collect();
        // The clock goes back now and then; receipt time must not.
        let received = ReceiptTime::new(self.clock - self.clock % 7);
        let class = if source == journal_source() { Class::Journal } else { Class::Service };
        Submission { source, class: class.id(), batch, commitments, runs, received }
    }

    /// The journal holds what was acknowledged, once, in place and in order, and nothing else; and it verifies.
    pub(crate) async fn check(mut self, verify_files: bool) {
        self.settle().await;
        self.journal().removals().wait_for(|removals| removals.pending.is_empty()).await.unwrap();
        let reader = self.journal().reader();
        let mut walker = Walker::whole(JournalState::genesis(origin()));
        let mut found = Vec::new();
        let mut rows = Vec::new();
        for stored in reader.entries(0..u64::MAX, Direction::Forward) {
            let stored = stored.unwrap();
            walker.step(stored.bytes()).unwrap();
            rows.extend_from_slice(walker.tree_rows());
            let entry = stored.entry().unwrap();
            found.push((
                entry.seq,
                entry.source,
                entry.epoch,
                entry.source_seq,
                entry.block(&mut Inflater::default()).unwrap().records().map(Record::from).collect::<Vec<_>>(),
            ));
        }
        let head = reader.head();
        walker.check_head(head.size, head.chain).unwrap();
        walker.removed().unwrap();
        conformance_tree::check(&reader, &self.durable, &rows);
        let mut expected: Vec<_> = self
            .acknowledged
            .iter()
            .map(|(source, batch, receipt)| {
                let records = self.remaining(receipt.seq.get(), records_of(&batch.compressed, batch.block_bytes));
                (receipt.seq, *source, batch.epoch, batch.first, records)
            })
            .collect();
        expected.sort_by_key(|(seq, ..)| *seq);
        assert_eq!(found, expected);

        let backwards: Vec<_> = reader
            .entries(0..u64::MAX, Direction::Backward)
            .map(|stored| stored.unwrap().entry().unwrap().seq)
            .collect();
        assert!(backwards.iter().rev().eq(found.iter().map(|(seq, ..)| seq)));
        for (source, ..) in &self.acknowledged {
            let newest: Vec<_> = reader
                .source_entries_newest_first(*source)
                .map(|stored| stored.unwrap().entry().unwrap().seq)
                .collect();
            assert!(newest.iter().rev().eq(found.iter().filter(|(_, of, ..)| of == source).map(|(seq, ..)| seq)));
        }
        drop(reader);
        self.restart().await;
        let head = self.journal().head();
        self.journal.take().unwrap().close().await.unwrap();
        if verify_files {
            drop(self.store);
            drop(self.durable);
            let report = verify::verify(&self.options.dir, |_| ()).unwrap();
            assert_eq!(report.head, head);
        }
    }
}

pub(crate) fn batch_of(
    source: SourceId,
    epoch: Epoch,
    first: SourceSeq,
    previous: BatchHash,
    records: u32,
    word: &str,
) -> Batch {
    let mut builder = BlockBuilder::default();
    for index in 0..records {
        let content = format!("{word} {source} {epoch} {first} {index}");
        builder.push(RecordRef { core: Some(b"core"), personal: None, content: Some(content.as_bytes()) }).unwrap();
    }
    Batch::seal(&mut builder, source, epoch, first, previous, BatchSecret::new([7; 32]), 1).unwrap()
}

fn records_of(compressed: &[u8], bytes: u32) -> Vec<Record> {
    let mut inflater = Inflater::default();
    Block::parse(inflater.inflate(compressed, bytes as usize).unwrap()).unwrap().records().map(Record::from).collect()
}

fn run(trial: impl FnOnce(&Path) -> Trial, acts: &[Act], verify_files: bool) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut trial = trial(dir.path());
        for act in acts {
            trial.act(act).await;
        }
        trial.check(verify_files).await;
    });
}

pub(crate) fn in_memory(dir: &Path) -> Trial {
    Trial::new(dir, Arc::new(MemoryStore::default()), |_, store| store.clone())
}

pub(crate) fn on_rocksdb(dir: &Path) -> Trial {
    let open = |dir: &Path| -> Arc<dyn Store> { Arc::new(RocksStore::open(&options::database_dir(dir)).unwrap()) };
    Trial::new(dir, open(dir), |_, store| {
        // Closed by the journal if that went well; a poisoned one is left to its store.
        let _ = store.close();
        store.reopen().unwrap();
        store.clone()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn memory_conforms(acts in acts()) {
        run(in_memory, &acts, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn rocksdb_conforms(acts in acts()) {
        run(on_rocksdb, &acts, true);
    }
}

#[test]
fn a_journal_that_lost_records_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut trial = in_memory(dir.path());
        trial.act(&Act::Send { source: 0, records: 3, fate: Fate::Good }).await;
        trial.journal.take().unwrap().close().await.unwrap();
        let emptied = Arc::new(MemoryStore::default());
        let error = open(emptied, &trial.options).unwrap_err();
        assert!(matches!(error, OpenError::Lost { durable: 3, found: 0 }), "{error}");
    });
}

#[test]
fn another_origin_or_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let trial = in_memory(dir.path());
        let other = Options::new(dir.path(), Origin::new("other.example").unwrap());
        let error = open(trial.durable.clone(), &other).unwrap_err();
        assert!(matches!(error, OpenError::Origin { .. }), "{error}");
        let puts = vec![(Table::Meta, layout::FORMAT_KEY.to_vec(), b"sigillo journal 9".to_vec())];
        trial.durable.commit(WriteSet { puts, ..WriteSet::default() }).unwrap();
        let error = open(trial.durable.clone(), &trial.options).unwrap_err();
        assert!(matches!(error, OpenError::Version { .. }), "{error}");
    });
}

#[test]
fn the_products_own_records_may_use_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut trial = in_memory(dir.path());
        trial.store.free_bytes.store(100 << 20, Ordering::Relaxed);
        trial.make(0, 1);
        let mut submission = trial.submission(0);
        let refused = trial.journal().submit(submission.clone()).await;
        assert!(matches!(refused, Err(SubmitError::NoSpace { .. })), "{refused:?}");
        submission.class = Class::Journal.id();
        assert!(trial.journal().submit(submission).await.is_ok());
    });
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(dir.path(), origin());
    let opened = Journal::open(&options).unwrap();
    assert!(matches!(Journal::open(&options), Err(OpenError::InUse(_))));
    assert!(matches!(verify::verify(dir.path(), |_| ()), Err(verify::VerifyError::Unreadable(_))));
    drop(opened);
}
