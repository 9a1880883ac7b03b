//! Lines of a file on their way: shipped, found, verified.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use sigillo_testkit::{binaries::binary, process};

use crate::support::{Dev, sigillo, sigillo_json, sigillo_ok};

/// Lines that a careless program would change on the way.
const ODD: &[u8] = b"caf\xe9 not UTF-8\ncolour \x1b[31mred\x1b[0m and a bell \x07\nlast line without an end";

#[test]
fn shipped_lines_are_found_and_verified() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let lines: Vec<String> = (0..2_500).map(|n| format!("line {n} of host web-1, word{}", n % 500)).collect();
    dev.ship("app.log", lines.join("\n").as_bytes());

    let found = sigillo_json(dir, &["query", "word123", "--source", "dev-agent", "--reason", "test"]);
    let originals: Vec<&str> = found.iter().map(|record| record["original"].as_str().unwrap()).collect();
    let expected: Vec<String> = (0..5).map(|k| format!("line {} of host web-1, word123", k * 500 + 123)).collect();
    assert_eq!(originals, expected);

    let head = &sigillo_json(dir, &["head"])[0];
    let (size, chain) = (head["size"].as_u64().unwrap(), head["chain_hash"].as_str().unwrap().to_owned());
    assert!(size > 2_500, "{head}");
    let noted = ["--expect-size", &size.to_string(), "--expect-chain", &chain];
    let report = &sigillo_json(dir, &[&["verify", "--reason", "test"], noted.as_slice()].concat())[0];
    assert_eq!(report["verdict"], "intact");
    assert!(report["records"].as_u64().unwrap() >= size, "{report}");

    let stopped = dev.server.stop().unwrap();
    assert!(stopped.status.success(), "{}\n{}", stopped.status, stopped.command.log_tail());
    let data = stopped.command.data_dir();
    let local = [&["verify", "--db", data.to_str().unwrap()], noted.as_slice()].concat();
    assert_eq!(sigillo_json(dir, &local)[0]["verdict"], "intact");
    // A head that the journal never had.
    let other = ["verify", "--db", data.to_str().unwrap(), "--expect-size", "7", "--expect-chain", &chain];
    assert_eq!(sigillo(dir, &other).status.code(), Some(1));
}

/// Not one of the agent's own records.
fn is_line(record: &serde_json::Value) -> bool {
    !record["event_name"].as_str().unwrap_or_default().starts_with("agent.")
}

#[test]
fn odd_bytes_arrive_and_reach_no_terminal_raw() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    dev.ship("odd.log", ODD);
    let mut found = sigillo_json(dir, &["query", "--source", "dev-agent", "--reason", "test"]);
    found.retain(is_line);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[1]["original"], "colour \u{1b}[31mred\u{1b}[0m and a bell \u{7}");
    assert_eq!(found[2]["original"], "last line without an end");
    assert_eq!(found[0]["original_base64"], "Y2Fm6SBub3QgVVRGLTg=");
    let shown = sigillo_ok(dir, &["query", "colour", "--reason", "test"]);
    assert!(shown.contains("red") && !shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
}

#[test]
fn a_file_shipped_again_sends_only_what_is_new() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    dev.ship("grows.log", b"first\nsecond\n");
    dev.ship("grows.log", b"first\nsecond\nthird\n");
    let mut found = sigillo_json(dir, &["query", "--source", "dev-agent", "--reason", "test"]);
    found.retain(is_line);
    let originals: Vec<_> = found.iter().map(|record| record["original"].as_str().unwrap()).collect();
    assert_eq!(originals, ["first", "second", "third"]);
}

#[test]
fn reads_are_records() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    sigillo_ok(dir, &["query", "nothing-like-this", "--reason", "case 4711"]);
    let read = sigillo_json(dir, &["query", "--class", "journal", "--reason", "look"]);
    let named = |name: &str| read.iter().filter(|record| record["event_name"] == name).collect::<Vec<_>>();
    let (opened, closed) = (named("read.opened"), named("read.closed"));
    assert_eq!((opened.len(), closed.len()), (1, 1), "{read:?}");
    assert!(opened[0].to_string().contains("case 4711"), "{}", opened[0]);
}

#[test]
fn pages_go_on_from_a_time_that_moves() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    dev.ship("app.log", b"page one\npage two\n");
    let first = ["query", "page", "--since", "-2h", "-n", "1", "--source", "dev-agent", "--reason", "test"];
    let output = sigillo(dir, &first);
    let (said, shown) = (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
    assert!(shown.contains("one") && !shown.contains("two"), "{shown}");
    let (_, cursor) = said.trim().rsplit_once("--cursor ").unwrap();
    let shown = sigillo_ok(dir, &[first.as_slice(), &["--cursor", cursor]].concat());
    assert!(shown.contains("two") && !shown.contains("one"), "{shown}");
}

#[test]
fn a_line_appended_by_hand_is_found() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let (cert, key) = (dir.join("panel.pem"), dir.join("panel.key"));
    let identity = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    sigillo_ok(dir, &[identity.as_slice(), &["append", "-m", "a word by hand"]].concat());
    let found = sigillo_json(dir, &["query", "a word by hand", "--class", "panel", "--reason", "test"]);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_tail_ends_with_whoever_reads_it() {
    let dev = Dev::start();
    dev.ship("app.log", b"one\n");
    let mut tail = Command::new(binary("sigillo").unwrap())
        .args(["tail", "--source", "dev-agent", "--reason", "test", "--config"])
        .arg(dev.dir.path().join("sigillo.toml"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(tail.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.contains("agent.started"), "{line}");
    output.read_line(&mut line).unwrap();
    assert!(line.contains("one"), "{line}");
    drop(output);
    let ended = process::wait_exit(&tail, Duration::from_secs(20)).unwrap();
    tail.kill().unwrap();
    let status = tail.wait().unwrap();
    assert!(ended && status.success(), "{status}");
}
