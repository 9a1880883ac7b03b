//! `ingest`: 4 streams of 1,000-record batches, at full speed and at half of it.

use std::{fs, os::unix::fs::MetadataExt, path::Path, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use sigillo_client::{Connection, Responses};
use sigillo_proto::v1;
use sigillo_testkit::{
    config,
    process::Usage,
    server::{Server, ServerCommand, Stopped},
};
use tokio::{
    runtime::Runtime,
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::{
    drive::{Pace, Run, drive},
    figures::{Against, Figures},
    limits::Limits,
    load::Load,
};

/// How long the latency is measured.
const HALF_RATE_DURING: Duration = Duration::from_secs(8);
/// A checkpoint has come after the last receipt within this.
const CHECKPOINT_MAX: Duration = Duration::from_secs(10);
/// Compaction is over when the server has used no processor time for so long.
const QUIET: Duration = Duration::from_secs(1);
const QUIET_MAX: Duration = Duration::from_secs(30);

/// A journal filled at full speed by a server that has stopped since.
pub(crate) struct Filled {
    pub(crate) command: ServerCommand,
    /// Records sent.
    pub(crate) records: u64,
    /// Bytes of these records.
    pub(crate) raw_bytes: u64,
    run: Run,
    usage: Usage,
    disk_bytes: u64,
}

impl Filled {
    pub(crate) fn fill(runtime: &Runtime, dir: &Path, load: &Load) -> Result<Self> {
        Self::fill_signing(runtime, dir, load, true)
    }

    /// As [`Filled::fill`], by a server that signs checkpoints and receipts, or one that signs nothing.
    pub(crate) fn fill_signing(runtime: &Runtime, dir: &Path, load: &Load, signs: bool) -> Result<Self> {
        let server = if signs { start(dir, load)? } else { start_unsigned(dir, load)? };
        let run = runtime.block_on(drive(&server, load, Pace::Full))?;
        ensure!(run.records == load.records, "{} of {} records have a receipt", run.records, load.records);
        let Stopped { command, usage, .. } = finish(server)?;
        let disk_bytes = disk_bytes(&command.data_dir())?;
        Ok(Self { command, records: load.records, raw_bytes: load.raw_bytes, run, usage, disk_bytes })
    }

    /// Processor time of the server, start and stop included.
    pub(crate) fn cpu(&self) -> Duration {
        self.usage.cpu
    }

    pub(crate) fn records_per_s(&self) -> f64 {
        self.run.records_per_s()
    }

    pub(crate) fn report(&self, limits: &Limits, half: &HalfRate, figures: &mut Figures) {
        let per_core = self.records as f64 / self.usage.cpu.as_secs_f64();
        let raw = self.raw_bytes as f64;
        figures.put("records", self.records as f64, Against::Nothing);
        figures.put("raw_bytes_per_record", raw / self.records as f64, Against::Nothing);
        figures.put("records_per_core_s", per_core, Against::AtLeast(200_000.0));
        figures.put("records_per_core_s_of_store", per_core, Against::Limit(limits.stored_records));
        figures.put("records_per_core_s_of_hash", per_core, Against::Limit(limits.hashed_records));
        figures.put("records_per_s", self.records_per_s(), Against::Limit(limits.stored_records));
        figures.put("ack_p50_ms", half.run.latency_ms(0.5), Against::Nothing);
        figures.put("ack_p99_ms", half.run.latency_ms(0.99), Against::AtMost(50.0));
        figures.put("half_rate_records_per_s", half.run.records_per_s(), Against::Nothing);
        figures.put("checkpoint_behind_max_ms", half.checkpoint_behind_ms, Against::AtMost(1_000.0));
        figures.put("written_per_raw", self.usage.written_bytes as f64 / raw, Against::Nothing);
        figures.put("disk_per_raw", self.disk_bytes as f64 / raw, Against::Nothing);
        figures.put("peak_rss_mib", self.usage.peak_rss_bytes as f64 / f64::from(1 << 20), Against::AtMost(512.0));
    }
}

/// Latency at half of the rate that was measured, on a new journal.
pub(crate) fn at_half_rate(runtime: &Runtime, dir: &Path, load: &Load, peak_records_per_s: f64) -> Result<HalfRate> {
    let server = start(dir, load)?;
    let pace = Pace::Records { per_s: peak_records_per_s / 2.0, during: HALF_RATE_DURING };
    let half = runtime.block_on(async {
        let reader = Connection::open(&server.endpoint(config::READER)).await?;
        let checkpoints = reader.watch_checkpoints(v1::WatchCheckpointsRequest { newest_signed: true }).await?;
        let (over, last) = oneshot::channel();
        let watching = tokio::spawn(watch(checkpoints, last));
        let run = drive(&server, load, pace).await?;
        // It may have ended early, which is told below.
        let _ = over.send(run.journal_size());
        let seen = timeout(CHECKPOINT_MAX, watching).await.context("no checkpoint covers the last receipt")???;
        Ok::<_, anyhow::Error>(HalfRate { checkpoint_behind_ms: run.behind_ms(&seen), run })
    })?;
    finish(server)?;
    fs::remove_dir_all(dir)?;
    Ok(half)
}

/// What was measured at half of the rate.
pub(crate) struct HalfRate {
    run: Run,
    /// The longest time between a receipt and the first checkpoint that covers it.
    checkpoint_behind_ms: f64,
}

/// Notes when each checkpoint came and its size, until one covers what is told by `last`.
async fn watch(
    mut checkpoints: Responses<v1::Checkpoint>,
    mut last: oneshot::Receiver<u64>,
) -> Result<Vec<(Instant, u64)>> {
    let mut seen = Vec::new();
    let mut until = None;
    loop {
        tokio::select! {
            next = checkpoints.next() => {
                let checkpoint = next?.context("the server has ended the stream of checkpoints")?;
                seen.push((Instant::now(), checkpoint.size));
            }
            size = &mut last, if until.is_none() => until = Some(size?),
        }
        if until.is_some_and(|until| seen.last().is_some_and(|(_, size)| *size >= until)) {
            return Ok(seen);
        }
    }
}

/// A server that knows the load's sources.
pub(crate) fn start(dir: &Path, load: &Load) -> Result<Server> {
    fs::create_dir_all(dir)?;
    // The server is told the place from where it stands.
    let dir = dir.canonicalize()?;
    config::write(&dir, &load.sources())?;
    ServerCommand::configured(&dir).start()
}

/// As [`start`], without the table of the configuration that asks for checkpoints.
fn start_unsigned(dir: &Path, load: &Load) -> Result<Server> {
    fs::create_dir_all(dir)?;
    let dir = dir.canonicalize()?;
    config::write(&dir, &load.sources())?;
    let path = dir.join("sigillod.toml");
    let mut table: toml::Table = fs::read_to_string(&path)?.parse()?;
    ensure!(table.remove("checkpoint").is_some(), "the configuration asks for no checkpoints");
    fs::write(&path, toml::to_string(&table)?)?;
    ServerCommand::configured(&dir).start()
}

/// Waits until the server has compacted what it will, then stops it; its counters are then final.
pub(crate) fn finish(server: Server) -> Result<Stopped> {
    let deadline = Instant::now() + QUIET_MAX;
    let mut before = server.usage()?;
    while Instant::now() < deadline {
        // There is nothing to wait on: the database does not tell when it has nothing more to do.
        thread::sleep(QUIET);
        let now = server.usage()?;
        if now.written_bytes == before.written_bytes && now.cpu.saturating_sub(before.cpu) <= QUIET / 50 {
            break;
        }
        before = now;
    }
    let stopped = server.stop()?;
    ensure!(stopped.status.success(), "sigillod ended with {}:\n{}", stopped.status, stopped.command.log_tail());
    ensure!(stopped.usage.written_bytes > 0, "the kernel counts no written bytes here: choose a --dir on a disk");
    Ok(stopped)
}

/// Bytes that the files below `dir` take on the disk.
fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("folder {}", dir.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
