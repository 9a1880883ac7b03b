//! `sigillo completion`: what a shell needs to complete our commands.

use std::{io, io::Write, process::ExitCode};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{Cli, failure::Failure};

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sigillo completion bash > ~/.local/share/bash-completion/completions/sigillo
  sigillo completion zsh > ~/.zfunc/_sigillo
  sigillo completion fish > ~/.config/fish/completions/sigillo.fish")]
pub(crate) struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sigillo", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
