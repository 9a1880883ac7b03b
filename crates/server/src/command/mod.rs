//! What `sigillod` does besides running the server: orders to the one that runs, and what is done while none runs. One file a command.

mod backup;
mod client;
mod meter;
mod removal;
mod restore;
mod status;
mod succeed;

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::config::Settings;

/// What else `sigillod` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a verified backup of the running server's journal
    Backup(backup::BackupArgs),
    /// Put a backup in the place of the journal; the server is stopped
    Restore(restore::RestoreArgs),
    /// Have the running server carry out an order that two officers have signed
    Order(removal::OrderArgs),
    /// Have the running server purge what is due of a retention class
    Purge(removal::PurgeArgs),
    /// Say where the running server stands
    Status(status::StatusArgs),
    /// Begin the journal that succeeds one that has ended
    Succeed(succeed::SucceedArgs),
}

/// Exit codes, for the help of the program.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  altered: a journal or a backup is not what was written; for the server itself: it could not start, or not go on
  2  the command line or the configuration makes no sense
  3  something could not be reached, read or written, which says nothing about the journal
  4  refused; the reason says what to do";

/// The configuration of the server that is meant.
#[derive(Debug, Args)]
struct Config {
    /// The server's configuration, which names its data folder
    #[arg(long, value_name = "FILE", default_value = "/etc/sigillo/sigillod.toml")]
    config: PathBuf,
}

impl Config {
    fn load(&self) -> Result<Settings, Failure> {
        Settings::load(&self.config).map_err(|error| Failure::Usage(error.to_string()))
    }
}

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// A journal or a backup is not what was written.
    #[error("{0}")]
    Altered(String),
    /// The command line or the configuration makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Something can't be reached, read or written.
    #[error("{0}")]
    Unreadable(String),
    /// It must not be done, or not so.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Altered(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreadable(_) => 3,
            Self::Refused(_) => 4,
        })
    }
}

/// Does what was asked, and tells on standard output what came of it.
pub fn run(command: Command) -> ExitCode {
    let outcome = match command {
        Command::Backup(args) => client::block_on(backup::run(args)),
        Command::Restore(args) => restore::run(&args),
        Command::Order(args) => client::block_on(removal::order(args)),
        Command::Purge(args) => client::block_on(removal::purge(args)),
        Command::Status(args) => client::block_on(status::run(args)),
        Command::Succeed(args) => client::block_on(succeed::run(args)),
    };
    match outcome {
        Ok(text) => {
            // Who does not listen still gets the exit code.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("sigillod: {failure}");
            failure.exit_code()
        }
    }
}

/// A time for people, UTC.
fn time(unix_ns: u64) -> String {
    Timestamp::from_nanosecond(i128::from(unix_ns)).map_or_else(|_| format!("{unix_ns} ns"), |time| time.to_string())
}

/// Adds a line of a name and what it is.
fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    // Writing into memory does not fail.
    let _ = writeln!(text, "{name:<9}{value}");
}
