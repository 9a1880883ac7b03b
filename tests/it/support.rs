//! What the tests of the binaries share.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::Output,
};

use serde_json::Value;
use sigillo_testkit::{
    binaries::run,
    server::{Server, ServerCommand},
};
use tempfile::TempDir;

/// A `sigillod --dev` in a directory of its own.
pub(crate) struct Dev {
    pub(crate) server: Server,
    pub(crate) dir: TempDir,
}

impl Dev {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = ServerCommand::dev(dir.path()).start().unwrap();
        Self { server, dir }
    }

    /// Writes lines into a file and ships it with `sigillo-agent run --once`.
    pub(crate) fn ship(&self, name: &str, lines: &[u8]) {
        fs::write(self.dir.path().join(name), lines).unwrap();
        ship_file(self.dir.path(), name);
    }
}

/// Ships a file of `dir`, a dev server's directory, with `sigillo-agent run --once`.
pub(crate) fn ship_file(dir: &Path, name: &str) {
    let config = format!("{name}-agent.toml");
    let connection = fs::read_to_string(dir.join("agent.toml")).unwrap();
    fs::write(dir.join(&config), format!("{connection}\n[[file]]\npath = \"{}\"\n", dir.join(name).display())).unwrap();
    let output = run("sigillo-agent", dir, ["run", "--once", "--config", &config]).unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// Runs `sigillo` as the reader of a dev server's directory.
pub(crate) fn sigillo(dir: &Path, arguments: &[&str]) -> Output {
    let config = dir.join("sigillo.toml");
    let config = config.to_str().unwrap();
    run("sigillo", dir, ["--config", config].iter().chain(arguments)).unwrap()
}

/// The same, which must succeed; what it printed.
pub(crate) fn sigillo_ok(dir: &Path, arguments: &[&str]) -> String {
    let output = sigillo(dir, arguments);
    assert!(output.status.success(), "sigillo {arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The objects that it printed, one a line.
pub(crate) fn sigillo_json(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let text = sigillo_ok(dir, &[arguments, &["-o", "json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Says, also when the test's output is kept back, that a test could not be run.
pub(crate) fn skipped(why: &str) {
    io::stdout().write_all(format!("SKIPPED: {why}\n").as_bytes()).unwrap();
}

/// What a program said, for a failing test to show.
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}
