//! Programs of others that judge our logs: built from `tests/foreign`, whose go.mod and go.sum fix what they are.

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

/// Builds what can be built into `out`; returns how the names of the tests begin that can be run now. Says loudly what is left out.
pub(crate) fn provide(root: &Path, out: &Path) -> Vec<&'static str> {
    let go = match find_go() {
        Ok(go) => go,
        Err(error) => {
            eprintln!("xtask: SKIPPED: all checks against programs of others: {error:#}");
            return Vec::new();
        }
    };
    let mut sets = Vec::new();
    for set in &SETS {
        match build(&go, &root.join("tests/foreign").join(set.module), set.packages, out) {
            Ok(()) => sets.push(set.tests),
            Err(error) => eprintln!("xtask: SKIPPED: tests {}*: {error:#}", set.tests),
        }
    }
    sets
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
    let status = Command::new(go)
        .current_dir(module)
        .args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o"])
        .arg(folder)
        .args(packages)
        // A module may ask for a newer Go than is installed.
        .env("GOTOOLCHAIN", "auto")
        .env_remove("GOFLAGS")
        .stdin(Stdio::null())
        .status()
        .context("go could not be started")?;
    ensure!(status.success(), "`go build` failed ({status}): its modules may be out of reach");
    Ok(())
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
