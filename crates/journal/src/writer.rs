//! The one writer: takes what is queued as a frame, applies it, commits it in one synced write, then answers.
//!
//! The order of durability reads top to bottom in [`Writer::frame`].

use std::{
    collections::HashMap,
    io, mem,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use sigillo_model::{
    audit::{Fault, Finding, Walker},
    class::Class,
    ids::{ChainHash, Origin, SourceId, TenantId},
    state::{JournalState, SourceState},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::{
    apply::{Receipt, apply},
    error::{OpenError, ReadError, SubmitError},
    head_file::HeadFile,
    layout::{self, Table},
    read::{self, Direction, StoredEntry},
    store::{Store, StoreError, StoreErrorKind, WriteSet},
    submit::{Head, Submission},
};

/// Bytes of batches that one frame takes at most, so that a sync stays short.
const FRAME_MAX_BYTES: usize = 4 << 20;
/// Batches that one frame takes at most.
const FRAME_MAX_BATCHES: usize = 4_096;
/// How many of the newest records are verified again when the journal is opened.
const RECOVERY_RECORDS: u64 = 65_536;
/// How often the head file follows the head.
const HEAD_FILE_INTERVAL: Duration = Duration::from_secs(1);
/// Free bytes below which not even the product's own records are taken.
const LAST_BYTES: u64 = 16 << 20;

pub(crate) enum Message {
    Batch(Queued),
    Close(oneshot::Sender<Result<(), SubmitError>>),
}

/// A batch in the queue. Its room is given back when it is answered.
pub(crate) struct Queued {
    pub(crate) submission: Submission,
    pub(crate) reply: oneshot::Sender<Result<Receipt, SubmitError>>,
    pub(crate) _room: OwnedSemaphorePermit,
}

/// What the writer works with.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) state: JournalState,
    pub(crate) head_path: PathBuf,
    pub(crate) reserve_bytes: u64,
    pub(crate) durable: watch::Sender<Head>,
    pub(crate) sources: Arc<Mutex<HashMap<SourceId, SourceState>>>,
    pub(crate) messages: mpsc::UnboundedReceiver<Message>,
}

/// Starts the writer on a thread of its own, and a keeper of the head file beside it.
pub(crate) fn spawn(parts: Parts) -> io::Result<()> {
    let keeper = HeadKeeper::spawn(parts.head_path, parts.state.origin.clone(), parts.durable.subscribe())?;
    let writer = Writer {
        store: parts.store,
        state: parts.state,
        reserve_bytes: parts.reserve_bytes,
        durable: parts.durable,
        sources: parts.sources,
        health: Health::Good,
        keeper,
    };
    thread::Builder::new().name("journal-writer".to_owned()).spawn(move || writer.run(parts.messages))?;
    Ok(())
}

/// Whether the store takes writes.
enum Health {
    Good,
    /// The disk was full in the middle of a write: the database must be opened anew, and verified, when there is room.
    Full,
    /// What reached the disk is not known.
    Poisoned(String),
}

struct Writer {
    store: Arc<dyn Store>,
    state: JournalState,
    reserve_bytes: u64,
    durable: watch::Sender<Head>,
    sources: Arc<Mutex<HashMap<SourceId, SourceState>>>,
    health: Health,
    keeper: HeadKeeper,
}

impl Writer {
    fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        let mut closing = None;
        while closing.is_none() {
            let Some(first) = messages.blocking_recv() else { break };
            let mut frame = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    Message::Batch(queued) => {
                        bytes += queued.submission.batch.compressed.len();
                        frame.push(queued);
                    }
                    Message::Close(reply) => {
                        messages.close();
                        closing = Some(reply);
                        break;
                    }
                }
                if bytes < FRAME_MAX_BYTES && frame.len() < FRAME_MAX_BATCHES {
                    next = messages.try_recv().ok();
                }
            }
            self.frame(frame);
        }
        let outcome = self.close();
        if let Some(reply) = closing {
            // Nobody is left to tell if the caller has gone.
            let _ = reply.send(outcome);
        }
    }

    /// One frame: check the disk, order and apply, commit and sync, publish, answer.
    fn frame(&mut self, frame: Vec<Queued>) {
        let admitted = self.admit(frame);
        if admitted.is_empty() {
            return;
        }
        let (submissions, waiting): (Vec<_>, Vec<_>) =
            admitted.into_iter().map(|queued| (queued.submission, (queued.reply, queued._room))).unzip();

        let outcomes = self.commit(&submissions);

        for ((reply, room), outcome) in waiting.into_iter().zip(outcomes) {
            drop(room);
            // A sender that has gone away will send again and get the same receipt.
            let _ = reply.send(outcome);
        }
    }

    /// Those that the state of the disk allows to be written; the others are answered.
    fn admit(&mut self, frame: Vec<Queued>) -> Vec<Queued> {
        if frame.is_empty() {
            return frame;
        }
        let free_bytes = self.store.free_bytes().unwrap_or(0);
        if matches!(self.health, Health::Full) && free_bytes >= self.reserve_bytes.max(LAST_BYTES) {
            self.recover_from_full_disk();
        }
        let mut admitted = Vec::with_capacity(frame.len());
        for queued in frame {
            let needed = if queued.submission.class == Class::Journal.id() {
                self.reserve_bytes.min(LAST_BYTES)
            } else {
                self.reserve_bytes
            };
            let refusal = match &self.health {
                Health::Poisoned(reason) => SubmitError::Poisoned(reason.clone()),
                Health::Good if free_bytes >= needed => {
                    admitted.push(queued);
                    continue;
                }
                Health::Good | Health::Full => SubmitError::NoSpace { free_bytes, reserve_bytes: self.reserve_bytes },
            };
            let _ = queued.reply.send(Err(refusal));
        }
        admitted
    }

    fn commit(&mut self, submissions: &[Submission]) -> Vec<Result<Receipt, SubmitError>> {
        let store = self.store.clone();
        let applied = match apply(&mut self.state, submissions, |key| remembered(&store, key)) {
            Ok(applied) => applied,
            Err(error) => return self.failed(&error, submissions.len()),
        };
        if !applied.writes.puts.is_empty()
            && let Err(error) = store.commit(applied.writes)
        {
            return self.failed(&error, submissions.len());
        }
        // Durable from here on: only now may anybody see it.
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.extend(applied.touched);
        drop(sources);
        self.durable.send_if_modified(|head| mem::replace(head, Head::of(&self.state)) != *head);
        applied.outcomes.into_iter().map(|outcome| outcome.map_err(SubmitError::Refused)).collect()
    }

    /// A write failed: none of the frame is acknowledged, and the writer stops or waits for room.
    fn failed(&mut self, error: &StoreError, batches: usize) -> Vec<Result<Receipt, SubmitError>> {
        let answer = if error.kind == StoreErrorKind::NoSpace {
            tracing::error!(%error, "the disk is full; the journal will be opened anew when there is room");
            self.health = Health::Full;
            let free_bytes = self.store.free_bytes().unwrap_or(0);
            SubmitError::NoSpace { free_bytes, reserve_bytes: self.reserve_bytes }
        } else {
            tracing::error!(%error, "a write to the journal failed; nothing is taken until a restart");
            self.health = Health::Poisoned(error.to_string());
            SubmitError::Poisoned(error.to_string())
        };
        vec![Err(answer); batches]
    }

    /// Opens the database anew and verifies its end; what was acknowledged must be there.
    fn recover_from_full_disk(&mut self) {
        let durable = *self.durable.borrow();
        let loaded =
            self.store.reopen().map_err(OpenError::from).and_then(|()| load(&self.store, &self.state.origin)).and_then(
                |(state, _)| {
                    check_durable(&self.store, &state, durable.size, durable.chain)?;
                    Ok(state)
                },
            );
        match loaded {
            Ok(state) => {
                tracing::info!(size = state.size, "there is room again; the journal verifies and takes records");
                // A frame that was reported as failed may have reached the disk; its senders will send it again.
                *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = state.sources.clone();
                self.durable.send_replace(Head::of(&state));
                self.state = state;
                self.health = Health::Good;
            }
            Err(OpenError::Store(error)) if error.kind == StoreErrorKind::NoSpace => {
                tracing::warn!(%error, "still no room to open the journal");
            }
            Err(error) => {
                tracing::error!(%error, "the journal can't be opened after the disk was full");
                self.health = Health::Poisoned(error.to_string());
            }
        }
    }

    fn close(mut self) -> Result<(), SubmitError> {
        let poisoned = |error: String| SubmitError::Poisoned(error);
        if let Health::Poisoned(reason) = mem::replace(&mut self.health, Health::Good) {
            return Err(poisoned(reason));
        }
        self.store.close().map_err(|error| poisoned(error.to_string()))?;
        self.keeper.finish().map_err(|error| poisoned(format!("the head file: {error}")))
    }
}

