//! Carrying out erasures and purges, on a thread of its own beside the writer.
//!
//! A statement becomes durable together with a row of `pending`. From there on: entries are replaced by reduced ones, a bounded
//! write at a time, each with the row's mark; then the database's files are rid of what stood there before; then the row goes.
//! Every step may be repeated, so that whatever stops it, the next opening goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use sigillo_model::{
    audit::{Fault, Finding},
    block::Inflater,
    entry::{Entry, Gone, Held},
    ids::{Origin, ReceiptTime},
    record::Part,
    statement::{self, Act, Erasure, Order, Purge, Retention, Statement},
};
use tokio::sync::{mpsc, watch};

use crate::{
    error::ReadError,
    layout::{self, PendingRow, Stage, Table},
    read::{StoredEntry, containing, derived},
    store::{KeyRange, Store, StoreError, WriteSet},
    writer::Message,
};

/// Bytes of reduced entries that are written at once.
const STEP_BYTES: usize = 4 << 20;
/// Entries that are looked at between two marks, so that a stop is noticed.
const STEP_ENTRIES: usize = 4_096;
/// How long it waits before it tries again what failed.
const RETRY: Duration = if cfg!(test) { Duration::from_millis(5) } else { Duration::from_secs(2) };
/// Reports of removals that are done that are remembered.
const REPORTS_MAX: usize = 256;

/// What a removal took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovalReport {
    /// Sequence of the statement.
    pub statement: u64,
    /// Records of which something was taken.
    pub records: u64,
    /// Parts that were taken.
    pub parts: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Where the removals stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removals {
    /// Sequences of the statements that are still being carried out.
    pub pending: BTreeSet<u64>,
    /// The newest that are done, by their statements' sequences.
    pub done: BTreeMap<u64, RemovalReport>,
    /// Why the first of the pending ones does not go on, while that is so. It is tried again.
    pub trouble: Option<String>,
}

/// The thread that carries removals out.
pub(crate) struct Eraser {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    removals: watch::Sender<Removals>,
    stopped: AtomicBool,
    /// Guards nothing; its condition is that there is something new to look at.
    look: (Mutex<()>, Condvar),
}

impl Shared {
    fn wake(&self) {
        let _guard = self.look.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.look.1.notify_all();
    }

    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }
}

impl Eraser {
    /// Starts with the removals that are under way already.
    pub(crate) fn spawn(
        store: Arc<dyn Store>,
        origin: Origin,
        pending: Vec<u64>,
        writer: mpsc::WeakUnboundedSender<Message>,
    ) -> io::Result<Self> {
        let removals = Removals { pending: pending.into_iter().collect(), ..Removals::default() };
        let shared = Arc::new(Shared {
            removals: watch::Sender::new(removals),
            stopped: AtomicBool::new(false),
            look: (Mutex::new(()), Condvar::new()),
        });
        let work = Work { store, origin, writer, shared: shared.clone(), inflater: Inflater::default() };
        let thread = thread::Builder::new().name("journal-eraser".to_owned()).spawn(move || work.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Removals> {
        self.shared.removals.subscribe()
    }

    /// Takes removals whose statements have just become durable.
    pub(crate) fn take(&self, statements: &[u64]) {
        if !statements.is_empty() {
            self.shared.removals.send_modify(|removals| removals.pending.extend(statements));
            self.shared.wake();
        }
    }

    /// Takes what the store holds, after it was opened anew.
    pub(crate) fn take_again(&self, statements: Vec<u64>) {
        self.shared.removals.send_modify(|removals| removals.pending = statements.into_iter().collect());
        self.shared.wake();
    }

    /// Returns once nothing is being done any more.
    pub(crate) fn halt(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed; what it left is done after the next opening.
            let _ = thread.join();
        }
    }
}

impl Drop for Eraser {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Why a removal does not go on.
enum Stuck {
    /// The journal is being closed.
    Stopped,
    /// A write failed: the writer must know.
    Store(StoreError),
    Read(ReadError),
}

impl From<StoreError> for Stuck {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ReadError> for Stuck {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// What a statement takes out, as far as its records' place decides.
enum Removal {
    Erase(Erasure),
    Purge(Purge, Option<ReceiptTime>),
}

struct Work {
    store: Arc<dyn Store>,
    origin: Origin,
    writer: mpsc::WeakUnboundedSender<Message>,
    shared: Arc<Shared>,
    inflater: Inflater,
}

impl Work {
    fn run(mut self) {
        while self.shared.goes_on() {
            let next = self.shared.removals.borrow().pending.first().copied();
            let Some(statement) = next else {
                self.rest(None);
                continue;
            };
            match self.carry_out(statement) {
                Ok(report) => self.shared.removals.send_modify(|removals| {
                    removals.pending.remove(&statement);
                    removals.trouble = None;
                    if let Some(report) = report {
                        removals.done.insert(statement, report);
                    }
                    if removals.done.len() > REPORTS_MAX {
                        removals.done.pop_first();
                    }
                }),
                Err(Stuck::Stopped) => return,
                Err(Stuck::Store(error)) => {
                    self.trouble(statement, &error);
                    if let Some(writer) = self.writer.upgrade() {
                        let _ = writer.send(Message::StoreFailed(error));
                    }
                    self.rest(Some(RETRY));
                }
                Err(Stuck::Read(error)) => {
                    self.trouble(statement, &error);
                    self.rest(Some(RETRY));
                }
            }
        }
    }

