//! Sends records by way of a spool: what was synced there survives every crash of this process, and reaches the journal exactly once.
//!
//! A thread owns the spool. It makes batches of the chunks that it is given, syncs them in groups, and signs heads. The link reads what is
//! synced back, sends it, and tells the thread what is acknowledged, so that it can go. Nothing is kept in memory but what is not synced yet
//! and what is under way.

mod declare;
mod hint;
mod keeper;
mod offer;
mod quarantine;
mod queue;
mod resume;
mod tally;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sigillo_model::{
    block::PushError,
    ids::{Epoch, SourceSeq},
    limits::{BATCH_MAX_RECORDS, BLOCK_MAX_BYTES, RECORD_MAX_BYTES},
    record::Record,
};
use sigillo_proto::v1;
use sigillo_spool::{Spool, SpoolError};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tracing::{error, warn};

pub use sigillo_spool::Options as SpoolOptions;

pub use self::declare::Loss;
use self::{
    keeper::{Command, Keeper, Stand},
    offer::{Fate, Offer},
    queue::Queue,
};
use crate::{
    ClientError, Code, Endpoint, Guard,
    link::{self, Link},
};

/// Chunks that may wait for the thread that owns the spool.
const CHUNKS: usize = 4;
/// How long the thread is waited for at the end: a sync of a slow disk.
const LET_GO: Duration = Duration::from_secs(5);
/// Chunks that the journal has refused and that are remembered for their tickets.
const REFUSED_MAX: usize = 1_024;
/// Between two heads lies no more than a link with a limit sends within so many seconds: a quarter of the time after which the journal
/// misses heads.
const HEAD_SECONDS: u64 = 45;
/// Bytes that a record needs in a block besides its parts, at most.
const RECORD_OVERHEAD_BYTES: usize = 13;

/// When what is acknowledged may go from the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// At once.
    No,
    /// Of sources of class panel and admin, once a checkpoint that meets the trust file's policy has been proved to cover it.
    UntilCheckpoint,
}

/// Makes the record that declares a loss.
pub type Declare = Arc<dyn Fn(&Loss) -> Record + Send + Sync>;
/// Is given each new receipt, with the welcome of its stream.
pub type OnReceipt = Arc<dyn Fn(&v1::Welcome, &v1::Receipt) + Send + Sync>;

/// How the engine works.
#[derive(Clone)]
pub struct Options {
    /// The server, and who we are there.
    pub endpoint: Endpoint,
    /// The spool.
    pub spool: SpoolOptions,
    /// Folder for batches that the server will never take. Made when it is needed.
    pub quarantine: PathBuf,
    /// Name and version of the program, for the register ("sigillo-agent 0.1.0").
    pub agent: String,
    /// Holds the server to what it has said. `None`: it is believed.
    pub guard: Option<Arc<Guard>>,
    /// When what is acknowledged may go.
    pub hold: Hold,
    /// What is pushed is synced no later than this, unless the disk is slower.
    pub sync_every: Duration,
    /// Records of a batch, up to [`BATCH_MAX_RECORDS`]; a single chunk may have more.
    pub max_records: usize,
    /// Bytes of a batch before compression, up to [`BLOCK_MAX_BYTES`]; a single chunk may have more.
    pub max_bytes: usize,
    /// Whether we mean to stay connected, and to be missed when we are not.
    pub resident: bool,
    /// Bytes that are sent in a second, on average. `None`: as many as there are.
    pub bandwidth_bytes_s: Option<u64>,
    /// Percent of one core that the process may use: sending pauses to keep to it. `None`: as much as it takes.
    pub cpu_percent: Option<u32>,
    /// Ends when the server says that we may not do this. Otherwise it is asked again, for ever.
    pub refusals_are_final: bool,
    /// What an earlier program remembered, for a spool that is made anew: marks, and the newest epoch.
    pub import: (BTreeMap<Arc<str>, Bytes>, Epoch),
    /// Makes the record that declares a loss.
    pub declare: Declare,
    /// Is given each new receipt.
    pub on_receipt: Option<OnReceipt>,
}

