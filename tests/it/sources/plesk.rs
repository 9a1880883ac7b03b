//! Plesk's action log, as `plesk bin action-log --show` prints it and as JSON, and its panel's log. Plesk itself is not run: it takes
//! a licence and a machine of its own.

use std::{fs::OpenOptions, io::Write};

use serde_json::{Value, json};

use super::{Site, assert_says, original};
use crate::support::Dev;

const LINES: [&str; 6] = [
    "192.0.2.7 admin [2026-11-23 17:30:00] 'CP User Login' ('Contact Name': '' => 'Ann Admin')",
    "192.0.2.8 shop [2026-11-23 17:30:01] 'Domain Created' ('Domain Name': '' => 'example.com', 'Quota': '1' => '2')",
    "2001:db8::7 admin [2026-11-23 17:30:02] 'Customer Account Deleted' ('Login Name': 'old-shop' => '', 'Contact Name': 'Olaf' => '')",
    "192.0.2.8 shop [2026-11-23 17:30:03] 'CP User Logout' ('Contact Name': '' => 'Shop')",
    r#"{"id":7,"action_name":"physical_hosting_update","user":"shop","ip_address":"192.0.2.8","date":"2026-11-23T12:00:04Z","components":[{"component":"Domain Name","old_value":"example.com","new_value":"example.com"},{"component":"PHP","old_value":"8.1","new_value":"8.3"}]}"#,
    "[2026-11-23 17:30:05.250] 77:ab ERR [panel] Failed login attempt with login 'eve' from IP 198.51.100.9",
];

#[test]
fn what_was_done_in_plesk_is_found() {
    let dev = Dev::start();
    let log = dev.dir.path().join("plesk-action-log");
    let write = |line: &str| {
        let mut file = OpenOptions::new().append(true).create(true).open(&log).unwrap();
        writeln!(file, "{line}").unwrap();
    };
    write(LINES[0]);
    let site = Site::start(dev, &format!("[[file]]\npath = \"{}\"\nprofile = \"plesk\"\n", log.display()));
    LINES[1..].iter().for_each(|line| write(line));
    let check = |filters: &[&str], number: usize, expected: Value| {
        let record = site.the(filters);
        assert_says(&record, &expected);
        assert_eq!(original(&record), LINES[number].as_bytes());
        // The action log has the machine's time, half past five where it is noon.
        if number != 5 {
            assert_eq!(record["event_time"], format!("2026-11-23T12:00:0{number}Z"));
        }
    };
    let panel = json!({ "type": "service", "id": "plesk" });
    check(
        &["--action", "login", "--actor", "admin", "--target", "service:plesk"],
        0,
        json!({
            "event_name": "plesk.login", "outcome": "success", "actor": { "name": "admin", "kind": "staff" },
            "client_address": "192.0.2.7", "target": panel,
        }),
    );
    check(
        &["--action", "domain.create", "--target", "domain:example.com"],
        1,
        json!({
            "event_name": "plesk.action", "outcome": "success", "actor": { "name": "shop", "kind": "customer" },
            "client_address": "192.0.2.8", "attributes.quota": "2", "attributes.quota.old": "1",
        }),
    );
    check(
        &["--action", "customer_account.delete", "--actor", "admin", "--target", "old-shop"],
        2,
        json!({ "outcome": "success", "client_address": "2001:db8::7" }),
    );
    check(
        &["--action", "logout", "--actor", "shop"],
        3,
        json!({ "event_name": "plesk.logout", "target": panel, "client_address": "192.0.2.8" }),
    );
    check(
        &["--action", "physical_hosting.update", "--actor", "shop", "--target", "physical_hosting:example.com"],
        4,
        json!({ "outcome": "success", "client_address": "192.0.2.8", "attributes.php": "8.3", "attributes.php.old": "8.1" }),
    );
    check(
        &["--action", "login", "--actor", "eve", "--severity", "warn"],
        5,
        json!({ "outcome": "failure", "client_address": "198.51.100.9", "target": panel }),
    );
    let written: Vec<_> = LINES.map(|line| line.as_bytes().to_vec()).into();
    assert_eq!(site.stream(log.to_str().unwrap(), LINES.len()), written);
}
