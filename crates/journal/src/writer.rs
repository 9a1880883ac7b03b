//! The one writer: takes what is queued as a frame, applies it, commits it in one synced write, then answers.
//!
//! The order of durability reads top to bottom in [`Writer::frame`].

use std::{
    collections::HashMap,
    fs::File,
    io, mem,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use sigillo_model::{
    class::Class,
    ids::{ClassId, Origin, SourceId},
    state::{JournalState, SourceState},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::{
    apply::apply,
    eraser::Eraser,
    error::{OpenError, SubmitError},
    frame::{Head, Receipt, Submission},
    head_file::HeadFile,
    layout::{self, Table},
    orders::Orders,
    read::StoredEntry,
    recover,
    sign::{Answer, Signer},
    store::{Store, StoreError, StoreErrorKind, WriteSet},
    submit::Compose,
};

/// Bytes of batches that one frame takes at most, so that a sync stays short.
const FRAME_MAX_BYTES: usize = 4 << 20;
/// Batches that one frame takes at most.
const FRAME_MAX_BATCHES: usize = 4_096;
/// How often the head file follows the head.
const HEAD_FILE_INTERVAL: Duration = Duration::from_secs(1);
/// Free bytes below which not even the product's own records are taken.
const LAST_BYTES: u64 = 16 << 20;

pub(crate) enum Message {
    Batch(Box<Queued>),
    /// A batch that is made by the writer, of the state between two frames.
    Compose {
        make: Compose,
        reply: Reply,
        room: OwnedSemaphorePermit,
    },
    /// A checkpoint to keep.
    Checkpoint {
        size: u64,
        note: Vec<u8>,
        reply: oneshot::Sender<Result<(), SubmitError>>,
    },
    /// A write beside the writer failed.
    StoreFailed(StoreError),
    Close(CloseReply),
}

type CloseReply = oneshot::Sender<Result<(), SubmitError>>;

/// A batch in the queue. Its room is given back when it is answered.
pub(crate) struct Queued {
    pub(crate) submission: Submission,
    pub(crate) reply: Reply,
    pub(crate) room: OwnedSemaphorePermit,
}

/// The way to whoever waits for a batch.
pub(crate) type Reply = oneshot::Sender<Result<Answer, SubmitError>>;

/// What the writer works with.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) state: JournalState,
    pub(crate) head_path: PathBuf,
    pub(crate) reserve_bytes: u64,
    pub(crate) durable: watch::Sender<Head>,
    pub(crate) sources: Arc<Mutex<HashMap<SourceId, SourceState>>>,
    pub(crate) signer: Option<Signer>,
    pub(crate) messages: mpsc::UnboundedReceiver<Message>,
    pub(crate) orders: Orders,
    pub(crate) eraser: Eraser,
    /// Held until the last byte is written: while it is locked no other process opens this journal.
    pub(crate) lock: Option<File>,
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
        orders: parts.orders,
        eraser: parts.eraser,
        signer: parts.signer,
        health: Health::Good,
        keeper,
    };
    let (messages, lock) = (parts.messages, parts.lock);
    thread::Builder::new().name("journal-writer".to_owned()).spawn(move || {
        let (outcome, closing) = writer.run(messages);
        drop(lock);
        if let Some(reply) = closing {
            // Nobody is left to tell if the caller has gone.
            let _ = reply.send(outcome);
        }
    })?;
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
    orders: Orders,
    eraser: Eraser,
    signer: Option<Signer>,
    health: Health,
    keeper: HeadKeeper,
}

