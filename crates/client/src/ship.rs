//! Sends records until they are durable.
//!
//! A [`Shipper`] cuts records into batches, chains them in an epoch of its own, and keeps each unchanged in memory until the
//! journal acknowledges it: over cuts of the connection, waits and drains of the server. What was not acknowledged when the
//! process ends is forgotten: who must not lose it keeps it elsewhere.

mod memory;
mod window;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use sigillo_model::{
    block::BlockBuilder,
    ids::{BatchHash, Epoch, SourceSeq},
    limits::{BATCH_MAX_RECORDS, BLOCK_MAX_BYTES},
    record::Record,
};
use sigillo_proto::v1;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};

use self::{
    memory::Memory,
    window::{Draft, Window},
};
pub use crate::link::hello_asking;
use crate::{
    ClientError, Connection, Guard,
    link::{self, Link},
    session::unix_nanos,
};

/// Settled batches that the link may report before the caller takes one.
const REPORTS: usize = 16;
/// Settled batches that wait for a caller who only pushes.
const UNTAKEN_MAX: usize = 65_536;
/// How long `close` waits for the server's end of the stream.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Bytes that a record needs in a block besides its parts, at most.
const RECORD_OVERHEAD_BYTES: usize = 13;

/// How a shipper works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name and version of the program, for the register ("sigillo-agent 0.1.0").
    pub agent: String,
    /// Records of a batch, 1 to [`BATCH_MAX_RECORDS`].
    pub max_records: usize,
    /// Bytes of a batch before compression, up to [`BLOCK_MAX_BYTES`]. A greater record travels alone.
    pub max_bytes: usize,
    /// After so long a batch is cut even if it is small; see [`Shipper::deadline`].
    pub max_delay: Duration,
    /// Bytes of compressed batches that may wait for their acks; beyond it, pushing waits. One batch may go over it.
    pub window_bytes: usize,
    /// The newest epoch that the caller remembers: the new one is greater, even when the clock was set back.
    pub after: Epoch,
    /// Gives up when something waits, or there is no connection, and nothing was acknowledged for so long. `None`: never.
    pub give_up_after: Option<Duration>,
    /// Gives up when the server says that we may not do this. Otherwise it is asked again: who has no other place to keep
    /// records waits until an administrator has mended it.
    pub refusals_are_final: bool,
    /// Is told why nothing goes on, once a reason.
    pub notice: Option<fn(&str)>,
    /// Holds the server to what it has said. `None`: it is believed.
    pub guard: Option<Arc<Guard>>,
}

impl Options {
    /// 1,000 records, 1 MiB, 200 ms; 16 MiB under way; never gives up.
    pub fn new(agent: impl Into<String>) -> Self {
        Self {
            agent: agent.into(),
            max_records: 1_000,
            max_bytes: 1 << 20,
            max_delay: Duration::from_millis(200),
            window_bytes: 16 << 20,
            after: Epoch::new(0),
            give_up_after: None,
            refusals_are_final: false,
            notice: None,
            guard: None,
        }
    }
}

/// What became of the oldest records that were pushed and not settled yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// How many records, in the order in which they were pushed.
    pub records: u64,
    /// Where the sender's chain stands after them.
    pub position: Position,
    /// What became of them.
    pub outcome: Outcome,
}

/// A place in a sender's chain of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Epoch.
    pub epoch: Epoch,
    /// Number of the next record.
    pub next: SourceSeq,
    /// Hash of the batch before it, or the epoch's opening value.
    pub head: BatchHash,
}

/// What became of records.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// They are durable. The receipt is that of the last batch.
    Durable(v1::Receipt),
    /// The server will never take this batch. Set it aside; what was pushed after it goes on in a new epoch.
    Refused {
        /// The batch as it was sent.
        batch: v1::Batch,
        /// The server's words.
        message: String,
    },
}

/// Sends records until they are durable. Every method loses nothing when it is cancelled.
#[derive(Debug)]
pub struct Shipper {
    options: Options,
    welcome: v1::Welcome,
    builder: BlockBuilder,
    /// When the first record of the batch being built was pushed: for the deadline, and for the server.
    oldest: Option<(Instant, u64)>,
    drafts: mpsc::Sender<Draft>,
    reports: mpsc::Receiver<Result<Settled, ClientError>>,
    untaken: VecDeque<Settled>,
    /// Records that were pushed and are not settled.
    waiting: u64,
    link: JoinHandle<()>,
}

impl Shipper {
    /// Opens a stream on `connection` and a new epoch. Later connections to the same server are made as needed.
    pub async fn start(connection: &Connection, options: Options) -> Result<Self, ClientError> {
        let session = link::open(connection, options.guard.as_ref(), hello_asking(&options.agent)).await?;
        let welcome = session.welcome.clone();
        let window = Window::open(&welcome, options.after, unix_nanos())?;
        // One draft waits while the window is full; then pushing waits.
        let (drafts, drafts_end) = mpsc::channel(1);
        let (reports_end, reports) = mpsc::channel(REPORTS);
        let link = link(connection, &options, Memory::new(&options, window, drafts_end, reports_end.clone()));
        let link = async move {
            tokio::select! {
                () = reports_end.closed() => {}
                ended = link.run(Some(session)) => if let Err(error) = ended {
                    // A caller that is gone needs no error.
                    let _ = reports_end.send(Err(error)).await;
                },
            }
        };
        Ok(Self {
            options,
            welcome,
            builder: BlockBuilder::default(),
            oldest: None,
            drafts,
            reports,
            untaken: VecDeque::new(),
            waiting: 0,
            link: tokio::spawn(link),
        })
    }

