//! Officers' orders: made and signed by two, carried out by the server, and seen by everybody who reads or verifies.

use std::{fs, path::Path};

use sigillo_model::note::{KeyKind, SigningKey};
use sigillo_testkit::{binaries::run, server::ServerCommand};

use crate::support::{Dev, said, sigillo, sigillo_json, sigillo_ok};

fn officer(dir: &Path, name: &str, seed: u8) -> String {
    let key = SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap();
    fs::write(dir.join(format!("{name}.key")), format!("{}\n", *key.encode())).unwrap();
    format!("officer {}\n", key.verifier())
}

fn sigillod(dir: &Path, arguments: &[&str]) -> std::process::Output {
    let config = dir.join("sigillod.toml");
    run("sigillod", dir, arguments.iter().chain(&["--config", config.to_str().unwrap()])).unwrap()
}

#[test]
fn two_officers_have_a_part_erased() {
    let Dev { server, dir } = Dev::start();
    let dir = dir.path();
    server.stop().unwrap();
    let trust = fs::read_to_string(dir.join("trust.txt")).unwrap();
    fs::write(dir.join("trust.txt"), officer(dir, "ada", 1) + &officer(dir, "ben", 2) + &trust).unwrap();
    let server = ServerCommand::dev(dir).start().unwrap();

    fs::write(dir.join("app.log"), "the first line\nwhat must go\nthe last line\n").unwrap();
    crate::support::ship_file(dir, "app.log");
    let found = sigillo_json(dir, &["query", "--source", "dev-agent", "--reason", "test"]);
    let seq = found.iter().find(|record| record["original"] == "what must go").unwrap()["sequence"].as_u64().unwrap();

    let origin = sigillo_json(dir, &["head"])[0]["origin"].as_str().unwrap().to_owned();
    let target = format!("{seq}:content");
    let propose = ["order", "erase", "--origin", &origin, "--basis", "case 12", "--key", "ada.key", "--out", "case12"];
    sigillo_ok(dir, &[propose.as_slice(), &[&target]].concat());
    let alone = sigillod(dir, &["order", "case12"]);
    assert_eq!(alone.status.code(), Some(4), "{}", said(&alone));
    assert_eq!(sigillo(dir, &["order", "sign", "case12", "--key", "ada.key"]).status.code(), Some(2));
    sigillo_ok(dir, &["order", "sign", "case12", "--key", "ben.key"]);
    let shown = sigillo_ok(dir, &["order", "show", "case12", "--trust", "trust.txt"]);
    assert!(shown.contains(&format!("  {seq} content\n")) && shown.contains("proposed and approved"), "{shown}");
    let done = sigillod(dir, &["order", "case12"]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(String::from_utf8_lossy(&done.stdout).contains("1 parts of 1 records"), "{}", said(&done));

    // Between the records of the agent's start and stop.
    let found = sigillo_json(dir, &["query", "--source", "dev-agent", "--reason", "test"]);
    assert_eq!(found.len(), 5);
    assert_eq!((&found[2]["erased"], found[2].get("original")), (&"content".into(), None));
    assert_eq!(found[1].get("erased"), None);
    let shown = sigillo_ok(dir, &["query", "--source", "dev-agent", "--reason", "test"]);
    assert!(shown.lines().nth(2).unwrap().ends_with("[erased: content]"), "{shown}");

    // The order itself can't be erased: it is what explains the gap.
    let orders =
        sigillo_json(dir, &["query", "--class", "journal", "--action", "journal.erasure_ordered", "--reason", "test"]);
    let target = orders[0]["sequence"].as_u64().unwrap().to_string();
    let propose = ["order", "erase", "--origin", &origin, "--basis", "case 13", "--key", "ada.key", "--out", "case13"];
    sigillo_ok(dir, &[propose.as_slice(), &[&target]].concat());
    sigillo_ok(dir, &["order", "sign", "case13", "--key", "ben.key"]);
    let refused = sigillod(dir, &["order", "case13"]);
    assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));
    let own = sigillod(dir, &["purge", "--class", "journal"]);
    assert_eq!(own.status.code(), Some(4), "{}", said(&own));
    let unordered = sigillod(dir, &["purge", "--class", "service"]);
    assert_eq!(unordered.status.code(), Some(4), "{}", said(&unordered));

    assert_eq!(sigillo_json(dir, &["verify", "--reason", "test"])[0]["verdict"], "intact");
    let stopped = server.stop().unwrap();
    let data = stopped.command.data_dir();
    assert_eq!(sigillo_json(dir, &["verify", "--db", data.to_str().unwrap()])[0]["verdict"], "intact");
}
