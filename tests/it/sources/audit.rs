//! The kernel's audit log, in the form in which auditd writes it (`log_format = ENRICHED`), with names and addresses of
//! documentation. No auditd is run: the kernel has one counter and one listener for the whole machine.

use std::{
    fs::{self, OpenOptions},
    io::Write,
};

use serde_json::{Value, json};

use super::{Site, assert_says, original};
use crate::support::Dev;

/// Someone comes, makes an account by sudo, and someone else does not come in. `|` stands for the byte 1D, before what auditd adds.
/// 1795435200 is 2026-11-23T12:00:00Z. The lines of event 701 are mixed with another event, and lie on both sides of a rotation.
const LINES: [&str; 9] = [
    r#"type=USER_LOGIN msg=audit(1795435200.123:700): pid=2090 uid=0 auid=1000 ses=3 subj=unconfined msg='op=login acct="alice" exe="/usr/sbin/sshd" hostname=192.0.2.7 addr=192.0.2.7 terminal=/dev/pts/0 res=success'|UID="root" AUID="alice""#,
    r#"type=SYSCALL msg=audit(1795435200.456:701): arch=c000003e syscall=59 success=yes exit=0 a0=55d a1=55e a2=55f a3=8 items=2 ppid=2101 pid=2102 auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts0 ses=3 comm="useradd" exe="/usr/sbin/useradd" subj=unconfined key="identity"|ARCH=x86_64 SYSCALL=execve AUID="alice" UID="root" GID="root""#,
    r#"type=USER_CMD msg=audit(1795435200.457:702): pid=2101 uid=1000 auid=1000 ses=3 subj=unconfined msg='cwd="/home/alice" cmd=75736572616464206D616C6C6F7279 exe="/usr/bin/sudo" terminal=pts/0 res=success'|UID="alice" AUID="alice""#,
    r#"type=EXECVE msg=audit(1795435200.456:701): argc=2 a0="useradd" a1="mallory""#,
    r#"type=CWD msg=audit(1795435200.456:701): cwd="/root""#,
    // Here the log is put aside.
    r#"type=PATH msg=audit(1795435200.456:701): item=0 name="/usr/sbin/useradd" inode=1311 dev=fd:00 mode=0100755 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL|OUID="root" OGID="root""#,
    "type=PROCTITLE msg=audit(1795435200.456:701): proctitle=75736572616464006D616C6C6F7279",
    r#"type=ADD_USER msg=audit(1795435201.789:703): pid=2102 uid=0 auid=1000 ses=3 subj=unconfined msg='op=adding user acct="mallory" exe="/usr/sbin/useradd" hostname=? addr=? terminal=pts/0 res=success'|UID="root" AUID="alice""#,
    r#"type=USER_LOGIN msg=audit(1795435202.000:704): pid=2190 uid=0 auid=4294967295 ses=4294967295 subj=unconfined msg='op=login acct="admin" exe="/usr/sbin/sshd" hostname=? addr=198.51.100.9 terminal=ssh res=failed'|UID="root" AUID="unset""#,
];
const ROTATED_AFTER: usize = 5;
/// The lines of event 701.
const MADE: [usize; 5] = [1, 3, 4, 5, 6];

fn line(number: usize) -> Vec<u8> {
    LINES[number].replace('|', "\u{1d}").into_bytes()
}

#[test]
fn events_of_the_kernels_audit_log_are_found_over_a_rotation() {
    let dev = Dev::start();
    let log = dev.dir.path().join("audit.log");
    let write = |numbers: std::ops::Range<usize>| {
        let mut file = OpenOptions::new().append(true).create(true).open(&log).unwrap();
        numbers.for_each(|number| file.write_all(&[line(number), b"\n".to_vec()].concat()).unwrap());
    };
    write(0..1);
    let site = Site::start(dev, &format!("[[audit]]\npath = \"{}\"\n", log.display()));
    let check = |filters: &[&str], numbers: &[usize], expected: Value| {
        let record = site.the(filters);
        assert_says(&record, &json!({ "stream": log.to_str(), "program": "audit" }));
        assert_says(&record, &expected);
        let lines: Vec<_> = numbers.iter().map(|number| line(*number)).collect();
        assert_eq!(original(&record), lines.join(&b'\n'));
    };
    let sshd = json!({ "type": "service", "id": "/usr/sbin/sshd" });
    check(
        &["--action", "login", "--actor", "alice"],
        &[0],
        json!({
            "event_name": "audit.login", "outcome": "success", "target": sshd, "client_address": "192.0.2.7", "session": "3",
            "event_time": "2026-11-23T12:00:00.123Z", "attributes.type": "USER_LOGIN", "attributes.serial": "700",
        }),
    );
    write(1..ROTATED_AFTER);
    fs::rename(&log, log.with_extension("log.1")).unwrap();
    write(ROTATED_AFTER..LINES.len());

    let alice = json!({ "id": "1000", "name": "alice", "kind": "system" });
    check(
        &["--action", "process.run", "--actor", "1000", "--target", "program:/usr/sbin/useradd"],
        &MADE,
        json!({
            "event_name": "audit.exec", "outcome": "success", "actor": alice, "session": "3", "client_address": null,
            "event_time": "2026-11-23T12:00:00.456Z", "attributes.command": "useradd mallory", "attributes.directory": "/root",
            "attributes.key": "identity", "attributes.syscall": "execve",
        }),
    );
    check(
        &["--action", "sudo.run", "--actor", "alice", "--target", "/usr/bin/sudo"],
        &[2],
        json!({
            "event_name": "audit.command", "outcome": "success", "actor": alice, "session": "3",
            "event_time": "2026-11-23T12:00:00.457Z", "attributes.command": "useradd mallory",
        }),
    );
    check(
        &["--action", "account.create", "--target", "account:mallory"],
        &[7],
        json!({ "event_name": "audit.account", "outcome": "success", "actor": alice, "event_time": "2026-11-23T12:00:01.789Z" }),
    );
    check(
        &["--action", "login", "--actor", "admin", "--severity", "warn"],
        &[8],
        json!({
            "outcome": "failure", "client_address": "198.51.100.9", "session": null, "target": sshd,
            "event_time": "2026-11-23T12:00:02Z",
        }),
    );
    // Five events, and no serial is missing.
    assert_eq!(site.stream(log.to_str().unwrap(), 5).len(), 5);
    site.find(0, &["--action", "agent.loss"]);
}
