//! A panel at work.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sigillo_client::{
    ClientError, Endpoint, Guard,
    spooled::{self, Chunk, Engine, Hold, Progress, SpoolOptions, Ticket},
};
use sigillo_proto::v1;
use sigillo_spool::SpoolError;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{Activity, PanelError, loss, receipts::Receipts};

/// How long a server may show an older checkpoint than the one remembered.
const GRACE: Duration = Duration::from_secs(30);
/// How long a sync is waited for that has begun when everything else has ended.
const LAST_SYNC: Duration = Duration::from_secs(5);
/// Bytes of a short text.
const NAME_MAX_BYTES: usize = 256;

/// How a panel writes.
#[derive(Debug, Clone)]
pub struct Options {
    /// The journal's server, and who we are there. With its `trust` the server is held to what it has signed.
    pub endpoint: Endpoint,
    /// Folder of the queue, of this process alone: `spool` in it, `refused`, and the newest checkpoint unless the endpoint says
    /// where to remember it. Made if it is missing.
    pub dir: PathBuf,
    /// Bytes of the queue on the disk at most: 16 MiB to 1 TiB.
    pub max_bytes: u64,
    /// How long [`Panel::write`] waits for the journal before it leaves an activity to the queue.
    pub patience: Duration,
    /// Name and version of the panel, for the register of sources and for the records.
    pub program: String,
    /// Name of this machine. `None`: as the kernel has it.
    pub host: Option<String>,
    /// Until when the queue holds what is acknowledged: by default, with a trust file that names a key of receipts, until a checkpoint
    /// that meets its policy is proved to cover it.
    pub hold: Hold,
    /// We mean to stay connected, and are missed when we are not: of a service. Not of a program that writes now and then.
    pub resident: bool,
}

impl Options {
    /// 1 GiB, 2 s, resident, held until a checkpoint.
    pub fn new(endpoint: Endpoint, dir: impl Into<PathBuf>, program: impl Into<String>) -> Self {
        Self {
            endpoint,
            dir: dir.into(),
            max_bytes: 1 << 30,
            patience: Duration::from_secs(2),
            program: program.into(),
            host: None,
            hold: Hold::UntilCheckpoint,
            resident: true,
        }
    }
}

/// What became of an activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is durable in the journal.
    Durable {
        /// Its sequence in the journal. `None` if the answer that names it did not reach us: it covered later activities, too, or the
        /// sender's epoch has changed meanwhile.
        sequence: Option<u64>,
        /// When the journal received it.
        received: Option<SystemTime>,
    },
    /// It is synced on this machine's disk, and reaches the journal once and in order as soon as that can be reached.
    Queued {
        /// Why it is not in the journal yet.
        why: String,
    },
}

/// Writes activities to one journal. Shared by reference among all who write.
#[derive(Debug)]
pub struct Panel {
    engine: Engine,
    receipts: Arc<Receipts>,
    patience: Duration,
    host: String,
    program: String,
}

impl Panel {
    /// Opens the queue and begins to send what it holds. Fails if another process has it. Does not wait for the journal; but until that has
    /// answered for the first time ever, nothing can be queued.
    pub async fn open(options: Options) -> Result<Self, PanelError> {
        let Options { endpoint, dir, max_bytes, patience, program, host, hold, resident } = options;
        let host = host.unwrap_or_else(this_host);
        for (what, text) in [("program", &program), ("host", &host)] {
            if text.len() > NAME_MAX_BYTES {
                return Err(PanelError::Activity(format!("`{what}` has more than {NAME_MAX_BYTES} bytes")));
            }
        }
        let remember = endpoint.remember.clone().unwrap_or_else(|| dir.clone());
        let guard = endpoint.trust.as_ref().map(|trust| Guard::open(trust, &remember, GRACE)).transpose()?;
        let receipts = Arc::new(Receipts::default());
        let declare = {
            let (host, program) = (host.clone(), program.clone());
            Arc::new(move |loss: &spooled::Loss| loss::record(loss, &host, &program))
        };
        let on_receipt = {
            let receipts = Arc::clone(&receipts);
            Arc::new(move |_: &v1::Welcome, receipt: &v1::Receipt| receipts.keep(receipt))
        };
        let spool = SpoolOptions { max_bytes, ..SpoolOptions::new(dir.join("spool")) };
        let engine = spooled::Options {
            guard: guard.map(Arc::new),
            hold,
            resident,
            on_receipt: Some(on_receipt),
            ..spooled::Options::new(endpoint, spool, dir.join("refused"), program.clone(), declare)
        };
        let engine = Engine::start(engine).await?;
        Ok(Self { engine, receipts, patience, host, program })
    }

