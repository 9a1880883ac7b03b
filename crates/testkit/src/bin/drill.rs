//! `sigillo-drill`: the drills of `cargo xtask drill`. The last line says how many trials passed and how many failed; the
//! exit code is 1 if any failed.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use sigillo_testkit::drill::{Tally, agent, crash, omission, spool, tamper};

#[derive(Parser)]
#[command(about = "Makes faults on purpose, and sees what becomes of the journal")]
struct Arguments {
    #[command(subcommand)]
    drill: Drill,
}

#[derive(Subcommand)]
enum Drill {
    /// Breaks everything between files and journal under load; each line must arrive once and in order, or be declared lost
    Agent(agent::Options),
    /// Kills sigillod at random instants under load; half of the times what was not synced is thrown away too
    Crash(crash::Options),
    /// Alters spools as whoever takes a machine can; the server must notice each, and nothing untouched may raise an alarm
    Spool(spool::Options),
    /// Alters journals at random places; each must be found, and no unaltered one may be called altered
    Tamper(tamper::Options),
    /// Withholds records from evidence that claims to be complete; the verifier must never call it checked
    Omission(omission::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().drill) {
        Ok(tally) => {
            println!("{tally}");
            if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("the drill could not be held: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(drill: Drill) -> Result<Tally> {
    match drill {
        Drill::Agent(options) => agent::run(&options),
        Drill::Crash(options) => crash::run(&options),
        Drill::Spool(options) => spool::run(&options),
        Drill::Tamper(options) => tamper::run(&options),
        Drill::Omission(options) => omission::run(&options),
    }
}
