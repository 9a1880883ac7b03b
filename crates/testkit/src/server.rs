//! A real `sigillod` as a process: started, waited for, killed, stopped, started again.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use sigillo_client::Endpoint;

use crate::{
    binaries::binary,
    process::{self, Usage},
};

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
        const TAIL_BYTES: u64 = 32_768;
        let read = || -> std::io::Result<String> {
            let mut file = fs::File::open(self.log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        read().unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Starts the server and returns when it says that it is ready.
    pub fn start(&self) -> Result<Server> {
        let socket = self.dir.join("notify");
        remove_if_there(&socket)?;
        remove_if_there(&self.data_dir().join("addresses.toml"))?;
        let notified = UnixDatagram::bind(&socket).with_context(|| format!("socket {}", socket.display()))?;
        notified.set_read_timeout(Some(Duration::from_millis(20)))?;
        let child = self.spawn(&[("NOTIFY_SOCKET".into(), socket.into())])?;
        let mut server = Server { command: self.clone(), child, addresses: None };
        let deadline = Instant::now() + START_MAX;
        let mut message = [0; 1_024];
        loop {
            match notified.recv(&mut message) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
                    if text.lines().any(|line| line == "READY=1") {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("waiting for READY=1"),
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("sigillod ended at its start ({status}):\n{}", self.log_tail());
            }
            ensure!(Instant::now() < deadline, "sigillod is not ready after {START_MAX:?}:\n{}", self.log_tail());
        }
        let path = self.data_dir().join("addresses.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
        server.addresses = Some(toml::from_str(&text).with_context(|| format!("{} says {text:?}", path.display()))?);
        Ok(server)
    }

    /// Starts a server that is expected to refuse, and returns how it ended.
    pub fn start_refused(&self) -> Result<ExitStatus> {
        let mut child = self.spawn(&[])?;
        if process::wait_exit(&child, START_MAX)? {
            return Ok(child.wait()?);
        }
        child.kill()?;
        child.wait()?;
        bail!("sigillod started although it should have refused:\n{}", self.log_tail())
    }

    /// Starts the server and kills it after so long, wherever it has come to by then.
    pub fn start_and_kill(&self, after: Duration) -> Result<()> {
        let mut child = self.spawn(&[])?;
        let ended = process::wait_exit(&child, after)?;
        // Fails if it has ended by itself, which is told below.
        let _ = child.kill();
        let status = child.wait()?;
        ensure!(!ended, "sigillod ended at its start ({status}):\n{}", self.log_tail());
        Ok(())
    }

    fn spawn(&self, more: &[(OsString, OsString)]) -> Result<Child> {
        fs::create_dir_all(&self.dir)?;
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        Command::new(binary("sigillod")?)
            .args(&self.arguments)
            .current_dir(&self.dir)
            .envs(self.environment.iter().chain(more).map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("sigillod could not be started")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("sigillod.log")
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} can't be removed", path.display()))
        }
        _ => Ok(()),
    }
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    command: ServerCommand,
    child: Child,
    addresses: Option<Addresses>,
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
        self.addresses().listen
    }

    /// Where it shows its metrics.
    pub fn metrics(&self) -> SocketAddr {
        self.addresses().metrics
    }

    /// Where it publishes checkpoint and tiles, if it does.
    pub fn publish(&self) -> Option<SocketAddr> {
        self.addresses().publish
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
        self.child.id()
    }

    /// How it was started.
    pub fn command(&self) -> &ServerCommand {
        &self.command
    }

    /// What the process has used so far.
    pub fn usage(&self) -> Result<Usage> {
        process::usage(self.child.id())
    }

    /// Sends SIGTERM without waiting.
    pub fn terminate(&self) -> Result<()> {
        process::signal(&self.child, Signal::TERM)
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(self) -> Result<Stopped> {
        self.terminate()?;
        self.wait(STOP_MAX)
    }

    /// Kills it without warning (SIGKILL).
    pub fn kill(self) -> Result<Stopped> {
        process::signal(&self.child, Signal::KILL)?;
        self.wait(STOP_MAX)
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self, at_most: Duration) -> Result<Stopped> {
        let deadline = Instant::now() + at_most;
        let mut peak_rss_bytes = 0;
        loop {
            // Gone at the exit, so it is read until then; it only grows.
            peak_rss_bytes = peak_rss_bytes.max(self.usage()?.peak_rss_bytes);
            if process::wait_exit(&self.child, Duration::from_millis(10))? {
                break;
            }
            ensure!(Instant::now() < deadline, "sigillod still runs after {at_most:?}:\n{}", self.command.log_tail());
        }
        let usage = Usage { peak_rss_bytes, ..self.usage()? };
        let status = self.child.wait()?;
        Ok(Stopped { command: self.command.clone(), status, usage })
    }

    fn addresses(&self) -> Addresses {
        self.addresses.expect("set before a server is handed out")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails when it was reaped already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
