//! `cargo xtask demo`: this machine's real logs through a real agent into a journal, found again and verified.

mod logs;
mod server;

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::build::Workspace;
use logs::Logs;
use server::Server;

const REASON: &str = "demo";

/// Runs the demo in a new temporary directory, which goes away with it unless the server is kept.
pub(crate) fn run(workspace: &Workspace, keep: bool) -> Result<()> {
    let dir = env::temp_dir().join(format!("sigillo-demo-{}", process::id()));
    fs::create_dir(&dir).with_context(|| format!("{} can't be made", dir.display()))?;
    let demo = Demo { workspace, dir: dir.clone() };
    let result = demo.run(keep);
    if let Err(error) = &result {
        eprintln!("\nThe demo failed: {error:#}\n\nThe server's log:\n{}", server::log_tail(&dir));
    }
    if !keep || result.is_err() {
        fs::remove_dir_all(&dir).with_context(|| format!("{} can't be removed", dir.display()))?;
    }
    result
}

struct Demo<'a> {
    workspace: &'a Workspace,
    dir: PathBuf,
}

impl Demo<'_> {
    fn run(&self, keep: bool) -> Result<()> {
        let logs = Logs::of_this_machine()?;
        println!("Real logs of this machine:\n{logs}");

        println!("A server, with throw-away certificates and its data in {}:\n", self.dir.display());
        let server = self.start()?;
        println!("$ sigillod --dev --dir {} --listen {}\n", self.dir.display(), server::ADDRESS);

        println!("An agent ships what is there now, and waits until the last line is durable:\n");
        let config = self.write_agent_config(&logs)?;
        let before = self.head()?.size;
        let started = Instant::now();
        self.show("sigillo-agent", &[OsStr::new("run"), "--once".as_ref(), "--config".as_ref(), config.as_ref()])?;
        let seconds = started.elapsed().as_secs_f64();
        let shipped = self.head()?.size.saturating_sub(before);
        ensure!(shipped >= logs.lines(), "{} lines were to be shipped, the journal grew by {shipped}", logs.lines());

        self.find(&logs)?;

        println!("Where the journal stands:\n");
        self.show("sigillo", &["head"])?;
        let head = self.head()?;
        let (size, chain) = (head.size.to_string(), head.chain);
        println!("Every record and every link of it checked over the wire, and that this head is on the way:\n");
        let noted = ["--expect-size", &size, "--expect-chain", &chain, "--reason", REASON];
        self.show("sigillo", &[&["verify"], noted.as_slice()].concat())?;

        server.stop()?;
        println!("The server is stopped; its database is verified where it lies:\n");
        let data = self.dir.join("data");
        let data = data.to_str().context("the temporary directory's name is not UTF-8")?;
        self.show("sigillo", &["verify", "--db", data, "--expect-size", &size, "--expect-chain", &chain])?;
        let report = self.json(&["verify", "--db", data])?;
        let (records, raw) = (number(&report, "records")?, number(&report, "bytes")?);

        let disk = disk_bytes(&self.dir.join("data"))?;
        println!("Account:");
        println!("  lines in files       {}, {} bytes", logs.lines(), logs.bytes());
        println!(
            "  shipped and durable  {shipped} records in {seconds:.2} s: {:.0} records/s",
            shipped as f64 / seconds
        );
        println!("  journal              {records} records with the server's own, {raw} bytes before compression");
        println!("  disk                 {disk} bytes, {:.2} per byte before compression", disk as f64 / raw as f64);
        println!("  verdict              intact, by the wire and on the disk");
        if keep {
            self.leave_running()?;
        }
        Ok(())
    }

    /// Searches for a word of a line that was read before it was shipped; the very line must come back.
    fn find(&self, logs: &Logs) -> Result<()> {
        let sample = logs.sample();
        println!(
            "{} holds the line\n\n  {}\n\nIts word {:?} is searched for:\n",
            sample.file.display(),
            sample.line,
            sample.word
        );
        let query = ["query", &sample.word, "--source", "dev-agent", "--reason", REASON];
        self.show("sigillo", &[query.as_slice(), &["--limit", "5"]].concat())?;
        let text = self.output(&[query.as_slice(), &["-o", "json"]].concat())?;
        let stream = sample.file.to_string_lossy();
        for record in text.lines() {
            let record: Value = serde_json::from_str(record).context("query -o json did not print JSON")?;
            if record["original"] == sample.line.as_str() && record["stream"] == *stream {
                println!("Found, as record {}: the line of the file, byte for byte.\n", record["sequence"]);
                return Ok(());
            }
        }
        bail!("the line was not found again")
    }

    fn leave_running(&self) -> Result<()> {
        let server = self.start()?;
        let (bin, dir) = (self.workspace.binary(""), self.dir.display());
        println!("\nThe server runs again. Try");
        println!(
            "  export PATH={}:$PATH SIGILLO_CONFIG={dir}/sigillo.toml",
            bin.display().to_string().trim_end_matches('/')
        );
        println!("  sigillo query error --limit 10");
        println!("  sigillo tail");
        println!("Stop it and remove its data:");
        println!("  kill {}; rm -r {dir}", server.leave());
        Ok(())
    }

    fn start(&self) -> Result<Server> {
        Server::start(&self.workspace.binary("sigillod"), &self.dir)
    }

    /// The agent's configuration as the server wrote it, and the sources.
    fn write_agent_config(&self, logs: &Logs) -> Result<PathBuf> {
        let written = self.dir.join("agent.toml");
        let connection =
            fs::read_to_string(&written).with_context(|| format!("{} can't be read", written.display()))?;
        let path = self.dir.join("demo-agent.toml");
        fs::write(&path, format!("{connection}\n{}", logs.to_config()?))?;
        Ok(path)
    }

    fn head(&self) -> Result<Head> {
        let head = self.json(&["head"])?;
        let chain = head["chain_hash"].as_str().context("head -o json has no chain_hash")?.to_owned();
        Ok(Head { size: number(&head, "size")?, chain })
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.output(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("sigillo {} printed {text:?}", arguments.join(" ")))
    }

    /// Runs `sigillo` and returns what it prints.
    fn output(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command("sigillo").args(arguments).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "sigillo {} ended with {}", arguments.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a program in front of the user, with the command line that would do the same.
    fn show<A: AsRef<OsStr>>(&self, name: &str, arguments: &[A]) -> Result<()> {
        let words: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        println!("$ {name} {}", words.join(" "));
        let status = self.command(name).args(arguments).status()?;
        ensure!(status.success(), "{name} {} ended with {status}", words.join(" "));
        println!();
        Ok(())
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.workspace.binary(name));
        command.current_dir(&self.dir).env("SIGILLO_CONFIG", self.dir.join("sigillo.toml")).stdin(Stdio::null());
        // The demo's own output, not a person's session.
        command.env("SIGILLO_PAGER", "cat");
        command
    }
}

struct Head {
    size: u64,
    chain: String,
}

fn number(value: &Value, field: &str) -> Result<u64> {
    value[field].as_u64().with_context(|| format!("there is no number {field:?} in {value}"))
}

/// Bytes that the files below `dir` take on the disk.
fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
