//! The same file through rsyslog: read by imfile, sent by omfwd over plain TCP to whoever only counts lines.

use std::{
    fs,
    io::Read,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use sigillo_testkit::daemon::Daemon;

const PROGRAM: &str = "/usr/sbin/rsyslogd";
/// Longest silence of the sender.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(30);

/// Processor time of rsyslogd for the file's lines; `None` where it is not installed.
pub(crate) fn cpu(dir: &Path, file: &Path, lines: u64) -> Result<Option<Duration>> {
    let version = Command::new(PROGRAM).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let work = dir.join("rsyslog");
    fs::create_dir_all(&work)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let config = format!(
        "global(workDirectory=\"{work}\")\nmodule(load=\"imfile\")\n\
         input(type=\"imfile\" file=\"{file}\" tag=\"bench\")\n\
         action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{port}\" protocol=\"tcp\")\n",
        work = work.display(),
        file = file.display()
    );
    let path = work.join("rsyslog.conf");
    fs::write(&path, config)?;
    let mut command = Command::new(PROGRAM);
    command.args(["-n", "-i"]).arg(work.join("pid")).arg("-f").arg(&path);
    let daemon = Daemon::start("rsyslogd", &mut command, &work.join("log"))?;
    let (counted, counts) = channel();
    // Ends with the benchmark.
    thread::spawn(move || accept(&listener, &counted));
    let counted = wait_for(lines, &counts);
    daemon.signal(Signal::TERM)?;
    let (_, usage) = daemon.wait(STOP_MAX)?;
    counted?;
    Ok(Some(usage.cpu))
}

/// Waits until so many lines have come.
fn wait_for(lines: u64, counts: &Receiver<u64>) -> Result<()> {
    let mut came = 0;
    while came < lines {
        came +=
            counts.recv_timeout(SILENCE_MAX).with_context(|| format!("rsyslogd sends no more after {came} lines"))?;
    }
    Ok(())
}

/// Takes connections: rsyslogd makes one for each of its workers, and has more of them when it falls behind.
fn accept(listener: &TcpListener, counted: &Sender<u64>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let counted = counted.clone();
        thread::spawn(move || count(stream, &counted));
    }
}

/// Counts the lines of a connection.
fn count(mut stream: TcpStream, counted: &Sender<u64>) {
    let mut bytes = vec![0; 1 << 20];
    while let Ok(length) = stream.read(&mut bytes)
        && length > 0
    {
        let lines = memchr::memchr_iter(b'\n', bytes.get(..length).unwrap_or_default()).count() as u64;
        if counted.send(lines).is_err() {
            break;
        }
    }
}
