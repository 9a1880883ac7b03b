//! A real `sigillo-agent` as a process: configured, started, killed, stopped, started again.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::Result;
use rustix::process::Signal;

use crate::{
    binaries::binary,
    daemon::{self, Daemon},
    process::Usage,
};

const NAME: &str = "sigillo-agent";
/// Most time that a start may take.
const START_MAX: Duration = Duration::from_secs(30);
/// Most time that a stop may take; it waits up to 10 s for the last acks.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How an agent is started. All its files are in one directory: `agent.toml`, its state in `agent/`, its log in `agent.log`.
#[derive(Debug, Clone)]
pub struct AgentCommand {
    dir: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

impl AgentCommand {
    /// An agent in `dir`, where [`crate::config::write`] has put the certificates: it ships to `server` as `source`, with the trust file
    /// if that is wanted. `tables` are the other tables of its configuration: sources first of all.
    pub fn new(dir: &Path, server: SocketAddr, source: &str, trust: bool, tables: &str) -> Result<Self> {
        let trust = if trust { "trust = \"trust.txt\"\n" } else { "" };
        let text = format!(
            "state_dir = \"agent\"\nhost = \"drill\"\n[server]\nurl = \"https://{server}\"\nca = \"ca.pem\"\n\
             cert = \"{source}.pem\"\nkey = \"{source}.key\"\n{trust}{tables}"
        );
        fs::write(dir.join("agent.toml"), text)?;
        Ok(Self { dir: dir.to_owned(), environment: Vec::new() })
    }

    /// The same with an environment variable set.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("agent")
    }

    /// The last lines of its log, over all starts.
    pub fn log_tail(&self) -> String {
        daemon::tail(&self.log())
    }

    /// Starts the agent and returns when it says that it is at work.
    pub fn start(&self) -> Result<Agent> {
        let socket = self.dir.join("agent-notify");
        let daemon = Daemon::start_ready(NAME, &mut self.process()?, &self.log(), &socket, START_MAX)?;
        Ok(Agent { daemon })
    }

    /// Starts the agent and kills it after so long, wherever it has come to by then.
    pub fn start_and_kill(&self, after: Duration) -> Result<()> {
        Daemon::start(NAME, &mut self.process()?, &self.log())?.kill_after(after)
    }

    fn process(&self) -> Result<Command> {
        let mut command = Command::new(binary(NAME)?);
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        command.args(["run", "--config", "agent.toml"]).current_dir(&self.dir).envs(environment);
        Ok(command)
    }

    fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }
}

/// A running agent. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    daemon: Daemon,
}

impl Agent {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// What the process has used so far.
    pub fn usage(&self) -> Result<Usage> {
        self.daemon.usage()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> Result<bool> {
        self.daemon.has_ended()
    }

    /// Kills it without warning (SIGKILL).
    pub fn kill(self) -> Result<()> {
        self.daemon.signal(Signal::KILL)?;
        self.daemon.wait(STOP_MAX)?;
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(self) -> Result<(ExitStatus, Usage)> {
        self.daemon.signal(Signal::TERM)?;
        self.daemon.wait(STOP_MAX)
    }
}
