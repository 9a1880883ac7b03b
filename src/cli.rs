//! `sigillo`: the people's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    sigillo_cli::run()
}
