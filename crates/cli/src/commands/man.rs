//! `sigillo man`: manual pages.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory};

use crate::{Cli, failure::Failure};

/// Write the manual pages into a folder
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sigillo man ~/.local/share/man/man1
  man sigillo-query")]
pub(crate) struct ManArgs {
    /// Folder; made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn run(args: &ManArgs) -> Result<ExitCode, Failure> {
    fs::create_dir_all(&args.dir)?;
    clap_mangen::generate_to(Cli::command(), &args.dir)?;
    Ok(ExitCode::SUCCESS)
}
