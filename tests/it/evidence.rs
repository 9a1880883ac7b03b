//! Evidence, from the server that makes it to the programs that verify it without one.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use sigillo_testkit::binaries::run;

use crate::support::{Dev, said, ship_file, sigillo, sigillo_json, sigillo_ok};

/// What `sigillo-verify` says, as JSON, and its exit code.
fn verify(dir: &Path, file: &str, more: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&[file, "--policy", "trust.txt", "-o", "json"], more].concat();
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
        if json["records"] == 30 || attempt == 20 {
            break (code, json);
        }
        attempt += 1;
        std::thread::sleep(std::time::Duration::from_millis(300));
    };
    assert_eq!((code, &json["records"], &json["verdict"]), (Some(0), &30.into(), &"proved".into()), "{json}");
    assert_eq!((&json["exported"]["by"], &json["exported"]["why"]), (&"dev-investigator".into(), &"case 7".into()));
    // Nothing is overwritten.
    let file = format!("case-{attempt}.sigillo");
    assert_eq!(sigillo(dir, &["evidence", "word7", "--reason", "again", "--out", &file]).status.code(), Some(2));
    // The records are readable, and the ones that were asked for.
    let (_, _) = verify(dir, &file, &["--export", "exported"]);
    let exported = fs::read_to_string(dir.join("exported/records.jsonl")).unwrap();
    assert!(exported.lines().count() == 30 && exported.lines().all(|line| line.contains("word7")));
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

#[test]
fn a_whole_run_is_shown_to_be_whole() {
    let dev = Dev::start();
    dev.ship("app.log", lines().as_bytes());
    // A counters record is written once a minute, and with the first checkpoint after a start.
    let stopped = dev.server.stop().unwrap();
    assert!(stopped.status.success(), "{}", stopped.command.log_tail());
    let server = stopped.command.start().unwrap();
    let dir = dev.dir.path();
    fs::write(dir.join("more.log"), "one more line\n").unwrap();
    ship_file(dir, "more.log");

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
