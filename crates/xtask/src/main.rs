//! Development commands of Sigillo: `cargo xtask demo|test|bench|drill`.
//!
//! Each installs what the machine lacks, builds the whole workspace once in the release profile, and runs the real
//! binaries. This program itself links nothing of Sigillo, so that it is there within seconds.

#![allow(clippy::cast_precision_loss, reason = "figures for people, of numbers far below 2^52")]

mod build;
mod demo;
mod foreign;
mod system;

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::{build::Workspace, system::Needs};

/// Development commands of Sigillo.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Ship this machine's real logs into a journal, find them, verify them.
    Demo {
        /// Leave the server running afterwards, and say how to use it.
        #[arg(long)]
        keep: bool,
    },
    /// Check formatting and lints where those tools are installed, then run all tests, also those
    /// against programs of others, or in other languages, where these can be had (Go 1.21, Python 3.11 or later; `foreign` as the filter
    /// runs them alone).
    Test {
        /// Run only the tests whose name contains this, without the checks.
        filter: Option<String>,
    },
    /// Measure speed: ingest, ingest-small, verify, scan, proof, agent; all of them by default.
    Bench {
        /// Passed on; `cargo xtask bench --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Break things on purpose: agent, crash, tamper, omission. `--seed N` repeats a run, `--trials N` sets its length.
    Drill {
        /// Passed on; `cargo xtask drill --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo { keep } => {
            system::provide(Needs::Build)?;
            let workspace = Workspace::locate()?;
            workspace.build()?;
            demo::run(&workspace, keep)
        }
        Task::Test { filter } => {
            system::provide(Needs::Test)?;
            Workspace::locate()?.test(filter.as_deref())
        }
        Task::Bench { arguments } => run_tool("sigillo-bench", Needs::Bench, &arguments),
        Task::Drill { arguments } => run_tool("sigillo-drill", Needs::Drill, &arguments),
    }
}

fn run_tool(name: &str, needs: Needs, arguments: &[OsString]) -> Result<()> {
    system::provide(needs)?;
    let workspace = Workspace::locate()?;
    workspace.build()?;
    let status = Command::new(workspace.binary(name)).args(arguments).status()?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}
