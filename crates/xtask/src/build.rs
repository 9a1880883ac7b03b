//! Building and testing the workspace, always with the same profile and selection of packages: another would give other
//! features, and RocksDB would be compiled anew, which takes many minutes.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::foreign;

/// The workspace and where its build results go.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the workspace that this program was built from. Unless `CARGO_TARGET_DIR` says otherwise, all checkouts share one
    /// target directory below the user's cache.
    pub(crate) fn locate() -> Result<Self> {
        // As cargo says at run time: what it said when compiling may be another checkout's, where they share a target directory.
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
        let root = Path::new(&manifest_dir).ancestors().nth(2).context("the workspace is two levels up")?;
        let target = match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
            // A relative one means the same to cargo, whose directory is the workspace's root.
            Some(dir) => root.join(dir),
            None => cache_dir()?.join("sigillo/target"),
        };
        Ok(Self { root: root.to_owned(), target })
    }

    /// Builds every binary.
    pub(crate) fn build(&self) -> Result<()> {
        if !self.target.join("release").exists() {
            eprintln!(
                "xtask: the first build compiles RocksDB: 5 to 30 minutes. Results go to {}",
                self.target.display()
            );
        }
        self.cargo(&["build", "--release", "--workspace"])
    }

    /// Checks formatting and lints where cargo has these components, and runs the tests; those that need programs of others, too,
    /// where these can be had. The last line is the sum.
    pub(crate) fn test(&self, filter: Option<&str>) -> Result<()> {
        if filter.is_none() {
            self.check("fmt", &["fmt", "--check"])?;
            self.check("clippy", &["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
        }
        // The tests start the real binaries.
        self.build()?;
        let tests = ["test", "--release", "--workspace"];
        let mut sum = self.count_tests(&tests.into_iter().chain(filter).collect::<Vec<_>>(), None)?;
        if filter.is_none_or(|filter| filter.starts_with("foreign")) {
            let foreign = self.target.join("foreign");
            let sets = foreign::provide(&self.root, &foreign);
            if !sets.is_empty() {
                let arguments: Vec<&str> = tests.into_iter().chain(["--", "--ignored"]).chain(sets).collect();
                sum.add_ignored(&self.count_tests(&arguments, Some(&foreign))?);
            }
        }
        let Sum { passed, failed, ignored, skipped, ok } = sum;
        let skipped = ignored + skipped;
        if skipped > 0 {
            eprintln!("xtask: SKIPPED: {skipped} tests, which need what could not be had here (see above)");
        }
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        ensure!(ok, "tests failed");
        Ok(())
    }

    /// Runs tests and adds up what each crate's last line says.
    fn count_tests(&self, arguments: &[&str], foreign: Option<&Path>) -> Result<Sum> {
        let words = arguments.join(" ");
        eprintln!("xtask: cargo {words}");
        let mut command = self.command(arguments);
        if let Some(foreign) = foreign {
            command.env("SIGILLO_FOREIGN", foreign);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().context("cargo could not be started")?;
        let (mut sum, mut skipped) = (Sum::default(), 0);
        for line in BufReader::new(child.stdout.take().context("cargo's output")?).lines() {
            let line = line?;
            println!("{line}");
            // A test that could not be run says so and passes, as far as cargo knows.
            skipped += u64::from(line.contains("SKIPPED: "));
            sum.passed += result(&line, "passed");
            sum.failed += result(&line, "failed");
            sum.ignored += result(&line, "ignored");
        }
        sum.ok = child.wait()?.success();
        sum.passed = sum.passed.saturating_sub(skipped);
        sum.skipped = skipped;
        Ok(sum)
    }

    /// Path of a binary that [`Self::build`] made.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    fn check(&self, component: &str, arguments: &[&str]) -> Result<()> {
        let probe = self.command(&[component, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if probe.is_ok_and(|status| status.success()) {
            return self.cargo(arguments);
        }
        eprintln!("xtask: SKIPPED: cargo {}: the component is not installed", arguments.join(" "));
        Ok(())
    }

    fn cargo(&self, arguments: &[&str]) -> Result<()> {
        let words = arguments.join(" ");
        eprintln!("xtask: cargo {words}");
        let status = self.command(arguments).status().context("cargo could not be started")?;
        ensure!(status.success(), "`cargo {words}` failed ({status})");
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root).args(arguments).env("CARGO_TARGET_DIR", &self.target).stdin(Stdio::null());
        // Set by `cargo run` for this program; they would make build scripts of others believe that something changed.
        for (name, _) in env::vars_os() {
            if is_of_this_package(&name) {
                command.env_remove(name);
            }
        }
        command
    }
}

/// Results of tests.
#[derive(Default)]
struct Sum {
    passed: u64,
    failed: u64,
    /// Not run.
    ignored: u64,
    /// Said themselves that they could not be run.
    skipped: u64,
    /// Whether cargo was content; it is not either when something does not compile.
    ok: bool,
}

impl Sum {
    /// Adds a run of tests that this one left out.
    fn add_ignored(&mut self, run: &Self) {
        self.passed += run.passed;
        self.failed += run.failed;
        self.skipped += run.skipped;
        self.ignored = self.ignored.saturating_sub(run.passed + run.failed + run.skipped);
        self.ok &= run.ok;
    }
}

/// A number of a line like `test result: ok. 3 passed; 0 failed; …`.
fn result(line: &str, what: &str) -> u64 {
    let Some(results) = line.strip_prefix("test result: ") else { return 0 };
    let mut words = results.split([' ', ';', '.']).filter(|word| !word.is_empty());
    let mut before = "";
    words
        .find_map(|word| {
            if word == what {
                before.parse().ok()
            } else {
                before = word;
                None
            }
        })
        .unwrap_or(0)
}

fn is_of_this_package(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_PRIMARY_PACKAGE"
}

fn cache_dir() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .context("neither CARGO_TARGET_DIR, XDG_CACHE_HOME nor HOME is set: set one of them")
}