impl Options {
    /// 10 ms, 8,192 records, 1 MiB; held until a checkpoint; resident; without a limit.
    pub fn new(
        endpoint: Endpoint,
        spool: SpoolOptions,
        quarantine: PathBuf,
        agent: impl Into<String>,
        declare: Declare,
    ) -> Self {
        Self {
            endpoint,
            spool,
            quarantine,
            agent: agent.into(),
            guard: None,
            hold: Hold::UntilCheckpoint,
            sync_every: Duration::from_millis(10),
            max_records: 8_192,
            max_bytes: 1 << 20,
            resident: true,
            bandwidth_bytes_s: None,
            cpu_percent: None,
            refusals_are_final: false,
            import: (BTreeMap::new(), Epoch::new(0)),
            declare,
            on_receipt: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("endpoint", &self.endpoint.url)
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

/// Records that belong together: they and the mark are durable together, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Chunk {
    /// At most 16,384, together at most 8 MiB.
    pub records: Vec<Record>,
    /// What to remember with them, and under which key. Empty bytes: the key is forgotten.
    pub mark: Option<(Arc<str>, Bytes)>,
    /// Whether they are synced at once.
    pub urgent: bool,
}

/// How far everything has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records pushed since the start that are synced in the spool, and those that the journal has acknowledged.
    pub synced_records: u64,
    /// See above.
    pub acknowledged_records: u64,
    /// Up to here the spool is synced.
    pub synced: (Epoch, SourceSeq),
    /// Up to here the journal has acknowledged.
    pub acknowledged: (Epoch, SourceSeq),
    /// Records in the spool that are not acknowledged.
    pub waiting_records: u64,
    /// When the oldest of them was pushed, nanoseconds since 1970 UTC; 0 when none waits.
    pub oldest_ns: u64,
    /// Bytes of the spool's files.
    pub spool_bytes: u64,
    /// The spool is full: nothing more is taken until something is acknowledged.
    pub full: bool,
    /// A stream is open.
    pub connected: bool,
    /// When the newest ack came, nanoseconds since 1970 UTC; 0 = none yet.
    pub last_ack_ns: u64,
    /// Batches and records that the server refused for ever since the start.
    pub refused_batches: u64,
    /// Losses that were declared since the start.
    pub losses: u64,
    /// Our class at the journal; empty until it has welcomed us.
    pub class: String,
    /// The journal's origin; empty until it has welcomed us.
    pub origin: String,
    /// The server's clock minus ours when it welcomed us, nanoseconds.
    pub skew_ns: i64,
    /// Why nothing goes on; empty when it does.
    pub error: String,
    /// The engine has ended.
    pub ended: bool,
}

/// A chunk that was pushed.
#[derive(Debug, Clone)]
pub struct Ticket {
    ordinal: u64,
    offer: Option<Arc<Offer>>,
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
}

impl Ticket {
    /// Waits until the chunk is synced in the spool: from now on it survives. One that was offered may be refused instead, because
    /// the spool is full.
    pub async fn synced(&mut self) -> Result<(), ClientError> {
        let ordinal = self.ordinal;
        let reached = self.progress.wait_for(|progress| progress.synced_records >= ordinal || progress.ended).await;
        let is_synced = reached.is_ok_and(|progress| progress.synced_records >= ordinal);
        match self.fate() {
            Some(Fate::Full(reason)) => Err(SpoolError::Full(reason).into()),
            _ if is_synced => Ok(()),
            _ => Err(ClientError::Stopped),
        }
    }

    /// Waits until the journal has acknowledged the chunk, or has refused it for ever. Of one that was not offered a refusal is not told.
    pub async fn acknowledged(&mut self) -> Result<(), ClientError> {
        let ordinal = self.ordinal;
        let reached =
            self.progress.wait_for(|progress| progress.acknowledged_records >= ordinal || progress.ended).await;
        if !reached.is_ok_and(|progress| progress.acknowledged_records >= ordinal) {
            return Err(ClientError::Stopped);
        }
        match self.offer.as_ref().and_then(|_| self.shared.refusal(ordinal)) {
            Some(message) => Err(ClientError::Refused { code: Code::InvalidArgument, message }),
            None => Ok(()),
        }
    }

    /// Takes a chunk back that was offered; `false` when it was taken before, and is in the spool, or about to be.
    pub fn withdraw(&self) -> bool {
        self.offer.as_ref().is_some_and(|offer| offer.withdraw())
    }

    /// Epoch and number of the first record of a chunk that was offered, once it is synced. They change when a new epoch is begun.
    pub fn place(&self) -> Option<(Epoch, SourceSeq)> {
        match self.fate()? {
            Fate::Kept(epoch, first) => Some((epoch, first)),
            _ => None,
        }
    }

