//! Processes: signals, waiting with a bound, and what the kernel counted for them.

use std::{
    fs,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Ticks of `/proc/PID/stat` in a second: `USER_HZ`, 100 on every platform that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// What a whole process, all threads living or dead, has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// `write_bytes` of `/proc/PID/io`: bytes that it caused to be sent to storage, so sockets don't count.
    pub written_bytes: u64,
    /// `VmHWM`: the most memory it ever had resident. 0 once it has exited.
    pub peak_rss_bytes: u64,
}

/// Reads the counters of a process. They can be read until it is reaped, so also after its exit; then they are final.
pub fn usage(pid: u32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("{path} can't be read"))
    };
    let stat = read("stat")?;
    // The second field is the program's name in parentheses and may hold anything; utime and stime are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat has no name")?;
    let mut ticks = fields.split(' ').skip(11).map(str::parse::<u64>);
    let (Some(Ok(user)), Some(Ok(system))) = (ticks.next(), ticks.next()) else {
        bail!("/proc/PID/stat has no times: {stat}");
    };
    Ok(Usage {
        cpu: Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND),
        written_bytes: field(&read("io")?, "write_bytes:").context("/proc/PID/io has no write_bytes")?,
        peak_rss_bytes: field(&read("status")?, "VmHWM:").unwrap_or(0) * 1_024,
    })
}

/// Processor time of all living threads.
fn running(pid: u32) -> Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
        let first = text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        nanos += first.with_context(|| format!("{} says {text:?}", path.display()))?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Processor time of a process and of those that it has started, to the nanosecond; what threads used that have ended is left out.
pub fn running_with_children(pid: u32) -> Result<Duration> {
    let mut sum = running(pid)?;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has ended meanwhile has none.
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            sum += running(child)?;
        }
    }
    Ok(sum)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

/// Sends a signal to a child that has not been reaped.
pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    kill_process(pid(child)?, signal).with_context(|| format!("process {} could not be signalled", child.id()))
}

/// Waits until the child has exited, at most so long, without reaping it: its counters stay readable. False: it runs on.
pub fn wait_exit(child: &Child, at_most: Duration) -> Result<bool> {
    let deadline = Instant::now() + at_most;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    loop {
        if waitid(WaitId::Pid(pid(child)?), options).context("waiting for a child")?.is_some() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        // The kernel has no wait with a time limit for a plain child.
        thread::sleep(Duration::from_millis(2));
    }
}

fn pid(child: &Child) -> Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id out of range")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn counters_of_an_exited_child_are_final_and_readable() {
        let mut child =
            Command::new("sh").args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]).spawn().unwrap();
        assert!(wait_exit(&child, Duration::from_secs(30)).unwrap());
        let usage = usage(child.id()).unwrap();
        assert!(usage.cpu > Duration::ZERO, "{usage:?}");
        assert!(child.wait().unwrap().success());
        assert!(super::usage(child.id()).is_err());
    }

    #[test]
    fn waiting_has_an_end() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!wait_exit(&child, Duration::from_millis(20)).unwrap());
        signal(&child, Signal::KILL).unwrap();
        assert!(wait_exit(&child, Duration::from_secs(10)).unwrap());
        assert!(!child.wait().unwrap().success());
    }
}
