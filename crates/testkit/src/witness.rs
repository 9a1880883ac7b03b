//! A real `sigillo-witness` as a process: started, killed, started again at the same address.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::binaries::{binary, run};

/// A running witness. Killed when dropped.
#[derive(Debug)]
pub struct Witness {
    dir: PathBuf,
    child: Child,
    key: String,
    url: String,
}

impl Witness {
    /// Makes a witness named `name` in `dir`, which watches the log `origin` with these verifier keys, and starts it on a free
    /// port of loopback.
    pub fn start(dir: &Path, name: &str, origin: &str, keys: &[&str]) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let made = run("sigillo-witness", dir, ["new-key", "--name", name, "--out", "key"])?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        let config = format!(
            "name = {name:?}\nkey = \"key\"\nstate_dir = \"state\"\nlisten = \"127.0.0.1:0\"\n[[log]]\norigin = {origin:?}\nkeys = \
             [{}]\n",
            keys.join(", ")
        );
        fs::write(dir.join("witness.toml"), config)?;
        let (child, key, url) = spawn(dir)?;
        // Started again, it is found where it was.
        let address = url.trim_start_matches("http://").to_owned();
        let config = fs::read_to_string(dir.join("witness.toml"))?;
        fs::write(dir.join("witness.toml"), config.replace("127.0.0.1:0", &address))?;
        Ok(Self { dir: dir.to_owned(), child, key, url })
    }

    /// Its verifier key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Where it takes checkpoints.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its line in a trust file.
    pub fn line(&self, name: &str) -> String {
        format!("witness {name} {} {}\n", self.key, self.url)
    }

    /// Kills it without warning (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again after a kill, at the same address.
    pub fn start_again(&mut self) -> Result<()> {
        (self.child, self.key, self.url) = spawn(&self.dir)?;
        Ok(())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // Fails when it was reaped already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts it and reads what it says first: its key, and where it listens.
fn spawn(dir: &Path) -> Result<(Child, String, String)> {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("witness.log"))?;
    let mut child = Command::new(binary("sigillo-witness")?)
        .args(["run", "--config", "witness.toml"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("sigillo-witness could not be started")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
    let said = || {
        format!("sigillo-witness said {line:?}: {}", fs::read_to_string(dir.join("witness.log")).unwrap_or_default())
    };
    let (key, url) = line.trim_end().split_once(" listens on ").with_context(said)?;
    Ok((child, key.to_owned(), url.trim_end_matches('/').to_owned()))
}
