//! What is refused, and with which exit code.

use std::fs;

use sigillo_testkit::{
    binaries::run,
    config::{self, Source},
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
        assert!(!output.status.success(), "{named}");
        assert!(said(&output).contains(named), "{named}: {}", said(&output));
    }
}
