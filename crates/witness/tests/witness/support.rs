//! A log in memory, a witness as a process, and a client of few lines.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use sigillo_model::{
    add_checkpoint::AddCheckpoint,
    checkpoint::Checkpoint,
    ids::NodeHash,
    note::{KeyKind, Note, SigningKey, VerifierKey},
    proof::{self, Subtrees},
    tree::{leaf, node},
};

/// A log whose full subtrees are all known.
pub(crate) struct Log {
    origin: String,
    version: u8,
    /// Full subtrees by height.
    levels: Vec<Vec<NodeHash>>,
}

impl Subtrees for Log {
    type Error = &'static str;

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, &'static str> {
        let (height, index) = (usize::try_from(height).unwrap(), usize::try_from(index).unwrap());
        self.levels.get(height).and_then(|level| level.get(index)).copied().ok_or("outside of the tree")
    }
}

pub(crate) fn log_key(origin: &str) -> SigningKey {
    SigningKey::from_seed(origin, KeyKind::Log, &[1; 32]).unwrap()
}

impl Log {
    /// A log of so many leaves; another `version` differs from the first leaf on.
    pub(crate) fn new(origin: &str, version: u8, size: u64) -> Self {
        let mut levels = vec![(0..size).map(|index| leaf(&entry(version, index))).collect()];
        while let Some(last) = levels.last().filter(|last: &&Vec<NodeHash>| last.len() > 1) {
            let next = last.chunks_exact(2).map(|pair| node(&pair[0], &pair[1])).collect();
            levels.push(next);
        }
        Self { origin: origin.to_owned(), version, levels }
    }

    /// What the leaf at this index stands for.
    pub(crate) fn entry(&self, index: u64) -> Vec<u8> {
        entry(self.version, index)
    }

    pub(crate) fn request(&self, old_size: u64, size: u64) -> AddCheckpoint {
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root: proof::root(size, self).unwrap() };
        let (text, proof) = (checkpoint.text(), proof::consistency(old_size, size, self).unwrap());
        let signature = log_key(&self.origin).sign(&text).unwrap();
        AddCheckpoint { old_size, proof, checkpoint: Note::new(text, vec![signature]).unwrap() }
    }
}

fn entry(version: u8, index: u64) -> Vec<u8> {
    [index.to_be_bytes().as_slice(), &[version; 24]].concat()
}

fn binary() -> PathBuf {
    // A test's program lies one folder below the binaries.
    env::current_exe().unwrap().ancestors().nth(2).unwrap().join("sigillo-witness")
}

pub(crate) fn run(arguments: &[&str], dir: &Path) -> Output {
    Command::new(binary()).args(arguments).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

/// A running witness.
pub(crate) struct Witness {
    pub(crate) child: Child,
    pub(crate) address: String,
    pub(crate) key: VerifierKey,
}

impl Witness {
    /// Starts it in a folder, with a configuration for logs of these origins.
    pub(crate) fn start(dir: &Path, origins: &[String], more: &str) -> Self {
        if !dir.join("key").exists() {
            let made = run(&["new-key", "--name", "w.example", "--out", "key"], dir);
            assert!(made.status.success(), "{made:?}");
        }
        let mut config =
            format!("name = \"w.example\"\nkey = \"key\"\nstate_dir = \"state\"\nlisten = \"127.0.0.1:0\"\n{more}\n");
        for origin in origins {
            let key = log_key(origin);
            writeln!(config, "[[log]]\norigin = \"{origin}\"\nkeys = [\"{}\"]", key.verifier()).unwrap();
        }
        fs::write(dir.join("witness.toml"), config).unwrap();
        let mut child = Command::new(binary())
            .args(["run", "--config", "witness.toml"])
            .current_dir(dir)
            .env("RUST_LOG", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (key, url) = line.trim_end().split_once(" listens on ").unwrap();
        let address = url.split_once("://").unwrap().1.split('/').next().unwrap().to_owned();
        Self { child, address, key: VerifierKey::parse(key).unwrap() }
    }

    pub(crate) fn connect(&self) -> io::Result<Client<TcpStream>> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Client::new(stream))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP/1.1 connection that is kept.
pub(crate) struct Client<S> {
    stream: BufReader<S>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, request: &AddCheckpoint) -> io::Result<Answer> {
        self.ask("POST", "/add-checkpoint", request.to_string().as_bytes())
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.ask("GET", path, b"")
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: w\r\nContent-Length: {}\r\n\r\n", body.len());
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        self.stream.get_mut().flush()?;
        let status = self.line()?;
        let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
        let (mut length, mut content_type) = (0, String::new());
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().map_err(|_| broken())?,
                "content-type" => value.clone_into(&mut content_type),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, content_type, body: String::from_utf8(body).map_err(|_| broken())? })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