    fn fate(&self) -> Option<Fate> {
        self.offer.as_ref().map(|offer| offer.fate())
    }
}

/// What all parts of the engine share.
struct Shared {
    options: Options,
    progress: watch::Sender<Progress>,
    /// The last record of chunks that the journal has refused, counted as they were pushed, and why.
    refused: Mutex<VecDeque<(u64, String)>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Shared {
    /// Why the journal has refused a chunk, if it has.
    fn refusal(&self, ordinal: u64) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().find(|(last, _)| *last == ordinal).map(|(_, why)| why.clone())
    }

    fn is_refused(&self, ordinal: u64, why: String) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.push_back((ordinal, why));
        if refused.len() > REFUSED_MAX {
            refused.pop_front();
        }
    }
}

/// A chunk on its way to the thread.
struct Pushed {
    chunk: Chunk,
    offer: Option<Arc<Offer>>,
}

/// Hands chunks over to an engine. Clones share one order.
#[derive(Clone)]
pub struct Pusher {
    chunks: mpsc::Sender<Pushed>,
    /// Records that were pushed; held while a chunk goes into the queue, so that both have one order.
    pushed: Arc<Mutex<u64>>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Pusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pusher").finish_non_exhaustive()
    }
}

impl Pusher {
    /// Hands a chunk over. Waits while the spool is full or not there yet. Loses nothing when it is cancelled.
    pub async fn push(&self, chunk: Chunk) -> Result<Ticket, ClientError> {
        self.hand_over(chunk, None).await
    }

    /// The same, and the chunk can be taken back until it is taken; then it is a batch of its own, synced at once, or refused when the
    /// spool has no room for it. So its sender knows for sure whether it is kept.
    pub async fn offer(&self, chunk: Chunk) -> Result<Ticket, ClientError> {
        self.hand_over(chunk, Some(Arc::new(Offer::new()))).await
    }

    async fn hand_over(&self, chunk: Chunk, offer: Option<Arc<Offer>>) -> Result<Ticket, ClientError> {
        check(&chunk.records)?;
        let permit = self.chunks.reserve().await.map_err(|_| ClientError::Stopped)?;
        let ordinal = {
            let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
            *pushed += chunk.records.len() as u64;
            permit.send(Pushed { chunk, offer: offer.clone() });
            *pushed
        };
        Ok(Ticket { ordinal, offer, shared: Arc::clone(&self.shared), progress: self.shared.progress.subscribe() })
    }
}

/// Spools records and sends them.
pub struct Engine {
    pusher: Pusher,
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
    marks: Arc<BTreeMap<Arc<str>, Bytes>>,
    work: JoinHandle<Result<(), ClientError>>,
    /// Ends when the thread has let go of the spool.
    gone: oneshot::Receiver<()>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the spool and begins to send what it holds. A spool that is not there yet is made when the server has welcomed us for the
    /// first time; pushing waits until then.
    pub async fn start(mut options: Options) -> Result<Self, ClientError> {
        if let Some(bytes_s) = options.bandwidth_bytes_s {
            let head_bytes = bytes_s.saturating_mul(HEAD_SECONDS);
            options.spool.head_bytes = options.spool.head_bytes.min(head_bytes);
        }
        let spool_options = options.spool.clone();
        let opened = spawn_blocking(move || sigillo_spool::open(&spool_options)).await;
        let opened = opened.map_err(|_| ClientError::Stopped)??;
        if opened.torn_bytes > 0 {
            warn!(
                bytes = opened.torn_bytes,
                "the spool's end was not written whole, as a crash leaves it; it was cut off"
            );
        }
        if let Some(damage) = &opened.damage {
            let found = damage.findings.join("; ");
            if opened.spool.is_some() {
                error!(
                    found,
                    "the spool is damaged; what can be read is sent in a new epoch, the rest is declared as lost"
                );
            } else {
                // It stays where it is until a new one can say so: after a restart it is found again.
                error!(found, "nothing of the spool can be read; a new one is made once the server welcomes us");
            }
        }
        let marks = match &opened.spool {
            Some(spool) => spool.marks().clone(),
            None => options.import.0.clone(),
        };
        let (progress, _) = watch::channel(Progress::default());
        let shared = Arc::new(Shared { options, progress, refused: Mutex::default() });
        let (chunks, chunks_end) = mpsc::channel(CHUNKS);
        let (commands, commands_end) = mpsc::unbounded_channel();
        let (stand, stand_end) = watch::channel(opened.spool.as_ref().map(Stand::of).unwrap_or_default());
        let reader = opened.spool.as_ref().map(Spool::reader);
        let damaged = opened.spool.is_some() && opened.damage.is_some();
        let keeper = Keeper::new(Arc::clone(&shared), opened.spool, damaged, chunks_end, commands_end, stand);
        let queue = Queue::new(Arc::clone(&shared), commands.clone(), stand_end, reader, opened.damage);
        let (let_go, gone) = oneshot::channel();
        let work = tokio::spawn(work(Arc::clone(&shared), keeper, queue, let_go)?);
        let pusher = Pusher { chunks, pushed: Arc::default(), shared: Arc::clone(&shared) };
        Ok(Self { pusher, commands, shared, marks: Arc::new(marks), work, gone })
    }

