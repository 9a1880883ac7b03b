//! systemd-journald.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use super::{Site, assert_says, event_time, original, run, skipped, time_of, timed};
use crate::support::Dev;

/// A journald of our own (`tests/journald.sh`), stopped when dropped.
pub(super) struct Journald {
    dir: PathBuf,
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Journald {
    /// `None`, and says so, where namespaces or journald can't be had.
    pub(super) fn start(dir: &Path) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journald.sh");
        fs::create_dir_all(dir).unwrap();
        for options in [&["--mount"][..], &["--map-root-user", "--mount"]] {
            let mut command = Command::new("unshare");
            command.args(options).arg("sh").arg(&script).arg(dir);
            let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
            let Ok(mut child) = child else { break };
            let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
            let mut journald = Self { dir: dir.to_owned(), child, orders, answers };
            if journald.is_done() {
                return Some(journald);
            }
        }
        skipped(
            "no journald can be started in a namespace of its own here (Debian: systemd), so its journal is not tested",
        );
        None
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What makes an agent read it.
    pub(super) fn table(&self) -> String {
        format!("[[journald]]\ndirectory = \"{}/log\"\n", self.dir.display())
    }

    /// The messages of a program, as journalctl has them; of text without line ends.
    pub(super) fn messages(&self, program: &str) -> Vec<Vec<u8>> {
        let mut command = Command::new("journalctl");
        command.args(["--output=cat", "--quiet", "-t", program, "--directory"]).arg(self.dir.join("log"));
        run(&mut command).1.lines().map(|line| line.as_bytes().to_vec()).collect()
    }

    /// An entry by `logger`, fields and values.
    fn log(&mut self, fields: &[(&str, &str)]) {
        let path = self.dir.join("entry");
        let lines: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        fs::write(&path, lines.concat()).unwrap();
        self.order(&format!("entry {}", path.display()));
    }

    /// A message of any bytes, in journald's own protocol.
    fn send(&self, program: &str, message: &[u8]) {
        let socket = UnixDatagram::unbound().unwrap();
        let head = format!("SYSLOG_IDENTIFIER={program}\nPRIORITY=3\nMESSAGE\n");
        let length = (message.len() as u64).to_le_bytes();
        let datagram = [head.as_bytes(), &length, message, b"\n"].concat();
        socket.send_to(&datagram, self.dir.join("run/systemd/journal/socket")).unwrap();
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        assert!(self.is_done(), "{order}");
    }

    fn is_done(&mut self) -> bool {
        let mut line = String::new();
        self.answers.read_line(&mut line).is_ok() && line == "done\n"
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}

#[test]
fn what_the_systemd_journal_holds_is_found() {
    let dev = Dev::start();
    let Some(mut journald) = Journald::start(&dev.dir.path().join("journal")) else { return };
    let site = Site::start(dev, &journald.table());
    let entries = [
        ("sshd", "4", "Failed password for invalid user admin from 192.0.2.7 port 5022 ssh2"),
        ("sudo", "5", "   alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/systemctl restart nginx"),
        ("sudo", "1", " mallory : user NOT in sudoers ; TTY=pts/1 ; PWD=/home/mallory ; USER=root ; COMMAND=/bin/sh"),
        ("su", "6", "pam_unix(su:session): session opened for user root(uid=0) by alice(uid=1000)"),
        ("CRON", "6", "(root) CMD (test -x /usr/sbin/anacron)"),
    ];
    let (logged, ()) = timed(|| {
        for (round, (program, priority, message)) in entries.iter().enumerate() {
            journald.log(&[("MESSAGE", message), ("SYSLOG_IDENTIFIER", program), ("PRIORITY", priority)]);
            if round == 2 {
                journald.order("rotate");
            }
        }
        journald.send("app", b"two\nlines, \xff and a \x00");
    });
    let check = |filters: &[&str], (program, _, message): (&str, &str, &str), expected: Value| {
        let record = site.the(filters);
        assert_says(&record, &json!({ "program": program, "stream": "journald", "class": "service" }));
        assert_says(&record, &expected);
        assert_eq!(original(&record), message.as_bytes());
        let (time, read) = (event_time(&record), time_of(&record, "observed_time"));
        assert!(time >= *logged.start() && time < read, "{time}, logged {logged:?}, read {read}");
        // journald counts microseconds.
        assert_eq!(time.subsec_nanosecond() % 1_000, 0);
    };
    let [failed, restarted, refused, opened, ran] = entries;
    check(
        &["--action", "login", "--actor", "admin", "--target", "service:ssh"],
        failed,
        json!({
            "event_name": "sshd.login", "outcome": "failure", "client_address": "192.0.2.7", "severity_text": "warning",
            "actor": { "name": "admin", "kind": "system" }, "attributes.method": "password", "attributes.port": 5022,
        }),
    );
    check(
        &["--action", "sudo.run", "--actor", "alice", "--target", "account:root"],
        restarted,
        json!({ "event_name": "sudo.run", "outcome": "success", "attributes.command": "/usr/bin/systemctl restart nginx" }),
    );
    check(
        &["--action", "sudo.run", "--actor", "mallory", "--severity", "crit"],
        refused,
        json!({ "outcome": "denied", "attributes.command": "/bin/sh", "severity_text": "alert" }),
    );
    check(
        &["--action", "session.open", "--actor", "alice"],
        opened,
        json!({ "event_name": "pam.session", "target": { "type": "account", "id": "root" }, "outcome": "success" }),
    );
    check(&["--action", "cron.run", "--actor", "root"], ran, json!({ "event_name": "cron.run" }));
    let odd = site.the(&["--contains", "two\nlines"]);
    assert_eq!(original(&odd), b"two\nlines, \xff and a \x00");
    assert_says(&odd, &json!({ "program": "app", "severity": "ERROR", "action": null }));
    // journald's own counter has no gap.
    site.find(0, &["--action", "agent.loss"]);
}