/// The receipt of a batch that the journal holds.
fn remembered(store: &Arc<dyn Store>, key: &[u8; 32]) -> Result<Option<Receipt>, StoreError> {
    let damaged = |what: &str| StoreError { kind: StoreErrorKind::Damaged, message: what.to_owned() };
    let Some(value) = store.get(Table::Batches, key)? else { return Ok(None) };
    let seq = layout::read_u64(&value).ok_or_else(|| damaged("the memory of a batch is not a sequence"))?;
    let bytes = store
        .get(Table::Tail, &layout::tail_key(seq))?
        .ok_or_else(|| damaged("the memory of a batch names an entry that is not there"))?;
    let stored = StoredEntry::new(bytes.into());
    let entry = stored.entry().map_err(|error| damaged(&error.to_string()))?;
    Ok(Some(Receipt::of(&entry, true)))
}

/// A journal's state, read from its store and checked.
pub(crate) struct Recovered {
    pub(crate) state: JournalState,
    pub(crate) created: bool,
    pub(crate) unclean: bool,
    pub(crate) verified_records: u64,
}

/// Reads and checks a store, or writes a new journal into an empty one. Marks the journal as open in the head file.
pub(crate) fn recover(store: &Arc<dyn Store>, origin: &Origin, head_path: &Path) -> Result<Recovered, OpenError> {
    let io = |error| OpenError::Io { path: head_path.to_owned(), error };
    let format = store.get(Table::Meta, layout::FORMAT_KEY)?;
    let head_file = HeadFile::read(head_path).map_err(io)?;
    let created = format.is_none();
    if created {
        if let Some(file) = head_file.as_ref().filter(|file| file.size > 0) {
            return Err(OpenError::Lost { durable: file.size, found: 0 });
        }
        create(store, origin)?;
    }
    let (state, verified_records) = load(store, origin)?;
    let unclean = match &head_file {
        None if created => false,
        None => {
            let fault = Fault::Derived(format!(
                "the head file {} is missing: without it the database can't be shown to be whole",
                head_path.display()
            ));
            return Err(OpenError::Altered(Finding { from: state.size, to: state.size, fault }));
        }
        Some(file) => {
            check_durable(store, &state, file.size, file.chain)?;
            !file.clean
        }
    };
    let open = HeadFile { origin: origin.clone(), size: state.size, chain: state.chain, clean: false };
    open.write(head_path).map_err(io)?;
    Ok(Recovered { state, created, unclean, verified_records })
}

