//! What a fresh process of `sigillo verify` says of a journal, and where it should find an edit.

use std::{
    ffi::OsStr,
    fmt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{binaries::binary, process};

/// Most time for one verification.
const VERIFY_MAX: Duration = Duration::from_secs(120);

/// What it said.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Exit code; `None` after a signal.
    pub(super) code: Option<i32>,
    /// The sequences that it names, to is exclusive.
    pub(super) place: Option<(u64, u64)>,
    said: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "exit code {code}, {}", self.said.trim()),
            None => write!(f, "ended by a signal, {}", self.said.trim()),
        }
    }
}

/// Runs `sigillo verify --db DIR -o json`.
pub(super) fn verify(dir: &Path) -> Result<Verdict> {
    let mut child = Command::new(binary("sigillo")?)
        .args(["verify", "--output", "json", "--db"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // What it prints fits into the pipes.
    let ended = process::wait_exit(&child, VERIFY_MAX)?;
    if !ended {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    ensure!(ended, "the verification takes longer than {VERIFY_MAX:?}");
    let said = [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).join(" ");
    let place = serde_json::from_slice(&output.stdout).ok().and_then(|report: Value| {
        let number = |name| report.get(name).and_then(Value::as_u64);
        number("from").zip(number("to"))
    });
    Ok(Verdict { code: output.status.code(), place, said })
}

/// Where an edit is, as the drill itself knows.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In or at the records of these sequences, to is exclusive.
    Records { from: u64, to: u64 },
    /// In this file of the database; of a table of records, which ones. RocksDB looks into several tables at once, so a
    /// finding that names the file is as good as one that names the records.
    File { name: String, records: Option<(u64, u64)> },
    /// Beside the records, or in all of them.
    Anywhere,
}

impl Place {
    /// True if the finding contains the first edited record or stands right before it, or names the edited file.
    pub(super) fn is_met_by(&self, verdict: &Verdict) -> bool {
        let Some((from, to)) = verdict.place else { return false };
        let meets = |first: u64, end: u64| (from..=to).contains(&first) || (first..end).contains(&from);
        match self {
            Self::Records { from, to } => meets(*from, *to),
            Self::File { name, records } => {
                // Of a table whose properties are damaged, RocksDB names the manifest that lists it.
                let named = verdict.said.contains(name) || (is_table(name) && verdict.said.contains("MANIFEST"));
                named || records.is_some_and(|(first, end)| meets(first, end))
            }
            Self::Anywhere => true,
        }
    }
}

fn is_table(name: &str) -> bool {
    Path::new(name).extension() == Some(OsStr::new("sst"))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records { from, to } | Self::File { records: Some((from, to)), .. } => write!(f, "{from}..{to}"),
            Self::File { name, .. } => write!(f, "in {name}"),
            Self::Anywhere => f.write_str("beside the records"),
        }
    }
}
