//! Senders that hold the journal to what it has signed, as processes.

use std::{
    fs,
    io::BufRead,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use sigillo_model::{
    misconduct::{Misconduct, Worth},
    note::VerifierKey,
    policy::Policy,
    receipt::SignedReceipt,
};
use sigillo_testkit::{binaries::binary, binaries::run, server::ServerCommand};

use crate::support::{Dev, said, sigillo, sigillo_ok};

/// What the agent ends with when the journal was caught.
const CAUGHT: Option<i32> = Some(7);

fn policy(dir: &Path) -> Policy {
    Policy::parse(&fs::read(dir.join("trust.txt")).unwrap()).unwrap()
}

/// Ships a file once, with more lines for the configuration; says how that went.
fn ship(dir: &Path, name: &str, lines: usize, settings: &str) -> Output {
    let text: Vec<String> = (0..lines).map(|line| format!("{name} {line}")).collect();
    fs::write(dir.join(name), text.join("\n") + "\n").unwrap();
    write_agent(dir, name, settings);
    run("sigillo-agent", dir, ["run", "--once", "--config", "watchful.toml"]).unwrap()
}

/// The agent of `--dev`, which follows this file.
fn write_agent(dir: &Path, name: &str, settings: &str) {
    let connection = fs::read_to_string(dir.join("agent.toml")).unwrap();
    let file = dir.join(name);
    fs::write(dir.join("watchful.toml"), format!("{settings}{connection}\n[[file]]\npath = \"{}\"\n", file.display()))
        .unwrap();
}

fn misconducts(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("misconduct-")).collect()
}

fn worth(dir: &Path, file: &Path) -> (Misconduct, Worth) {
    let (misconduct, _) = Misconduct::parse(&fs::read_to_string(file).unwrap()).unwrap();
    let policy = policy(dir);
    let logs: Vec<VerifierKey> = policy.logs().iter().map(|log| log.key.clone()).collect();
    let worth = misconduct.check(&logs, policy.receipts()).unwrap();
    (misconduct, worth)
}

/// Waits until the journal has signed all that it has.
fn signed(dir: &Path) {
    let trust = dir.join("trust.txt");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // Looks at the newest checkpoint, and remembers it.
        let head = sigillo_ok(dir, &["--trust", trust.to_str().unwrap(), "head"]);
        let size = head.lines().find_map(|line| line.strip_prefix("size")).unwrap().trim().to_owned();
        let is_current = fs::read_dir(dir.join("remembered")).into_iter().flatten().any(|file| {
            let text = fs::read_to_string(file.unwrap().path()).unwrap_or_default();
            text.lines().nth(4).is_some_and(|line| line == size)
        });
        if is_current {
            return;
        }
        assert!(Instant::now() < deadline, "no checkpoint of {size} records");
        sleep(Duration::from_millis(50));
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[test]
fn receipts_are_kept_and_can_be_verified_by_others() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let output = ship(dir, "app.log", 3_000, "");
    assert!(output.status.success(), "{}", said(&output));
    let text = fs::read_to_string(dir.join("agent-state/receipts")).unwrap();
    let (mut rest, mut records) = (text.as_str(), 0);
    while !rest.is_empty() {
        let (receipt, after) = SignedReceipt::read(rest).unwrap();
        assert_eq!(receipt.verify(policy(dir).receipts()), Ok(()));
        records += receipt.receipt.count;
        rest = after;
    }
    // Its lines, and that the agent was started and stopped.
    assert_eq!(records, 3_002);

    fs::create_dir(dir.join("kept")).unwrap();
    let (cert, key) = (dir.join("panel.pem"), dir.join("panel.key"));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    for place in ["kept", "kept.txt", "kept.txt"] {
        let place = dir.join(place);
        let place = place.to_str().unwrap();
        sigillo_ok(dir, &["append", "--cert", cert, "--key", key, "--message", "an act", "--receipts", place]);
    }
    let file = fs::read_dir(dir.join("kept")).unwrap().next().unwrap().unwrap().path();
    let texts = [fs::read_to_string(file).unwrap(), fs::read_to_string(dir.join("kept.txt")).unwrap()];
    let all = texts.concat();
    let mut rest = all.as_str();
    for _ in 0..3 {
        let (receipt, after) = SignedReceipt::read(rest).unwrap();
        assert_eq!(receipt.verify(policy(dir).receipts()), Ok(()));
        rest = after;
    }
    assert!(rest.is_empty());

    // With another's key for receipts nothing is taken as durable.
    let trust = fs::read_to_string(dir.join("trust.txt")).unwrap();
    let stranger = sigillo_model::note::SigningKey::from_seed(
        "localhost/sigillo-dev/receipts",
        sigillo_model::note::KeyKind::Log,
        &[1; 32],
    )
    .unwrap();
    let other: Vec<&str> = trust.lines().filter(|line| !line.starts_with("receipt ")).collect();
    fs::write(dir.join("other-trust.txt"), format!("{}\nreceipt {}\n", other.join("\n"), stranger.verifier())).unwrap();
    let trust = dir.join("other-trust.txt");
    let arguments = ["--trust", trust.to_str().unwrap(), "append", "--cert", cert, "--key", key, "--message", "an act"];
    let output = sigillo(dir, &arguments);
    assert!(!output.status.success() && said(&output).contains("receipt"), "{}", said(&output));
}

