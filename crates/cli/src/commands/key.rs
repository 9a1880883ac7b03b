//! `sigillo key`: the keys that sign checkpoints, orders, receipts and evidence.

use std::{
    fs,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use sigillo_model::note::{KeyKind, SigningKey, VerifierKey};
use zeroize::Zeroizing;

use crate::{failure::Failure, output::Sink};

/// Make and show the keys that sign
#[derive(Debug, Args)]
#[command(after_long_help = "\
A key has a name, and its public half is one line, `name+id+key`: that line goes into the trust file of those who verify. The
private half stays in its file, which only its owner may read.

  log        signs checkpoints; its name is the journal's origin
  receipt    signs what senders get; its name is the journal's origin with /receipts
  recovery   names a new log key when the old one is lost or stolen; keep it offline
  officer    orders erasures and sets retention; two different ones must sign
  exporter   signs evidence files
  cosigner   a witness's; `sigillo-witness new-key` makes the same
  auditor    signs what it has walked

Examples:
  sigillo key new --kind log --name journal.example.com/2026 --out log.key
  sigillo key show log.key")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key, write its private half into a new file and print its public half
    New {
        /// What it is for
        #[arg(long)]
        kind: Kind,
        /// Its name: a URL without scheme, white space and `+`, which need not exist
        #[arg(long)]
        name: String,
        /// File to write; it must not exist yet
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the public half of a key
    Show {
        /// File of the private half
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Log,
    Receipt,
    Recovery,
    Officer,
    Exporter,
    Cosigner,
    Auditor,
}

impl From<Kind> for KeyKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Log | Kind::Receipt | Kind::Recovery | Kind::Officer | Kind::Exporter => Self::Log,
            Kind::Cosigner => Self::Cosigner,
            Kind::Auditor => Self::Auditor,
        }
    }
}

pub(crate) fn run(args: &KeyArgs) -> Result<ExitCode, Failure> {
    let public = match &args.command {
        KeyCommand::New { kind, name, out } => create((*kind).into(), name, out)?,
        KeyCommand::Show { file } => show(file)?,
    };
    let mut sink = Sink::plain(false);
    sink.write(format!("{public}\n").as_bytes())?;
    sink.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn create(kind: KeyKind, name: &str, path: &Path) -> Result<VerifierKey, Failure> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| Failure::Unreadable(format!("the system's random bytes: {error}")))?;
    let key = SigningKey::from_seed(name, kind, &seed).map_err(|error| Failure::Usage(error.to_string()))?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(Zeroizing::new(format!("{}\n", *key.encode())).as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::Usage(format!("{} is there already; a key is never replaced", path.display()))
        }
        _ => unreadable(path, &error),
    })?;
    Ok(key.verifier().clone())
}

fn show(path: &Path) -> Result<VerifierKey, Failure> {
    let mode = fs::metadata(path).map_err(|error| unreadable(path, &error))?.permissions().mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(Failure::Usage(format!("{path} can be read by others than its owner: chmod 600 {path}")));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| unreadable(path, &error))?);
    let key = SigningKey::parse(&text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    Ok(key.verifier().clone())
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::Unreadable(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_and_shown() {
        let dir = tempfile::tempdir().unwrap();
        for kind in Kind::value_variants() {
            let path = dir.path().join(format!("{kind:?}"));
            let public = create((*kind).into(), "example.com/x", &path).unwrap();
            assert_eq!(show(&path).unwrap(), public);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(matches!(create((*kind).into(), "example.com/y", &path), Err(Failure::Usage(_))));
            assert_eq!(show(&path).unwrap(), public, "not replaced");
        }
        let path = dir.path().join("Log");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(show(&path), Err(Failure::Usage(_))));
        assert!(matches!(create(KeyKind::Log, "a b", &dir.path().join("new")), Err(Failure::Usage(_))));
        assert!(matches!(show(&dir.path().join("none")), Err(Failure::Unreadable(_))));
    }
}
