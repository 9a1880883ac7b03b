//! The agent at work: from sources through the shipper to the state file.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use sd_notify::NotifyState;
use sigillo_client::{
    Backoff, ClientError, Connection, Guard,
    ship::{Options, Outcome, Settled, Shipper},
};
use sigillo_model::ids::Epoch;
use sigillo_proto::v1::Batch;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    AGENT, AgentError, Config,
    receipts::Receipts,
    record::Maker,
    scrub::Scrubber,
    source::{Chunk, Feed, audit, file, journald, socket, stdin},
    state::{State, StateDir},
};

/// Chunks that sources may hand over before one is taken. Each is what one read of 256 KiB gave.
const CHUNKS: usize = 4;
/// Records under way; above it nothing is taken from the sources.
const WAITING_MAX: u64 = 100_000;
/// Bytes of compressed batches under way.
const WINDOW_BYTES: usize = 8 << 20;
/// Least time between two writings of the state, and wait after one that failed.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long a stop waits for the last acks.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// How long the agent works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until it is stopped, or its only source, standard input, ends.
    Follow,
    /// Until what is there now is acknowledged.
    Once,
}

/// Ships until everything is shipped or `stop` is cancelled. A stop waits up to 10 s for the last acks.
pub async fn run(config: Config, mode: Mode, stop: CancellationToken) -> Result<(), AgentError> {
    let state_dir = Arc::new(StateDir::open(&config.state_dir)?);
    state_dir.check_not_paused()?;
    let result = ship(config, mode, stop, Arc::clone(&state_dir)).await;
    if let Err(AgentError::Client(error @ ClientError::Misconduct { .. })) = &result {
        error!("shipping pauses until a person acts: {error}");
        state_dir.pause(error)?;
    }
    result
}

async fn ship(config: Config, mode: Mode, stop: CancellationToken, state_dir: Arc<StateDir>) -> Result<(), AgentError> {
    let state = state_dir.load()?;
    let maker = maker(&config)?;
    let receipts = Receipts::new(state_dir.path());
    let guard = guard(&config, &receipts)?;
    // Before anything is shipped: who can't remember what was acknowledged would ship it at every start again.
    state_dir.save(&state)?;
    // We are at work even while the server is away.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let Some(shipper) = unless(&stop, start(&config, &state, guard.as_ref(), mode)).await else {
        return Ok(());
    };
    let (shipper, unsettled) = (shipper?, VecDeque::new());
    let mut agent = Agent { state_dir, shipper, state, receipts, guard, unsettled, save_at: None };

    let (chunks_end, mut chunks) = mpsc::channel(CHUNKS);
    let mut sources = spawn_sources(&config, &agent.state, mode, &maker, &chunks_end);
    drop(chunks_end);
    let result = agent.work(&mut chunks, &stop).await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let result = match result {
        Ok(()) => agent.finish(&stop).await,
        Err(error) => Err(error),
    };
    // Also after an error: what was acknowledged is not sent again.
    let saved = agent.save().await;
    result?;
    saved?;
    agent.shipper.close().await;
    if stop.is_cancelled() {
        return Ok(());
    }
    while let Some(ended) = sources.join_next().await {
        ended.unwrap_or(Ok(()))?;
    }
    Ok(())
}

/// A chunk whose records were pushed.
struct Unsettled {
    key: Arc<str>,
    mark: Option<Bytes>,
    /// Records of it that are not settled.
    records: u64,
    synced: Option<oneshot::Sender<()>>,
}

struct Agent {
    state_dir: Arc<StateDir>,
    shipper: Shipper,
    state: State,
    receipts: Receipts,
    guard: Option<Arc<Guard>>,
    /// One per chunk that is not settled, oldest first.
    unsettled: VecDeque<Unsettled>,
    /// When the state must be saved, if it has changed.
    save_at: Option<Instant>,
}

