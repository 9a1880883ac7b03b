//! The crash drill: a real server under load is killed at random instants, and in half of the trials the power fails too.
//! After each restart every record with a receipt must be there, once, in order, where its receipt says; what had none is
//! sent again and gets one; and the chain must verify.

mod check;
mod site;
mod source;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use tempfile::TempDir;

use self::site::{Kill, Site, Survived};
use super::{Tally, random};
use crate::powerloss::Shim;

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many times the server is killed
    #[arg(long, default_value_t = 200)]
    pub trials: u32,
    /// From which records, batches and instants follow; by default a random one
    #[arg(long)]
    pub seed: Option<u64>,
    /// Switch syncing off behind the server's back, and let the power fail in every trial: the drill must then fail
    #[arg(long)]
    pub no_sync: bool,
}

/// A data directory lives through so many trials, then a fresh one takes its place.
const TRIALS_PER_SITE: u32 = 10;
/// The latest instant of a kill after the first receipt.
const KILL_MAX: Duration = Duration::from_millis(600);
/// The latest instant of a kill so early that not everybody is connected.
const KILL_EARLY_MAX: Duration = Duration::from_millis(60);
/// The latest instant of a kill after a start began.
const KILL_AT_START_MAX: Duration = Duration::from_millis(120);

/// Holds the drill.
pub fn run(options: &Options) -> Result<Tally> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let syncing = if options.no_sync { ", syncing switched off" } else { "" };
    println!("crash: seed {seed}, {} trials{syncing}", options.trials);
    let began = Instant::now();
    let tools = TempDir::with_prefix("sigillo-shim-")?;
    let shim = Shim::build(tools.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut tally = Tally::default();
    // One journal of each kind lives on from trial to trial.
    let mut sites: [Option<Site>; 2] = [None, None];
    for trial in 0..options.trials {
        let power_fails = options.no_sync || trial % 2 == 1;
        let slot = &mut sites[usize::from(power_fails)];
        let shim = power_fails.then_some((&shim, options.no_sync));
        let mut random = random(seed, u64::from(trial));
        let outcome = runtime.block_on(hold(slot, shim, &mut random));
        let kind = if power_fails { "power cut" } else { "kill" };
        tally.count(outcome.is_ok());
        match outcome {
            Ok(survived) => println!("trial {trial:>3} {kind:<9} {survived}"),
            Err(error) => {
                println!("trial {trial:>3} {kind:<9} FAILED: {error:#}");
                if let Some(site) = slot.take() {
                    println!("{}", site.last_words());
                }
            }
        }
    }
    for site in sites.into_iter().flatten() {
        // A journal that does not verify at the end fails the trial that it went through last.
        if let Err(error) = runtime.block_on(site.retire()) {
            println!("at the end FAILED: {error:#}");
            tally.passed -= 1;
            tally.failed += 1;
        }
    }
    println!("took {:.1} s", began.elapsed().as_secs_f64());
    Ok(tally)
}

/// One trial: load, kill, perhaps the end of power, restart, check, and everything unacknowledged again.
async fn hold(slot: &mut Option<Site>, shim: Option<(&Shim, bool)>, random: &mut ChaCha12Rng) -> Result<Survived> {
    if let Some(old) = slot.take_if(|site| site.trials == TRIALS_PER_SITE) {
        old.retire().await.context("a journal at the end of its trials")?;
    }
    let site = if let Some(site) = slot {
        site
    } else {
        let mut site = Site::new(shim, random.random())?;
        if random.random_bool(0.3) {
            site.kill_at_start(instant(random, KILL_AT_START_MAX)).context("a kill in the very first start")?;
            site.cut_power().context("a power cut in the very first start")?;
        }
        site.start().context("the first start")?;
        slot.insert(site)
    };
    site.trials += 1;
    let kill = if random.random_bool(0.15) {
        Kill::AfterStart(instant(random, KILL_EARLY_MAX))
    } else {
        Kill::AfterFirstReceipt(instant(random, KILL_MAX))
    };
    let mut survived = site.load_and_kill(kill, random).await?;
    if random.random_bool(0.25) {
        site.kill_at_start(instant(random, KILL_AT_START_MAX)).context("a kill in a recovery")?;
        survived.killed_at_start = true;
    }
    survived.cut = site.cut_power()?;
    site.start().context("the restart")?;
    site.check_and_send_again(&mut survived).await?;
    Ok(survived)
}

fn instant(random: &mut ChaCha12Rng, at_most: Duration) -> Duration {
    random.random_range(Duration::ZERO..at_most)
}
