//! The tamper drill: one edit of a copy of a journal, and `sigillo verify` must say that it is altered, and where. As many
//! copies that nobody altered must be called intact.

mod edits;
mod flips;
mod image;
mod owner;
mod verdict;

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use sigillo_journal::{Journal, Options as JournalOptions};
use tempfile::TempDir;

pub use self::owner::Without;
use self::{
    edits::{EDITS, Scene},
    image::{Images, copy_all, copy_linked},
    verdict::{Place, Verdict, verify},
};
use super::{Tally, Trials, random};
use crate::{config, database::Database};

/// Records of the journal, unless said otherwise.
const RECORDS: u64 = 100_000;

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The attacker owns the database and the log's key, and makes everything fit again; the verifier has a trust file,
    /// remembered checkpoints and what witnesses show
    #[arg(long)]
    pub owner: bool,
    /// Take away from the verifier what a check works with; the drill must then fail
    #[arg(long, value_enum, requires = "owner")]
    pub without: Option<Without>,
    /// How many edits; as many controls come on top
    #[arg(long, default_value_t = 500)]
    pub trials: u32,
    /// From which the journal and every edit follow; by default a random one
    #[arg(long)]
    pub seed: Option<u64>,
    /// Records of the journal; by default 100,000, of the owner's 20,000
    #[arg(long)]
    pub records: Option<u64>,
    /// Repeat only the trial of this number
    #[arg(long)]
    pub only: Option<u32>,
    /// Print what `sigillo verify` says of each edit
    #[arg(long)]
    pub verbose: bool,
}

impl Options {
    fn asked(&self) -> Trials {
        Trials { attacks: self.trials, only: self.only, verbose: self.verbose }
    }
}

/// What is not an alteration.
#[derive(Debug, Clone, Copy)]
enum Control {
    Untouched,
    Copied,
    Compacted,
    Reopened,
    RewrittenAlike,
}

const CONTROLS: [(&str, Control); 5] = [
    ("untouched", Control::Untouched),
    ("copied", Control::Copied),
    ("compacted", Control::Compacted),
    ("opened and closed", Control::Reopened),
    ("written again alike", Control::RewrittenAlike),
];

/// Holds the drill.
pub fn run(options: &Options) -> Result<Tally> {
    if options.owner {
        return owner::run(options);
    }
    let seed = options.seed.unwrap_or_else(rand::random);
    let records = options.records.unwrap_or(RECORDS);
    println!("tamper: seed {seed}, {} edits and as many controls, {records} records", options.trials);
    let began = Instant::now();
    let dir = TempDir::with_prefix("sigillo-tamper-")?;
    let images = Images::build(dir.path(), records, seed).context("the journal could not be built")?;
    println!("built {} entries in {:.1} s", images.entries.len(), began.elapsed().as_secs_f64());
    let stage = Stage { images: &images, dir: dir.path(), seed };
    Ok(options.asked().hold(began, |trial| stage.hold(trial)))
}

/// What all trials have in common.
struct Stage<'a> {
    images: &'a Images,
    dir: &'a Path,
    seed: u64,
}

impl Stage<'_> {
    /// Even trials are edits, odd ones controls; every other edit goes through the database's own interface.
    fn hold(&self, trial: u32) -> (String, Result<String>) {
        let mut random = random(self.seed, u64::from(trial) + 1);
        let dir = self.dir.join(format!("trial-{trial}"));
        let number = (trial / 4) as usize;
        let (kind, outcome) = match trial % 4 {
            0 => {
                let (kind, edit) = EDITS[number % EDITS.len()];
                (format!("edit: {kind}"), self.edit(&dir, edit, &mut random))
            }
            2 => {
                let (kind, outcome) = self.flip(&dir, number, &mut random);
                (format!("flipped byte: {kind}"), outcome)
            }
            _ => {
                let (kind, control) = CONTROLS[(trial / 2) as usize % CONTROLS.len()];
                let crashed = random.random_bool(0.3);
                let image = if crashed { "crashed" } else { "closed" };
                (format!("control: {kind}, {image}"), self.control(&dir, control, crashed))
            }
        };
        // The space is given back at once; what can't be removed now goes with the drill's own folder.
        let _ = fs::remove_dir_all(&dir);
        (kind, outcome.map(|said| said.to_string()))
    }

    fn edit(&self, dir: &Path, edit: edits::Edit, random: &mut ChaCha12Rng) -> Result<Verdict> {
        copy_linked(self.images.any(random), dir, None)?;
        let db = Database::open(dir)?;
        let mut scene = Scene { db: &db, dir, images: self.images, random };
        let place = edit(&mut scene).context("the edit could not be made")?;
        db.close()?;
        expect_altered(dir, &place)
    }

    fn flip(&self, dir: &Path, number: usize, random: &mut ChaCha12Rng) -> (&'static str, Result<Verdict>) {
        let target = flips::pick(self.images, number, random);
        let mut held = || {
            let target = target.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            copy_linked(target.image, dir, Some(&target.file))?;
            let at = flips::flip(&dir.join(&target.file), random)?;
            expect_altered(dir, &target.place).with_context(|| format!("byte {at} of {}", target.file.display()))
        };
        (target.as_ref().map_or("no file", |target| target.kind), held())
    }

    fn control(&self, dir: &Path, control: Control, crashed: bool) -> Result<Verdict> {
        let image = if crashed { &self.images.crashed } else { &self.images.closed };
        if let Control::Copied = control {
            copy_all(image, dir)?;
        } else {
            copy_linked(image, dir, None)?;
        }
        match control {
            Control::Untouched | Control::Copied => {}
            Control::Compacted => {
                let db = Database::open(dir)?;
                db.compact()?;
                db.close()?;
            }
            Control::RewrittenAlike => {
                let db = Database::open(dir)?;
                db.rewrite()?;
                db.close()?;
            }
            Control::Reopened => {
                let opened = Journal::open(&JournalOptions::new(dir, config::origin()?))?;
                tokio::runtime::Builder::new_current_thread().build()?.block_on(opened.journal.close())?;
            }
        }
        let verdict = verify(dir)?;
        ensure!(verdict.code == Some(0), "an unaltered journal is not called intact: {verdict}");
        Ok(verdict)
    }
}

fn expect_altered(dir: &Path, place: &Place) -> Result<Verdict> {
    let verdict = verify(dir)?;
    ensure!(verdict.code == Some(1), "not called altered: {verdict}; the edit is at {place}");
    ensure!(place.is_met_by(&verdict), "found elsewhere than at {place}: {verdict}");
    Ok(verdict)
}
