//! `sigillo log`: the transparency log.

mod mirror;
mod tree;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::{failure::Failure, global::GlobalArgs};

/// The transparency log: published checkpoints and tiles
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    Mirror(mirror::MirrorArgs),
}

pub(crate) async fn run(args: LogArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    match args.command {
        LogCommand::Mirror(args) => mirror::run(args, global).await,
    }
}
