//! The journal's front: batches in, receipts out.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use rustix::fs::FlockOperation;
use sigillo_model::{
    batch::epoch_opening,
    ids::{BatchHash, Epoch, Origin, SourceId},
    state::{JournalState, SourceState},
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::{
    backup,
    checkpoints::NOTE_MAX_BYTES,
    eraser::{Eraser, RemovalReport, Removals},
    error::{OpenError, SubmitError},
    frame::{Head, Receipt, Refusal, Submission},
    head_file::HeadFile,
    options::{self, Options},
    orders::Orders,
    read::Reader,
    recover::{self, Recovered},
    sign::{Answer, Signer},
    store::{RocksStore, Store},
    writer::{self, Message, Queued},
};

/// Bytes of the queue that a composed submission takes.
const COMPOSED_BYTES: u32 = 1 << 20;

/// Makes a submission of the state at which it will stand.
pub type Compose = Box<dyn FnOnce(&JournalState) -> Result<Submission, SubmitError> + Send>;

/// A journal that was opened, and what was found.
#[derive(Debug)]
pub struct Opened {
    /// The journal.
    pub journal: Journal,
    /// There was none before.
    pub created: bool,
    /// The last process to hold it did not close it.
    pub unclean: bool,
    /// How many of the newest records were verified again.
    pub verified_records: u64,
}

/// A handle on the journal; clones are handles on the same one.
#[derive(Clone)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("origin", &self.shared.origin).finish_non_exhaustive()
    }
}

pub(crate) struct Shared {
    origin: Origin,
    pub(crate) dir: PathBuf,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) reserve_bytes: u64,
    /// Held while a backup is written: one at a time.
    pub(crate) backup: Mutex<()>,
    queue: mpsc::UnboundedSender<Message>,
    /// Bytes that may wait for the writer.
    room: Arc<Semaphore>,
    room_bytes: u32,
    head: watch::Receiver<Head>,
    sources: Arc<Mutex<HashMap<SourceId, SourceState>>>,
    reader: Reader,
    removals: watch::Receiver<Removals>,
}

