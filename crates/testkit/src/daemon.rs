//! A program of ours that runs until it is told to stop: started, waited for until it is ready, killed, stopped, counted.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::process::{self, Usage};

/// Most of a log that [`tail`] returns, bytes.
const TAIL_BYTES: u64 = 32_768;

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts the program, its output appended to `log`.
    pub fn start(name: &'static str, command: &mut Command, log: &Path) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{name} could not be started"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// As [`Daemon::start`], and waits until it says over `socket`, made for it, that it is ready.
    pub fn start_ready(
        name: &'static str,
        command: &mut Command,
        log: &Path,
        socket: &Path,
        at_most: Duration,
    ) -> Result<Self> {
        remove_if_there(socket)?;
        let notified = UnixDatagram::bind(socket).with_context(|| format!("socket {}", socket.display()))?;
        notified.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut daemon = Self::start(name, command.env("NOTIFY_SOCKET", socket), log)?;
        let deadline = Instant::now() + at_most;
        let mut message = [0; 1_024];
        loop {
            match notified.recv(&mut message) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
                    if text.lines().any(|line| line == "READY=1") {
                        return Ok(daemon);
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                }
                Err(error) => return Err(error).context("waiting for READY=1"),
            }
            if let Some(status) = daemon.child.try_wait()? {
                bail!("{name} ended at its start ({status}):\n{}", tail(log));
            }
            ensure!(Instant::now() < deadline, "{name} is not ready after {at_most:?}:\n{}", tail(log));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the process has used so far.
    pub fn usage(&self) -> Result<Usage> {
        process::usage(self.child.id())
    }

    /// Sends a signal without waiting.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(&self.child, signal)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> Result<bool> {
        process::wait_exit(&self.child, Duration::ZERO)
    }

    /// Waits until it ends, and returns how, and all that it used: read after its exit and before it was reaped, the peak of memory
    /// just before.
    pub fn wait(mut self, at_most: Duration) -> Result<(ExitStatus, Usage)> {
        let deadline = Instant::now() + at_most;
        let mut peak_rss_bytes = 0;
        loop {
            // Gone at the exit, so it is read until then; it only grows.
            peak_rss_bytes = peak_rss_bytes.max(self.usage()?.peak_rss_bytes);
            if process::wait_exit(&self.child, Duration::from_millis(10))? {
                break;
            }
            ensure!(Instant::now() < deadline, "{} still runs after {at_most:?}:\n{}", self.name, tail(&self.log));
        }
        let usage = Usage { peak_rss_bytes, ..self.usage()? };
        Ok((self.child.wait()?, usage))
    }

    /// Kills it after so long, wherever it has come to by then; an error if it has ended by itself.
    pub fn kill_after(mut self, after: Duration) -> Result<()> {
        let ended = process::wait_exit(&self.child, after)?;
        // Fails if it has ended by itself, which is told below.
        let _ = self.child.kill();
        let status = self.child.wait()?;
        ensure!(!ended, "{} ended at its start ({status}):\n{}", self.name, tail(&self.log));
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails when it was reaped already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    };
    read().unwrap_or_else(|error| format!("(no log: {error})"))
}

pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} can't be removed", path.display()))
        }
        _ => Ok(()),
    }
}
