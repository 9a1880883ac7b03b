//! A real `sigillod` as a process: started, waited for, killed, stopped, started again.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde::Deserialize;
use sigillo_client::Endpoint;

use crate::{
    binaries::binary,
    daemon::{self, Daemon},
    process::Usage,
};

const NAME: &str = "sigillod";

/// Most time that a start may take, with the recovery of a large journal.
const START_MAX: Duration = Duration::from_secs(60);
/// Most time that a graceful stop may take.
const STOP_MAX: Duration = Duration::from_secs(60);

/// How a server is started. All its files are in one directory, its log in `sigillod.log` there.
#[derive(Debug, Clone)]
pub struct ServerCommand {
    dir: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl ServerCommand {
    /// `sigillod --dev` in `dir`, on free ports.
    pub fn dev(dir: &Path) -> Self {
        let mut arguments: Vec<OsString> = vec!["--dev".into(), "--dir".into(), dir.into()];
        arguments.extend(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"].map(OsString::from));
        Self { dir: dir.to_owned(), arguments, environment: Vec::new() }
    }

    /// `sigillod --config DIR/sigillod.toml`, as [`crate::config::write`] leaves it.
    pub fn configured(dir: &Path) -> Self {
        let arguments = vec!["--config".into(), dir.join("sigillod.toml").into()];
        Self { dir: dir.to_owned(), arguments, environment: Vec::new() }
    }

    /// The same with an environment variable set.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The same at this address, for one who comes back to where it was.
    #[must_use]
    pub fn listening(mut self, address: SocketAddr) -> Self {
        let place = self.arguments.iter().position(|argument| argument == "--listen");
        if let Some(argument) = place.and_then(|place| self.arguments.get_mut(place + 1)) {
            *argument = address.to_string().into();
        }
        self
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The last lines of the server's log, over all starts.
    pub fn log_tail(&self) -> String {
        daemon::tail(&self.log())
    }

    /// Starts the server and returns when it says that it is ready.
    pub fn start(&self) -> Result<Server> {
        let path = self.data_dir().join("addresses.toml");
        daemon::remove_if_there(&path)?;
        let socket = self.dir.join("notify");
        let daemon = Daemon::start_ready(NAME, &mut self.process()?, &self.log(), &socket, START_MAX)?;
        let text = fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
        let addresses = toml::from_str(&text).with_context(|| format!("{} says {text:?}", path.display()))?;
        Ok(Server { command: self.clone(), daemon, addresses })
    }

    /// Starts a server that is expected to refuse, and returns how it ended.
    pub fn start_refused(&self) -> Result<ExitStatus> {
        let daemon = self.spawn()?;
        let (status, _) = daemon.wait(START_MAX).context("sigillod started although it should have refused")?;
        Ok(status)
    }

    /// Starts the server and kills it after so long, wherever it has come to by then.
    pub fn start_and_kill(&self, after: Duration) -> Result<()> {
        self.spawn()?.kill_after(after)
    }

    fn spawn(&self) -> Result<Daemon> {
        Daemon::start(NAME, &mut self.process()?, &self.log())
    }

    fn process(&self) -> Result<Command> {
        fs::create_dir_all(&self.dir)?;
        let mut command = Command::new(binary(NAME)?);
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        command.args(&self.arguments).current_dir(&self.dir).envs(environment);
        Ok(command)
    }

    fn log(&self) -> PathBuf {
        self.dir.join("sigillod.log")
    }
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    command: ServerCommand,
    daemon: Daemon,
    addresses: Addresses,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Addresses {
    listen: SocketAddr,
    metrics: SocketAddr,
    publish: Option<SocketAddr>,
}

/// A server that has ended.
#[derive(Debug)]
pub struct Stopped {
    /// How it had been started: start it again with this.
    pub command: ServerCommand,
    /// How it ended.
    pub status: ExitStatus,
    /// All that the process used, read after its exit and before it was reaped. The peak of memory was read just before.
    pub usage: Usage,
}

impl Server {
    /// Where it takes gRPC.
    pub fn listen(&self) -> SocketAddr {
        self.addresses.listen
    }

    /// Where it shows its metrics.
    pub fn metrics(&self) -> SocketAddr {
        self.addresses.metrics
    }

    /// Where it publishes checkpoint and tiles, if it does.
    pub fn publish(&self) -> Option<SocketAddr> {
        self.addresses.publish
    }

    /// How to connect as `name`, whose certificate is in the server's directory.
    pub fn endpoint(&self, name: &str) -> Endpoint {
        let file = |name: String| self.command.dir.join(name);
        Endpoint {
            url: format!("https://{}", self.listen()),
            ca: file("ca.pem".into()),
            cert: file(format!("{name}.pem")),
            key: file(format!("{name}.key")),
            name: None,
            trust: None,
            remember: None,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// How it was started.
    pub fn command(&self) -> &ServerCommand {
        &self.command
    }

    /// What the process has used so far.
    pub fn usage(&self) -> Result<Usage> {
        self.daemon.usage()
    }

    /// Sends SIGTERM without waiting.
    pub fn terminate(&self) -> Result<()> {
        self.daemon.signal(Signal::TERM)
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(self) -> Result<Stopped> {
        self.terminate()?;
        self.wait(STOP_MAX)
    }

    /// Kills it without warning (SIGKILL).
    pub fn kill(self) -> Result<Stopped> {
        self.daemon.signal(Signal::KILL)?;
        self.wait(STOP_MAX)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> Result<bool> {
        self.daemon.has_ended()
    }

    /// Tells it that the wall clock is right after a step (SIGUSR1).
    pub fn confirm_clock(&self) -> Result<()> {
        self.daemon.signal(Signal::USR1)
    }

    /// Waits until it ends by itself.
    pub fn wait(self, at_most: Duration) -> Result<Stopped> {
        let (status, usage) = self.daemon.wait(at_most)?;
        Ok(Stopped { command: self.command, status, usage })
    }
}