impl Agent {
    /// Until the sources end or we are stopped.
    async fn work(&mut self, chunks: &mut mpsc::Receiver<Chunk>, stop: &CancellationToken) -> Result<(), AgentError> {
        loop {
            let waiting = self.shipper.waiting();
            let (cut_at, save_at) = (self.shipper.deadline(), self.save_at);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // Also while nothing waits: that the journal was caught at misconduct is said here.
                settled = self.shipper.settled() => self.settle(settled?, stop).await?,
                () = at(save_at) => if let Err(error) = self.save().await {
                        // What is acknowledged meanwhile is only at stake if we end. Ending would ship it again for sure.
                        error!(%error, "the state can't be saved; trying again");
                    },
                () = at(cut_at) => {
                    if let Some(cut) = unless(stop, self.shipper.cut()).await {
                        cut?;
                    }
                }
                chunk = chunks.recv(), if waiting < WAITING_MAX => match chunk {
                    Some(chunk) => self.push(chunk, stop).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn push(&mut self, chunk: Chunk, stop: &CancellationToken) -> Result<(), AgentError> {
        let mut records = 0;
        for record in &chunk.records {
            match unless(stop, self.shipper.push(record)).await {
                Some(Ok(())) => records += 1,
                Some(Err(ClientError::Record(error))) => {
                    error!(source = %chunk.key, %error, "a line can't be made into a record; it stays in its source");
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            }
        }
        self.unsettled.push_back(Unsettled { key: chunk.key, mark: chunk.mark, records, synced: chunk.synced });
        if chunk.urgent
            && let Some(cut) = unless(stop, self.shipper.cut()).await
        {
            cut?;
        }
        while let Some(settled) = self.shipper.settled_so_far()? {
            self.settle(settled, stop).await?;
        }
        Ok(())
    }

    /// Sends what was taken and waits for the acks; once stopped, not for long.
    async fn finish(&mut self, stop: &CancellationToken) -> Result<(), AgentError> {
        let rest = async {
            self.shipper.cut().await?;
            while self.shipper.waiting() > 0 {
                let settled = self.shipper.settled().await?;
                self.settle(settled, stop).await?;
            }
            Ok(())
        };
        let patience = async {
            stop.cancelled().await;
            sleep(STOP_WAIT).await;
        };
        let finished = tokio::select! {
            result = rest => Some(result),
            () = patience => None,
        };
        finished.unwrap_or_else(|| Err(AgentError::Unacknowledged(self.shipper.waiting())))
    }

    async fn settle(&mut self, settled: Settled, stop: &CancellationToken) -> Result<(), AgentError> {
        match settled.outcome {
            Outcome::Durable(receipt) => self.receipts.take(self.shipper.welcome(), &receipt),
            Outcome::Refused { batch, message } => {
                let path = self.set_aside(&batch, &message, stop).await?;
                error!(
                    records = batch.count, file = %path.display(), said = message,
                    "the server refused records; they are set aside"
                );
            }
        }
        let mut left = settled.records;
        while let Some(first) = self.unsettled.front_mut() {
            let taken = left.min(first.records);
            (left, first.records) = (left - taken, first.records - taken);
            if first.records > 0 {
                break;
            }
            let Some(Unsettled { key, mark, synced, .. }) = self.unsettled.pop_front() else { break };
            if let Some(mark) = mark {
                self.state.remember(&key, &mark);
            }
            // Who does not wait any more need not be told.
            let _ = synced.map(|synced| synced.send(()));
        }
        self.state.epoch = settled.position.epoch.get();
        self.state.next = settled.position.next.get();
        self.state.head = settled.position.head.to_string();
        self.save_at.get_or_insert_with(|| Instant::now() + SAVE_EVERY);
        Ok(())
    }

    /// Keeps a refused batch, and does not go on without: once we remember its lines as done, they are nowhere else.
    async fn set_aside(&self, batch: &Batch, why: &str, stop: &CancellationToken) -> Result<PathBuf, AgentError> {
        let name = format!("{}-{}", batch.epoch, batch.first);
        loop {
            let error = match self.state_dir.quarantine(&name, &batch.block, why) {
                Ok(path) => return Ok(path),
                Err(error) => error,
            };
            error!(%error, "refused records can't be set aside; trying again");
            if unless(stop, sleep(SAVE_EVERY)).await.is_none() {
                return Err(error);
            }
        }
    }

    /// Saves the state if it has changed; after an error it will be time to save it again in a moment.
    async fn save(&mut self) -> Result<(), AgentError> {
        if self.save_at.take().is_none() {
            return Ok(());
        }
        let (state_dir, state) = (Arc::clone(&self.state_dir), self.state.clone());
        let receipts = self.receipts.unsaved(self.guard.as_deref());
        let save = move || {
            if let Err(error) = receipts.write() {
                // They prove to others what the journal took; that it took it, the state says.
                error!(%error, "receipts can't be kept: free space, or correct the directory's rights");
            }
            state_dir.save(&state)
        };
        // A task that panicked has said so.
        let saved = tokio::task::spawn_blocking(save).await.unwrap_or(Ok(()));
        if saved.is_err() {
            self.save_at = Some(Instant::now() + SAVE_EVERY);
        }
        saved
    }
}

/// What the server is held to, if there is a trust file.
fn guard(config: &Config, receipts: &Receipts) -> Result<Option<Arc<Guard>>, AgentError> {
    let Some(trust) = &config.server.trust else {
        warn!("there is no trust file (`server.trust`): checkpoints and receipts of the server are not verified");
        return Ok(None);
    };
    let dir = config.server.remember.as_ref().unwrap_or(&config.state_dir);
    let guard = Guard::open(trust, dir, Duration::from_secs(config.checkpoint_grace_s))?;
    guard.hold(receipts.open()?);
    Ok(Some(Arc::new(guard)))
}

/// Opens the connection and an epoch; in the end it succeeds, or the configuration is wrong.
async fn start(config: &Config, state: &State, guard: Option<&Arc<Guard>>, mode: Mode) -> Result<Shipper, AgentError> {
    let options = Options {
        max_records: config.batch.max_records,
        max_bytes: config.batch.max_bytes,
        max_delay: config.batch.max_delay(),
        window_bytes: WINDOW_BYTES,
        after: Epoch::new(state.epoch),
        guard: guard.cloned(),
        ..Options::new(AGENT)
    };
    let mut backoff = Backoff::default();
    loop {
        let attempt =
            Box::pin(async { Shipper::start(&Connection::open(&config.server).await?, options.clone()).await });
        let error = match attempt.await {
            Ok(shipper) => {
                let welcome = shipper.welcome();
                info!(origin = welcome.origin, class = welcome.class, "connected");
                return Ok(shipper);
            }
            Err(error @ (ClientError::File { .. } | ClientError::Url { .. } | ClientError::Misconduct { .. })) => {
                return Err(error.into());
            }
            Err(error @ (ClientError::Refused { .. } | ClientError::Checkpoint(_))) if mode == Mode::Once => {
                return Err(error.into());
            }
            Err(error) => error,
        };
        let wait = backoff.next_wait();
        warn!(%error, wait_ms = wait.as_millis(), "no connection; trying again");
        sleep(wait).await;
    }
}

/// What all sources make their records with.
fn maker(config: &Config) -> Result<Maker, AgentError> {
    let wrong = |what| AgentError::Config { path: PathBuf::from("agent.toml"), what };
    let scrubber = Scrubber::new(&config.scrub).map_err(wrong)?;
    Ok(Maker::new(&config.host, &config.tenant, Arc::new(scrubber)))
}

fn spawn_sources(
    config: &Config,
    state: &State,
    mode: Mode,
    maker: &Maker,
    chunks: &mpsc::Sender<Chunk>,
) -> JoinSet<Result<(), AgentError>> {
    let mut sources = JoinSet::new();
    let (feed, marks) = (Feed::new(chunks.clone()), state.marks());
    if !config.files.is_empty() {
        let tables = config.files.iter().map(|file| (file.clone(), maker.clone(), Arc::default())).collect();
        sources.spawn(file::follow(tables, Arc::clone(&marks), mode, feed.clone()));
    }
    for settings in &config.journald {
        let (maker, meter) = (maker.of("journald"), Arc::default());
        sources.spawn(journald::follow(settings.clone(), maker, Arc::clone(&marks), mode, feed.clone(), meter));
    }
    for settings in &config.audit {
        let (maker, marks, meter) = (maker.clone(), Arc::clone(&marks), Arc::default());
        sources.spawn(audit::follow(settings.clone(), maker, marks, mode, feed.clone(), meter));
    }
    for settings in &config.sockets {
        let (maker, meter) = (maker.of("socket"), Arc::default());
        sources.spawn(socket::follow(settings.clone(), maker, mode, feed.clone(), meter));
    }
    if config.reads_stdin() {
        sources.spawn(stdin::follow(maker.of("stdin"), feed, Arc::default()));
    }
    sources
}

async fn unless<T>(stop: &CancellationToken, future: impl Future<Output = T>) -> Option<T> {
    stop.run_until_cancelled(future).await
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn an_agent_that_could_not_remember_ships_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let config = format!(
            "state_dir = \"state\"\n[server]\nurl = \"https://{}\"\nca = \"ca\"\ncert = \"cert\"\nkey = \"key\"\n\
             [[file]]\npath = \"{}\"\n",
            listener.local_addr().unwrap(),
            dir.path().join("log").display()
        );
        fs::write(dir.path().join("agent.toml"), config).unwrap();
        // Where the new state would be written something stands in the way, also for root.
        fs::create_dir_all(dir.path().join("state/state.json.new")).unwrap();
        let config = Config::load(&dir.path().join("agent.toml")).unwrap();
        let error = run(config, Mode::Once, CancellationToken::new()).await.unwrap_err();
        assert!(matches!(error, AgentError::State { .. }), "{error}");
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "it has not even connected");
    }
}