fn create(store: &Arc<dyn Store>, origin: &Origin) -> Result<(), OpenError> {
    let head = Head::of(&JournalState::genesis(origin.clone()));
    let meta = |key: &[u8], value: &[u8]| (Table::Meta, key.to_vec(), value.to_vec());
    let puts = vec![
        meta(layout::FORMAT_KEY, layout::FORMAT.as_bytes()),
        meta(layout::ORIGIN_KEY, origin.as_str().as_bytes()),
        meta(layout::HEAD_KEY, &layout::encode_head(&head)),
    ];
    Ok(store.commit(WriteSet { puts })?)
}

/// Reads the state and verifies the newest records against it.
fn load(store: &Arc<dyn Store>, origin: &Origin) -> Result<(JournalState, u64), OpenError> {
    check_identity(store, origin)?;
    let head = read::head(store)?;
    let altered =
        |fault: String| OpenError::Altered(Finding { from: head.size, to: head.size, fault: Fault::Derived(fault) });
    let mut state = JournalState {
        size: head.size,
        chain: head.chain,
        receipt_time: head.receipt_time,
        ..JournalState::genesis(origin.clone())
    };
    for pair in read::pairs(store, Table::Sources) {
        let (key, value) = pair?;
        let (source, value) = SourceId::from_slice(&key)
            .zip(layout::decode_source(&value))
            .ok_or_else(|| altered("the state of a source can't be read".to_owned()))?;
        state.sources.insert(source, value);
    }
    for pair in read::pairs(store, Table::Tenants) {
        let (key, value) = pair?;
        let (tenant, count) = TenantId::from_slice(&key)
            .zip(layout::decode_tenant(&value))
            .ok_or_else(|| altered("the count of a tenant can't be read".to_owned()))?;
        state.tenants.insert(tenant, count);
    }
    let verified = verify_newest(store, &state)?;
    Ok((state, verified))
}

fn check_identity(store: &Arc<dyn Store>, origin: &Origin) -> Result<(), OpenError> {
    let text = |key| -> Result<String, OpenError> {
        let value = store.get(Table::Meta, key)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&value).into_owned())
    };
    let found = text(layout::FORMAT_KEY)?;
    if found != layout::FORMAT {
        return Err(OpenError::Version { found, known: layout::FORMAT });
    }
    let found = text(layout::ORIGIN_KEY)?;
    if found != origin.as_str() {
        return Err(OpenError::Origin { found, expected: origin.to_string() });
    }
    Ok(())
}

