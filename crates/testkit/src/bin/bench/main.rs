//! `cargo xtask bench`: how fast the real server takes, verifies and searches records, and how near that is to what hashing,
//! the database and memory allow on the same machine in the same run.
//!
//! Processor time is user and system time of the whole server process, bytes written are `write_bytes` of its
//! `/proc/PID/io`. Both are read after the process has flushed, compacted and exited, and before it is reaped: then they are
//! final. Clients make their batches before the clock starts.

#![allow(clippy::cast_precision_loss, reason = "figures for people, of numbers far below 2^52")]

mod agent;
mod data;
mod drive;
mod evidence;
mod figures;
mod ingest;
mod limits;
mod load;
mod proof;
mod read;
mod small;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::{data::Data, figures::Figures, ingest::Filled, limits::Limits};

/// Measures speed. Set `SIGILLO_DATA` to a folder of .zst files of log lines to measure with those too.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// What to measure; everything by default.
    name: Option<Bench>,
    /// Print one JSON object a line: bench, figure, value, and limit and ratio or target where there is one.
    #[arg(long)]
    json: bool,
    /// Records of 290 bytes that `ingest`, `verify` and `scan` work on.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(40_000..=20_000_000))]
    records: u64,
    /// Folder for the databases, on the disk to measure; removed afterwards.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// 4 streams of 1,000-record batches over gRPC and TLS.
    Ingest,
    /// 64 streams of one record a batch, each waiting for its receipt.
    IngestSmall,
    /// Verification of a local database.
    Verify,
    /// A substring searched for in the whole journal.
    Scan,
    /// What tree and checkpoints cost, inclusion in ten million records, and evidence of a million verified offline.
    Proof,
    /// A file through an agent: what it costs the agent, beside rsyslog, and how long a line takes.
    Agent,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sigillo-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    std::fs::create_dir_all(&arguments.dir).with_context(|| format!("folder {}", arguments.dir.display()))?;
    let dir = tempfile::tempdir_in(&arguments.dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let wants = |bench| arguments.name.is_none_or(|name| name == bench);
    let mut figures = Figures::new(arguments.json);

    if wants(Bench::IngestSmall) {
        figures.begin("ingest-small", None);
        small::measure(&runtime, &dir.path().join("small"), &mut figures)?;
    }
    if wants(Bench::Proof) {
        figures.begin("proof", None);
        proof::measure(&runtime, dir.path(), &mut figures)?;
    }
    if wants(Bench::Agent) {
        figures.begin("agent", None);
        agent::measure(&runtime, &dir.path().join("agent"), &mut figures)?;
    }
    if [Bench::Ingest, Bench::Verify, Bench::Scan].into_iter().any(wants) {
        let mut all = vec![Data::Seeded { records: arguments.records }];
        all.extend(data::recorded()?);
        for (number, data) in all.iter().enumerate() {
            let dir = dir.path().join(number.to_string());
            measure(&runtime, &dir, data, wants, &mut figures)
                .with_context(|| format!("with {}", data.name().unwrap_or("seeded records")))?;
            std::fs::remove_dir_all(&dir)?;
        }
    }
    Ok(())
}

/// Fills a journal with `data` and measures what is wanted of it.
fn measure(
    runtime: &tokio::runtime::Runtime,
    dir: &std::path::Path,
    data: &Data,
    wants: impl Fn(Bench) -> bool,
    figures: &mut Figures,
) -> Result<()> {
    let load = data.load()?;
    ensure!(load.records > 0, "there is nothing to send");
    let limits = Limits::measure(&load, &dir.join("limit"))?;
    let filled = Filled::fill(runtime, &dir.join("peak"), &load)?;
    if wants(Bench::Ingest) {
        figures.begin("ingest", data.name());
        let latencies = ingest::at_half_rate(runtime, &dir.join("half"), &load, filled.records_per_s())?;
        filled.report(&limits, &latencies, figures);
    }
    if wants(Bench::Verify) {
        figures.begin("verify", data.name());
        read::verify(&filled, &limits, figures)?;
    }
    if wants(Bench::Scan) {
        figures.begin("scan", data.name());
        read::scan(runtime, &filled, &limits, figures)?;
    }
    Ok(())
}
