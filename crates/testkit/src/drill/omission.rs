//! The omission drill: the journal's owner, who holds database, log key and exporter key, withholds something from "complete"
//! evidence. A fresh `sigillo-verify` must call it what it is, and never complete and checked by an auditor. As many lawful files
//! must come out exactly as what they are.

mod attacks;
mod controls;
mod file;
mod journal;
mod keys;

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use serde_json::Value;
use sigillo_model::{
    class::Class,
    ids::{Origin, SourceId, TenantId},
    note::Note,
    statement::counters::CounterKey,
};
use tempfile::TempDir;

use self::{
    attacks::ATTACKS,
    controls::CONTROLS,
    file::{Counted, Export},
    journal::{Content, Journal, Piece, Plan, Sealed},
    keys::{Keys, NOW_S},
};
use super::{Tally, Trials, random};
use crate::{binaries::run as run_binary, records::records};

const SOURCES: [(&str, Class); 4] =
    [("web-1", Class::Service), ("web-2", Class::Service), ("panel-1", Class::Panel), ("bastion-1", Class::Admin)];
const TENANTS: [&str; 4] = ["t-100", "t-200", "t-300", "t-400"];
/// Batches between two counters records.
const COUNTERS_EVERY: usize = 40;
/// The time that the verifier is told.
const NOW: &str = "2026-03-02T09:00:00Z";
const _: () = assert!(NOW_S == 1_772_442_000, "NOW says the same");

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many attacks; as many controls come on top
    #[arg(long, default_value_t = 1_000)]
    pub trials: u32,
    /// From which the journal and every trial follow; by default a random one
    #[arg(long)]
    pub seed: Option<u64>,
    /// Batches of the journal, of 10 records on average
    #[arg(long, default_value_t = 200)]
    pub batches: usize,
    /// Repeat only the trial of this number
    #[arg(long)]
    pub only: Option<u32>,
    /// Print what `sigillo-verify` says of each file
    #[arg(long)]
    pub verbose: bool,
}

/// What the verdict must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The file proves nothing.
    Rejected,
    /// A claim does not hold.
    NotShown,
    /// Nothing is claimed, and so nothing is shown to be complete.
    NotClaimed,
    ProvidersWord,
    Checked,
}

impl Expected {
    fn code(self) -> i32 {
        i32::from(matches!(self, Self::Rejected | Self::NotShown))
    }

    /// Of each claimed run.
    fn word(self) -> &'static str {
        match self {
            Self::Rejected | Self::NotClaimed => "",
            Self::NotShown => "not shown complete",
            Self::ProvidersWord => "complete by the provider's word",
            Self::Checked => "complete, checked by an auditor",
        }
    }
}

/// A file to be made, and what is to be said of it.
struct Made {
    export: Export,
    journal: Journal,
    expected: Expected,
}

/// Which auditor's signature stands under the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Auditor {
    None,
    /// Of one who walks everything first, and does not sign what does not hold.
    Walks,
    /// Of somebody who takes the auditor's name.
    Imitated,
}

/// The journal that nobody has altered.
struct Base {
    origin: Origin,
    keys: Keys,
    plan: Plan,
    journal: Journal,
    /// Of the checkpoints, each after a counters record.
    sizes: Vec<u64>,
}

struct Scene<'a> {
    base: &'a Base,
    random: ChaCha12Rng,
    auditor: Auditor,
}

impl Base {
    fn build(batches: usize, seed: u64) -> Result<Self> {
        let origin = Origin::new("journal.example.net/omission")?;
        let mut random = random(seed, 0);
        let mut records = records(seed);
        let mut pieces = Vec::new();
        // Everybody comes at least twice in the first ones.
        for number in 0..batches.max(2 * COUNTERS_EVERY) {
            let (source, tenant) =
                if number < 8 { (number, number / 2) } else { (random.random_range(0..4), random.random_range(0..4)) };
            let (source, class) = *SOURCES.get(source % SOURCES.len()).context("no source")?;
            let tenant = *TENANTS.get(tenant % TENANTS.len()).context("no tenant")?;
            let count = random.random_range(5..16);
            let sealed = Sealed::new(records.by_ref().take(count).collect(), random.random())?;
            pieces.push(Piece::new(source, class, tenant, Content::Records(sealed)));
            if (number + 1) % COUNTERS_EVERY == 0 {
                pieces.push(Piece::own(Content::Counters { salt: random.random(), lie: None }));
            }
        }
        pieces.push(Piece::own(Content::Counters { salt: random.random(), lie: None }));
        let plan = Plan { pieces, ..Plan::default() };
        let journal = Journal::build(&origin, &plan)?;
        let sizes = journal.counters.keys().map(|seq| seq + 1).collect();
        Ok(Self { keys: Keys::new(&origin)?, origin, plan, journal, sizes })
    }
}

