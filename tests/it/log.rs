//! The transparency log on the real binaries: what is published, mirrored, and signed over kills.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use sigillo_model::{checkpoint::Checkpoint, ids::NodeHash, note::Note, policy::Policy};
use sigillo_testkit::server::ServerCommand;

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
    dev.ship("second.log", &lines(300, "second"));
    let size = signed(dev.dir.path(), 600).size;
    let dir = dev.dir.path().join("mirror");
    // A byte of the last, partial tile, which the tree goes on from.
    let partial = |kind: &str| {
        let at = dir.join(format!("tile/{kind}/001.p"));
        fs::read_dir(at).unwrap().next().unwrap().unwrap().path()
    };
    for path in [partial("0"), partial("entries"), dir.join("tile/0/000"), dir.join("checkpoint")] {
        let before = fs::read(&path).unwrap();
        let mut bytes = before.clone();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        let output = mirror(&dev, "mirror", &[]);
        // Full tiles that the tree does not go on from are read by whoever verifies the mirror, not by each run.
        let expected = i32::from(!path.ends_with("tile/0/000"));
        if expected == 1 {
            assert_eq!(output.status.code(), Some(1), "{}: {}", path.display(), said(&output));
            assert!(said(&output).contains("ALTERED"), "{}", said(&output));
            fs::write(&path, before).unwrap();
        }
    }
    assert!(size >= 600);
    // Another log's trust file.
    let other = Dev::start();
    fs::copy(other.dir.path().join("trust.txt"), dev.dir.path().join("other.txt")).unwrap();
    let output = sigillo(dev.dir.path(), &["log", "mirror", "--to", "new", "--policy", "other.txt"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    // An older server state: the folder has more than the log shows.
    fs::remove_dir_all(dev.dir.path().join("new")).ok();
    let head = fs::read(dev.dir.path().join("data/checkpoint")).unwrap();
    assert!(!head.is_empty());
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
