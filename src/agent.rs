//! `sigillo-agent`: ships this machine's logs to the journal.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};
use sigillo_agent::{AgentError, Config, Mode};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLE: &str = "\
The smallest configuration (paths are relative to the file):

    state_dir = \"/var/lib/sigillo-agent\"

    [server]
    url  = \"https://journal.example.net:7443\"
    ca   = \"ca.pem\"        # who signed the server's certificate
    cert = \"agent.pem\"     # our certificate, enrolled at the server
    key  = \"agent.key\"

    [[file]]
    path = \"/var/log/syslog\"

    [[journald]]           # the systemd journal; units = [\"ssh.service\"] for some of it

Try it first:   sigillo-agent check --config agent.toml
Ship once:      sigillo-agent run --config agent.toml --once
For ever:       sigillo-agent run --config agent.toml

With `trust = \"trust.txt\"` in [server] the agent verifies receipts and checkpoints, and remembers the newest one. If the journal
does not continue it, or holds something else than a receipt says, the agent writes down the evidence (misconduct-*.txt in
its state_dir), ends with 7, and ships nothing more until somebody has acted and removed the file `misconduct` there.

One certificate, one agent: a second agent, or `sigillo append`, that works at the same time with the same certificate opens
a newer epoch of the source, and the journal takes nothing more of the older one, which ends with an error. Give each its own.

Today's limit: there is no spool yet. What was not acknowledged is read again from its file after a restart. After kill -9
the lines acknowledged within the last second may arrive twice. Lines from standard input can't be read again.";

/// Ships this machine's logs to a Sigillo journal: reads files, standard input and the systemd journal, and remembers how
/// far the journal has acknowledged them.
#[derive(Parser)]
#[command(name = "sigillo-agent", version, after_long_help = EXAMPLE)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ships until SIGTERM or SIGINT, which wait up to 10 s for the last acknowledgements.
    #[command(after_long_help = EXAMPLE)]
    Run {
        /// The configuration file, TOML.
        #[arg(long, value_name = "FILE", env = "SIGILLO_AGENT_CONFIG")]
        config: PathBuf,
        /// Ships what is there now (files to their end, standard input to its end), waits for the last acknowledgement, and
        /// ends.
        #[arg(long)]
        once: bool,
        /// Which messages to log, for example `info` or `sigillo_client=debug`.
        #[arg(long, value_name = "FILTER", env = "SIGILLO_LOG", default_value = "info")]
        log: String,
        /// Logs as JSON, one object a line.
        #[arg(long)]
        log_json: bool,
    },
    /// Checks configuration, files and server, and says who we are there. Ends with 1 if something is missing.
    Check {
        /// The configuration file, TOML.
        #[arg(long, value_name = "FILE", env = "SIGILLO_AGENT_CONFIG")]
        config: PathBuf,
    },
}

/// The journal was caught at misconduct, now or before.
const EXIT_MISCONDUCT: u8 = 7;

fn main() -> ExitCode {
    work(Arguments::parse().command).unwrap_or_else(|error| {
        eprintln!("sigillo-agent: {error:#}");
        match error.downcast_ref() {
            Some(error) if AgentError::is_misconduct(error) => ExitCode::from(EXIT_MISCONDUCT),
            _ => ExitCode::FAILURE,
        }
    })
}

fn work(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("no threads to work with")?;
    let result = runtime.block_on(async {
        match command {
            Command::Run { config, once, log, log_json } => run(config, once, &log, log_json).await,
            Command::Check { config } => check(config).await,
        }
    });
    // A read of standard input ends only when something comes: it must not hold up a stop.
    runtime.shutdown_background();
    result
}

async fn run(config: PathBuf, once: bool, log: &str, log_json: bool) -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_new(log).context("--log")?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if log_json {
        logs.json().init();
    } else {
        logs.init();
    }
    let config = Config::load(&config)?;
    let mode = if once { Mode::Once } else { Mode::Follow };
    let stop = stop_on_signals()?;
    sigillo_agent::run(config, mode, stop).await?;
    Ok(ExitCode::SUCCESS)
}

async fn check(config: PathBuf) -> anyhow::Result<ExitCode> {
    let config = Config::load(&config)?;
    println!("ok       configuration is valid");
    let findings = sigillo_agent::check(&config).await;
    for (fine, line) in &findings {
        println!("{} {line}", if *fine { "ok      " } else { "MISSING " });
    }
    Ok(if findings.iter().all(|(fine, _)| *fine) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(stop)
}
