//! The transparency log on the real binaries: what is published, mirrored, and signed over kills.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use sigillo_model::{checkpoint::Checkpoint, ids::NodeHash, note::Note, policy::Policy};
use sigillo_testkit::{server::ServerCommand, witness::Witness};

use crate::support::{Dev, said, ship_file, sigillo};

/// A checkpoint of at least this size, as the server puts it beside its database.
fn signed(dir: &Path, size: u64) -> Checkpoint {
    let policy = Policy::parse(&fs::read(dir.join("trust.txt")).unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok(bytes) = fs::read(dir.join("data/checkpoint")) {
            let checkpoint = policy.check(&Note::parse(&bytes).unwrap()).unwrap().checkpoint;
            if checkpoint.size >= size {
                return checkpoint;
            }
        }
        assert!(Instant::now() < deadline, "no checkpoint of {size} records");
        sleep(Duration::from_millis(20));
    }
}

fn mirror(dev: &Dev, to: &str, more: &[&str]) -> std::process::Output {
    sigillo(dev.dir.path(), &[&["log", "mirror", "--to", to, "--policy", "trust.txt"], more].concat())
}

/// Every file below a folder, with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Answers every request with the same checkpoint, for ever.
fn serve(checkpoint: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", checkpoint.len());
            let _ = stream.write_all(&[head.as_bytes(), &checkpoint].concat());
        }
    });
    url
}

fn lines(count: usize, word: &str) -> Vec<u8> {
    (0..count).flat_map(|number| format!("{word} {number}\n").into_bytes()).collect()
}

