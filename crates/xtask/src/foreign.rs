//! Programs of others that judge our logs, and ours in another language: built from `tests/foreign`, where go.mod, go.sum and
//! requirements.txt fix what they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::system::in_path;

/// The oldest Go that fetches the newer one that a module asks for.
const GO_MIN: (u32, u32) = (1, 21);

/// A Go module below `tests/foreign`: what it builds, and how the names of the tests begin that need it.
struct Set {
    module: &'static str,
    packages: &'static [&'static str],
    tests: &'static str,
}

const SETS: [Set; 2] = [
    Set { module: "notes", packages: &["./...", "tool"], tests: "foreign_go_" },
    Set { module: "torchwood", packages: &["./..."], tests: "foreign_torchwood_" },
];

/// Python packages below `tests/foreign`: the environment that holds them, the oldest Python that they run on, and how the names of the
/// tests begin that need them.
struct Packages {
    requirements: &'static str,
    environment: &'static str,
    oldest: (u32, u32),
    tests: &'static str,
}

const PACKAGES: [Packages; 2] = [
    Packages { requirements: "requirements.txt", environment: "python", oldest: (3, 12), tests: "foreign_python_" },
    Packages {
        requirements: "python/requirements.txt",
        environment: "programs",
        oldest: (3, 11),
        tests: "foreign_program_",
    },
];
const PYTHONS: [&str; 5] = ["python3", "python3.11", "python3.12", "python3.13", "python3.14"];

/// Builds what can be built into `out`; returns how the names of the tests begin that can be run now. Says loudly what is left out.
pub(crate) fn provide(root: &Path, out: &Path) -> Vec<&'static str> {
    let mut sets = Vec::new();
    let mut keep = |tests: &'static str, provided: Result<()>| match provided {
        Ok(()) => sets.push(tests),
        Err(error) => eprintln!("xtask: SKIPPED: tests {tests}*: {error:#}"),
    };
    let sources = root.join("tests/foreign");
    match find_go() {
        Ok(go) => {
            for set in &SETS {
                keep(set.tests, build(&go, &sources.join(set.module), set.packages, out));
            }
        }
        Err(error) => eprintln!("xtask: SKIPPED: all checks with Go programs: {error:#}"),
    }
    for packages in &PACKAGES {
        keep(packages.tests, install_python(packages, &sources, out));
    }
    sets
}

/// Makes a virtual environment with the packages, or completes one.
fn install_python(packages: &Packages, sources: &Path, out: &Path) -> Result<()> {
    let Packages { requirements, environment, oldest: (major, minor), .. } = packages;
    let check = format!("import ensurepip, sys, venv; sys.exit(sys.version_info < ({major}, {minor}))");
    let is_fit = |python: &str| run(Command::new(python).args(["-c", &check]).stderr(Stdio::null())).is_ok();
    let python = PYTHONS
        .into_iter()
        .find(|python| is_fit(python))
        .with_context(|| format!("Python {major}.{minor} or later, with venv, is needed"))?;
    let environment = out.join(environment);
    run(Command::new(python).args(["-m", "venv"]).arg(&environment))?;
    run(Command::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(sources.join(requirements)))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{command:?} could not be started"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

fn find_go() -> Result<PathBuf> {
    let installed = Path::new("/usr/local/go/bin/go");
    let go = if in_path("go") { Path::new("go") } else { installed };
    let output = Command::new(go)
        .args(["env", "GOVERSION"])
        .stdin(Stdio::null())
        .output()
        .context("Go is not installed; version 1.21 or later is needed")?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        parse(&version).is_some_and(|version| version >= GO_MIN),
        "Go 1.21 or later is needed, this is {version:?}"
    );
    Ok(go.to_owned())
}

/// The first two numbers of a version like `go1.26.8`.
fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("go")?.split(['.', 'r', 'b']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn build(go: &Path, module: &Path, packages: &[&str], out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    let mut folder = out.as_os_str().to_owned();
    // With a slash at its end Go takes it for a folder.
    folder.push("/");
    eprintln!("xtask: go build {} in {}", packages.join(" "), module.display());
    run(Command::new(go)
        .current_dir(module)
        .args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o"])
        .arg(folder)
        .args(packages)
        // A module may ask for a newer Go than is installed.
        .env("GOTOOLCHAIN", "auto")
        .env_remove("GOFLAGS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(parse("go1.26.8"), Some((1, 26)));
        assert_eq!(parse("go1.21rc2"), Some((1, 21)));
        assert_eq!(parse("go1.9"), Some((1, 9)));
        assert!(parse("go1.9") < Some(GO_MIN) && parse("devel").is_none());
    }
}