/// Walks the newest records up to the head. Returns how many.
fn verify_newest(store: &Arc<dyn Store>, state: &JournalState) -> Result<u64, OpenError> {
    let mut newest: Vec<StoredEntry> = Vec::new();
    let mut start = JournalState {
        sources: HashMap::new(),
        tenants: HashMap::new(),
        ..JournalState::genesis(state.origin.clone())
    };
    let entries = read::Entries::new(store, 0..u64::MAX, Direction::Backward);
    for stored in entries {
        let stored = stored.map_err(open_error)?;
        let entry = stored.entry().map_err(open_error)?;
        if state.size.saturating_sub(entry.end()) >= RECOVERY_RECORDS {
            start.size = entry.end();
            start.chain = entry.chain_hash;
            start.receipt_time = entry.receipt_time;
            break;
        }
        newest.push(stored);
    }
    let first = start.size;
    let mut walker = Walker::part(start);
    for stored in newest.iter().rev() {
        walker.step(stored.bytes()).map_err(OpenError::Altered)?;
    }
    walker.check_head(state.size, state.chain).map_err(OpenError::Altered)?;
    let walked = walker.state();
    let differs = walked.sources.iter().any(|(id, source)| state.sources.get(id) != Some(source))
        || walked.tenants.iter().any(|(id, count)| state.tenants.get(id) != Some(count));
    if differs {
        let fault = Fault::Derived("the counters kept beside the records are not what the records give".to_owned());
        return Err(OpenError::Altered(Finding { from: first, to: state.size, fault }));
    }
    Ok(state.size - first)
}

/// What was durable once must be there still, with the same chain value.
fn check_durable(store: &Arc<dyn Store>, state: &JournalState, size: u64, chain: ChainHash) -> Result<(), OpenError> {
    if state.size < size {
        return Err(OpenError::Lost { durable: size, found: state.size });
    }
    let found = read::chain_at(store, &state.origin, size).map_err(open_error)?;
    if found == Some(chain) {
        return Ok(());
    }
    let fault = Fault::Derived(format!(
        "the head file says that record {size} is preceded by chain value {chain}, which is not so"
    ));
    Err(OpenError::Altered(Finding { from: size.saturating_sub(1), to: size, fault }))
}

fn open_error(error: ReadError) -> OpenError {
    match error {
        ReadError::Altered(finding) => OpenError::Altered(finding),
        ReadError::Store(message) => OpenError::Store(StoreError { kind: StoreErrorKind::Failed, message }),
    }
}

/// Follows the durable head with the head file, once a second, off the writer's path.
struct HeadKeeper {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<thread::JoinHandle<()>>,
    path: PathBuf,
    origin: Origin,
    head: watch::Receiver<Head>,
}

impl HeadKeeper {
    fn spawn(path: PathBuf, origin: Origin, head: watch::Receiver<Head>) -> io::Result<Self> {
        let mut keeper = Self { stop: Arc::default(), thread: None, path, origin, head };
        let (stop, path, origin, head) =
            (keeper.stop.clone(), keeper.path.clone(), keeper.origin.clone(), keeper.head.clone());
        let follow = move || {
            let mut written = head.borrow().size;
            let (stopped, wake) = &*stop;
            let mut guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
            while !*guard {
                guard = wake.wait_timeout(guard, HEAD_FILE_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
                let now = *head.borrow();
                if !*guard && now.size != written {
                    let file = HeadFile { origin: origin.clone(), size: now.size, chain: now.chain, clean: false };
                    match file.write(&path) {
                        Ok(()) => written = now.size,
                        // Tried again in a second; an older head file is still true.
                        Err(error) => tracing::error!(%error, "the head file can't be written"),
                    }
                }
            }
        };
        keeper.thread = Some(thread::Builder::new().name("journal-head".to_owned()).spawn(follow)?);
        Ok(keeper)
    }

    fn halt(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed; the last head is written below all the same.
            let _ = thread.join();
        }
    }

    /// Stops following and marks the stop as a clean one.
    fn finish(mut self) -> io::Result<()> {
        self.halt();
        let head = *self.head.borrow();
        HeadFile { origin: self.origin.clone(), size: head.size, chain: head.chain, clean: true }.write(&self.path)
    }
}

impl Drop for HeadKeeper {
    fn drop(&mut self) {
        self.halt();
    }
}
