//! How the agent does, for whoever asks on the machine: one JSON object over a socket in the state directory.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sigillo_client::{spooled::Progress, unix_nanos};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::warn;

use crate::{AgentError, Config, source::Meter};

const SOCKET: &str = "status.sock";
/// How long an asker may take, and an answer.
const WAIT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read.
const ANSWER_MAX_BYTES: u64 = 4 << 20;
/// Since when rates are counted, at most.
const RATE_OVER: Duration = Duration::from_secs(60);

/// What all sources have done.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<BTreeMap<String, Arc<Meter>>>);

impl Board {
    /// The meter of a source of this name.
    pub(crate) fn meter(&self, name: &str) -> Arc<Meter> {
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(meters.entry(name.to_owned()).or_default())
    }

    #[cfg(test)]
    pub(crate) fn names(&self) -> Vec<String> {
        self.lines().into_keys().collect()
    }

    fn lines(&self) -> BTreeMap<String, (u64, u64)> {
        let meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |meter: &Meter| (meter.lines.load(Relaxed), meter.bytes.load(Relaxed));
        meters.iter().map(|(name, meter)| (name.clone(), counts(meter))).collect()
    }
}

/// What the agent says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this form.
    pub version: u32,
    /// Name and version of the agent.
    pub agent: String,
    /// Process.
    pub process_id: u32,
    /// How long it has worked, seconds.
    pub uptime_s: u64,
    /// The server.
    pub server: String,
    /// The journal's origin and our class there; empty until it has welcomed us.
    pub origin: String,
    /// See above.
    pub class: String,
    /// A stream is open.
    pub connected: bool,
    /// Why nothing goes on; empty when it does.
    pub error: String,
    /// Seconds since the newest ack.
    pub last_ack_s: Option<u64>,
    /// The server's clock minus ours, milliseconds.
    pub clock_skew_ms: i64,
    /// The spool.
    pub spool: SpoolReport,
    /// Batches that the server refused for ever since the start; they are in the folder `quarantine`.
    pub refused_batches: u64,
    /// Each source.
    pub sources: Vec<SourceReport>,
}

/// What waits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpoolReport {
    /// Records that are not acknowledged.
    pub waiting_records: u64,
    /// Age of the oldest of them, seconds.
    pub oldest_s: Option<u64>,
    /// Bytes of its files.
    pub bytes: u64,
    /// Nothing more is read until something is acknowledged.
    pub full: bool,
    /// Losses of it that were declared since the start.
    pub losses: u64,
}

/// A source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Path or pattern of files, or kind, with what tells it from others of its kind.
    pub name: String,
    /// Lines and bytes that were read since the start.
    pub lines: u64,
    /// See above.
    pub bytes: u64,
    /// Lines a second, over the last minute or so.
    pub lines_s: f64,
    /// Bytes that are there and not read, of files and audit logs.
    pub lag_bytes: Option<u64>,
    /// Seconds by which reading is behind what is written, of the systemd journal.
    pub lag_s: Option<u64>,
    /// Seconds since something was read.
    pub last_read_s: Option<u64>,
    /// Times at which something was seen to be missing, and lines that were, as far as they could be counted.
    pub gaps: u64,
    /// See above.
    pub lost_lines: u64,
    /// What stands in the way.
    pub error: Option<String>,
}

