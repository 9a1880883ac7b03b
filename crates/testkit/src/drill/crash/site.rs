//! A journal with its server and its senders, through many crashes.

use std::{
    fmt, fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use sigillo_journal::verify::verify;
use tempfile::TempDir;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{check, source::Source};
use crate::{
    config,
    powerloss::{self, Cut, Shim},
    server::{Server, ServerCommand},
};

const SOURCES: [(&str, &str); 4] =
    [("web-1", "service"), ("backup-1", "backup"), ("panel", "panel"), ("admin-host", "admin")];
/// Lines of the server's log that are shown after a failure.
const LOG_LINES: usize = 12;
/// Longest wait for the first receipt of a server that is well.
const RECEIPT_MAX: Duration = Duration::from_secs(30);
/// Longest wait for the senders to notice that the server is gone.
const PARTING_MAX: Duration = Duration::from_secs(30);

/// A journal with its server and its senders.
pub(super) struct Site {
    pub(super) trials: u32,
    command: ServerCommand,
    /// `None` while it is dead.
    server: Option<Server>,
    sources: Vec<Source>,
    /// The shim's log, if the power may fail here.
    log: Option<PathBuf>,
    dir: TempDir,
}

/// When the server is killed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kill {
    /// So long after the senders were told to start.
    AfterStart(Duration),
    /// So long after any of them got a receipt.
    AfterFirstReceipt(Duration),
}

/// How a trial went.
#[derive(Debug, Default)]
pub(super) struct Survived {
    after: Duration,
    acknowledged: usize,
    again: usize,
    verified: u64,
    pub(super) killed_at_start: bool,
    pub(super) cut: Option<Cut>,
}

impl Site {
    pub(super) fn new(shim: Option<(&Shim, bool)>, seed: u64) -> Result<Self> {
        let dir = TempDir::with_prefix("sigillo-crash-")?;
        let path = dir.path();
        let named = SOURCES.map(|(name, class)| config::Source { name: name.into(), class });
        config::write(path, &named)?;
        let mut command = ServerCommand::configured(path);
        fs::create_dir(command.data_dir())?;
        let log = shim.is_some().then(|| path.join("powerloss.log"));
        if let Some(((shim, lie), log)) = shim.zip(log.as_ref()) {
            powerloss::begin(&command.data_dir(), log)?;
            for (name, value) in shim.environment(&command.data_dir(), log, lie) {
                command = command.env(name, value);
            }
        }
        let origin = config::origin()?;
        let sources = (seed..).zip(&SOURCES).map(|(seed, (name, _))| Source::new(&origin, name, seed)).collect();
        Ok(Self { trials: 0, command, server: None, sources, log, dir })
    }

    pub(super) fn start(&mut self) -> Result<()> {
        self.server = Some(self.command.start()?);
        Ok(())
    }

    pub(super) fn kill_at_start(&self, after: Duration) -> Result<()> {
        self.command.start_and_kill(after)
    }

    /// Throws away what was not synced, if the power may fail here.
    pub(super) fn cut_power(&self) -> Result<Option<Cut>> {
        let Some(log) = &self.log else { return Ok(None) };
        let data = self.command.data_dir();
        let cut = powerloss::cut(&data, log)?;
        powerloss::begin(&data, log)?;
        Ok(Some(cut))
    }

    /// Whether the server runs, and the end of its log, indented.
    pub(super) fn last_words(&self) -> String {
        let runs = match &self.server {
            Some(server) if server.usage().is_ok_and(|usage| usage.peak_rss_bytes > 0) => "the server runs",
            Some(_) => "the server has ended",
            None => "the server was killed",
        };
        let log = self.command.log_tail();
        let lines: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
        let lines = lines.into_iter().rev().map(|line| format!("\n      {line}"));
        format!("    {runs}; its log ends:{}", lines.collect::<String>())
    }

    /// Lets all senders send, and kills the server meanwhile.
    pub(super) async fn load_and_kill(&mut self, kill: Kill, random: &mut ChaCha12Rng) -> Result<Survived> {
        let server = self.server.take().context("the server does not run")?;
        let before: usize = self.sources.iter().map(Source::acknowledged).sum();
        let began = Instant::now();
        let receipts = Arc::new(Notify::new());
        let mut senders = JoinSet::new();
        for mut source in self.sources.drain(..) {
            let endpoint = check::endpoint(&server, self.dir.path(), source.name());
            let seed = random.random();
            let receipts = receipts.clone();
            senders.spawn(async move {
                let ended = source.send_until_cut(&endpoint, seed, &receipts).await;
                (source, ended)
            });
        }
        match kill {
            Kill::AfterStart(after) => sleep(after).await,
            Kill::AfterFirstReceipt(after) => {
                timeout(RECEIPT_MAX, receipts.notified()).await.context("nobody gets a receipt")?;
                sleep(after).await;
            }
        }
        let after = began.elapsed();
        tokio::task::block_in_place(|| server.kill())?;
        let parted = timeout(PARTING_MAX, senders.join_all()).await.context("a sender does not notice the kill")?;
        let mut outcome = Ok(());
        for (source, ended) in parted {
            let name = source.name().to_owned();
            self.sources.push(source);
            outcome = outcome.and(ended.with_context(|| format!("source {name} under load")));
        }
        outcome?;
        let acknowledged = self.sources.iter().map(Source::acknowledged).sum::<usize>() - before;
        Ok(Survived { after, acknowledged, ..Survived::default() })
    }

    /// Walks the journal, compares it with what was sent and acknowledged, and sends the rest again.
    pub(super) async fn check_and_send_again(&mut self, survived: &mut Survived) -> Result<()> {
        let server = self.server.as_ref().context("the server does not run")?;
        let dir = self.dir.path();
        survived.verified = check::walk(server, dir, &mut self.sources).await.context("after the restart")?;
        for source in &mut self.sources {
            let endpoint = check::endpoint(server, dir, source.name());
            let again = source.send_again(&endpoint).await;
            survived.again += again.with_context(|| format!("source {} sends again", source.name()))?;
        }
        Ok(())
    }

    /// Checks everything once more, stops the server in good order and verifies the database itself.
    pub(super) async fn retire(mut self) -> Result<()> {
        let server = self.server.take().context("the server does not run")?;
        let verified = check::walk(&server, self.dir.path(), &mut self.sources).await.context("before the stop")?;
        let stopped = tokio::task::block_in_place(|| server.stop())?;
        anyhow::ensure!(stopped.status.success(), "the server stopped with {}", stopped.status);
        let report = verify(&self.command.data_dir(), |_| {}).map_err(|error| anyhow!("after the stop: {error}"))?;
        anyhow::ensure!(report.records >= verified, "{} records after the stop, {verified} before", report.records);
        Ok(())
    }
}

impl fmt::Display for Survived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, acknowledged, again, verified, .. } = self;
        write!(f, "after {:>3} ms, {acknowledged} batches acknowledged, {again} sent again", after.as_millis())?;
        write!(f, ", {verified} records verified")?;
        if let Some(Cut { files, bytes, entries }) = self.cut {
            write!(f, ", lost {bytes} bytes of {files} files and {entries} entries")?;
        }
        if self.killed_at_start { f.write_str(", killed again at its start") } else { Ok(()) }
    }
}
