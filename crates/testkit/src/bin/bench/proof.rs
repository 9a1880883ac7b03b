//! `proof`: what the tree and the checkpoints cost ingest, what an inclusion proof costs, and the offline verifier.

use std::{
    hint::black_box,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use sigillo_journal::{Journal, Options, Reader};
use sigillo_model::{
    ids::{ChainHash, NodeHash},
    proof,
    tree::{Frontier, record_leaf},
};
use sigillo_testkit::{binaries, config};
use tokio::runtime::Runtime;

use crate::{
    data::Data,
    evidence,
    figures::{Against, Figures},
    ingest::Filled,
};

/// Records of the journal of which inclusion is proved.
const RECORDS: u64 = 10_000_000;
/// Proofs that are timed.
const PROOFS: usize = 2_000;
/// Records with which the cost of checkpoints is measured, with and without, so many times in turn.
const COST_RECORDS: u64 = 1_000_000;
const COST_ROUNDS: usize = 3;
/// Leaves with which the tree alone is measured.
const LEAVES: u64 = 4_000_000;
/// Starts of the verifier that are timed.
const STARTS: usize = 20;

pub(crate) fn measure(runtime: &Runtime, dir: &Path, figures: &mut Figures) -> Result<()> {
    evidence::measure(figures)?;
    verifier(dir, figures)?;
    cost(runtime, dir, figures)?;
    inclusion(runtime, dir, figures)
}

/// Size and start of `sigillo-verify`.
fn verifier(dir: &Path, figures: &mut Figures) -> Result<()> {
    let binary = binaries::binary("sigillo-verify")?;
    let stripped = dir.join("sigillo-verify");
    let done = Command::new("strip").arg("-o").arg(&stripped).arg(&binary).status().context("strip, of binutils")?;
    ensure!(done.success(), "strip failed");
    let bytes = std::fs::metadata(&stripped)?.len();
    let mut starts = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let begun = Instant::now();
        let output = Command::new(&stripped).arg("--version").output()?;
        starts.push(begun.elapsed().as_secs_f64() * 1_000.0);
        ensure!(output.status.success(), "the verifier does not start");
    }
    figures.put("verifier_stripped_mb", bytes as f64 / 1e6, Against::AtMost(5.0));
    figures.put("verifier_start_ms", median(&mut starts), Against::AtMost(20.0));
    Ok(())
}

/// What ingest pays. The tree can't be switched off, so its hashing is measured alone and held against a record's whole cost; checkpoints
/// are a table of the configuration, so servers with and without take turns.
fn cost(runtime: &Runtime, dir: &Path, figures: &mut Figures) -> Result<()> {
    let begun = thread_cpu();
    let mut tree = Frontier::default();
    for number in 0..LEAVES {
        let mut value = [7; 32];
        value[..8].copy_from_slice(&number.to_be_bytes());
        tree.push(record_leaf(&ChainHash::new(value)), |level, index, hash| {
            black_box((level, index, hash));
        });
    }
    black_box(tree.root());
    let tree_s = thread_cpu().saturating_sub(begun).as_secs_f64() / LEAVES as f64;

    let load = Data::Seeded { records: COST_RECORDS }.load()?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..COST_ROUNDS {
        for (signs, costs) in [(true, &mut with), (false, &mut without)] {
            let dir = dir.join(format!("cost-{round}-{signs}"));
            let filled = Filled::fill_signing(runtime, &dir, &load, signs)?;
            costs.push(filled.cpu().as_secs_f64() / filled.records as f64);
            std::fs::remove_dir_all(&dir)?;
        }
    }
    let (with, without) = (median(&mut with), median(&mut without));
    let percent = |part: f64| part / without * 100.0;
    figures.put("ingest_cpu_ns", with * 1e9, Against::Nothing);
    figures.put("ingest_unsigned_cpu_ns", without * 1e9, Against::Nothing);
    figures.put("tree_cpu_ns", tree_s * 1e9, Against::Nothing);
    // Of what ingest would cost with neither.
    let neither = without - tree_s;
    figures.put("checkpoints_cost_percent", percent(with - without), Against::Nothing);
    figures.put("tree_and_checkpoints_cost_percent", (with - neither) / neither * 100.0, Against::AtMost(15.0));
    Ok(())
}

/// Inclusion in a journal of ten million records, of records at random: under the newest size, as after each checkpoint, and each under
/// a size of its own, where the tree's right edge must be derived anew for each proof, too.
fn inclusion(runtime: &Runtime, dir: &Path, figures: &mut Figures) -> Result<()> {
    let dir = dir.join("inclusion");
    let load = Data::Seeded { records: RECORDS }.load()?;
    let filled = Filled::fill(runtime, &dir, &load)?;
    drop(load);
    let opened = Journal::open(&Options::new(filled.command.data_dir(), config::origin()?))?;
    let reader = opened.journal.reader();
    let newest = reader.head().size;
    ensure!(newest >= RECORDS, "the journal holds {newest} records only");
    figures.put("inclusion_records", newest as f64, Against::Nothing);
    let mut random = ChaCha12Rng::seed_from_u64(1);
    let mut bytes = 0;
    for (figure, sizes, against) in
        [("inclusion", newest..=newest, Against::AtMost(1.0)), ("inclusion_any_size", 1..=newest, Against::Nothing)]
    {
        let (mut cpu, mut wall) = (Vec::new(), Vec::new());
        for _ in 0..PROOFS {
            let size = random.random_range(sizes.clone());
            let index = random.random_range(0..size);
            let (begun, before) = (Instant::now(), thread_cpu());
            let siblings = reader.inclusion(index, size)?;
            cpu.push(thread_cpu().saturating_sub(before).as_secs_f64() * 1_000.0);
            wall.push(begun.elapsed().as_secs_f64() * 1_000.0);
            // The index before the siblings.
            bytes = bytes.max(8 + siblings.len() * 32);
            check(&reader, index, size, &siblings)?;
        }
        figures.put(&format!("{figure}_proof_cpu_p50_ms"), median(&mut cpu), against);
        figures.put(&format!("{figure}_proof_cpu_p99_ms"), percentile(&mut cpu, 99), Against::Nothing);
        figures.put(&format!("{figure}_proof_wall_p50_ms"), median(&mut wall), Against::Nothing);
    }
    figures.put("inclusion_proof_bytes", bytes as f64, Against::AtMost(1_000.0));
    runtime.block_on(opened.journal.close())?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// What is timed must be right.
fn check(reader: &Reader, index: u64, size: u64, siblings: &[NodeHash]) -> Result<()> {
    let leaves = reader.leaves(index..index + 1)?;
    let leaf = leaves.first().context("no leaf")?;
    proof::verify_inclusion(&record_leaf(leaf), index, size, siblings, &reader.root_at(size)?)?;
    Ok(())
}

/// Processor time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
