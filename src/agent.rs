//! `sigillo-agent`: ships this machine's logs to the journal.

use std::{
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use rustix::thread::disable_transparent_huge_pages;
use sigillo_agent::{AgentError, Asked, Config, Mode};
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
a newer epoch of the source, and the journal takes nothing more of the older one. An agent then opens a newer one still, so that
two of them hold each other up, and the journal's register shows epochs without end. Give each its own.

What was read waits in state_dir/spool until the journal has it, for as long as it takes and there is room ([spool] max_bytes, 1 GiB);
when it is full nothing more is read, and files keep their lines. kill -9, a loss of power or a cut line lose nothing and double nothing.
Lines from standard input that were not spooled yet can't be read again.

Exit codes:
  0  done
  1  something is missing (check), wrong (status) or failed
  2  the command line makes no sense
  3  no agent works with this configuration (status)
  7  the journal was caught at misconduct; a person has to act";

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
    /// Checks configuration, sources and server: what would be read, what would be made of the last lines, who we are at the server. Ends
    /// with 1 if something is missing.
    Check {
        /// The configuration file, TOML.
        #[arg(long, value_name = "FILE", env = "SIGILLO_AGENT_CONFIG")]
        config: PathBuf,
    },
    /// Asks the agent that works with this configuration how it does. Ends with 1 if something stands in the way, with 3 if no agent works.
    Status {
        /// The configuration file, TOML.
        #[arg(long, value_name = "FILE", env = "SIGILLO_AGENT_CONFIG")]
        config: PathBuf,
        /// Form of the answer.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Prints the completion script of a shell.
    Completion {
        /// Which shell.
        shell: Shell,
    },
    /// Writes the manual pages into a folder.
    Man {
        /// Folder; made if it is not there.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// No agent works with the configuration.
const EXIT_NOT_RUNNING: u8 = 3;

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
    // Where the kernel gives pages of 2 MiB, the agent holds nearly twice the memory that it uses, and is no faster by them. One that
    // can't leave them out works all the same.
    let _ = disable_transparent_huge_pages(true);
    // Reading, making records and sending: more threads would only cost memory.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime =
        builder.worker_threads(2).max_blocking_threads(16).enable_all().build().context("no threads to work with")?;
    let result = runtime.block_on(async {
        match command {
            Command::Run { config, once, log, log_json } => run(config, once, &log, log_json).await,
            Command::Check { config } => check(config).await,
            Command::Status { config, output } => status(config, output).await,
            Command::Completion { shell } => completion(shell),
            Command::Man { dir } => man(&dir),
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

async fn status(config: PathBuf, output: Output) -> anyhow::Result<ExitCode> {
    let config = Config::load(&config)?;
    let Asked::Report(report) = sigillo_agent::ask(&config).await? else {
        eprintln!("sigillo-agent: no agent works with {}", config.state_dir.display());
        return Ok(ExitCode::from(EXIT_NOT_RUNNING));
    };
    let text = match output {
        Output::Text => report.to_text(),
        Output::Json => serde_json::to_string(&report)? + "\n",
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if report.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn completion(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "sigillo-agent", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

fn man(dir: &Path) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    for command in command.get_subcommands().chain([&command]) {
        let man = Man::new(command.clone());
        let mut page = Vec::new();
        man.render(&mut page)?;
        let path = dir.join(man.get_filename());
        fs::write(&path, page).with_context(|| format!("{}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
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
