//! Drills: faults made on purpose, many and from a seed, against the real programs.

pub mod agent;
pub mod crash;
pub mod omission;
pub mod spool;
pub mod tamper;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::Result;
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};

/// How many trials ended well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// As they should.
    pub passed: u32,
    /// Otherwise.
    pub failed: u32,
}

impl Tally {
    fn count(&mut self, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Which trials of a drill of attacks and lawful controls are held.
struct Trials {
    /// How many attacks; as many controls come on top.
    attacks: u32,
    /// Only the trial of this number.
    only: Option<u32>,
    /// Whether what is said of each is printed.
    verbose: bool,
}

impl Trials {
    /// Holds the attacks that are asked for and as many controls, on all cores, and prints what came of each kind. `hold` gives
    /// the kind of a trial, and what was said or what is wrong.
    fn hold(&self, began: Instant, hold: impl Fn(u32) -> (String, Result<String>) + Sync) -> Tally {
        let results = Mutex::new(BTreeMap::<String, Tally>::new());
        let one = |trial: u32| {
            let (kind, outcome) = hold(trial);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            results.entry(kind.clone()).or_default().count(outcome.is_ok());
            match outcome {
                Ok(said) if self.verbose => println!("trial {trial} ({kind}): {said}"),
                Ok(_) => {}
                Err(error) => println!("trial {trial} ({kind}) failed: {error:#}"),
            }
        };
        if let Some(trial) = self.only {
            one(trial);
        } else {
            let next = AtomicU32::new(0);
            let take =
                || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|trial| *trial < self.attacks.saturating_mul(2));
            thread::scope(|scope| {
                for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
                    scope.spawn(|| {
                        while let Some(trial) = take() {
                            one(trial);
                        }
                    });
                }
            });
        }
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut all = Tally::default();
        println!("{:<76} {:>6} {:>6}", "kind", "passed", "failed");
        for (kind, tally) in &results {
            println!("{kind:<76} {:>6} {:>6}", tally.passed, tally.failed);
            all.passed += tally.passed;
            all.failed += tally.failed;
        }
        println!("took {:.1} s", began.elapsed().as_secs_f64());
        all
    }
}

/// The random numbers of one trial, whatever the trials before it used.
fn random(seed: u64, trial: u64) -> ChaCha12Rng {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    random.set_stream(trial);
    random
}
