//! The same file through rsyslog: read by imfile, sent by omfwd over plain TCP to whoever only counts lines.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
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
    let counted = thread::spawn(move || count(&listener, lines));
    let counted = counted.join().ok().context("the counting thread has panicked")?;
    daemon.signal(Signal::TERM)?;
    let (_, usage) = daemon.wait(STOP_MAX)?;
    counted?;
    Ok(Some(usage.cpu))
}

/// Takes connections until so many lines have come.
fn count(listener: &TcpListener, lines: u64) -> Result<()> {
    let mut came = 0;
    let mut bytes = vec![0; 1 << 20];
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    while came < lines {
        let length = stream.read(&mut bytes).with_context(|| format!("rsyslogd sends no more after {came} lines"))?;
        ensure!(length > 0, "rsyslogd ends after {came} lines");
        came += memchr::memchr_iter(b'\n', bytes.get(..length).unwrap_or_default()).count() as u64;
    }
    Ok(())
}