#[test]
fn a_journal_that_was_made_anew_is_noticed_and_shipping_pauses() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let output = ship(dir, "app.log", 100, "");
    assert!(output.status.success(), "{}", said(&output));
    signed(dir);
    // Another start remembers the newest checkpoint.
    let output = ship(dir, "app.log", 101, "");
    assert!(output.status.success(), "{}", said(&output));
    let stopped = dev.server.stop().unwrap();

    // The owner forges another history, with the same keys.
    fs::remove_dir_all(dir.join("data")).unwrap();
    let server = stopped.command.start().unwrap();
    fs::rename(dir.join("remembered"), dir.join("remembered.true")).unwrap();
    fs::rename(dir.join("agent-state"), dir.join("agent-state.true")).unwrap();
    let output = ship(dir, "forged.log", 300, "");
    assert!(output.status.success(), "{}", said(&output));
    signed(dir);
    fs::remove_dir_all(dir.join("remembered")).unwrap();
    fs::remove_dir_all(dir.join("agent-state")).unwrap();
    fs::rename(dir.join("remembered.true"), dir.join("remembered")).unwrap();
    fs::rename(dir.join("agent-state.true"), dir.join("agent-state")).unwrap();

    let output = ship(dir, "app.log", 102, "");
    assert_eq!(output.status.code(), CAUGHT, "{}", said(&output));
    let found = misconducts(&dir.join("remembered"));
    assert_eq!(found.len(), 1);
    let name = found[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(said(&output).contains(&name), "{}", said(&output));
    assert!(matches!(worth(dir, &found[0]), (Misconduct::NotContinued { .. }, Worth::Question)));

    // It pauses until a person acts.
    let output = ship(dir, "app.log", 103, "");
    assert_eq!(output.status.code(), CAUGHT, "{}", said(&output));
    let marker = dir.join("agent-state/misconduct");
    assert!(said(&output).contains("agent-state/misconduct"), "{}", said(&output));
    let told = sigillo(dir, &["--trust", dir.join("trust.txt").to_str().unwrap(), "head"]);
    assert_eq!(told.status.code(), Some(1), "{}", said(&told));
    // Somebody decides to go on with the journal as it is now; first without forgetting the receipts.
    fs::remove_file(&marker).unwrap();
    for file in fs::read_dir(dir.join("remembered")).unwrap().map(|file| file.unwrap().path()) {
        if file.file_name().unwrap().to_string_lossy().starts_with("checkpoint-") {
            fs::remove_file(file).unwrap();
        }
    }
    let before = misconducts(&dir.join("remembered"));
    let output = ship(dir, "app.log", 104, "");
    assert_eq!(output.status.code(), CAUGHT, "{}", said(&output));
    let mut new = misconducts(&dir.join("remembered"));
    new.retain(|path| !before.contains(path));
    assert_eq!(new.len(), 1);
    assert!(matches!(worth(dir, &new[0]), (Misconduct::ReceiptContradicted { .. }, Worth::Proof)));
    fs::remove_file(&marker).unwrap();
    fs::remove_file(dir.join("agent-state/receipts.open")).unwrap();
    let output = ship(dir, "app.log", 105, "");
    assert!(output.status.success(), "{}", said(&output));
    drop(server);
}

