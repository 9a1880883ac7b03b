//! Where the real binaries are, and running those that end by themselves.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};

/// Directory of the binaries, when it is not the one of the program that asks.
pub const BIN_DIR: &str = "SIGILLO_BIN_DIR";

/// Path of a binary of this workspace: in `SIGILLO_BIN_DIR`, or beside the running program (a test's program is one
/// directory below).
pub fn binary(name: &str) -> Result<PathBuf> {
    let dir = if let Some(dir) = std::env::var_os(BIN_DIR) {
        PathBuf::from(dir)
    } else {
        let program = std::env::current_exe().context("which program is this?")?;
        let dir = program.parent().context("the program has no directory")?;
        let dir = if dir.file_name() == Some(OsStr::new("deps")) { dir.parent().unwrap_or(dir) } else { dir };
        dir.to_owned()
    };
    let path = dir.join(name);
    ensure!(
        path.is_file(),
        "{} is not built: run `cargo build --release --workspace`, or name its directory in {BIN_DIR}",
        path.display()
    );
    Ok(path)
}

/// Runs a binary to its end in `dir` and returns what it said.
pub fn run<A: AsRef<OsStr>>(name: &str, dir: &Path, arguments: impl IntoIterator<Item = A>) -> Result<Output> {
    let path = binary(name)?;
    Command::new(&path)
        .current_dir(dir)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("{} could not be started", path.display()))
}
