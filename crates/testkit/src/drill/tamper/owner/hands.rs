//! What a verifier has in its hands, what it must come to, and the fresh process that judges.

use std::{
    collections::BTreeSet,
    fmt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha12Rng;
use serde_json::Value;

use super::{Without, image::Image};
use crate::{binaries::binary, process};

/// Most time for one verification.
const VERIFY_MAX: Duration = Duration::from_secs(120);
/// A quorum older than this is stale, by the format page. Seconds.
const STALE_AFTER_S: u64 = 600;

/// Checkpoints that the verifier has, by size, and its clock.
#[derive(Debug, Clone)]
pub(super) struct Hands {
    pub(super) remembered: BTreeSet<u64>,
    pub(super) view: Option<View>,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// How a witness's read side is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum View {
    /// The running witness is asked. It has cosigned this size last.
    Live(u64),
    /// A copy of what a witness showed.
    Copy(u64),
}

impl Hands {
    /// One or two remembered checkpoints, or a witness's view, or both.
    pub(super) fn any(image: &Image, random: &mut ChaCha12Rng) -> Result<Self> {
        let sizes = image.sizes();
        let newest = *sizes.last().context("there are no checkpoints")?;
        let count = random.random_range(0..=2);
        let remembered: BTreeSet<u64> = sizes.choose_multiple(random, count).copied().collect();
        let view = match random.random_range(0..4) {
            0 if !remembered.is_empty() => None,
            1 => Some(View::Copy(newest)),
            2 => sizes.choose(random).copied().map(View::Copy),
            _ => Some(View::Live(newest)),
        };
        Ok(Self { remembered, view, now: image.now })
    }

    /// The sizes for which it knows a root.
    pub(super) fn sizes(&self) -> BTreeSet<u64> {
        let viewed = self.view.map(|(View::Live(size) | View::Copy(size))| size);
        self.remembered.iter().copied().chain(viewed).collect()
    }

    /// The greatest of them; below it nothing can be changed unseen.
    pub(super) fn greatest(&self) -> u64 {
        self.sizes().last().copied().unwrap_or_default()
    }

    /// Runs `sigillo verify` with what is in the hands and nothing else.
    pub(super) fn verify(&self, dir: &Path, image: &Image, without: Option<Without>) -> Result<Said> {
        let mut command = Command::new(binary("sigillo")?);
        command.args(["verify", "-o", "json", "--policy"]).arg(&image.trust).arg("--db").arg(dir);
        command.args(["--now", &format!("@{}", self.now)]);
        if without != Some(Without::Remembered) {
            for size in &self.remembered {
                command.arg("--remembered").arg(image.note_file(*size));
            }
        }
        if without != Some(Without::WitnessView) {
            match self.view {
                Some(View::Live(_)) => _ = command.args(["--witness-view", image.witness.url()]),
                Some(View::Copy(size)) => _ = command.arg("--witness-view").arg(image.note_file(size)),
                None => {}
            }
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // What it prints fits into the pipes.
        let ended = process::wait_exit(&child, VERIFY_MAX)?;
        if !ended {
            child.kill()?;
        }
        let output = child.wait_with_output()?;
        ensure!(ended, "the verification takes longer than {VERIFY_MAX:?}");
        let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let text = [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).join(" ");
        Ok(Said { code: output.status.code(), json, text })
    }
}

/// What it said.
#[derive(Debug)]
pub(super) struct Said {
    code: Option<i32>,
    json: Value,
    text: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "exit code {code}, {}", self.text.trim()),
            None => write!(f, "ended by a signal, {}", self.text.trim()),
        }
    }
}

/// What it must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Intact,
    Altered {
        /// First record that may be touched.
        from: u64,
        /// The end of what the finding is about, where the drill knows it.
        to: Option<u64>,
        /// Whether the log has signed two roots of one size, where a signed root is missed.
        misconduct: Option<bool>,
    },
    Stale {
        /// Records that are there.
        size: u64,
        /// Records that there were.
        known: u64,
        /// Whether the age of the newest quorum tells it.
        aged: bool,
    },
}

impl Expected {
    /// The record itself, or records from there on.
    pub(super) fn at(from: u64, to: Option<u64>) -> Self {
        Self::Altered { from, to, misconduct: None }
    }

    /// Compares.
    pub(super) fn check(&self, said: &Said) -> Result<()> {
        let number = |name: &str| said.json.get(name).and_then(Value::as_u64);
        let verdict = said.json.get("verdict").and_then(Value::as_str);
        let is = |code: i32, word: &str| said.code == Some(code) && verdict == Some(word);
        let fits = match *self {
            Self::Intact => is(0, "intact"),
            Self::Altered { from, to, misconduct } => {
                let end = number("to");
                let flag = said.json.get("misconduct").and_then(Value::as_bool);
                is(1, "altered")
                    && number("from") == Some(from)
                    && to.is_none_or(|to| end == Some(to))
                    && end.is_some_and(|end| end >= from)
                    && misconduct == flag
            }
            Self::Stale { size, known, aged } => {
                let age = number("quorum_age_seconds");
                is(5, "stale")
                    && number("size") == Some(size)
                    && number("known_size") == Some(known)
                    && aged == age.is_some_and(|age| age > STALE_AFTER_S)
            }
        };
        ensure!(fits, "expected {self:?}, but: {said}");
        Ok(())
    }
}