impl Scene<'_> {
    /// A source or tenant, with its name.
    fn somebody(&mut self) -> (CounterKey, String) {
        let at = self.random.random_range(0..4);
        if self.random.random() {
            let (name, _) = SOURCES[at];
            (CounterKey::Source(SourceId::from_name(name)), name.to_owned())
        } else {
            let name = TENANTS[at];
            (CounterKey::Tenant(TenantId::from_name(name)), name.to_owned())
        }
    }

    fn somebody_but(&mut self, key: &CounterKey) -> (CounterKey, String) {
        loop {
            let (other, name) = self.somebody();
            if other != *key {
                return (other, name);
            }
        }
    }

    /// One of somebody's batches, not the first.
    fn batch_of(&mut self, key: &CounterKey) -> Result<usize> {
        let pieces = self.base.plan.pieces.iter().enumerate();
        let of: Vec<usize> = pieces.filter(|(_, piece)| piece.concerns(key)).map(|(place, _)| place).collect();
        ensure!(of.len() > 1, "too few batches of one source or tenant");
        Ok(of[self.random.random_range(1..of.len())])
    }

    fn no_walk(&mut self) {
        if self.auditor == Auditor::Walks {
            self.auditor = Auditor::None;
        }
    }

    /// The checkpoint of a size, and whether an auditor of the trust file has signed it, who remembers these.
    fn checkpoint(&self, journal: &Journal, size: u64, remembered: &[Note]) -> Result<(Note, bool)> {
        let keys = &self.base.keys;
        let mut note = keys.checkpoint(journal, size)?;
        match self.auditor {
            Auditor::Walks if journal.audit(&keys.policy, &note, remembered).is_ok() => {
                note.add(keys.auditor.cosign(note.text(), NOW_S)?)?;
                return Ok((note, true));
            }
            Auditor::Imitated => note.add(keys.stranger.cosign(note.text(), NOW_S)?)?,
            Auditor::None | Auditor::Walks => {}
        }
        Ok((note, false))
    }
}

/// Holds the drill.
pub fn run(options: &Options) -> Result<Tally> {
    let seed = options.seed.unwrap_or_else(rand::random);
    println!("omission: seed {seed}, {} attacks and as many controls", options.trials);
    let began = Instant::now();
    let dir = TempDir::with_prefix("sigillo-omission-")?;
    let base = Base::build(options.batches, seed).context("the journal could not be built")?;
    fs::write(dir.path().join("trust.txt"), &base.keys.trust)?;
    println!("built {} records in {:.1} s", base.journal.size(), began.elapsed().as_secs_f64());

    let asked = Trials { attacks: options.trials, only: options.only, verbose: options.verbose };
    Ok(asked.hold(began, |trial| hold(&base, dir.path(), seed, trial)))
}

/// Even trials are attacks, odd ones controls.
fn hold(base: &Base, dir: &Path, seed: u64, trial: u32) -> (String, Result<String>) {
    let mut random = random(seed, u64::from(trial) + 1);
    let auditor = [Auditor::None, Auditor::Walks, Auditor::Imitated][random.random_range(0..3)];
    let number = (trial / 2) as usize;
    let (what, (kind, make)) = if trial.is_multiple_of(2) {
        ("attack", ATTACKS[number % ATTACKS.len()])
    } else {
        ("control", CONTROLS[number % CONTROLS.len()])
    };
    let mut scene = Scene { base, random, auditor };
    let file = format!("trial-{trial}.sigillo");
    let outcome = make(&mut scene).context("the file could not be made").and_then(|made| {
        ensure!(what == "control" || made.expected != Expected::Checked, "an attack that expects to succeed");
        fs::write(dir.join(&file), made.export.file(&made.journal, &base.keys.trust)?)?;
        judge(dir, &file, &made)
    });
    // The space is given back at once; what can't be removed now goes with the drill's own folder.
    let _ = fs::remove_file(dir.join(&file));
    (format!("{what}: {kind}"), outcome)
}

/// Lets a fresh verifier judge the file, and compares.
fn judge(dir: &Path, file: &str, made: &Made) -> Result<String> {
    let arguments = [file, "--policy", "trust.txt", "--now", NOW, "-o", "json"];
    let output = run_binary("sigillo-verify", dir, arguments)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = made.expected;
    ensure!(output.status.code() == Some(expected.code()), "{expected:?} was expected, not {}: {said}", output.status);
    let json: Value = serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))?;
    let runs = json["runs"].as_array();
    if expected == Expected::Rejected {
        ensure!(runs.is_none(), "a file that proves nothing was expected: {said}");
        return Ok(format!("{expected:?}: {}", json["findings"][0]));
    }
    let runs = runs.with_context(|| format!("{expected:?} was expected: {said}"))?;
    ensure!(runs.len() == made.export.runs.len(), "{} runs are claimed: {said}", made.export.runs.len());
    for (run, claim) in runs.iter().zip(&made.export.runs) {
        ensure!(run["completeness"] == expected.word(), "{expected:?} was expected: {said}");
        let range = (run["from"].as_u64(), run["to"].as_u64(), run["reaches_end"].as_bool());
        let claimed = (Some(claim.from), Some(claim.to), Some(claim.reaches_end));
        ensure!(range == claimed && run["name"].as_str() == claim.name.as_deref(), "another run is named: {said}");
    }
    let (counted, found) = (made.export.counted(&made.journal), counted(&json));
    ensure!(counted == found, "{counted:?} was expected, not {found:?}: {said}");
    Ok(format!("{expected:?}: {}", runs.first().map_or(&Value::Null, |run| &run["reason"])))
}

fn counted(json: &Value) -> Counted {
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let mut counted = Counted {
        records: number(&json["records"]),
        hidden_records: number(&json["hidden_records"]),
        hidden_content: number(&json["hidden_parts"]["content"]),
        ..Counted::default()
    };
    for removed in json["removed"].as_array().into_iter().flatten() {
        let records = number(&removed["to"]).saturating_sub(number(&removed["from"]));
        if removed["explained"] == true {
            counted.explained += records;
        } else {
            counted.unexplained += records;
        }
    }
    counted
}
