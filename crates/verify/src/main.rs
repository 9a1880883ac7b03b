//! `sigillo-verify`: the offline verifier of evidence files.

use std::{io, process::ExitCode};

use clap::Parser;
use sigillo_verify::command::Command;

fn main() -> ExitCode {
    ExitCode::from(Command::parse().run(&mut io::stdout().lock()))
}
