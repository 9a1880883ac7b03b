//! Evidence, from the server that makes it to the programs that verify it without one.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use sigillo_testkit::{binaries::run, server::Server};
use tempfile::TempDir;

use crate::support::{Dev, said, ship_file, sigillo, sigillo_json, sigillo_ok};

/// What `sigillo-verify` says, as JSON, and its exit code.
fn verify(dir: &Path, file: &str, more: &[&str]) -> (Option<i32>, Value) {
    verify_by(dir, "trust.txt", file, more)
}

/// The same by another trust file.
fn verify_by(dir: &Path, trust: &str, file: &str, more: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&[file, "--policy", trust, "-o", "json"], more].concat();
    let output = run("sigillo-verify", dir, arguments).unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (output.status.code(), json)
}

fn lines() -> String {
    let lines: Vec<String> = (0..300).map(|n| format!("line {n} of web-1 word{}\n", n % 10)).collect();
    lines.concat()
}

#[test]
fn what_a_search_finds_is_proved_offline() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    dev.ship("app.log", lines().as_bytes());
    // Until a checkpoint covers it.
    let found = |file: &str| {
        // The source is named, for reads are records that hold the word, too.
        let question = ["evidence", "word7", "--source", "dev-agent", "--parts", "core,content"];
        sigillo_ok(dir, &[&question[..], &["--reason", "case 7", "--out", file]].concat());
        verify(dir, file, &[])
    };
    let mut attempt = 0;
    let (code, json) = loop {
        let (code, json) = found(&format!("case-{attempt}.sigillo"));
        // The lines, and the records of the source's key and of the head that it has signed over them.
        if json["records"] == 32 || attempt == 20 {
            break (code, json);
        }
        attempt += 1;
        std::thread::sleep(std::time::Duration::from_millis(300));
    };
    assert_eq!((code, &json["records"], &json["verdict"]), (Some(0), &32.into(), &"proved".into()), "{json}");
    // The agent itself has signed for the lines that were asked for.
    let signed = &json["signed_by_sources"][0];
    assert_eq!((&signed["records"], &signed["registered"], &signed["fault"]), (&30.into(), &true.into(), &Value::Null));
    assert_eq!((&json["exported"]["by"], &json["exported"]["why"]), (&"dev-investigator".into(), &"case 7".into()));
    // Nothing is overwritten.
    let file = format!("case-{attempt}.sigillo");
    assert_eq!(sigillo(dir, &["evidence", "word7", "--reason", "again", "--out", &file]).status.code(), Some(2));
    // The records are readable, and the ones that were asked for.
    let (_, _) = verify(dir, &file, &["--export", "exported"]);
    let exported = fs::read_to_string(dir.join("exported/records.jsonl")).unwrap();
    assert_eq!((exported.lines().count(), exported.lines().filter(|line| line.contains("word7")).count()), (32, 30));
    // An altered copy is found.
    let mut bytes = fs::read(dir.join(&file)).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(dir.join("altered.sigillo"), bytes).unwrap();
    assert_eq!(verify(dir, "altered.sigillo", &[]).0, Some(1));
    // The export is on record, with its end.
    let events = sigillo_json(dir, &["query", "--class", "journal", "--reason", "test"]);
    let exports = events.iter().filter(|event| event.to_string().contains("\"export\""));
    let names: Vec<&str> = exports.map(|event| event["event_name"].as_str().unwrap()).collect();
    assert!(names.contains(&"read.opened") && names.contains(&"read.closed"), "{names:?}");
}

/// A server with lines in its journal that is about to write a counters record.
fn counted() -> (Server, TempDir) {
    let dev = Dev::start();
    dev.ship("app.log", lines().as_bytes());
    let Dev { server, dir } = dev;
    // It is written once a minute, and with the first checkpoint after a start.
    let stopped = server.stop().unwrap();
    assert!(stopped.status.success(), "{}", stopped.command.log_tail());
    let server = stopped.command.start().unwrap();
    fs::write(dir.path().join("more.log"), "one more line\n").unwrap();
    ship_file(dir.path(), "more.log");
    (server, dir)
}

#[test]
fn a_whole_run_is_shown_to_be_whole() {
    let (server, dir) = counted();
    let dir = dir.path();

    let arguments = ["evidence", "word3", "--complete", "--source", "dev-agent", "--reason", "case 8", "--out"];
    let mut attempt = 0;
    let file = loop {
        let file = format!("whole-{attempt}.sigillo");
        let output = sigillo(dir, &[&arguments[..], &[&file]].concat());
        if output.status.success() {
            break file;
        }
        assert!(attempt < 20, "{}", said(&output));
        attempt += 1;
        std::thread::sleep(std::time::Duration::from_millis(300));
    };
    let (code, json) = verify(dir, &file, &[]);
    let run = &json["runs"][0];
    assert_eq!((code, &run["completeness"]), (Some(0), &"complete by the provider's word".into()), "{json}");
    assert_eq!((&run["name"], &run["from"], &run["reaches_end"]), (&"dev-agent".into(), &0.into(), &true.into()));
    assert!(run["to"].as_u64().unwrap() >= 300, "{json}");
    // What does not match is there as commitments only.
    assert_eq!(json["hidden_records"].as_u64().unwrap(), run["to"].as_u64().unwrap() - 30);
    foreign(dir, &file);
    assert_eq!(sigillo(dir, &["evidence", "--complete", "--reason", "x", "--out", "x"]).status.code(), Some(2));
    drop(server);
}