#[test]
fn a_journal_that_was_restored_from_an_older_copy_is_noticed() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    assert!(ship(dir, "app.log", 100, "").status.success());
    signed(dir);
    let stopped = dev.server.stop().unwrap();
    copy(&dir.join("data"), &dir.join("data.older"));
    let server: ServerCommand = stopped.command;
    let running = server.start().unwrap();
    assert!(ship(dir, "app.log", 5_000, "").status.success());
    signed(dir);
    assert!(ship(dir, "app.log", 5_001, "").status.success());
    let stopped = running.stop().unwrap();
    fs::remove_dir_all(dir.join("data")).unwrap();
    fs::rename(dir.join("data.older"), dir.join("data")).unwrap();
    let running = stopped.command.start().unwrap();

    // What is sent once goes no further than what is sent for ever; neither does what another certificate sends.
    let output = ship(dir, "app.log", 5_010, "checkpoint_grace_s = 1\n");
    assert_eq!(output.status.code(), CAUGHT, "{}", said(&output));
    fs::remove_file(dir.join("agent-state/misconduct")).unwrap();
    let (trust, cert, key) = (dir.join("trust.txt"), dir.join("panel.pem"), dir.join("panel.key"));
    let [trust, cert, key] = [&trust, &cert, &key].map(|path| path.to_str().unwrap());
    for _ in 0..2 {
        let act = ["--trust", trust, "append", "--cert", cert, "--key", key, "--message", "an act"];
        let output = sigillo(dir, &act);
        assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    }
    let state = dir.join("audit");
    for _ in 0..2 {
        let audit = ["verify", "--policy", trust, "--reason", "audit", "--state", state.to_str().unwrap()];
        let output = sigillo(dir, &[&["--trust", trust], &audit[..]].concat());
        assert_eq!(output.status.code(), Some(5), "{}", said(&output));
        assert!(said(&output).contains("stale"), "{}", said(&output));
    }
    // Asked by somebody who trusts nobody, and remembers nothing.
    let connection = fs::read_to_string(dir.join("sigillo.toml")).unwrap();
    let bare: Vec<&str> = connection.lines().filter(|line| !line.starts_with("trust")).collect();
    fs::write(dir.join("bare.toml"), bare.join("\n")).unwrap();
    for (source, shipped) in [("dev-agent", 102), ("dev-panel", 0)] {
        let query = ["query", "--source", source, "--reason", "test", "--limit", "1000", "-o", "json"];
        let output = run("sigillo", dir, [&["--config", "bare.toml"], &query[..]].concat()).unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(output.stdout.lines().count(), shipped, "{source}");
    }

    write_agent(dir, "app.log", "checkpoint_grace_s = 1\n");
    let mut agent = Command::new(binary("sigillo-agent").unwrap())
        .current_dir(dir)
        .args(["run", "--config", "watchful.toml"])
        .spawn()
        .unwrap();
    let ended = sigillo_testkit::process::wait_exit(&agent, Duration::from_secs(30)).unwrap();
    if !ended {
        agent.kill().unwrap();
    }
    assert_eq!(agent.wait().unwrap().code(), CAUGHT);
    let found = misconducts(&dir.join("remembered"));
    // One for each checkpoint that was shown: a server that was restored signs on.
    assert!(!found.is_empty());
    for file in &found {
        assert!(matches!(worth(dir, file), (Misconduct::RolledBack { .. }, Worth::Question)));
    }
    assert!(dir.join("agent-state/misconduct").exists());
    let told = sigillo(dir, &["--trust", dir.join("trust.txt").to_str().unwrap(), "head"]);
    assert_eq!(told.status.code(), Some(5), "{}", said(&told));
    drop(running);
}
