//! Judges that nobody here wrote. Their programs come from `tests/foreign`; `cargo xtask test` builds them and names their folder in
//! `SIGILLO_FOREIGN`.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use sigillo_model::{
    note::{KeyKind, Note, Signature, SigningKey},
    policy::Policy,
    proof::{self, Subtrees as _},
    tlog_proof::TlogProof,
};

use crate::support::{Client, Log, Witness, log_key};

const ORIGIN: &str = "example.com/log";

fn program(name: &str) -> PathBuf {
    let dir =
        env::var_os("SIGILLO_FOREIGN").expect("SIGILLO_FOREIGN names the folder of the programs of tests/foreign");
    Path::new(&dir).join(name)
}

fn judge(name: &str, arguments: &[&str]) -> Output {
    Command::new(program(name)).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Proofs out of our own hands, for `logcheck`.
fn proofs(log: &Log, size: u64) -> String {
    let hex = |hashes: &[sigillo_model::ids::NodeHash]| {
        let words: Vec<String> = hashes.iter().map(ToString::to_string).collect();
        if words.is_empty() { "-".to_owned() } else { words.join(",") }
    };
    let mut out = String::new();
    for step in 0..=20 {
        let index = (size - 1) * step / 20;
        writeln!(out, "inclusion {index} {}", hex(&proof::inclusion(index, size, log).unwrap())).unwrap();
        let (old, root) = (index + 1, proof::root(index + 1, log).unwrap());
        writeln!(out, "consistency {old} {root} {}", hex(&proof::consistency(old, size, log).unwrap())).unwrap();
    }
    out
}

/// What the reference packages say to a published log.
fn logcheck(dir: &Path) -> Output {
    let (proofs, key) = (dir.join("proofs"), log_key(ORIGIN).verifier().to_string());
    judge("logcheck", &[dir.to_str().unwrap(), &key, proofs.to_str().unwrap()])
}

fn published(size: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(ORIGIN, 0, size);
    log.publish(dir.path(), size);
    fs::write(dir.path().join("proofs"), proofs(&log, size)).unwrap();
    dir
}

#[test]
#[ignore = "needs the programs of tests/foreign: cargo xtask test"]
fn foreign_go_reference_packages_accept_our_log() {
    for size in [1, 2, 255, 256, 257, 65_537, 1_000_000] {
        let output = logcheck(published(size).path());
        assert!(output.status.success(), "{size}: {}", said(&output));
        assert_eq!(said(&output), format!("{size} leaves, 58 proofs\n"));
    }
}

#[test]
#[ignore = "needs the programs of tests/foreign: cargo xtask test"]
fn foreign_go_reference_packages_reject_one_changed_byte() {
    for size in [1, 2, 255, 256, 257, 65_537] {
        let dir = published(size);
        let files = files(dir.path(), dir.path());
        assert!(files.len() >= 4);
        for file in &files {
            let path = dir.path().join(file);
            let good = fs::read(&path).unwrap();
            for place in [0, good.len() / 2, good.len() - 2] {
                let mut bytes = good.clone();
                bytes[place] ^= 1;
                fs::write(&path, &bytes).unwrap();
                let output = logcheck(dir.path());
                assert_eq!(output.status.code(), Some(1), "{size}, {file}, byte {place}: {}", said(&output));
            }
            fs::remove_file(&path).unwrap();
            assert_eq!(logcheck(dir.path()).status.code(), Some(1), "{size}, without {file}");
            fs::write(&path, &good).unwrap();
        }
        assert!(logcheck(dir.path()).status.success());
    }
}

/// Files to change: of each folder the last in order, so that a large log costs no more than a small one.
fn files(root: &Path, dir: &Path) -> Vec<String> {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let (folders, mut plain): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| path.is_dir());
    if dir != root {
        plain.drain(..plain.len().saturating_sub(1));
    }
    let name = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let mut all: Vec<String> = plain.iter().map(name).collect();
    all.extend(folders.iter().flat_map(|folder| files(root, folder)));
    all
}