    /// Waits until there is something to do, or to try again.
    fn rest(&self, at_most: Option<Duration>) {
        let (lock, wake) = &self.shared.look;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = || self.shared.goes_on() && self.shared.removals.borrow().pending.is_empty();
        match at_most {
            Some(time) if self.shared.goes_on() => drop(wake.wait_timeout(guard, time)),
            None if idle() => drop(wake.wait(guard)),
            _ => (),
        }
    }

    fn trouble(&self, statement: u64, error: &dyn std::fmt::Display) {
        let text = error.to_string();
        self.shared.removals.send_if_modified(|removals| {
            let news = removals.trouble.as_ref() != Some(&text);
            if news {
                tracing::error!(statement, error = text, "a removal does not go on; it is tried again");
                removals.trouble = Some(text);
            }
            news
        });
    }

    /// All steps of one removal. `None` if it was done before.
    fn carry_out(&mut self, statement: u64) -> Result<Option<RemovalReport>, Stuck> {
        let key = layout::tail_key(statement);
        let Some(value) = self.store.get(Table::Pending, &key)? else { return Ok(None) };
        let unreadable = || derived(statement, "a removal under way can't be read");
        let mut row = PendingRow::decode(&value).ok_or_else(unreadable)?;
        let removal = self.read_statement(statement)?;
        while row.stage == Stage::Rewriting {
            row = self.rewrite(statement, &removal, row)?;
        }
        let keys = self.keys(&removal)?;
        if !self.store.forget(Table::Tail, &keys, &|| self.shared.goes_on())? {
            return Err(Stuck::Stopped);
        }
        let deletes = vec![(Table::Pending, key.to_vec())];
        self.store.commit(WriteSet { deletes, ..WriteSet::default() })?;
        let PendingRow { records, parts, bytes, .. } = row;
        tracing::info!(statement, records, parts, bytes, "a removal is done");
        Ok(Some(RemovalReport { statement, records, parts, bytes }))
    }

    fn read_statement(&mut self, seq: u64) -> Result<Removal, ReadError> {
        let unreadable = || derived(seq, "the statement of a removal under way can't be read");
        let stored = containing(self.store.as_ref(), seq)?.ok_or_else(unreadable)?;
        let entry = stored.entry()?;
        let found = statement_at(&entry, &mut self.inflater, seq, &self.origin)?;
        match found.ok_or_else(unreadable)? {
            Statement::Order(Order { act: Act::Erase(mut erasure), .. }) => {
                erasure.targets.retain(|(target, _)| *target < seq);
                Ok(Removal::Erase(erasure))
            }
            Statement::Purge(purge) => {
                let before = containing(self.store.as_ref(), purge.retention)?.ok_or_else(unreadable)?;
                let before = before.entry()?;
                let retention = statement_at(&before, &mut self.inflater, purge.retention, &self.origin)?;
                let Some(Statement::Order(Order { act: Act::Keep(Retention { class, keep_s }), .. })) = retention
                else {
                    return Err(unreadable());
                };
                Ok(Removal::Purge(purge, Retention { class, keep_s }.due_before(entry.receipt_time)))
            }
            Statement::Order(_) | Statement::Other => Err(unreadable()),
        }
    }

    /// Replaces some entries by reduced ones, in one write with the mark. Gives the mark.
    fn rewrite(&mut self, statement: u64, removal: &Removal, mut row: PendingRow) -> Result<PendingRow, Stuck> {
        if !self.shared.goes_on() {
            return Err(Stuck::Stopped);
        }
        let mut puts = Vec::new();
        let mut bytes = 0;
        for _ in 0..STEP_ENTRIES {
            let Some(stored) = self.next_entry(removal, row.next)? else {
                row.stage = Stage::Removing;
                break;
            };
            let entry = stored.entry()?;
            if let Some(reduction) = reduce(&entry, &mut self.inflater, removal)? {
                row.records += u64::from(reduction.records);
                row.parts += u64::from(reduction.parts);
                row.bytes += reduction.payload_bytes;
                bytes += reduction.bytes.len();
                puts.push((Table::Tail, layout::tail_key(entry.seq.get()).to_vec(), reduction.bytes));
            }
            row.next = entry.end();
            if bytes >= STEP_BYTES {
                break;
            }
        }
        puts.push((Table::Pending, layout::tail_key(statement).to_vec(), row.encode()));
        self.store.commit(WriteSet { puts, ..WriteSet::default() })?;
        Ok(row)
    }