    /// What was remembered when the engine was started.
    pub fn marks(&self) -> Arc<BTreeMap<Arc<str>, Bytes>> {
        Arc::clone(&self.marks)
    }

    /// How far everything has come.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// See [`Pusher::push`].
    pub async fn push(&self, chunk: Chunk) -> Result<Ticket, ClientError> {
        self.pusher.push(chunk).await
    }

    /// See [`Pusher::offer`].
    pub async fn offer(&self, chunk: Chunk) -> Result<Ticket, ClientError> {
        self.pusher.offer(chunk).await
    }

    /// Pushes from elsewhere.
    pub fn pusher(&self) -> Pusher {
        self.pusher.clone()
    }

    /// Waits until the engine ends by itself: after an error that no new connection mends. Never after anything else.
    pub async fn ended(&mut self) -> ClientError {
        match (&mut self.work).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => ClientError::Stopped,
        }
    }

    /// Ends in good order: what was pushed is synced and signed, then sent; says goodbye for `reason` when everything is acknowledged, or
    /// gives up when `patience` ends: what is not acknowledged by then waits in the spool. Says how many records that are.
    pub async fn drain(mut self, reason: &str, patience: impl Future<Output = ()>) -> Result<u64, ClientError> {
        let (reply, synced) = oneshot::channel();
        let _ = self.commands.send(Command::Drain { reason: reason.to_owned(), reply });
        let drained = async {
            // Without a spool there is nothing to sync. Why the thread has ended, if it has, is told below.
            let _ = synced.await;
            (&mut self.work).await
        };
        let ended = tokio::select! {
            ended = drained => Some(ended),
            () = patience => None,
        };
        let waiting = self.shared.progress.borrow().waiting_records;
        // The thread ends with the last that could ask it for something.
        self.work.abort();
        self.commands = mpsc::unbounded_channel().0;
        let _ = timeout(LET_GO, &mut self.gone).await;
        match ended {
            Some(Ok(Err(error))) => Err(error),
            Some(_) => Ok(0),
            None => Ok(waiting),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// The thread and the link, until one of them ends.
fn work(
    shared: Arc<Shared>,
    keeper: Keeper,
    queue: Queue,
    let_go: oneshot::Sender<()>,
) -> Result<impl Future<Output = Result<(), ClientError>>, ClientError> {
    let runtime = Handle::current();
    let (ended, keeper_ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("sigillo-spool".into()).spawn(move || {
        let _ = ended.send(runtime.block_on(keeper.run()));
        drop(let_go);
    });
    thread.map_err(|error| ClientError::Protocol(format!("no thread for the spool: {error}")))?;
    let options = &shared.options;
    let link_options = link::Options {
        guard: options.guard.clone(),
        refusals_are_final: options.refusals_are_final,
        bandwidth_bytes_s: options.bandwidth_bytes_s,
        cpu_percent: options.cpu_percent,
        renews: true,
        ..link::Options::default()
    };
    let link = Link::new(options.endpoint.clone(), None, link_options, queue);
    Ok(async move {
        let ended = tokio::select! {
            ended = link.run(None) => ended,
            ended = keeper_ended => ended.unwrap_or(Err(ClientError::Stopped)),
        };
        shared.progress.send_modify(|progress| {
            progress.ended = true;
            progress.connected = false;
            if let Err(error) = &ended {
                progress.error = error.to_string();
            }
        });
        ended
    })
}

/// A chunk must fit into one batch.
fn check(records: &[Record]) -> Result<(), ClientError> {
    let mut bytes = 5;
    for record in records {
        let length = record.as_ref().length();
        if record.as_ref().bitmap() == 0 {
            return Err(PushError::Empty.into());
        }
        if length > RECORD_MAX_BYTES {
            return Err(PushError::RecordTooLarge(length).into());
        }
        bytes += length + RECORD_OVERHEAD_BYTES;
    }
    if records.len() > BATCH_MAX_RECORDS || bytes > BLOCK_MAX_BYTES {
        return Err(PushError::Full.into());
    }
    Ok(())
}