impl Writer {
    /// Works until it is told to close, or nobody is left to send. Returns how that went, and who wants to know.
    fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) -> (Result<(), SubmitError>, Option<CloseReply>) {
        loop {
            let Some(first) = messages.blocking_recv() else { return (self.close(), None) };
            let mut frame = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            // What ends a frame and is done after it.
            let mut after = None;
            while let Some(message) = next.take() {
                let Message::Batch(queued) = message else {
                    after = Some(message);
                    break;
                };
                bytes += queued.submission.batch.compressed.len();
                frame.push(*queued);
                if bytes < FRAME_MAX_BYTES && frame.len() < FRAME_MAX_BATCHES {
                    next = messages.try_recv().ok();
                }
            }
            self.frame(frame);
            match after {
                Some(Message::Compose { make, reply, room }) => self.compose(make, reply, room),
                Some(Message::Checkpoint { size, note, reply }) => {
                    // Whoever has gone away does not want to know.
                    let _ = reply.send(self.keep_checkpoint(size, &note));
                }
                Some(Message::StoreFailed(error)) => self.failed_beside(&error),
                Some(Message::Close(reply)) => {
                    // What was queued before this is written; what comes now is refused.
                    messages.close();
                    return (self.close(), Some(reply));
                }
                Some(Message::Batch(_)) | None => (),
            }
        }
    }

    /// A frame of one submission, which is made of the state that it follows.
    fn compose(&mut self, make: Compose, reply: Reply, room: OwnedSemaphorePermit) {
        // The product makes it: it may use the reserve. In bad health the state is of no worth.
        let free_bytes = self.ready();
        match self.refusal(Class::Journal.id(), free_bytes).map_or_else(|| make(&self.state), Err) {
            Ok(submission) => self.frame(vec![Queued { submission, reply, room }]),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    fn keep_checkpoint(&mut self, size: u64, note: &[u8]) -> Result<(), SubmitError> {
        let free_bytes = self.ready();
        if let Some(refusal) = self.refusal(Class::Journal.id(), free_bytes) {
            return Err(refusal);
        }
        let row = (Table::Checkpoints, layout::tail_key(size).to_vec(), layout::encode_note(note));
        let store = self.store.clone();
        store.commit(WriteSet { puts: vec![row], ..WriteSet::default() }).map_err(|error| self.fail(&error))
    }

    /// One frame: check the disk, order and apply, commit and sync, publish, sign, answer.
    fn frame(&mut self, frame: Vec<Queued>) {
        let admitted = self.admit(frame);
        if admitted.is_empty() {
            return;
        }
        let (submissions, waiting): (Vec<_>, Vec<_>) =
            admitted.into_iter().map(|queued| (queued.submission, (queued.reply, queued.room))).unzip();

        let outcomes = self.commit(&submissions);
        let proofs = self.signer.as_mut().map(|signer| signer.sign(&self.state.origin, &submissions, &outcomes));

        let mut proofs = proofs.into_iter().flatten();
        for ((reply, room), outcome) in waiting.into_iter().zip(outcomes) {
            drop(room);
            let proof = proofs.next().flatten();
            // A sender that has gone away will send again and get the same receipt.
            let _ = reply.send(outcome.map(|receipt| Answer { receipt, proof }));
        }
    }

    /// Those that the state of the disk allows to be written; the others are answered.
    fn admit(&mut self, frame: Vec<Queued>) -> Vec<Queued> {
        if frame.is_empty() {
            return frame;
        }
        let free_bytes = self.ready();
        let mut admitted = Vec::with_capacity(frame.len());
        for queued in frame {
            match self.refusal(queued.submission.class, free_bytes) {
                None => admitted.push(queued),
                Some(refusal) => {
                    let _ = queued.reply.send(Err(refusal));
                }
            }
        }
        admitted
    }

    /// Comes back from a full disk if there is room again. Returns the free bytes.
    fn ready(&mut self) -> u64 {
        let free_bytes = self.store.free_bytes().unwrap_or(0);
        if matches!(self.health, Health::Full) && free_bytes >= LAST_BYTES {
            self.recover_from_full_disk();
        }
        free_bytes
    }

    /// Why nothing of this class can be written now.
    fn refusal(&self, class: ClassId, free_bytes: u64) -> Option<SubmitError> {
        let own = class == Class::Journal.id();
        let needed = if own { self.reserve_bytes.min(LAST_BYTES) } else { self.reserve_bytes };
        match &self.health {
            Health::Poisoned(reason) => Some(SubmitError::Poisoned(reason.clone())),
            Health::Good if free_bytes >= needed => None,
            Health::Good | Health::Full => Some(SubmitError::NoSpace { free_bytes, reserve_bytes: self.reserve_bytes }),
        }
    }

    fn commit(&mut self, submissions: &[Submission]) -> Vec<Result<Receipt, SubmitError>> {
        let store = self.store.clone();
        let applied = apply(&mut self.state, &mut self.orders, submissions, |key| remembered(&store, key));
        if !applied.writes.puts.is_empty()
            && let Err(error) = store.commit(applied.writes)
        {
            return vec![Err(self.fail(&error)); submissions.len()];
        }
        // Durable from here on: only now may anybody see it.
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.extend(applied.touched);
        drop(sources);
        self.eraser.take(&applied.removals);
        self.durable.send_if_modified(|head| mem::replace(head, Head::of(&self.state)) != *head);
        applied.outcomes
    }

    /// A write failed: nothing of it is acknowledged, and the writer stops or waits for room.
    fn fail(&mut self, error: &StoreError) -> SubmitError {
        if error.kind == StoreErrorKind::NoSpace {
            tracing::error!(%error, "the disk is full; the journal will be opened anew when there is room");
            self.health = Health::Full;
            let free_bytes = self.store.free_bytes().unwrap_or(0);
            SubmitError::NoSpace { free_bytes, reserve_bytes: self.reserve_bytes }
        } else {
            tracing::error!(%error, "a write to the journal failed; nothing is taken until a restart");
            self.health = Health::Poisoned(error.to_string());
            SubmitError::Poisoned(error.to_string())
        }
    }

    /// A write beside the writer failed. While the disk is full it is told again and again, so that it opens the database anew
    /// when there is room, even if nothing else is sent.
    fn failed_beside(&mut self, error: &StoreError) {
        let unknown = matches!(error.kind, StoreErrorKind::NoSpace | StoreErrorKind::Failed);
        if unknown && matches!(self.health, Health::Good) {
            self.fail(error);
        }
        self.ready();
    }

    /// Opens the database anew and verifies its end; what was acknowledged must be there.
    fn recover_from_full_disk(&mut self) {
        let durable = *self.durable.borrow();
        let loaded = self.store.reopen_read_only().map_err(OpenError::from).and_then(|()| {
            // As when a journal is opened: checked before opening for writing can drop anything.
            let (state, _) = recover::load(&self.store, &self.state.origin)?;
            recover::check_durable(&self.store, &state, durable.size, durable.chain)?;
            self.store.reopen()?;
            Ok((state, Orders::load(&self.store)?))
        });
        match loaded {
            Ok((state, (orders, pending))) => {
                self.orders = orders;
                self.eraser.take_again(pending);
                tracing::info!(size = state.size, "there is room again; the journal verifies and takes records");
                // A frame that was reported as failed may have reached the disk; its senders will send it again.
                self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&state.sources);
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

    /// Closes the store and tells the head file how: only a stop after which the disk is known is a clean one.
    fn close(mut self) -> Result<(), SubmitError> {
        let poisoned = |error: String| Err(SubmitError::Poisoned(error));
        self.eraser.halt();
        let closed = self.store.close();
        let clean = matches!(self.health, Health::Good) && closed.is_ok();
        let written = self.keeper.finish(clean);
        match (self.health, closed, written) {
            (Health::Poisoned(reason), ..) => poisoned(reason),
            (Health::Full, ..) => poisoned("the disk was full, and what reached it is not known".to_owned()),
            (Health::Good, Err(error), _) => poisoned(error.to_string()),
            (Health::Good, Ok(()), Err(error)) => poisoned(format!("the head file: {error}")),
            (Health::Good, Ok(()), Ok(())) => Ok(()),
        }
    }
}

/// The receipt of a batch that the journal holds.
fn remembered(store: &Arc<dyn Store>, key: &[u8; 32]) -> Result<Option<Receipt>, StoreError> {
    let damaged = |what: &str| StoreError { kind: StoreErrorKind::Damaged, message: what.to_owned() };
    let Some(value) = store.get(Table::Batches, key)? else { return Ok(None) };
    let seq = layout::read_u64(&value).ok_or_else(|| damaged("the memory of a batch is not a sequence"))?;
    let key = layout::tail_key(seq);
    let bytes = store
        .get(Table::Tail, &key)?
        .ok_or_else(|| damaged("the memory of a batch names an entry that is not there"))?;
    let stored = StoredEntry::read(&key, bytes.into()).map_err(|error| damaged(&error.to_string()))?;
    let entry = stored.entry().map_err(|error| damaged(&error.to_string()))?;
    Ok(Some(Receipt::of(&entry, true)))
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

    /// Stops following, and writes the last head.
    fn finish(mut self, clean: bool) -> io::Result<()> {
        self.halt();
        let head = *self.head.borrow();
        HeadFile { origin: self.origin.clone(), size: head.size, chain: head.chain, clean }.write(&self.path)
    }
}

impl Drop for HeadKeeper {
    fn drop(&mut self) {
        self.halt();
    }
}