/// Makes an auditor's key and a trust file that knows it; their names.
fn auditor(dir: &Path, name: &str) -> (String, String) {
    let (key, trust) = (format!("{name}.key"), format!("{name}.txt"));
    let path = dir.join(&key).display().to_string();
    let line = sigillo_ok(dir, &["key", "new", "--kind", "auditor", "--name", name, "--out", &path]);
    let known = fs::read_to_string(dir.join("trust.txt")).unwrap();
    fs::write(dir.join(&trust), format!("{known}auditor {}\n", line.trim())).unwrap();
    (path, trust)
}

#[test]
fn what_an_auditor_has_cosigned_is_complete_by_the_auditors_word() {
    let (server, dir) = counted();
    let dir = dir.path();

    let (key, trust) = auditor(dir, "auditor.test");
    let (_, other_trust) = auditor(dir, "other.test");
    let mut attempt = 0;
    let newer = loop {
        let memory = format!("memory-{attempt}");
        let line = ["verify", "--policy", &trust, "--cosign", &key, "--out", "cosigned.note", "--remember", &memory];
        let output = sigillo(dir, &[&line[..], &["--reason", "audit"]].concat());
        let is_newer = || {
            let file = fs::read_dir(dir.join(&memory)).unwrap().next().unwrap().unwrap();
            let newer = fs::read_to_string(file.path()).unwrap();
            let cosigned = fs::read_to_string(dir.join("cosigned.note")).unwrap();
            (newer.lines().nth(1) != cosigned.lines().nth(1)).then_some(newer)
        };
        if said(&output).contains("which ends with a counters record")
            && let Some(newer) = is_newer()
        {
            break newer;
        }
        assert!(attempt < 30, "{}", said(&output));
        attempt += 1;
        std::thread::sleep(std::time::Duration::from_millis(300));
    };

    let evidence = |more: &[&str]| {
        let line = ["evidence", "word3", "--source", "dev-agent", "--reason", "case 9"];
        sigillo(dir, &[&line[..], more].concat())
    };
    let checked = ["--complete", "--checkpoint", "cosigned.note", "--policy", &trust, "--out", "checked.sigillo"];
    let output = evidence(&checked);
    assert!(output.status.success(), "{}", said(&output));
    let (code, json) = verify_by(dir, &trust, "checked.sigillo", &[]);
    let run = &json["runs"][0];
    assert_eq!((code, &run["completeness"]), (Some(0), &"complete, checked by an auditor".into()), "{json}");
    assert!(run["auditors"].to_string().contains("auditor.test"), "{json}");
    foreign(dir, "checked.sigillo");
    for trust in ["trust.txt", &other_trust] {
        let (code, json) = verify_by(dir, trust, "checked.sigillo", &[]);
        let completeness = &json["runs"][0]["completeness"];
        assert_eq!((code, completeness), (Some(0), &"complete by the provider's word".into()), "{json}");
    }
    // Without the note: the newest counters record, and how far that is.
    let output = evidence(&["--complete", "--out", "unchecked.sigillo"]);
    assert!(output.status.success() && said(&output).contains("whole up to record "), "{}", said(&output));

    // The auditor's signature under another checkpoint of the same log.
    let cosigned = fs::read_to_string(dir.join("cosigned.note")).unwrap();
    let line = cosigned.lines().find(|line| line.contains(" auditor.test ")).unwrap();
    fs::write(dir.join("newer.note"), &newer).unwrap();
    fs::write(dir.join("copied.note"), format!("{newer}{line}\n")).unwrap();
    let output = evidence(&["--checkpoint", "copied.note", "--policy", &trust, "--out", "copied.sigillo"]);
    assert!(!output.status.success() && !dir.join("copied.sigillo").exists(), "{}", said(&output));
    // A server whose trust file does not know the auditor takes it; the reader's does.
    let output = evidence(&["--checkpoint", "copied.note", "--out", "copied.sigillo"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(run_code(dir, &["copied.sigillo", "--policy", &trust]), Some(1));
    // A checkpoint that shows no end; notes of two checkpoints; one that this log has not signed.
    let output = evidence(&["--complete", "--checkpoint", "newer.note", "--out", "x"]);
    assert!(!output.status.success() && said(&output).contains("does not end with a counters record"));
    let output = evidence(&["--checkpoint", "newer.note", "--checkpoint", "cosigned.note", "--out", "x"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let (text, signatures) = newer.split_once("\n\n").unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1] = "1";
    fs::write(dir.join("forged.note"), format!("{}\n\n{signatures}", lines.join("\n"))).unwrap();
    let output = evidence(&["--checkpoint", "forged.note", "--out", "x"]);
    assert!(!output.status.success() && said(&output).contains("the given checkpoint"), "{}", said(&output));
    drop(server);
}

fn run_code(dir: &Path, arguments: &[&str]) -> Option<i32> {
    run("sigillo-verify", dir, arguments).unwrap().status.code()
}

#[test]
fn whoever_may_not_read_gets_no_evidence() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let (cert, key) = (dir.join("agent.pem"), dir.join("agent.key"));
    let as_agent = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let output = sigillo(dir, &[&as_agent[..], &["evidence", "x", "--reason", "x", "--out", "x"]].concat());
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(!dir.join("x").exists() && !dir.join("x.unfinished").exists());
}

/// The program that was written from the format page alone agrees.
fn foreign(dir: &Path, file: &str) {
    let there = Command::new("python3").args(["-c", "import blake3, nacl"]).output().is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("SKIPPED: python3 with blake3 and pynacl is not installed, so the foreign verifier is not run");
        return;
    }
    let script = Path::new("tests/foreign/python/verify_evidence.py").canonicalize().unwrap();
    let output = Command::new("python3").current_dir(dir).arg(script).args([file, "trust.txt"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}
