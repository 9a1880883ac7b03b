//! `sigillo-witness`: cosigns the checkpoints of logs that only grow.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use sigillo_witness::{Config, Server, Witness, create_key, read_key};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

const GUIDE: &str = "\
A witness makes it impossible to show a log in two versions unnoticed. The log sends it each checkpoint (its size and root) with
a proof that it continues the one before; the witness checks the proof, remembers the checkpoint, and adds its signature with
the time. It sees no record of the log, and a log that it does not know gets nothing from it. Run it where the log's operator
has no access: in another company, at a customer, at an authority.

To set one up:
  1. sigillo-witness new-key --name witness.example.net/w1 --out /etc/sigillo-witness/key
     prints the public key. Give it to those who verify the log: it is a `witness` line of their trust file.
  2. Ask the log's operator for its origin and its public key, and compare them by another way.
  3. Write the configuration (paths are relative to the file):

       name = \"witness.example.net/w1\"
       key = \"key\"                        # or \"credential:NAME\" with systemd's LoadCredential=
       state_dir = \"/var/lib/sigillo-witness\"
       listen = \"0.0.0.0:7447\"
       tls = { cert = \"cert.pem\", key = \"key.pem\" }   # may be left out on 127.0.0.1 only

       [[log]]
       origin = \"journal.example.com/2026\"
       keys = [\"journal.example.com/2026+7d2a1c60+AbC...\"]

  4. sigillo-witness check --config FILE; then sigillo-witness run --config FILE

What it serves:
  POST /add-checkpoint                    for logs, as c2sp.org/tlog-witness says
  GET  /checkpoint/SHA256-OF-THE-ORIGIN   the newest checkpoint that it has cosigned, for monitors
  GET  /health                            `ok`

The state folder is the witness's memory. Never restore it from a backup and never run two witnesses with one key: the same size
could be cosigned twice. If a file in it is damaged, nothing of that log is cosigned until it is put right; the message says how.
A log that forks is reported in the witness's own log, with the request, which is the proof.";

/// Cosigns checkpoints of transparency logs that only grow, and never two of the same size.
#[derive(Parser)]
#[command(name = "sigillo-witness", version, after_long_help = GUIDE, max_term_width = 130)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the witness's private key and print its public key
    NewKey {
        /// Name of the witness: a URL without scheme, which need not exist
        #[arg(long)]
        name: String,
        /// File to write; it must not exist yet, and only its owner may read it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the public key of a private key
    ShowKey {
        /// The private key
        file: PathBuf,
    },
    /// Say whether the configuration holds together, and what was cosigned last
    Check {
        /// The configuration file, TOML
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Serve until SIGTERM or SIGINT
    #[command(after_long_help = GUIDE)]
    Run {
        /// The configuration file, TOML
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match start(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sigillo-witness: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: &Command) -> Result<()> {
    match command {
        Command::NewKey { name, out } => println!("{}", create_key(name, out)?),
        Command::ShowKey { file } => println!("{}", read_key(file)?.verifier()),
        Command::Check { config } => check(config)?,
        Command::Run { config } => {
            // Notices go to standard error, so that what a program reads stays apart.
            let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
            let ansi = std::io::stderr().is_terminal();
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
            runtime.block_on(run(config))?;
        }
    }
    Ok(())
}

fn check(path: &Path) -> Result<()> {
    let witness = Witness::open(&Config::load(path)?)?;
    println!("{}", witness.key());
    for (origin, size) in witness.sizes() {
        println!("{origin}: size {}", size?);
    }
    Ok(())
}

async fn run(path: &Path) -> Result<()> {
    let config = Config::load(path)?;
    let witness = Arc::new(Witness::open(&config)?);
    let closing = CancellationToken::new();
    attend_signals(closing.clone())?;
    for (origin, size) in witness.sizes() {
        match size {
            Ok(size) => tracing::info!(origin, size, "watching"),
            // The other logs are served; this one is refused at each request.
            Err(error) => tracing::error!(origin, %error, "watching, but nothing is cosigned"),
        }
    }
    let key = witness.key().clone();
    let server = Server::bind(&config, witness).await?;
    writeln!(std::io::stdout(), "{key} listens on {}{}", server.url()?, config.prefix)?;
    notify(sd_notify::NotifyState::Ready);
    server.run(closing).await;
    notify(sd_notify::NotifyState::Stopping);
    Ok(())
}

fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

fn attend_signals(closing: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        closing.cancel();
    });
    Ok(())
}