impl Journal {
    /// Opens the journal in `options.dir`, or makes one. The newest records are verified again; what does not fit is
    /// refused, and nothing is changed then. Blocks.
    pub fn open(options: &Options) -> Result<Opened, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io { path, error }
        };
        create_dirs(&options.dir).map_err(io(&options.dir))?;
        let lock = lock(&options.dir)?;
        let copying = options::copying_dir(&options.dir);
        backup::files::remove(&copying).map_err(io(&copying))?;
        let database = options::database_dir(&options.dir);
        let head_path = options::head_path(&options.dir);
        let head_file = recover::head_file(&head_path, &options.origin, database.join("CURRENT").exists())?;
        // Opening for writing replays the log, drops what it takes for torn and deletes the rest: evidence, if something is
        // wrong. So what there is is checked before, and once, on the database as it was left.
        let checked = if head_file.size > 0 {
            let as_left: Arc<dyn Store> = Arc::new(RocksStore::open_read_only(&database)?);
            let origin = recover::known_as(as_left.as_ref(), options.origin.clone())?;
            Some(recover::recover(&as_left, &origin, &head_file)?)
        } else {
            None
        };
        let store: Arc<dyn Store> = Arc::new(RocksStore::open(&database)?);
        let origin = recover::known_as(store.as_ref(), options.origin.clone())?;
        let options = &Options { origin, ..options.clone() };
        let recovered = match checked {
            Some(recovered) => recover::check_same(&store, recovered)?,
            None => recover::recover(&store, &options.origin, &head_file)?,
        };
        let recovered = recover::upgrade(&store, recovered)?;
        Self::open_store(store, options, recovered, Some(lock))
    }

    pub(crate) fn open_store(
        store: Arc<dyn Store>,
        options: &Options,
        recovered: Recovered,
        lock: Option<File>,
    ) -> Result<Opened, OpenError> {
        let head_path = options::head_path(&options.dir);
        let Recovered { state, created, unclean, verified_records, .. } = recovered;
        let open = HeadFile { origin: options.origin.clone(), size: state.size, chain: state.chain, clean: false };
        open.write(&head_path).map_err(|error| OpenError::Io { path: head_path.clone(), error })?;
        let (durable, head) = watch::channel(Head::of(&state));
        let sources = Arc::new(Mutex::new(state.sources.clone()));
        let (queue, messages) = mpsc::unbounded_channel();
        let reader = Reader::new(options.origin.clone(), store.clone(), head.clone());
        let (orders, pending) = Orders::load(&store)?;
        let eraser = Eraser::spawn(store.clone(), options.origin.clone(), pending, queue.downgrade())
            .map_err(|error| OpenError::Io { path: head_path.clone(), error })?;
        let removals = eraser.watch();
        // A batch of the greatest size must fit.
        let room_bytes = u32::try_from(options.queue_bytes.clamp(16 << 20, 1 << 30)).unwrap_or(1 << 30);
        writer::spawn(writer::Parts {
            store: store.clone(),
            state,
            head_path: head_path.clone(),
            reserve_bytes: options.reserve_bytes,
            durable,
            sources: sources.clone(),
            signer: options.receipt_key.clone().map(Signer::new),
            messages,
            orders,
            eraser,
            lock,
        })
        .map_err(|error| OpenError::Io { path: head_path, error })?;
        let shared = Shared {
            origin: options.origin.clone(),
            dir: options.dir.clone(),
            store,
            reserve_bytes: options.reserve_bytes,
            backup: Mutex::default(),
            queue,
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            room_bytes,
            head,
            sources,
            reader,
            removals,
        };
        Ok(Opened { journal: Self { shared: Arc::new(shared) }, created, unclean, verified_records })
    }

    /// Hands a batch to the writer, waiting for room in the queue. The order of calls is the order in the journal.
    pub async fn enqueue(&self, submission: Submission) -> Result<Pending, SubmitError> {
        let bytes = u32::try_from(submission.batch.compressed.len() + submission.commitments.len() * 32 + 1_024)
            .unwrap_or(u32::MAX)
            .min(self.shared.room_bytes);
        let room = self.shared.room.clone().acquire_many_owned(bytes).await.map_err(|_| SubmitError::Closed)?;
        let (reply, receipt) = oneshot::channel();
        let queued = Queued { submission, reply, room };
        self.shared.queue.send(Message::Batch(Box::new(queued))).map_err(|_| SubmitError::Closed)?;
        Ok(Pending(receipt))
    }

    /// Hands a batch to the writer and waits until it is durable.
    pub async fn submit(&self, submission: Submission) -> Result<Receipt, SubmitError> {
        self.enqueue(submission).await?.await
    }

    /// Has the writer make a submission between two frames, of the exact state behind which it will stand, and waits until it is
    /// durable: what it says of that state is true at its own place. `make` must be quick: nothing is written meanwhile.
    pub async fn compose(&self, make: Compose) -> Result<Receipt, SubmitError> {
        let room =
            self.shared.room.clone().acquire_many_owned(COMPOSED_BYTES).await.map_err(|_| SubmitError::Closed)?;
        let (reply, receipt) = oneshot::channel();
        self.shared.queue.send(Message::Compose { make, reply, room }).map_err(|_| SubmitError::Closed)?;
        Pending(receipt).await
    }

    /// Keeps a checkpoint of `size` durable records, in place of one of the same size, and waits until that is durable.
    pub async fn keep_checkpoint(&self, size: u64, note: Vec<u8>) -> Result<(), SubmitError> {
        let invalid = |message: String| Err(SubmitError::Refused(Refusal::Invalid(message)));
        let durable = self.head().size;
        if size > durable {
            return invalid(format!("a checkpoint of {size} records can't be kept: {durable} are durable"));
        }
        if note.len() > NOTE_MAX_BYTES {
            return invalid(format!("a checkpoint has at most {NOTE_MAX_BYTES} bytes, this one has {}", note.len()));
        }
        let (reply, kept) = oneshot::channel();
        self.shared.queue.send(Message::Checkpoint { size, note, reply }).map_err(|_| SubmitError::Closed)?;
        kept.await.unwrap_or(Err(SubmitError::Closed))
    }

    /// The journal's name.
    pub fn origin(&self) -> &Origin {
        &self.shared.origin
    }

    /// Where the journal stands, durably.
    pub fn head(&self) -> Head {
        *self.shared.head.borrow()
    }

    /// Changes after each durable frame.
    pub fn watch(&self) -> watch::Receiver<Head> {
        self.shared.head.clone()
    }

    /// Where a source stands, durably; `None` if it never sent anything.
    pub fn source(&self, source: SourceId) -> Option<SourceState> {
        self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner).get(&source).copied()
    }

    /// What the first batch of a new epoch of `source` must name as the hash before it.
    pub fn epoch_opening(&self, source: SourceId, epoch: Epoch) -> BatchHash {
        epoch_opening(self.origin(), source, epoch, self.source(source).map(|state| state.head))
    }

    /// A reader of what is durable.
    pub fn reader(&self) -> Reader {
        self.shared.reader.clone()
    }

    /// Where erasures and purges stand. Whatever lawful order or purge is submitted as a statement is carried out, at once or after
    /// the next opening.
    pub fn removals(&self) -> watch::Receiver<Removals> {
        self.shared.removals.clone()
    }

    /// Waits until the removal that was ordered by the statement at this sequence is done: its bytes are in no file of the
    /// database any more. `None` if there is no such removal, or none that is remembered.
    pub async fn removal(&self, statement: u64) -> Result<Option<RemovalReport>, SubmitError> {
        let mut removals = self.removals();
        let settled = removals.wait_for(|removals| !removals.pending.contains(&statement)).await;
        settled.map(|removals| removals.done.get(&statement).copied()).map_err(|_| SubmitError::Closed)
    }

    /// Commits what is queued, flushes, and marks the stop as a clean one. Later calls of any handle fail.
    pub async fn close(self) -> Result<(), SubmitError> {
        let (reply, done) = oneshot::channel();
        self.shared.queue.send(Message::Close(reply)).map_err(|_| SubmitError::Closed)?;
        done.await.map_err(|_| SubmitError::Closed)?
    }
}

