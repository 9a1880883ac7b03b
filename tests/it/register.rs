//! The register of sources, as people see it.

use sigillo_testkit::binaries::run;

use crate::support::{Dev, said, sigillo, sigillo_json, sigillo_ok};

#[test]
fn sources_are_listed_for_those_who_read_and_for_nobody_else() {
    let dev = Dev::start();
    dev.ship("app.log", b"one\ntwo\n");
    let dir = dev.dir.path();

    let table = sigillo_ok(dir, &["sources"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("STATE "), "{table}");
    let words = |line: &str| line.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[1]), ["never", "dev-admin-host", "admin"]);
    assert_eq!(words(lines[2]), ["away", "dev-agent", "service"]);
    assert!(lines[2].contains("sigillo-agent "), "{table}");

    let sources = sigillo_json(dir, &["sources"]);
    assert_eq!(sources.len(), 3);
    let agent = &sources[1];
    assert_eq!(
        (&agent["name"], &agent["state"], &agent["silent"]),
        (&"dev-agent".into(), &"away".into(), &false.into())
    );
    assert!(agent["next_sequence"].as_u64().unwrap() >= 2, "{agent}");
    assert!(agent["last_seen"].as_str().unwrap().starts_with("20"), "{agent}");
    assert_eq!(sources[2]["last_seen"], serde_json::Value::Null);

    assert_eq!(sigillo_ok(dir, &["sources", "--silent"]), "none\n");
    assert_eq!(sigillo_ok(dir, &["sources", "--silent", "-o", "json"]), "");

    let (cert, key) = (dir.join("agent.pem"), dir.join("agent.key"));
    let output = sigillo(dir, &["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap(), "sources"]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let help = run("sigillo", dir, ["sources", "--help"]).unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("source.silent"), "{}", said(&help));
}
