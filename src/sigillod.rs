//! `sigillod`, the server: takes records from sources, seals them in the journal, answers readers.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{ArgGroup, Parser};
use sigillo_server::{
    Controls, Listeners, check,
    clock::Clock,
    command::{self, Command, EXIT_CODES},
    config::{Settings, default_listen, default_metrics_listen},
    dev, run, telemetry,
};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The journal of a hosting provider: takes records over gRPC, chains them, and answers those who may read.
#[derive(Debug, Parser)]
#[command(version, after_help = format!("{SIGNALS}\n\n{EXIT_CODES}"))]
#[command(group(ArgGroup::new("mode").required(true).args(["config", "dev"])))]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    /// Without one, the server runs
    #[command(subcommand)]
    command: Option<Command>,
    /// Run by this configuration file
    #[arg(long, value_name = "FILE", conflicts_with = "dev")]
    config: Option<PathBuf>,
    /// Say whether the configuration holds together, and exit
    #[arg(long, requires = "config")]
    check_config: bool,
    /// Run on this machine only, with throw-away certificates and a configuration of its own
    #[arg(long)]
    dev: bool,
    /// Where --dev keeps certificates, configurations and data
    #[arg(long, value_name = "DIR", default_value = "sigillo-dev", requires = "dev")]
    dir: PathBuf,
    /// Address of the gRPC listener of --dev; port 0: a free one
    #[arg(long, value_name = "ADDR", default_value_t = default_listen(), requires = "dev")]
    listen: SocketAddr,
    /// Address of the metrics of --dev; port 0: a free one
    #[arg(long, value_name = "ADDR", default_value_t = default_metrics_listen(), requires = "dev")]
    metrics: SocketAddr,
}

/// The configuration makes no sense; as commands end with it.
const EXIT_CONFIGURATION: u8 = 2;
const EXIT_FAILED: u8 = 1;

const SIGNALS: &str = "\
Signals:
  SIGTERM, SIGINT  stop: finish what was taken, acknowledge it, close the journal
  SIGHUP           read certificates, sources, readers and tenants again
  SIGUSR1          the clock is right: take records again after it was stepped";

fn main() -> ExitCode {
    // Not through main's own result: that would print a person's mistake with a programmer's backtrace.
    let mut arguments = Arguments::parse();
    if let Some(command) = arguments.command.take() {
        return command::run(command);
    }
    let failed = |code, error| {
        eprintln!("sigillod: {error:#}");
        ExitCode::from(code)
    };
    let settings = match configured(&arguments) {
        Ok(settings) => settings,
        Err(error) => return failed(EXIT_CONFIGURATION, error),
    };
    if arguments.check_config {
        println!("{} holds together", settings.path.display());
        return ExitCode::SUCCESS;
    }
    start(&arguments, settings).map_or_else(|error| failed(EXIT_FAILED, error), |()| ExitCode::SUCCESS)
}

/// The configuration, checked as far as was asked for.
fn configured(arguments: &Arguments) -> Result<Settings> {
    let settings = settings(arguments)?;
    if arguments.check_config {
        check(&settings)?;
    }
    Ok(settings)
}

fn start(arguments: &Arguments, settings: Settings) -> Result<()> {
    telemetry::log(&settings.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let served = runtime.block_on(serve(settings, arguments.dev.then_some(arguments.dir.clone())));
    // Whatever is still blocked on a reader that was cut off must not keep the process.
    runtime.shutdown_background();
    served
}

fn settings(arguments: &Arguments) -> Result<Settings> {
    Ok(match &arguments.config {
        Some(path) => Settings::load(path)?,
        None => dev::prepare(&arguments.dir, arguments.listen, arguments.metrics)?,
    })
}

async fn serve(settings: Settings, dev_dir: Option<PathBuf>) -> Result<()> {
    let controls = Controls::default();
    attend_signals(&controls)?;
    let listeners = Listeners::bind(&settings).await?;
    if let Some(dir) = dev_dir {
        dev::announce(&dir, listeners.grpc()?)?;
        greet(&dir);
    }
    Ok(run(settings, listeners, Clock::default(), controls).await?)
}

fn attend_signals(controls: &Controls) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let mut user = signal(SignalKind::user_defined1()).context("SIGUSR1")?;
    let controls = controls.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => controls.shutdown.cancel(),
                _ = interrupt.recv() => controls.shutdown.cancel(),
                _ = hangup.recv() => controls.reload.notify_one(),
                _ = user.recv() => controls.confirm_clock.notify_one(),
            }
        }
    });
    Ok(())
}

fn greet(dir: &Path) {
    let dir = dir.display();
    eprintln!("A journal to try things with, in {dir}. From another terminal:");
    eprintln!("  sigillo --config {dir}/sigillo.toml query");
    eprintln!("  journalctl -n 1000 | sigillo-agent run --config {dir}/agent.toml --once");
}