/// A batch that is queued: resolves once it is durable, or refused.
#[derive(Debug)]
#[must_use = "the batch is durable only when this has resolved"]
pub struct Pending(oneshot::Receiver<Result<Answer, SubmitError>>);

impl Pending {
    /// The receipt with its proof.
    pub async fn answer(self) -> Result<Answer, SubmitError> {
        self.0.await.unwrap_or(Err(SubmitError::Closed))
    }
}

impl Future for Pending {
    type Output = Result<Receipt, SubmitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(outcome.unwrap_or(Err(SubmitError::Closed)).map(|answer| answer.receipt))
    }
}

/// Makes a folder and those above it that are missing, and syncs each into its parent: a loss of power must not take a
/// journal's folder with its records.
pub(crate) fn create_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_dirs(parent)?;
    fs::create_dir(dir)?;
    File::open(parent)?.sync_all()
}

/// Locks the journal's folder against writers, if it has a lock file: a copy on a read-only medium may have none.
pub(crate) fn lock_for_reading(dir: &Path) -> Result<Option<File>, OpenError> {
    let path = options::lock_path(dir);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::Io { path, error }),
    };
    flock(file, dir, FlockOperation::NonBlockingLockShared).map(Some)
}

/// Locks the journal's folder against other processes.
pub(crate) fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = options::lock_path(dir);
    let file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| OpenError::Io { path: path.clone(), error })?;
    flock(file, dir, FlockOperation::NonBlockingLockExclusive)
}

fn flock(file: File, dir: &Path, operation: FlockOperation) -> Result<File, OpenError> {
    match rustix::fs::flock(&file, operation) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(dir.to_owned())),
        Err(error) => Err(OpenError::Io { path: options::lock_path(dir), error: error.into() }),
    }
}