impl Report {
    /// Whether nothing stands in the way now.
    pub fn is_fine(&self) -> bool {
        self.connected
            && self.error.is_empty()
            && !self.spool.full
            && self.sources.iter().all(|source| source.error.is_none())
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to memory can't fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        let or_none = |text: &str| if text.is_empty() { "none yet".to_owned() } else { text.to_owned() };
        writeln!(
            text,
            "agent    {}, process {}, at work for {}",
            self.agent,
            self.process_id,
            Ago(Some(self.uptime_s))
        )?;
        let state = if self.connected { "connected" } else { "NOT CONNECTED" };
        writeln!(text, "server   {}: {state}", self.server)?;
        writeln!(text, "journal  {}, we are of class {}", or_none(&self.origin), or_none(&self.class))?;
        if !self.error.is_empty() {
            writeln!(text, "error    {}", self.error)?;
        }
        writeln!(text, "last ack {}", Ago(self.last_ack_s))?;
        writeln!(text, "clock    the server's is {} ms from ours", self.clock_skew_ms)?;
        let SpoolReport { waiting_records, oldest_s, bytes, full, losses } = &self.spool;
        let oldest = oldest_s.map(|_| format!(", the oldest since {}", Ago(*oldest_s))).unwrap_or_default();
        writeln!(text, "spool    {waiting_records} records wait{oldest}; {bytes} bytes on the disk")?;
        if *full {
            writeln!(text, "         FULL: nothing more is read until the journal has acknowledged something")?;
        }
        if *losses > 0 {
            writeln!(text, "         {losses} losses were declared since the start")?;
        }
        if self.refused_batches > 0 {
            writeln!(
                text,
                "         {} batches were refused for ever; they are in the folder `quarantine`",
                self.refused_batches
            )?;
        }
        for source in &self.sources {
            let SourceReport { name, lines, bytes, lines_s, last_read_s, gaps, lost_lines, error, .. } = source;
            writeln!(text, "\n{name}")?;
            writeln!(text, "  read   {lines} lines, {bytes} bytes; {lines_s} lines/s; last {}", Ago(*last_read_s))?;
            match (source.lag_bytes, source.lag_s) {
                (Some(bytes), _) => writeln!(text, "  lag    {bytes} bytes")?,
                (None, Some(0)) => writeln!(text, "  lag    none")?,
                (None, Some(seconds)) => writeln!(text, "  lag    {}", Ago(Some(seconds)))?,
                (None, None) => writeln!(text, "  lag    -")?,
            }
            if *gaps > 0 {
                writeln!(text, "  gaps   {gaps}, with {lost_lines} lines that are known of")?;
            }
            if let Some(error) = error {
                writeln!(text, "  ERROR  {error}")?;
            }
        }
        Ok(())
    }
}

/// Seconds, for people.
struct Ago(Option<u64>);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("not yet"),
            Some(seconds @ 0..120) => write!(f, "{seconds} s"),
            Some(seconds @ 120..7_200) => write!(f, "{} min", seconds / 60),
            Some(seconds) => write!(f, "{} h", seconds / 3_600),
        }
    }
}

/// Answers, as long as it lives.
#[derive(Debug)]
pub(crate) struct Status {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Status {
    pub(crate) fn serve(
        state_dir: &Path,
        progress: watch::Receiver<Progress>,
        board: Arc<Board>,
        config: &Config,
    ) -> Result<Self, AgentError> {
        let path = state_dir.join(SOCKET);
        let failed =
            |error: io::Error| AgentError::State { path: path.clone(), what: format!("can't be made: {error}") };
        // Of an earlier life: the directory is ours alone.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = match UnixListener::bind(&path) {
            Ok(listener) => listener,
            // A path of a socket is bounded; the agent works without.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                warn!(path = %path.display(), %error, "`sigillo-agent status` will not work");
                return Ok(Self { path, task: tokio::spawn(async {}) });
            }
            Err(error) => return Err(failed(error)),
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let server = config.server.url.clone();
        let (started, mut rates) = (Instant::now(), Rates::new(&board));
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                };
                let mut report = report(&progress.borrow(), &board, &mut rates);
                report.server.clone_from(&server);
                report.uptime_s = started.elapsed().as_secs();
                let text = serde_json::to_vec(&report).unwrap_or_default();
                // One asker at a time, and none for long.
                let _ = timeout(WAIT, stream.write_all(&text)).await;
            }
        });
        Ok(Self { path, task })
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

/// What was counted some time ago.
struct Rates {
    since: Instant,
    before: BTreeMap<String, (u64, u64)>,
    /// Counted later; takes the place of the other in time.
    next: (Instant, BTreeMap<String, (u64, u64)>),
}

impl Rates {
    fn new(board: &Board) -> Self {
        let (since, before) = (Instant::now(), board.lines());
        Self { since, next: (since, before.clone()), before }
    }

