//! Drills: faults made on purpose, many and from a seed, against the real programs.

pub mod crash;
pub mod omission;
pub mod tamper;

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

/// The random numbers of one trial, whatever the trials before it used.
fn random(seed: u64, trial: u64) -> ChaCha12Rng {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    random.set_stream(trial);
    random
}
