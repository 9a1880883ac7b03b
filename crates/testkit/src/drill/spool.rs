//! The spool drill: whoever takes a machine has its spool and the present head key, alters what was read before and ships it as if
//! nothing had happened, with a sender that checks nothing. The server must notice each such attack as it takes the batches, and no
//! altered record may stand in the journal outside of the range of an alarm. Untouched spools, sent with all the repetitions that
//! broken connections bring, must raise none.
//!
//! What the machine has not signed yet belongs to whoever takes it: what lies behind the last head is altered in no attack.

mod attacks;
mod image;
mod judge;
mod sender;
mod story;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result};
use rand::Rng;
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinSet};

use self::{
    attacks::Attack,
    judge::Journal,
    sender::{Delivered, send},
    story::Story,
};
use super::{Tally, random};
use crate::{
    config,
    server::{Server, ServerCommand},
};

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many attacks; as many untouched spools are sent besides
    #[arg(long, default_value_t = 10_000)]
    pub trials: u32,
    /// From which spools and attacks follow; by default a random one
    #[arg(long)]
    pub seed: Option<u64>,
    /// Leave the heads out of everything that is sent, as if there were none: the drill must then fail
    #[arg(long)]
    pub without_heads: bool,
    /// Show what came of every trial
    #[arg(long)]
    pub verbose: bool,
}

/// Trials on one server, each with a source of its own; every second one is a control.
const TRIALS_PER_SITE: u32 = 200;
/// Trials under way on one server at once.
const AT_ONCE: usize = 25;
/// Servers at once.
const SITES: usize = 3;

/// Holds the drill.
pub fn run(options: &Options) -> Result<Tally> {
    let seed = options.seed.unwrap_or_else(rand::random);
    println!("spool: seed {seed}, {} attacks and as many controls", options.trials);
    let began = Instant::now();
    let all = options.trials.saturating_mul(2);
    let results = Mutex::new(BTreeMap::<String, Tally>::new());
    let next = AtomicU32::new(0);
    let held = std::thread::scope(|scope| {
        let sites: Vec<_> = (0..SITES)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                    loop {
                        let first = next.fetch_add(TRIALS_PER_SITE, Ordering::Relaxed);
                        if first >= all {
                            return Ok(());
                        }
                        let trials: Vec<u32> = (first..first.saturating_add(TRIALS_PER_SITE).min(all)).collect();
                        for (trial, kind, outcome) in hold(&runtime, seed, &trials, options)? {
                            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                            results.entry(kind.clone()).or_default().count(outcome.is_ok());
                            match outcome {
                                Ok(said) if options.verbose => println!("trial {trial} ({kind}): {said}"),
                                Ok(_) => {}
                                Err(error) => println!("trial {trial} ({kind}) failed: {error:#}"),
                            }
                        }
                    }
                })
            })
            .collect();
        sites.into_iter().try_for_each(|site| site.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    held?;
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut tally = Tally::default();
    println!("{:<60} {:>6} {:>6}", "kind", "passed", "failed");
    for (kind, of_kind) in &results {
        println!("{kind:<60} {:>6} {:>6}", of_kind.passed, of_kind.failed);
        tally.passed += of_kind.passed;
        tally.failed += of_kind.failed;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("took {seconds:.1} s, {:.0} trials/s", f64::from(all) / seconds);
    Ok(tally)
}

/// A trial: its number, its kind, and what was said or what is wrong.
type Held = (u32, String, Result<String>);

/// What a trial sent, to be held against the journal.
struct Sent {
    trial: u32,
    story: Story,
    attack: Option<Attack>,
    delivered: Result<Delivered>,
}

/// Trials on one server, judged by its journal at the end.
fn hold(runtime: &Runtime, seed: u64, trials: &[u32], options: &Options) -> Result<Vec<Held>> {
    let dir = TempDir::with_prefix("sigillo-spool-drill-")?;
    let name = |trial: u32| format!("host-{trial}");
    let sources: Vec<config::Source> =
        trials.iter().map(|trial| config::Source { name: name(*trial), class: "service" }).collect();
    config::write(dir.path(), &sources)?;
    let server = ServerCommand::configured(dir.path()).start()?;
    let (sent, journal) = runtime.block_on(async {
        let mut sent = Vec::new();
        for trials in trials.chunks(AT_ONCE) {
            let mut under_way = JoinSet::new();
            for trial in trials.iter().copied() {
                let endpoint = server.endpoint(&name(trial));
                let (source, without_heads) = (name(trial), options.without_heads);
                let spool = dir.path().join(format!("spool-{trial}"));
                under_way.spawn(async move { one(trial, seed, &source, &endpoint, &spool, without_heads).await });
            }
            for result in under_way.join_all().await {
                sent.push(result?);
            }
        }
        let journal = Journal::read(&server).await.context("the journal at the end")?;
        Ok::<_, anyhow::Error>((sent, journal))
    })?;
    stop(server)?;
    let judged = sent.into_iter().map(|sent| {
        let kind = sent.attack.as_ref().map_or_else(|| "control".to_owned(), |attack| format!("attack: {attack}"));
        let outcome = journal.judge(&sent.story, sent.attack.as_ref(), sent.delivered);
        (sent.trial, kind, outcome)
    });
    Ok(judged.collect())
}

fn stop(server: Server) -> Result<()> {
    let stopped = server.stop()?;
    anyhow::ensure!(stopped.status.success(), "the server stopped with {}", stopped.status);
    Ok(())
}

/// Makes a spool, sends the part that was sent before the machine was taken, and then the rest: altered, or as it is.
async fn one(
    trial: u32,
    seed: u64,
    source: &str,
    endpoint: &sigillo_client::Endpoint,
    spool: &Path,
    without_heads: bool,
) -> Result<Sent> {
    let mut random = random(seed, u64::from(trial));
    let story = Story::make(spool, source, &mut random).context("a spool is made")?;
    std::fs::remove_dir_all(spool)?;
    let attack = if trial.is_multiple_of(2) { Some(Attack::make(&story, &mut random)?) } else { None };
    let delivered = async {
        let before = send(endpoint, &story.before(), without_heads).await.context("before the machine was taken")?;
        anyhow::ensure!(before.refusal.is_none(), "refused before anything was altered: {:?}", before.refusal);
        match &attack {
            Some(attack) => send(endpoint, &attack.message(&story), without_heads).await,
            None => sender::send_with_repetitions(endpoint, &story, without_heads, random.random()).await,
        }
    };
    let delivered = delivered.await;
    Ok(Sent { trial, story, attack, delivered })
}