    fn lines_s(&mut self, name: &str, lines: u64) -> f64 {
        let seconds = self.since.elapsed().as_secs_f64().max(0.001);
        let before = self.before.get(name).map_or(0, |(lines, _)| *lines);
        // Far below 2^52.
        #[allow(clippy::cast_precision_loss)]
        let lines = lines.saturating_sub(before) as f64;
        (lines / seconds * 10.0).round() / 10.0
    }

    /// Moves on, so that rates are those of the last minute or two.
    fn step(&mut self, board: &Board) {
        if self.next.0.elapsed() >= RATE_OVER {
            (self.since, self.before) = std::mem::replace(&mut self.next, (Instant::now(), board.lines()));
        }
    }
}

fn report(progress: &Progress, board: &Board, rates: &mut Rates) -> Report {
    let now = unix_nanos();
    let ago = |ns: u64| (ns > 0).then(|| now.saturating_sub(ns) / 1_000_000_000);
    rates.step(board);
    let meters = board.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let sources = meters.iter().map(|(name, meter)| {
        let lines = meter.lines.load(Relaxed);
        SourceReport {
            name: name.clone(),
            lines,
            bytes: meter.bytes.load(Relaxed),
            lines_s: rates.lines_s(name, lines),
            lag_bytes: meter.lag_bytes(),
            lag_s: meter.lag_ns(now).map(|ns| ns / 1_000_000_000),
            last_read_s: ago(meter.last_read_ns.load(Relaxed)),
            gaps: meter.gaps.load(Relaxed),
            lost_lines: meter.lost_lines.load(Relaxed),
            error: meter.error(),
        }
    });
    Report {
        version: 1,
        agent: crate::AGENT.into(),
        process_id: std::process::id(),
        origin: progress.origin.clone(),
        class: progress.class.clone(),
        connected: progress.connected,
        error: progress.error.clone(),
        last_ack_s: ago(progress.last_ack_ns),
        clock_skew_ms: progress.skew_ns / 1_000_000,
        spool: SpoolReport {
            waiting_records: progress.waiting_records,
            oldest_s: ago(progress.oldest_ns),
            bytes: progress.spool_bytes,
            full: progress.full,
            losses: progress.losses,
        },
        refused_batches: progress.refused_batches,
        sources: sources.collect(),
        ..Report::default()
    }
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// The agent's answer.
    Report(Box<Report>),
    /// No agent works with this state directory.
    NotRunning,
}

/// Asks the agent that works with the configuration's state directory.
pub async fn ask(config: &Config) -> Result<Asked, AgentError> {
    let path = config.state_dir.join(SOCKET);
    let failed = |what: String| AgentError::State { path: path.clone(), what };
    let mut stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(Asked::NotRunning);
        }
        Err(error) => return Err(failed(format!("can't be asked ({error}): ask as root, or as the agent's user"))),
    };
    let mut text = Vec::new();
    let read = async { (&mut stream).take(ANSWER_MAX_BYTES).read_to_end(&mut text).await };
    match timeout(WAIT, read).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(failed(format!("gives no answer: {error}"))),
        Err(_) => return Err(failed("gives no answer within 5 s".into())),
    }
    let report =
        serde_json::from_slice(&text).map_err(|error| failed(format!("gives no answer that is known: {error}")))?;
    Ok(Asked::Report(Box::new(report)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_no_zero() {
        let board = Board::default();
        board.meter("socket s");
        board.meter("audit a").lag_bytes.store(0, Relaxed);
        board.meter("b.log").lag_bytes.store(77, Relaxed);
        board.meter("journald").read_up_to(unix_nanos() - 130_000_000_000);
        board.meter("journald x").read_up_to(0);
        let report = report(&Progress::default(), &board, &mut Rates::new(&board));
        let text = report.to_text();
        let lags: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("  lag    ")).collect();
        assert_eq!(lags, ["0 bytes", "77 bytes", "2 min", "none", "-"], "{text}");
        let json = serde_json::to_value(&report).unwrap();
        let unknown = &json["sources"][4];
        assert!(unknown["lag_bytes"].is_null() && unknown["lag_s"].is_null(), "{unknown}");
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }
}