#[test]
#[ignore = "needs the programs of tests/foreign: cargo xtask test"]
fn foreign_go_fsck_accepts_our_published_log_and_no_other() {
    for size in [1, 256, 70_000] {
        let dir = published(size);
        let key = dir.path().join("key");
        fs::write(&key, log_key(ORIGIN).verifier().to_string()).unwrap();
        let url = serve(dir.path());
        let fsck = || judge("fsck", &["-ui=false", "-N=2", "-public_key", key.to_str().unwrap(), "-storage_url", &url]);
        // Its status is 0 even when it has found something.
        let accepts = |output: &Output| output.status.success() && !said(output).contains("fsck failed");
        let output = fsck();
        assert!(accepts(&output), "{size}: {}", said(&output));
        // In a large log it waits for ever once it has found something.
        let files: &[&str] = if size > 256 { &[] } else { &["tile/entries/000", "tile/0/000", "checkpoint"] };
        for file in files {
            let path = dir.path().join(file);
            let path = if path.exists() { path } else { dir.path().join(format!("{file}.p/{size}")) };
            let good = fs::read(&path).unwrap();
            let mut bytes = good.clone();
            bytes[7] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let output = fsck();
            assert!(!accepts(&output), "{size}, {file}: {}", said(&output));
            fs::write(&path, &good).unwrap();
        }
    }
}

