//! What is refused, and with which exit code.

use std::fs;

use sigillo_model::entry::Entry;
use sigillo_testkit::{
    binaries::run,
    config::{self, Source},
    database::Database,
};

use crate::support::{Dev, said, sigillo};

#[test]
fn exit_codes_tell_what_happened() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let code = |arguments: &[&str]| sigillo(dir, arguments).status.code();
    assert_eq!(code(&["head"]), Some(0));
    assert_eq!(code(&["query", "nothing-like-this", "--reason", "test"]), Some(0));
    assert_eq!(code(&["query", "--since", "the day before never"]), Some(2));
    assert_eq!(code(&["verify", "--db", "/nonexistent"]), Some(3));
    assert_eq!(code(&["--server", "https://127.0.0.1:9", "head"]), Some(3));
    // A source is no reader.
    let (cert, key) = (dir.join("agent.pem"), dir.join("agent.key"));
    let as_source = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    assert_eq!(code(&[as_source.as_slice(), &["query", "x", "--reason", "test"]].concat()), Some(4));
    // The database of a running server is in use.
    let data = dir.join("data");
    let output = sigillo(dir, &["verify", "--db", data.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
}

#[test]
fn a_journal_that_its_own_server_finds_altered_is_altered() {
    let dev = Dev::start();
    // A start looks at the newest 65,536 records, so what it must not see is older.
    dev.ship("app.log", "line\n".repeat(90_000).as_bytes());
    let Dev { server, dir } = dev;
    let command = server.stop().unwrap().command;
    let database = Database::open(&command.data_dir()).unwrap();
    // Not an own record: these are read at a start as far as keys of sources may stand in them.
    let lines = |(_, value): &(Box<[u8]>, Box<[u8]>)| Entry::decode(value).unwrap().count > 100;
    let (key, mut value) = database.pairs("tail").unwrap().into_iter().find(lines).unwrap();
    value = value[..value.len() - 1].into();
    database.put("tail", &key, &value).unwrap();
    database.close().unwrap();
    let place = u64::from_be_bytes(key.as_ref().try_into().unwrap());

    let _server = command.start().unwrap();
    let output = sigillo(dir.path(), &["verify", "--reason", "test", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["verdict"], report["from"].as_u64()), (&"altered".into(), Some(place)), "{report}");
    assert!(report["fault"].as_str().unwrap().contains(&format!("at record {place}")), "{report}");
    // Who only searches has no verdict, and no whole answer.
    let output = sigillo(dir.path(), &["query", "--reason", "test"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
}

#[test]
fn check_config_names_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    config::write(dir.path(), &[Source { name: "source".into(), class: "service" }]).unwrap();
    let check = || run("sigillod", dir.path(), ["--check-config", "--config", "sigillod.toml"]).unwrap();
    let output = check();
    assert!(output.status.success(), "{}", said(&output));
    assert!(!dir.path().join("data").exists(), "a check leaves nothing behind");

    let path = dir.path().join("sigillod.toml");
    let good = fs::read_to_string(&path).unwrap();
    let wrong = [
        (good.replace("class = \"service\"", "class = \"servcie\""), "servcie"),
        (format!("lisen = \"127.0.0.1:1\"\n{good}"), "lisen"),
        (good.replace("role = \"auditor\"", "role = \"king\""), "king"),
    ];
    for (text, named) in wrong {
        fs::write(&path, text).unwrap();
        let output = check();
        assert_eq!(output.status.code(), Some(2), "{named}");
        assert!(said(&output).contains(named), "{named}: {}", said(&output));
    }
}
