//! The local socket, by the documented program in Python.

use std::{
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{SOON, Site, assert_says, event_time, original, skipped, timed};
use crate::support::Dev;

/// Uses the class of the documented program: one act is written, one is refused.
const PANEL: &str = r#"
journal = Journal(sys.argv[1])
journal.write(
    time="2026-11-23T13:00:00.000000001+01:00",
    action="server.reboot",
    outcome="success",
    actor={"id": "c-1042", "name": "m.rossi", "kind": "customer"},
    impersonator={"name": "a.bianchi", "kind": "staff"},
    customer="acme",
    target={"type": "server", "id": "srv-17"},
    client_address="192.0.2.7",
    session="9f3c",
    message="rebooted for the kernel update",
    attributes={"id": "activity-5531"},
)
try:
    journal.write(action="server.reboot", akteur="nobody")
    sys.exit("a misspelt field was taken")
except ValueError as error:
    assert "akteur" in str(error), error
journal.write(action="password.change", outcome="denied", actor={"name": "m.rossi"}, message="caffè, password=hunter22")
"#;

#[test]
fn what_a_program_says_of_itself_is_found() {
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skipped("there is no python3, so the documented program for the socket is not tested");
    }
    let dev = Dev::start();
    let path = dev.dir.path().join("socket");
    let site = Site::start(dev, &format!("[[socket]]\npath = \"{}\"\n", path.display()));
    let deadline = Instant::now() + SOON;
    while !path.exists() {
        assert!(Instant::now() < deadline, "{}", site.command.log_tail());
        sleep(Duration::from_millis(10));
    }
    let page = include_str!("../../../crates/agent/SOCKET.md");
    let class = page.split("```python\n").nth(1).unwrap().split("if __name__").next().unwrap();
    let program = format!("import sys\n{class}{PANEL}");
    let (written, output) =
        timed(|| Command::new("python3").args(["-c", &program]).arg(&path).stdin(Stdio::null()).output().unwrap());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let rebooted = site.the(&["--action", "server.reboot", "--target", "server:srv-17", "--actor", "m.rossi"]);
    assert_says(
        &rebooted,
        &json!({
            "outcome": "success", "actor": { "id": "c-1042", "name": "m.rossi", "kind": "customer" },
            "impersonator": { "name": "a.bianchi", "kind": "staff" }, "tenant": "acme", "client_address": "192.0.2.7",
            "session": "9f3c", "body": "rebooted for the kernel update", "attributes.id": "activity-5531", "stream": "socket",
            "event_time": "2026-11-23T12:00:00.000000001Z",
        }),
    );
    // Who sent it, by the kernel's word.
    assert!(super::attribute(&rebooted, "peer.pid").as_i64().is_some_and(|pid| pid > 1), "{rebooted}");
    let line: Value = serde_json::from_slice(&original(&rebooted)).unwrap();
    assert_eq!((&line["customer"], &line["session"]), (&json!("acme"), &json!("9f3c")));
    // Its impersonator finds it as well as its actor.
    assert_eq!(site.the(&["--actor", "a.bianchi"])["sequence"], rebooted["sequence"]);

    let denied = site.the(&["--action", "password.change", "--actor", "m.rossi"]);
    assert_says(&denied, &json!({ "outcome": "denied", "body": "caffè, password=[scrubbed:password]" }));
    assert!(!String::from_utf8(original(&denied)).unwrap().contains("hunter22"));
    // It named no time: that of its reading counts.
    let read = denied["observed_time"].as_str().unwrap().parse().unwrap();
    assert!(written.contains(&read) && denied["event_time"].is_null() || written.contains(&event_time(&denied)));
    // The refused line is nowhere.
    site.find(0, &["--contains", "akteur"]);
}