    /// Writes an activity. Returns once it is durable in the journal, or else synced in the queue; an error says that it is neither,
    /// unless it is [`PanelError::Unknown`]. Activities keep the order in which their writing was begun.
    ///
    /// Whoever drops the future before it ends does not know what became of the activity.
    pub async fn write(&self, activity: Activity) -> Result<Written, PanelError> {
        let fields = activity.fields(&self.host, &self.program)?;
        let deadline = Instant::now() + self.patience;
        let mut progress = self.engine.progress();
        let is_there = async { progress.wait_for(|now| now.synced.0.get() > 0 || now.ended).await.is_ok() };
        if timeout_at(deadline, is_there).await.is_err() {
            return Err(PanelError::NotMet(self.trouble()));
        }
        if progress.borrow().ended {
            return Err(PanelError::Stopped(self.trouble()));
        }
        let chunk = Chunk { records: vec![fields.encode()], mark: None, urgent: true };
        let mut ticket = match timeout_at(deadline, self.engine.offer(chunk)).await {
            Ok(Ok(ticket)) => ticket,
            Ok(Err(ClientError::Stopped)) => return Err(PanelError::Stopped(self.trouble())),
            Ok(Err(ClientError::Record(error))) => return Err(PanelError::Activity(error.to_string())),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(PanelError::Busy(self.trouble())),
        };
        self.keep(&mut ticket, progress, deadline).await?;
        match timeout_at(deadline, ticket.acknowledged()).await {
            Ok(Ok(())) => Ok(self.durable(&ticket)),
            Ok(Err(ClientError::Refused { message, .. })) => Err(PanelError::Refused(message)),
            Ok(Err(_)) | Err(_) => Ok(Written::Queued { why: self.trouble() }),
        }
    }

    /// Waits until it is synced in the queue, or certainly not there.
    async fn keep(
        &self,
        ticket: &mut Ticket,
        mut progress: watch::Receiver<Progress>,
        deadline: Instant,
    ) -> Result<(), PanelError> {
        let told = |error| match error {
            ClientError::Spool(SpoolError::Full(reason)) => PanelError::Full(reason.into()),
            _ => PanelError::Unknown(self.trouble()),
        };
        match timeout_at(deadline, ticket.synced()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(ClientError::Stopped)) if ticket.withdraw() => return Err(PanelError::Stopped(self.trouble())),
            Ok(Err(ClientError::Stopped)) => {}
            Ok(Err(error)) => return Err(told(error)),
            Err(_) if ticket.withdraw() => return Err(PanelError::Busy(self.trouble())),
            // It was taken: now only the disk is waited for.
            Err(_) => return ticket.synced().await.map_err(told),
        }
        // The connection has ended for good, and perhaps the disk's thread; the sync that was begun still counts.
        let synced = progress.borrow().synced_records;
        let _ = timeout(LAST_SYNC, progress.wait_for(|now| now.synced_records > synced)).await;
        ticket.synced().await.map_err(told)
    }

    fn durable(&self, ticket: &Ticket) -> Written {
        let receipt = ticket.place().and_then(|place| self.receipts.of(place));
        let received = receipt.as_ref().and_then(|receipt| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(receipt.receipt_time_unix_nano))
        });
        Written::Durable { sequence: receipt.map(|receipt| receipt.sequence), received }
    }

    /// What hinders, in words.
    fn trouble(&self) -> String {
        let progress = self.engine.progress();
        let now = progress.borrow();
        match () {
            () if !now.error.is_empty() => now.error.clone(),
            () if !now.connected => "there is no connection to the journal".into(),
            () => "the journal has not answered in time".into(),
        }
    }

    /// How far everything has come, and what waits. Changes are told.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.engine.progress()
    }

    /// Sends what waits until everything is acknowledged, or until `patience` ends: the rest stays in the queue, and is sent when the panel is
    /// opened again. Says how many records that are.
    pub async fn close(self, patience: Duration) -> Result<u64, PanelError> {
        Ok(self.engine.drain("the panel is closed", sleep(patience)).await?)
    }
}

fn this_host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
