//! The demo's server process.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A free port of loopback, so that nothing else is in the way.
pub(super) const ADDRESS: &str = "127.0.0.1:0";

const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(30);

/// Killed when dropped.
pub(super) struct Server {
    child: Option<Child>,
}

impl Server {
    /// Starts the server and returns when it takes connections.
    pub(super) fn start(program: &Path, dir: &Path) -> Result<Self> {
        let addresses = dir.join("data/addresses.toml");
        if addresses.exists() {
            fs::remove_file(&addresses)?;
        }
        let log = File::options().create(true).append(true).open(dir.join("sigillod.log"))?;
        let child = Command::new(program)
            .args(["--dev", "--listen", ADDRESS, "--metrics", ADDRESS, "--dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A kept server outlives an interrupt of this program.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} could not be started", program.display()))?;
        let mut server = Self { child: Some(child) };
        let deadline = Instant::now() + START_MAX;
        // Written once the listener is bound.
        while !addresses.exists() {
            if let Some(status) = server.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("sigillod ended at its start ({status})");
            }
            ensure!(Instant::now() < deadline, "sigillod is not ready after {START_MAX:?}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Asks it to stop and waits until it has.
    pub(super) fn stop(mut self) -> Result<()> {
        let child = self.child.as_mut().context("the server runs")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + STOP_MAX;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "sigillod still runs {STOP_MAX:?} after SIGTERM");
            thread::sleep(Duration::from_millis(10));
        };
        self.child = None;
        ensure!(status.success(), "sigillod ended with {status} after SIGTERM");
        Ok(())
    }

    /// Lets it run on; returns its process id.
    pub(super) fn leave(mut self) -> u32 {
        self.child.take().map_or(0, |child| child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails if it has ended already, which is as well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The end of the server's log.
pub(super) fn log_tail(dir: &Path) -> String {
    let log = fs::read(dir.join("sigillod.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
}