/// Serves a folder over HTTP as long as the test runs; returns its URL.
fn serve(dir: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let dir = dir.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, dir) = (stream.unwrap(), dir.clone());
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                while let Some(request) = lines.next() {
                    while lines.next().is_some_and(|line| !line.is_empty()) {}
                    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
                    let (status, body) = match fs::read(dir.join(path)) {
                        Ok(body) => ("200 OK", body),
                        Err(_) => ("404 Not Found", Vec::new()),
                    };
                    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                    if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// A program that runs until the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs the programs of tests/foreign: cargo xtask test"]
fn foreign_go_witness_cosigns_our_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let witness = SigningKey::from_seed("witness.example/w1", KeyKind::Cosigner, &[8; 32]).unwrap();
    fs::write(path("key"), witness.encode().as_str()).unwrap();
    let log = log_key(ORIGIN);
    let logs = format!("Logs:\n  - Origin: {ORIGIN}\n    PublicKey: {}\n    URL: http://127.0.0.1/\n", log.verifier());
    fs::write(path("logs.yaml"), logs).unwrap();
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (listen, metrics) = (free(), free());
    let _running = Running(
        Command::new(program("omniwitness"))
            .args(["-listen", &listen, "-metrics_listen", &metrics, "-db_file", &path("db")])
            .args(["-private_key_path", &path("key"), "-additional_logs", &path("logs.yaml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut client = Client::new(connect(&listen));
    let (true_log, fork) = (Log::new(ORIGIN, 0, 400), Log::new(ORIGIN, 1, 400));
    for (old, new) in [(0, 20), (20, 256), (256, 300), (300, 300)] {
        let request = true_log.request(old, new);
        let answer = client.send(&request).unwrap();
        assert_eq!(answer.status, 200, "{old} to {new}: {}", answer.body);
        let lines = answer.body.lines().map(|line| Signature::parse(line).unwrap()).collect();
        let note = Note::new(request.checkpoint.text(), lines).unwrap();
        let verified = note.verify(std::slice::from_ref(witness.verifier())).unwrap();
        assert!(verified[0].time.is_some_and(|time| time > 1_700_000_000));
    }
    let answer = client.send(&true_log.request(20, 400)).unwrap();
    assert_eq!((answer.status, answer.content_type.as_str(), answer.body.trim()), (409, "text/x.tlog.size", "300"));
    assert_eq!(client.send(&fork.request(300, 400)).unwrap().status, 422);
}

/// Connects to a program that has just been started.
fn connect(address: &str) -> TcpStream {
    let start = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                return stream;
            }
            Err(error) => assert!(start.elapsed() < Duration::from_secs(30), "{address}: {error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs the programs of tests/foreign: cargo xtask test"]
fn foreign_go_client_gets_our_witness_to_cosign() {
    let dir = tempfile::tempdir().unwrap();
    let witness = Witness::start(dir.path(), &[ORIGIN.into()], "");
    let (url, key) = (format!("http://{}", witness.address), witness.key.to_string());
    let (small, large) = (published(10), published(300));
    let submit = |log: &tempfile::TempDir, old: &str| judge("submit", &[&url, &key, log.path().to_str().unwrap(), old]);
    let output = submit(&small, "0");
    assert!(output.status.success() && said(&output).starts_with("\u{2014} w.example "), "{}", said(&output));
    let output = submit(&large, "5");
    assert_eq!((output.status.code(), said(&output).as_str()), (Some(2), "conflict 10\n"));
    let output = submit(&large, "10");
    assert!(output.status.success(), "{}", said(&output));
    let fork = tempfile::tempdir().unwrap();
    Log::new(ORIGIN, 1, 400).publish(fork.path(), 400);
    assert_eq!(submit(&fork, "300").status.code(), Some(1));
}

#[test]
#[ignore = "needs the programs of tests/foreign: cargo xtask test"]
fn foreign_torchwood_reads_trust_files_and_proofs_as_we_do() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::new(ORIGIN, 0, 1_000);
    let witness =
        |number: u8| SigningKey::from_seed(&format!("w{number}.example"), KeyKind::Cosigner, &[number; 32]).unwrap();
    let mut trust = format!("# witnesses of two houses\nlog {} https://example.com/log/\n", log_key(ORIGIN).verifier());
    for number in 1..=6 {
        writeln!(trust, "witness w{number} {}", witness(number).verifier()).unwrap();
    }
    trust += "group X 2 w1 w2 w3\ngroup\tY  any w4 w5 w6\ngroup both all X Y\n\nquorum both\n";
    let policy = Policy::parse(trust.as_bytes()).unwrap();
    let (trust_path, proof_path) = (dir.path().join("trust"), dir.path().join("proof"));
    for (round, text) in [trust.into_bytes(), policy.to_bytes()].into_iter().enumerate() {
        fs::write(&trust_path, text).unwrap();
        for cosigners in [&[1, 2, 4][..], &[1, 3, 6, 5], &[1, 2, 3], &[1, 4, 5, 6], &[], &[6, 3, 2]] {
            let mut note = log.request(1_000, 1_000).checkpoint;
            for number in cosigners {
                note.add(witness(*number).cosign(note.text(), 1_700_000_000).unwrap()).unwrap();
            }
            let ours = policy.check(&note).unwrap().quorum;
            for (index, extra) in [(0, ""), (777, "what else"), (999, "")] {
                let proof = TlogProof {
                    extra: extra.into(),
                    index,
                    hashes: proof::inclusion(index, 1_000, &log).unwrap(),
                    checkpoint: note.clone(),
                };
                let check = |proof: &TlogProof, entry: &[u8]| {
                    fs::write(&proof_path, proof.to_string()).unwrap();
                    let paths = [&trust_path, &proof_path].map(|path| path.to_str().unwrap().to_owned());
                    judge("trustcheck", &[&paths[0], &paths[1], &hex::encode(entry)])
                };
                let output = check(&proof, &log.entry(index));
                assert_eq!(output.status.success(), ours, "{round}, {cosigners:?}, {index}: {}", said(&output));
                if ours {
                    let mut changed = proof.clone();
                    changed.hashes[3] = log.subtree(0, 5).unwrap();
                    assert!(!check(&changed, &log.entry(index)).status.success());
                    assert!(!check(&proof, &log.entry(index + 1)).status.success());
                }
            }
        }
    }
}

#[test]
#[ignore = "needs the programs of tests/foreign: cargo xtask test"]
fn foreign_python_follows_our_log_and_its_witness() {
    let witness = SigningKey::from_seed("witness.example/w1", KeyKind::Cosigner, &[8; 32]).unwrap();
    let (old, new, fork) = (published(100), published(300), tempfile::tempdir().unwrap());
    Log::new(ORIGIN, 1, 300).publish(fork.path(), 300);
    for dir in [&old, &new, &fork] {
        let path = dir.path().join("checkpoint");
        let mut note = Note::parse(&fs::read(&path).unwrap()).unwrap();
        note.add(witness.cosign(note.text(), 1_700_000_000).unwrap()).unwrap();
        fs::write(path, note.to_bytes()).unwrap();
    }
    let (log_key, witness_key) = (log_key(ORIGIN).verifier().to_string(), witness.verifier().to_string());
    let judge = |command: &str, quorum: &str, arguments: &[&str]| {
        let keys = ["--log-key", &log_key, "--witness-key", &witness_key, "--quorum", quorum];
        judge("python/bin/aics-tlog", &[&[command], keys.as_slice(), arguments].concat())
    };
    let path = |dir: &tempfile::TempDir, name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (newest, tiles) = (path(&new, "checkpoint"), path(&new, ""));
    let output = judge("verify-checkpoint", "1", &["--note", &newest]);
    assert!(output.status.success(), "{}", said(&output));
    // 1: it does not hold; 2 would be a mistake on the command line.
    assert_eq!(judge("verify-checkpoint", "2", &["--note", &newest]).status.code(), Some(1));

    let grown = |old: &tempfile::TempDir| {
        let old = path(old, "checkpoint");
        judge("verify-consistency", "1", &["--old-checkpoint", &old, "--checkpoint", &newest, "--tiles", &tiles])
    };
    let output = grown(&old);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(grown(&fork).status.code(), Some(1));

    let changed = fs::read_to_string(&newest).unwrap().replace("\n300\n", "\n301\n");
    fs::write(&newest, changed).unwrap();
    assert_eq!(judge("verify-checkpoint", "1", &["--note", &newest]).status.code(), Some(1));
}
