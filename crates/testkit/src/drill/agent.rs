//! The agent drill: a real agent reads files that are written and rotated, and ships them to a real server, while processes are
//! killed, the power fails, the link breaks, disks fill up and clocks step. Once everything is well again each line must be in the
//! journal exactly once, in the order of its file, or a declared loss must cover it.

mod act;
mod acts;
mod ledger;
mod load;
mod site;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use anyhow::{Context, Result};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use tempfile::TempDir;

use self::site::{Site, Survived};
use super::{Tally, random};
use crate::machine::Shims;

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many times faults are made under load, each time in the middle of about 10,000 records
    #[arg(long, default_value_t = 1_000)]
    pub trials: u32,
    /// From which lines, rotations and faults follow; by default a random one
    #[arg(long)]
    pub seed: Option<u64>,
    /// Records of a trial
    #[arg(long, default_value_t = 10_000)]
    pub records: u64,
    /// Switch syncing off behind the backs of agent and server, and let the power fail in every trial: the drill must then fail
    #[arg(long)]
    pub no_sync: bool,
    /// Show what every trial did
    #[arg(long)]
    pub verbose: bool,
}

/// Journals that are worked on at the same time, each with a server and an agent; trials take turns.
const SITES: u32 = 8;
/// A site lives through so many trials, then a fresh one takes its place.
const TRIALS_PER_SITE: u32 = 25;

/// Holds the drill.
pub fn run(options: &Options) -> Result<Tally> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let syncing = if options.no_sync { ", syncing switched off" } else { "" };
    println!("agent: seed {seed}, {} trials of {} records{syncing}", options.trials, options.records);
    let began = Instant::now();
    let tools = TempDir::with_prefix("sigillo-shim-")?;
    let shims = Shims::build(tools.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build()?;
    let counts = Counts::default();
    let tally = runtime.block_on(async {
        let mut rows = tokio::task::JoinSet::new();
        let shared = std::sync::Arc::new((options.clone(), shims, counts));
        for row in 0..SITES.min(options.trials) {
            let shared = shared.clone();
            rows.spawn(async move { Box::pin(hold_row(row, seed, &shared.0, &shared.1, &shared.2)).await });
        }
        let mut tally = Tally::default();
        for row in rows.join_all().await {
            tally.passed += row.passed;
            tally.failed += row.failed;
        }
        let Counts { written, found, declared, unseen } = &shared.2;
        println!(
            "{} records written, {} in the journal, {} declared lost, {} in files that came and went unseen",
            written.load(Ordering::Relaxed),
            found.load(Ordering::Relaxed),
            declared.load(Ordering::Relaxed),
            unseen.load(Ordering::Relaxed)
        );
        tally
    });
    println!("took {:.1} s", began.elapsed().as_secs_f64());
    Ok(tally)
}

/// Records of all trials.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    found: AtomicU64,
    declared: AtomicU64,
    unseen: AtomicU64,
}

/// Every so many-th trial, one after the other.
async fn hold_row(row: u32, seed: u64, options: &Options, shims: &Shims, counts: &Counts) -> Tally {
    let mut tally = Tally::default();
    let mut slot: Option<Site> = None;
    for trial in (row..options.trials).step_by(SITES as usize) {
        let mut random = random(seed, u64::from(trial));
        let outcome = Box::pin(hold(&mut slot, row, options, shims, &mut random)).await;
        tally.count(outcome.is_ok());
        match outcome {
            Ok(survived) => {
                counts.written.fetch_add(survived.written, Ordering::Relaxed);
                counts.found.fetch_add(survived.found, Ordering::Relaxed);
                counts.declared.fetch_add(survived.declared, Ordering::Relaxed);
                counts.unseen.fetch_add(survived.unseen, Ordering::Relaxed);
                if options.verbose || trial.is_multiple_of(50) {
                    println!("trial {trial:>4} {survived}");
                }
            }
            Err(error) => {
                println!("trial {trial:>4} FAILED: {error:#}");
                if let Some(site) = slot.take() {
                    println!("{}", site.last_words());
                }
            }
        }
    }
    // A journal that does not verify at the end fails the trial that it went through last.
    if let Some(site) = slot
        && let Err(error) = site.retire().await
    {
        println!("at the end FAILED: {error:#}");
        tally.passed -= 1;
        tally.failed += 1;
    }
    tally
}

/// One trial: load, faults in the middle of it, everything made well, and the account.
async fn hold(
    slot: &mut Option<Site>,
    row: u32,
    options: &Options,
    shims: &Shims,
    random: &mut ChaCha12Rng,
) -> Result<Survived> {
    if let Some(old) = slot.take_if(|site| site.trials == TRIALS_PER_SITE) {
        old.retire().await?;
    }
    let site = if let Some(site) = slot {
        site
    } else {
        let mut site = Site::new(shims, row, options.no_sync, random.random()).await?;
        site.introduce().await.context("a fresh site")?;
        slot.insert(site)
    };
    site.trials += 1;
    site.hold(options.records, options.no_sync, random).await
}
