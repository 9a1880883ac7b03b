//! `sigillo-verify`: the command.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use clap::{Parser, ValueEnum};
use serde_json::json;
use sigillo_model::policy::{POLICY_MAX_BYTES, Policy};

use crate::{
    export::{self, ExportError, Tree},
    read::ReadError,
    show::{
        escape::{escape, safe_json},
        verdict as show,
    },
    verdict::{EXIT_UNREADABLE, EXIT_USAGE, Verdict, verify},
};

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// In which form the verdict is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Verifies an evidence file: what is proved, by whom, when, and what is not. Needs no network and no server.
#[derive(Debug, Parser)]
#[command(name = "sigillo-verify", version)]
#[command(after_long_help = "\
The trust file says whom you believe: the log's key, its witnesses and how many of them must agree, auditors, exporters,
officers, time-stamping authorities. Have it from somebody you trust, never from the evidence itself.

EXIT STATUS
  0  everything holds
  1  altered: the file is not what it should be, or claims what does not hold
  2  the command line or the trust file makes no sense
  3  a file could not be read or written
  6  everything holds, but fewer witnesses have cosigned than the trust file asks for

EXAMPLES
  sigillo-verify case.sigillo --policy trust.txt
  sigillo-verify case.sigillo --policy trust.txt --export case && jq . case/records.jsonl")]
pub struct Command {
    /// The evidence file
    file: PathBuf,
    /// The trust file: whom you believe
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The time now, if this machine's clock is not to be believed: RFC 3339
    #[arg(long, value_name = "TIME")]
    now: Option<jiff::Timestamp>,
    /// In which form the verdict is given
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Write the readable records and each record's own proof into this new folder
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
}

impl Command {
    /// Does what was asked, says so on `out`, and gives the exit code.
    pub fn run(&self, out: &mut impl Write) -> u8 {
        let policy = match read_policy(&self.policy) {
            Ok(policy) => policy,
            Err(text) => {
                tell(&text);
                return EXIT_USAGE;
            }
        };
        let code = match self.verify(&policy) {
            Ok(verdict) => {
                let code = verdict.exit_code();
                self.show(out, &verdict).map_or(EXIT_UNREADABLE, |()| code)
            }
            Err(ExportError::Read(error @ ReadError::Finding(_))) => {
                let code = error.exit_code();
                self.refuse(out, &error).map_or(EXIT_UNREADABLE, |()| code)
            }
            Err(error) => {
                tell(&format!("{}: {error}", self.file.display()));
                EXIT_UNREADABLE
            }
        };
        if out.flush().is_err() { EXIT_UNREADABLE } else { code }
    }

    fn verify(&self, policy: &Policy) -> Result<Verdict, ExportError> {
        let open = || -> Result<_, ReadError> { Ok(BufReader::with_capacity(BUFFER_BYTES, File::open(&self.file)?)) };
        let Some(folder) = &self.export else { return Ok(verify(open()?, policy, &mut ())?) };
        let mut tree = Tree::default();
        let verdict = verify(open()?, policy, &mut tree)?;
        export::export(open()?, policy, &verdict, &tree, folder)?;
        Ok(verdict)
    }

    fn show(&self, out: &mut impl Write, verdict: &Verdict) -> io::Result<()> {
        let now = self.now.map_or_else(show::clock, |now| u64::try_from(now.as_second()).unwrap_or(0));
        match self.output {
            Format::Json => writeln!(out, "{}", safe_json(&show::json(verdict, now))),
            Format::Text => {
                let word = if verdict.report.findings.is_empty() { "proved" } else { "ALTERED" };
                write!(out, "{}: {word}\n\n{}", escape(self.file.display().to_string()), show::text(verdict, now))
            }
        }
    }

    fn refuse(&self, out: &mut impl Write, error: &ReadError) -> io::Result<()> {
        match self.output {
            Format::Json => {
                writeln!(out, "{}", safe_json(&json!({ "verdict": "altered", "findings": [error.to_string()] })))
            }
            Format::Text => {
                let (file, error) = (escape(self.file.display().to_string()), escape(error.to_string()));
                writeln!(out, "{file}: ALTERED, proves nothing: {error}")
            }
        }
    }
}

/// Reads a trust file.
pub fn read_policy(path: &Path) -> Result<Policy, String> {
    let mut bytes = Vec::new();
    let limit = POLICY_MAX_BYTES as u64 + 1;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| format!("the trust file {} can't be read: {error}", path.display()))?;
    Policy::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn tell(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stderr(), "sigillo-verify: {}", escape(text));
}
