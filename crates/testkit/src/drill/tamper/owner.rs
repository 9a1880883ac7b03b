//! The tamper drill against the owner of the server: who has the database *and* the log's key, and makes everything fit again.
//!
//! A fresh process of `sigillo verify` judges. It has the trust file, checkpoints that it remembers and what witnesses show,
//! never the untouched journal or the seed. Each trial asserts that a reader would find something else than before, at the very
//! record that the drill names, and knows the verdict and its place by its own reckoning.
//!
//! # That each check is needed
//! `--without` takes away what a check works with, and the drill fails. It fails as well when one of these lines is taken out
//! of the verifier:
//!
//! | check | line | what is no longer found |
//! |---|---|---|
//! | signed roots are met | `model/audit.rs`, `Walker::check`: `trust.meet` | all that is chained anew; and nothing is intact |
//! | the place is narrow | `model/audit/trust.rs`, `Trust::hold`: `self.proved = …` | the same, at its place |
//! | kept checkpoints | `journal/verify.rs`, `Verification::run`: `expect_kept` | a kept checkpoint replaced |
//! | keys of kept checkpoints | `model/audit/trust.rs`, `Trust::sort`: the arm of `Holder::Journal` | one of a stranger's key |
//! | two roots of one size | `model/audit/trust.rs`, `Trust::check_one_root`: `twice` | a second root signed |
//! | more records were known | `model/verdict.rs`, `judge`: `Stale::Shorter` | the end cut off, a state of an earlier day |
//! | the newest quorum is new | `model/verdict.rs`, `age`: `Stale::Old` | a state of an earlier day |
//! | what is gone is explained | `journal/verify.rs`, `Verification::run`: `walker.removed()` | every erasure and purge |
//! | two officers have signed | `model/statement.rs`, `Order::check`: `second` | one officer's order |
//! | a purge is due | `model/audit/removals.rs`, `Removals::purge`: `due_to` | purged before the time |
//! | a purge has its retention statement | the same: `in_force` | purged without a lawful one |
//! | counters records are true | `model/audit.rs`, `Walker::check`: `check_counters` | a counters record that lies |
//! | a source's numbers go on | `model/audit.rs`: `previous_hash` | counters used twice or skipped |
//! | a tenant's numbers go on | `model/audit.rs`: `step_tenants` | the same |

mod attacks;
mod controls;
mod disk;
mod hands;
mod image;
mod keys;
mod pieces;

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use rand_chacha::ChaCha12Rng;
use tempfile::TempDir;

use self::{
    attacks::{ATTACKS, Attack, Scene},
    controls::{CONTROLS, Control},
    disk::Logical,
    hands::{Expected, Hands, Said},
    image::Image,
};
use super::{Options, image::copy_linked};
use crate::drill::{Tally, random};

/// Records of the journal, unless said otherwise.
const RECORDS: u64 = 20_000;

/// What the verifier is not given, to show that the drill fails without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Without {
    /// Checkpoints that it remembers.
    Remembered,
    /// What witnesses show.
    WitnessView,
    /// Checkpoints that the journal keeps.
    Kept,
    /// The officers' keys.
    Officers,
    /// The recovery key.
    Recovery,
    /// A demand for witnesses.
    Quorum,
}

/// Holds the drill.
pub(super) fn run(options: &Options) -> Result<Tally> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let records = options.records.unwrap_or(RECORDS);
    println!("tamper --owner: seed {seed}, {} attacks and as many controls, {records} records", options.trials);
    let began = Instant::now();
    let dir = TempDir::with_prefix("sigillo-owner-")?;
    let image = Image::build(dir.path(), records, seed, options.without).context("the journal could not be built")?;
    let (batches, took) = (image.pieces.len(), began.elapsed().as_secs_f64());
    println!("built {batches} batches with checkpoints of {:?} records in {took:.1} s", image.sizes());
    let stage = Stage { image: &image, dir: dir.path(), seed, without: options.without };
    Ok(options.asked().hold(began, |trial| stage.hold(trial)))
}

/// What all trials have in common.
struct Stage<'a> {
    image: &'a Image,
    dir: &'a Path,
    seed: u64,
    without: Option<Without>,
}

impl Stage<'_> {
    /// Even trials are attacks, odd ones controls.
    fn hold(&self, trial: u32) -> (String, Result<String>) {
        let mut random = random(self.seed, u64::from(trial) + 1);
        let dir = self.dir.join(format!("trial-{trial}"));
        let number = (trial / 2) as usize;
        let (kind, outcome) = if trial.is_multiple_of(2) {
            let (kind, attack) = ATTACKS[number % ATTACKS.len()];
            (format!("attack: {kind}"), self.attack(&dir, attack, &mut random))
        } else {
            let (kind, control) = CONTROLS[number % CONTROLS.len()];
            (format!("control: {kind}"), self.control(&dir, control, &mut random))
        };
        // The space is given back at once; what can't be removed now goes with the drill's own folder.
        let _ = fs::remove_dir_all(&dir);
        (kind, outcome.map(|said| said.to_string()))
    }

    fn attack(&self, dir: &Path, attack: Attack, random: &mut ChaCha12Rng) -> Result<Said> {
        copy_linked(&self.image.dir, dir, None)?;
        let hands = Hands::any(self.image, random)?;
        let mut scene = Scene { image: self.image, dir, random, hands };
        let made = attack(&mut scene).context("the attack could not be made")?;
        let hands = scene.hands;
        let now = Logical::read(dir)?;
        let first = self.image.logical.first_difference(&now);
        ensure!(
            first == made.first,
            "the attack is at {:?}, a reader finds the first difference at {first:?}",
            made.first
        );
        ensure!(!made.notes_only || now.notes != self.image.logical.notes, "no kept checkpoint was changed");
        self.judge(dir, &hands, made.expected)
    }

    fn control(&self, dir: &Path, control: Control, random: &mut ChaCha12Rng) -> Result<Said> {
        control.act(self.image, dir, random).context("the control could not be made")?;
        self.judge(dir, &Hands::any(self.image, random)?, Expected::Intact)
    }

    fn judge(&self, dir: &Path, hands: &Hands, expected: Expected) -> Result<Said> {
        if self.without == Some(Without::Kept) {
            disk::keep(dir, &std::collections::BTreeMap::new())?;
        }
        let said = hands.verify(dir, self.image, self.without)?;
        expected.check(&said).with_context(|| format!("the verifier has {hands:?}"))?;
        Ok(said)
    }
}