    /// The next entry, from sequence `from` on, that the removal may touch.
    fn next_entry(&self, removal: &Removal, from: u64) -> Result<Option<StoredEntry>, ReadError> {
        let seq = match removal {
            Removal::Erase(erasure) => erasure.targets.iter().map(|(seq, _)| *seq).find(|seq| *seq >= from),
            Removal::Purge(purge, _) => Some(purge.from.max(from)).filter(|seq| *seq < purge.to),
        };
        let Some(seq) = seq else { return Ok(None) };
        let missing = || derived(seq, "the entry that holds this record is missing");
        containing(self.store.as_ref(), seq)?.ok_or_else(missing).map(Some)
    }

    /// First and last keys of the entries that the removal may have touched.
    fn keys(&self, removal: &Removal) -> Result<Vec<KeyRange>, ReadError> {
        let key = |seq| layout::tail_key(seq).to_vec();
        match removal {
            Removal::Purge(purge, _) => {
                let first = containing(self.store.as_ref(), purge.from)?.map_or(purge.from, |stored| stored.first());
                Ok(vec![(key(first), key(purge.to.saturating_sub(1)))])
            }
            Removal::Erase(erasure) => {
                let mut keys: Vec<KeyRange> = Vec::new();
                for (target, _) in &erasure.targets {
                    if let Some(stored) = containing(self.store.as_ref(), *target)? {
                        keys.push((key(stored.first()), key(stored.first())));
                    }
                }
                keys.dedup();
                Ok(keys)
            }
        }
    }
}

/// The statement at a place of an entry.
fn statement_at(
    entry: &Entry<'_>,
    inflater: &mut Inflater,
    seq: u64,
    origin: &Origin,
) -> Result<Option<Statement>, ReadError> {
    let block = entry.block(inflater).map_err(|error| altered(entry, error.into()))?;
    let place = usize::try_from(seq.saturating_sub(entry.seq.get())).unwrap_or(usize::MAX);
    let content = block.records().nth(place).and_then(|record| record.content);
    let text = content.and_then(statement::original);
    Ok(text.and_then(|text| Statement::parse(text, origin)?.ok()))
}

/// An entry without what the removal takes; `None` if that is nothing.
fn reduce(
    entry: &Entry<'_>,
    inflater: &mut Inflater,
    removal: &Removal,
) -> Result<Option<sigillo_model::entry::Reduction>, ReadError> {
    if let Removal::Purge(purge, due) = removal {
        let of_class = entry.runs.iter().any(|run| run.retention == purge.class);
        if !of_class || due.is_none_or(|due| entry.receipt_time >= due) {
            return Ok(None);
        }
    }
    let retentions: Vec<_> = entry.runs.iter().flat_map(|run| (0..run.records).map(|_| run.retention)).collect();
    let may_state = statement::may_be_statement(entry.class, entry.source);
    let first = entry.seq.get();
    let block = entry.block(inflater).map_err(|error| altered(entry, error.into()))?;
    if block.count() != entry.count {
        return Err(altered(entry, Fault::Count { stated: entry.count, found: block.count() }));
    }
    let take = |index: usize, held: &Held<'_>| {
        if may_state && held.part(Part::Content).is_some_and(statement::is_statement) {
            return Gone::NOTHING;
        }
        let seq = first.saturating_add(index as u64);
        match removal {
            Removal::Erase(erasure) => {
                let place = erasure.targets.binary_search_by_key(&seq, |(target, _)| *target);
                place.ok().and_then(|place| erasure.targets.get(place)).map_or(Gone::NOTHING, |(_, gone)| *gone)
            }
            Removal::Purge(purge, _) => {
                let due = (purge.from..purge.to).contains(&seq) && retentions.get(index) == Some(&purge.class);
                if due { Gone::PURGED } else { Gone::NOTHING }
            }
        }
    };
    let Some(reduction) = entry.reduce(&block, take) else { return Ok(None) };
    // What is destroyed can't be had again: what remains must give the same commitments.
    let commitments = entry.commitments(&block);
    let after = Entry::decode(&reduction.bytes).map_err(|error| altered(entry, error.into()))?;
    let mut inflater = Inflater::default();
    let remains = after.block(&mut inflater).map_err(|error| altered(entry, error.into()))?;
    if after.commitments(&remains) != commitments {
        return Err(altered(entry, Fault::Derived("a reduced entry does not give the commitments".to_owned())));
    }
    Ok(Some(reduction))
}

fn altered(entry: &Entry<'_>, fault: Fault) -> ReadError {
    ReadError::Altered(Finding { from: entry.seq.get(), to: entry.end(), fault })
}
