//! The people's command line: one file per command under `commands/`.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod commands;
mod failure;
mod filter;
mod global;
mod output;
mod receipts;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use commands::{append, completion, evidence, head, key, log, man, order, query, sources, tail, verify};
use failure::Failure;
use global::GlobalArgs;

/// Search, follow, verify and write the journal of Sigillo
#[derive(Debug, Parser)]
#[command(name = "sigillo", version, propagate_version = true, after_long_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: GlobalArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Query(query::QueryArgs),
    Tail(tail::TailArgs),
    Append(append::AppendArgs),
    Head(head::HeadArgs),
    Sources(sources::SourcesArgs),
    Verify(verify::VerifyArgs),
    Key(key::KeyArgs),
    Evidence(evidence::EvidenceArgs),
    Log(log::LogArgs),
    Order(order::OrderArgs),
    Completion(completion::CompletionArgs),
    Man(man::ManArgs),
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for query also when nothing matched, for verify: intact
  1  the journal was altered, or does not continue what its owner has signed before
  2  the command line or the configuration is wrong
  3  no connection, a server that fails, or something that can't be read to its end
  4  the server refused
  5  stale: the server shows an older state than the one remembered; verify: not the newest
  6  verify: in order, but the trust file's quorum of witnesses is not met";

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    // More than one thread, so that the connection lives on while output waits for a pager.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let result = runtime.block_on(dispatch(cli));
    // Reading standard input may still block a thread that nobody waits for.
    runtime.shutdown_background();
    result.unwrap_or_else(|failure| fail(&failure))
}

async fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let global = cli.global;
    match cli.command {
        Command::Query(args) => query::run(args, &global).await,
        Command::Tail(args) => tail::run(args, &global).await,
        Command::Append(args) => append::run(args, &global).await,
        Command::Head(args) => head::run(args, &global).await,
        Command::Sources(args) => sources::run(args, &global).await,
        Command::Verify(args) => Box::pin(verify::run(args, &global)).await,
        Command::Key(args) => key::run(&args),
        Command::Evidence(args) => evidence::run(args, &global).await,
        Command::Log(args) => log::run(args, &global).await,
        Command::Order(args) => order::run(args),
        Command::Completion(args) => completion::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    let Some(code) = failure.exit_code() else { return ExitCode::SUCCESS };
    failure::tell(&failure.to_string());
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_with_a_sign_are_values() {
        let cli =
            Cli::try_parse_from(["sigillo", "query", "--since", "-2h", "-U", "now", "needle", "-o", "json"]).unwrap();
        let Command::Query(args) = cli.command else { panic!("not a query") };
        let (filter, _) = args.filter.into_parts();
        let distance = filter.until_unix_nano.unwrap() - filter.since_unix_nano.unwrap();
        // The two were read within the same second, two hours apart.
        assert!((7_200_000_000_000..7_201_000_000_000).contains(&distance), "{distance}");
        assert_eq!(&filter.contains[..], b"needle");
    }
}