    /// What the server said when the first stream was opened: who we are there, and its limits.
    pub fn welcome(&self) -> &v1::Welcome {
        &self.welcome
    }

    /// Records that were pushed and are not settled yet.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Adds a record to the batch that is being built. Waits while too many bytes are under way.
    pub async fn push(&mut self, record: &Record) -> Result<(), ClientError> {
        let length = record.as_ref().length() + RECORD_OVERHEAD_BYTES;
        if self.is_full(length) {
            self.cut().await?;
        }
        self.builder.push(record.as_ref())?;
        self.oldest.get_or_insert_with(|| (Instant::now(), unix_nanos()));
        self.waiting += 1;
        if self.is_full(0)
            && let Ok(permit) = self.drafts.try_reserve()
        {
            permit.send(Draft::take(&mut self.builder, &mut self.oldest));
        }
        Ok(())
    }

    /// When the batch that is being built must be [cut](Self::cut), if there is one.
    pub fn deadline(&self) -> Option<Instant> {
        self.oldest.map(|(since, _)| since + self.options.max_delay)
    }

    /// Ends the batch that is being built and hands it over for sending. Waits while too many bytes are under way.
    pub async fn cut(&mut self) -> Result<(), ClientError> {
        while self.builder.count() > 0 {
            tokio::select! {
                permit = self.drafts.clone().reserve_owned() => match permit {
                    Ok(permit) => drop(permit.send(Draft::take(&mut self.builder, &mut self.oldest))),
                    // The link has stopped; its last report says why.
                    Err(_) => return Err(self.last_words().await),
                },
                // Taken here too, else the link and we would wait for each other.
                report = self.reports.recv(), if self.untaken.len() < UNTAKEN_MAX => {
                    self.untaken.push_back(report.unwrap_or(Err(ClientError::Stopped))?);
                }
                () = std::future::ready(()), if self.untaken.len() >= UNTAKEN_MAX => return Err(ClientError::Untaken),
            }
        }
        Ok(())
    }

    /// Waits until more records are settled, and says what became of them.
    pub async fn settled(&mut self) -> Result<Settled, ClientError> {
        let settled = match self.untaken.pop_front() {
            Some(settled) => settled,
            None => self.reports.recv().await.unwrap_or(Err(ClientError::Stopped))?,
        };
        self.waiting = self.waiting.saturating_sub(settled.records);
        Ok(settled)
    }

    /// What became of more records, if that is known already.
    pub fn settled_so_far(&mut self) -> Result<Option<Settled>, ClientError> {
        let settled = match self.untaken.pop_front() {
            Some(settled) => settled,
            None => match self.reports.try_recv() {
                Ok(report) => report?,
                Err(mpsc::error::TryRecvError::Empty) => return Ok(None),
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(ClientError::Stopped),
            },
        };
        self.waiting = self.waiting.saturating_sub(settled.records);
        Ok(Some(settled))
    }

    /// Sends everything and waits until it is durable. The receipts are those of all batches since the last flush. A refused
    /// batch is an error; what came after it is still sent.
    pub async fn flush(&mut self) -> Result<Vec<v1::Receipt>, ClientError> {
        self.cut().await?;
        let mut receipts = Vec::new();
        while self.waiting > 0 {
            match self.settled().await?.outcome {
                Outcome::Durable(receipt) => receipts.push(receipt),
                Outcome::Refused { batch, message } => {
                    let v1::Batch { epoch, first, count, .. } = batch;
                    return Err(ClientError::InvalidBatch { epoch, first, count, message });
                }
            }
        }
        Ok(receipts)
    }

    /// Ends the stream in good order. Call it after a flush: what is not settled is forgotten.
    pub async fn close(self) {
        let Self { drafts, mut reports, mut link, .. } = self;
        drop(drafts);
        let ended = async {
            while reports.recv().await.is_some() {}
            let _ = (&mut link).await;
        };
        if timeout(CLOSE_WAIT, ended).await.is_err() {
            link.abort();
        }
    }

    fn is_full(&self, more_bytes: usize) -> bool {
        let records = self.builder.count();
        let max_bytes = self.options.max_bytes.min(BLOCK_MAX_BYTES);
        records >= self.options.max_records.min(BATCH_MAX_RECORDS)
            || (records > 0 && self.builder.bytes() + more_bytes > max_bytes)
    }

    async fn last_words(&mut self) -> ClientError {
        loop {
            match self.reports.recv().await {
                Some(Ok(settled)) => self.untaken.push_back(settled),
                Some(Err(error)) => return error,
                None => return ClientError::Stopped,
            }
        }
    }
}

fn link(connection: &Connection, options: &Options, memory: Memory) -> Link<Memory> {
    let link_options = link::Options {
        guard: options.guard.clone(),
        give_up_after: options.give_up_after,
        refusals_are_final: options.refusals_are_final,
        notice: options.notice,
        ..link::Options::default()
    };
    Link::new(connection.endpoint().clone(), Some(connection.clone()), link_options, memory)
}
