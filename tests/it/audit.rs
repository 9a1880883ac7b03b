//! An auditor that remembers: verification over the wire against a trust file, and the continuous audit.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sigillo_model::audit::Saved;
use sigillo_testkit::{binaries::binary, server::ServerCommand};
use tempfile::TempDir;

use crate::support::{Dev, said, ship_file, sigillo};

/// Most time for anything to be noticed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The verdict, as `sigillo verify` with these arguments gives it.
fn verify(dir: &Path, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let trust = dir.join("trust.txt");
    let line = [&["verify", "-o", "json", "--reason", "test", "--policy", trust.to_str().unwrap()], arguments].concat();
    let output = sigillo(dir, &line);
    let verdict = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    (output.status.code(), verdict)
}

/// Keys and configurations of a dev server without its data, and without what agents and readers remember: a journal of the same name
/// and with the same key.
fn another_history(dir: &Path) -> TempDir {
    let other = tempfile::tempdir().unwrap();
    for folder in ["", "keys"] {
        let (from, to) = (dir.join(folder), other.path().join(folder));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
    other
}

fn lines(word: &str, count: u32) -> String {
    let lines: Vec<String> = (0..count).map(|number| format!("{word} {number}\n")).collect();
    lines.concat()
}

#[test]
fn an_auditor_notices_that_all_was_written_anew() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    dev.ship("app.log", lines("genuine", 300).as_bytes());
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let (memory, state) = (path("memory"), path("state"));
    let (code, verdict) = verify(dir, &["--remember", &memory]);
    assert_eq!((code, &verdict["verdict"]), (Some(0), &"intact".into()), "{verdict}");
    assert!(
        verdict["checkpoint_size"].as_u64().unwrap() > 0 && fs::read_dir(&memory).unwrap().count() == 1,
        "{verdict}"
    );
    let (code, verdict) = verify(dir, &["--state", &state]);
    assert_eq!(code, Some(0), "{verdict}");
    let walked = verdict["records"].as_u64().unwrap();
    let stopped = dev.server.stop().unwrap();
    let data = stopped.command.data_dir().display().to_string();
    assert_eq!(verify(dir, &["--db", &data, "--remember", &memory]).0, Some(0));

    // Who has the log's key writes another journal, which fits itself.
    let other = another_history(dir);
    let server = ServerCommand::dev(other.path()).start().unwrap();
    assert_eq!(verify(other.path(), &[]).0, Some(0));
    let (code, verdict) = verify(other.path(), &["--state", &state]);
    assert_eq!((code, &verdict["known_size"]), (Some(5), &walked.into()), "fewer records than were walked: {verdict}");
    fs::write(other.path().join("app.log"), lines("forged", 500)).unwrap();
    ship_file(other.path(), "app.log");
    let (code, verdict) = verify(other.path(), &["--remember", &memory]);
    assert_eq!((code, &verdict["to"]), (Some(1), &verdict["known_size"]), "{verdict}");
    let (code, verdict) = verify(other.path(), &["--state", &state]);
    assert_eq!((code, &verdict["verdict"]), (Some(1), &"altered".into()), "{verdict}");
    drop(server);
}

/// A continuous audit as a process.
struct Audit {
    child: Child,
    state: PathBuf,
    metrics: SocketAddr,
}

impl Audit {
    fn start(dir: &Path, home: &Path) -> Self {
        let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let state = home.join("state");
        let child = Command::new(binary("sigillo").unwrap())
            .current_dir(dir)
            .args([
                "--config",
                "sigillo.toml",
                "verify",
                "--follow",
                "--every",
                "1",
                "--grace",
                "2",
                "--reason",
                "audit",
            ])
            .args(["--policy", "trust.txt", "-o", "json", "--metrics", &metrics.to_string(), "--state"])
            .arg(&state)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, state, metrics }
    }

    /// Waits until so many records were walked and judged.
    fn wait_for(&mut self, size: u64) -> Saved {
        let began = Instant::now();
        loop {
            if let Ok(bytes) = fs::read(self.state.join("audit")) {
                let saved = Saved::decode(&bytes).unwrap();
                if saved.state.size >= size && saved.accepted.is_some() {
                    return saved;
                }
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the audit has ended");
            assert!(began.elapsed() < PATIENCE, "the audit has not come to {size} records");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until it ends by itself.
    fn end(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "the audit goes on");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_journal_is_followed_over_kills_until_it_is_altered() {
    let dev = Dev::start();
    let (dir, home) = (dev.dir.path().to_owned(), tempfile::tempdir().unwrap());
    dev.ship("app.log", lines("genuine", 2_000).as_bytes());
    let mut audit = Audit::start(&dir, home.path());
    let first = audit.wait_for(2_000).state.size;
    dev.ship("more.log", lines("more", 1_000).as_bytes());
    audit.wait_for(first + 1_000);
    audit.child.kill().unwrap();
    drop(audit);
    dev.ship("again.log", lines("again", 1_000).as_bytes());
    let mut audit = Audit::start(&dir, home.path());
    let walked = audit.wait_for(first + 2_000).state.size;
    // Only what is new was walked again.
    assert!(audit.metric("sigillo_audit_records_walked_total") < 2_000.0);
    assert!(audit.metric("sigillo_audit_verdict{verdict=\"intact\"}") > 0.0);
    assert!(audit.metric("sigillo_audit_size") >= 3_000.0);

    // The server goes, and comes back with another history.
    let stopped = dev.server.stop().unwrap();
    drop((audit, stopped));
    let other = another_history(&dir);
    let server = ServerCommand::dev(other.path()).start().unwrap();
    fs::write(other.path().join("forged.log"), lines("forged", u32::try_from(walked).unwrap() + 500)).unwrap();
    ship_file(other.path(), "forged.log");
    let (code, said) = Audit::start(other.path(), home.path()).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("\"verdict\":\"altered\""), "{said}");
    drop(server);
}