#[test]
fn a_mirror_grows_with_the_log_and_is_the_same_by_either_way() {
    let dev = Dev::start();
    let url = format!("http://{}", dev.server.publish().unwrap());
    dev.ship("first.log", &lines(600, "first"));
    signed(dev.dir.path(), 600);
    let output = mirror(&dev, "by-url", &["--url", &url]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    dev.ship("second.log", &lines(1_000, "second"));
    signed(dev.dir.path(), 1_600);
    // The one goes on, the other begins: both must come to the same tree.
    for (to, more) in [("by-url", ["--url", &url].as_slice()), ("by-server", &[])] {
        let output = mirror(&dev, to, more);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    // Own records come in between; a further run of both ends at the same size once the log is silent.
    let mirrored = |to: &str| files(&dev.dir.path().join(to));
    for _ in 0..50 {
        mirror(&dev, "by-url", &["--url", &url]);
        mirror(&dev, "by-server", &[]);
        if mirrored("by-url")[Path::new("checkpoint")] == mirrored("by-server")[Path::new("checkpoint")] {
            break;
        }
    }
    let (by_url, by_server) = (mirrored("by-url"), mirrored("by-server"));
    assert_eq!(by_url[Path::new("checkpoint")], by_server[Path::new("checkpoint")]);
    // Partial tiles of earlier sizes may be left besides.
    for (path, content) in by_server.iter().filter(|(path, _)| !path.to_string_lossy().contains(".p/")) {
        assert_eq!(by_url.get(path), Some(content), "{}", path.display());
    }
    assert!(by_url.contains_key(Path::new("tile/0/005")) && by_url.contains_key(Path::new("tile/entries/005")));
    assert!(!by_url.keys().any(|path| path.starts_with("tile/0/002.p")), "partial tiles go when the full one is there");
    assert!(by_url.keys().any(|path| path.starts_with("tile/1/000.p")));
}

#[test]
fn a_mirror_notices_what_was_altered() {
    let dev = Dev::start();
    dev.ship("first.log", &lines(300, "first"));
    signed(dev.dir.path(), 300);
    let output = mirror(&dev, "mirror", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    fs::copy(dev.dir.path().join("mirror/checkpoint"), dev.dir.path().join("older")).unwrap();
    dev.ship("second.log", &lines(300, "second"));
    signed(dev.dir.path(), 600);
    let dir = dev.dir.path().join("mirror");
    let partial = |kind: &str| {
        let at = dir.join(format!("tile/{kind}/001.p"));
        fs::read_dir(at).unwrap().next().unwrap().unwrap().path()
    };
    // What the tree goes on from. Full tiles below it are for whoever verifies the mirror.
    for path in [partial("0"), partial("entries"), dir.join("checkpoint")] {
        let before = fs::read(&path).unwrap();
        let mut bytes = before.clone();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        let output = mirror(&dev, "mirror", &[]);
        assert_eq!(output.status.code(), Some(1), "{}: {}", path.display(), said(&output));
        assert!(said(&output).contains("ALTERED"), "{}", said(&output));
        fs::write(&path, before).unwrap();
    }
    let output = mirror(&dev, "mirror", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    // The trust file of another log.
    let other = Dev::start();
    fs::copy(other.dir.path().join("trust.txt"), dev.dir.path().join("other.txt")).unwrap();
    let output = sigillo(dev.dir.path(), &["log", "mirror", "--to", "new", "--policy", "other.txt"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    // A log that shows less than it did.
    let url = serve(fs::read(dev.dir.path().join("older")).unwrap());
    let output = mirror(&dev, "mirror", &["--url", &url]);
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
}

#[test]
fn one_root_at_a_size_over_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = ServerCommand::dev(dir.path());
    let mut roots: BTreeMap<u64, NodeHash> = BTreeMap::new();
    let mut see = |checkpoint: Checkpoint| {
        let before = roots.insert(checkpoint.size, checkpoint.root);
        assert!(before.is_none_or(|root| root == checkpoint.root), "two roots at size {}", checkpoint.size);
    };
    for round in 0..6_u64 {
        let server = command.start().unwrap();
        fs::write(dir.path().join("load.log"), lines(2_000, &format!("round {round}"))).unwrap();
        ship_file(dir.path(), "load.log");
        // What was acknowledged is signed within the second; then it is killed at no particular time.
        see(signed(dir.path(), round * 2_000));
        sleep(Duration::from_millis(37 * round));
        if let Ok(bytes) = fs::read(dir.path().join("data/checkpoint")) {
            see(Checkpoint::parse_own(Note::parse(&bytes).unwrap().text()).unwrap());
        }
        command = server.kill().unwrap().command;
        // The file tells of nothing that the database does not have.
        let text = fs::read_to_string(dir.path().join("data/signed")).unwrap();
        assert!(text.starts_with("sigillo signed v1\n"));
    }
    let server = command.start().unwrap();
    let last = signed(dir.path(), 12_000);
    drop(server);
    assert!(last.size >= 12_000 && roots.len() >= 6);
}

/// A server's directory whose trust file asks for one of two witnesses, and the witnesses.
fn watched(dir: &Path) -> [Witness; 2] {
    // Makes the keys.
    ServerCommand::dev(dir).start().unwrap().stop().unwrap();
    fs::remove_dir_all(dir.join("data")).unwrap();
    let trust = fs::read_to_string(dir.join("trust.txt")).unwrap();
    let line = |word: &str| trust.lines().find(|line| line.starts_with(word)).unwrap().to_owned();
    let key = line("log ").trim_start_matches("log ").to_owned();
    let witness =
        |name: &str| Witness::start(&dir.join(name), &format!("{name}.example"), "localhost/sigillo-dev", &[&key]);
    let witnesses = [witness("w1").unwrap(), witness("w2").unwrap()];
    let [first, second] = &witnesses;
    let text = format!(
        "{}\n{}\n{}{}group one any w1 w2\nquorum one\n",
        line("log "),
        line("receipt "),
        first.line("w1"),
        second.line("w2")
    );
    fs::write(dir.join("trust.txt"), text).unwrap();
    witnesses
}

#[test]
fn real_witnesses_cosign_through_kills_of_either_side() {
    let dir = tempfile::tempdir().unwrap();
    let [mut first, mut second] = watched(dir.path());
    let mut command = ServerCommand::dev(dir.path());
    for round in 1..=4_u64 {
        let server = command.start().unwrap();
        // Each is away in turn; one is enough.
        let away = if round % 2 == 0 { &mut first } else { &mut second };
        away.kill().unwrap();
        fs::write(dir.path().join("load.log"), lines(500, &format!("round {round}"))).unwrap();
        ship_file(dir.path(), "load.log");
        signed(dir.path(), round * 500);
        away.start_again().unwrap();
        command = server.kill().unwrap().command;
    }
    // Both are there, and neither has ever seen another history: the server signs, and is told of no contradiction.
    let server = command.start().unwrap();
    ship_file(dir.path(), "load.log");
    signed(dir.path(), 2_000);
    let policy = Policy::parse(&fs::read(dir.path().join("trust.txt")).unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let note = Note::parse(&fs::read(dir.path().join("data/checkpoint")).unwrap()).unwrap();
        if policy.check(&note).unwrap().cosignatures.len() == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "never cosigned by both");
        sleep(Duration::from_millis(100));
    }
    let refused = sigillo(dir.path(), &["query", "no more checkpoints", "-o", "json"]);
    assert!(refused.status.success() && refused.stdout.is_empty(), "{}", said(&refused));
    drop(server);
}
