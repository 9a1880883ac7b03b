//! OpenSSH's server and client.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{
    Running, Site, assert_says, event_time, free_port, journald::Journald, line_with, lines, original, run, skipped,
    time_of, timed,
};
use crate::support::Dev;

const SSHD: &str = "/usr/sbin/sshd";

/// Where the server writes what it does.
enum Log<'a> {
    File(&'a Path),
    Journal(&'a Journald),
}

struct Sshd {
    process: Running,
    port: u16,
    dir: PathBuf,
    /// The account that we are.
    account: String,
}

impl Sshd {
    /// Starts one with keys and configuration of its own in `dir`. `None`, and says so, where that can't be.
    fn start(dir: &Path, log: &Log<'_>) -> Option<Self> {
        if !Path::new(SSHD).exists() || Command::new("ssh").arg("-V").stderr(Stdio::null()).status().is_err() {
            skipped("OpenSSH is not installed (Debian: openssh-server openssh-client), so sshd's log is not tested");
            return None;
        }
        fs::create_dir_all(dir).unwrap();
        for key in ["host", "known", "unknown"] {
            let mut keygen = Command::new("ssh-keygen");
            assert!(run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(dir.join(key))).0);
        }
        fs::copy(dir.join("known.pub"), dir.join("authorized")).unwrap();
        let (port, at) = (free_port(), dir.display());
        let configuration = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\n\
             UsePAM no\nStrictModes no\nLogLevel VERBOSE\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
        );
        fs::write(dir.join("sshd_config"), configuration).unwrap();
        let (ours, account) = run(Command::new("id").arg("-un"));
        assert!(ours);
        let mut command = command(log, &dir.join("sshd_config"));
        let mut process = Running::start(command.stderr(Stdio::null())).ok()?;
        if !process.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok()) {
            skipped("sshd can't be started here, so its log is not tested");
            return None;
        }
        Some(Self { process, port, dir: dir.to_owned(), account: account.trim().to_owned() })
    }

    /// Whether an account gets in with a key.
    fn log_in(&self, account: &str, key: &str) -> bool {
        let mut ssh = Command::new("ssh");
        ssh.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "StrictHostKeyChecking=accept-new",
        ]);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", self.dir.join("known_hosts").display()));
        ssh.args(["-o", "IdentityAgent=none", "-p", &self.port.to_string(), "-l", account, "-i"])
            .arg(self.dir.join(key));
        let (done, said) = run(ssh.args(["127.0.0.1", "echo hello"]).stderr(Stdio::null()));
        assert_eq!(done, said == "hello\n");
        done
    }

    /// `SHA256:…` of a key, by OpenSSH's own word.
    fn fingerprint(&self, key: &str) -> String {
        let (_, said) = run(Command::new("ssh-keygen").arg("-lf").arg(self.dir.join(key)));
        format!("ED25519 {}", said.split(' ').nth(1).unwrap())
    }
}

/// The server with what must come before it. As root it wants a folder in `/run`, which it gets in a `/run` that nobody else sees.
fn command(log: &Log<'_>, config: &Path) -> Command {
    let ask = |question: &str| run(Command::new("id").arg(question)).1.trim().to_owned();
    let mut command = Command::new("unshare");
    match log {
        Log::Journal(journald) => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sshd.sh");
            command.args(["--mount", "sh"]).arg(script).arg(journald.dir()).arg(config);
            return command;
        }
        Log::File(_) if ask("-u") != "0" => command = Command::new(SSHD),
        Log::File(_) => {
            let place = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec \"$@\"";
            command.args(["--mount", "sh", "-c", place, "sh", SSHD]);
        }
    }
    command.args(["-D", "-f"]).arg(config);
    if let Log::File(path) = log {
        command.arg("-E").arg(path);
    }
    command
}

/// A name that wants to be taken for an address.
const LIAR: &str = "x from 192.0.2.1 port 1";

/// What is done to each server.
fn act(sshd: &Sshd) {
    assert!(sshd.log_in(&sshd.account, "known"));
    assert!(!sshd.log_in(&sshd.account, "unknown"));
    assert!(!sshd.log_in("mallory", "known"));
    assert!(!sshd.log_in(LIAR, "known"));
}

/// What must be found of it. `check`: what more is to be looked at, by words of the line.
fn assert_found(site: &Site, sshd: &Sshd, check: impl Fn(&str, &Value)) {
    let account = sshd.account.as_str();
    let of = |outcome: &str, name: &str, reason: Value| {
        json!({
            "event_name": "sshd.login", "outcome": outcome, "actor": { "name": name, "kind": "system" },
            "target": { "type": "service", "id": "ssh" }, "client_address": "127.0.0.1", "attributes.reason": reason,
        })
    };
    let login = |actor: &str, words: &str, expected: &Value| {
        let record = site.the(&["--action", "login", "--target", "service:ssh", "--actor", actor, "--contains", words]);
        assert_says(&record, expected);
        check(words, &record);
        record
    };
    let accepted = login(account, "Accepted publickey", &of("success", account, Value::Null));
    assert_says(&accepted, &json!({ "attributes.method": "publickey", "attributes.key": sshd.fingerprint("known") }));
    let failed = login(account, "Failed publickey", &of("failure", account, Value::Null));
    assert_says(&failed, &json!({ "attributes.key": sshd.fingerprint("unknown") }));
    login("mallory", "Invalid user mallory", &of("failure", "mallory", "invalid user".into()));
    login(LIAR, "Invalid user x from", &of("failure", LIAR, "invalid user".into()));

    let session = site.the(&["--action", "session.open", "--actor", account]);
    assert_says(
        &session,
        &json!({ "event_name": "sshd.session", "client_address": "127.0.0.1", "session": "0", "attributes.what": "command" }),
    );
    check("Starting session: command for", &session);
    let left = site.the(&["--action", "disconnect", "--actor", account, "--contains", "Disconnected from user"]);
    assert_says(&left, &json!({ "event_name": "sshd.disconnect", "client_address": "127.0.0.1" }));
    check("Disconnected from user", &left);
    let turned_away = site.the(&["--action", "disconnect", "--actor", LIAR]);
    assert_says(&turned_away, &json!({ "client_address": "127.0.0.1", "attributes.phase": "preauth" }));
    check("Connection closed by invalid user x", &turned_away);
}

#[test]
fn who_came_by_ssh_is_found() {
    let dev = Dev::start();
    let dir = dev.dir.path().join("ssh");
    let log = dev.dir.path().join("sshd.log");
    let Some(mut sshd) = Sshd::start(&dir, &Log::File(&log)) else { return };
    let site = Site::start(dev, &format!("[[file]]\npath = \"{}\"\nprofile = \"sshd\"\n", log.display()));
    act(&sshd);
    // What serves a connection writes on after the client has gone.
    let ends = ["Connection closed by ", "Connection reset by ", "Disconnected from "];
    let count = |words: &[&str]| {
        lines(&log).iter().filter(|line| words.iter().any(|words| line.starts_with(words.as_bytes()))).count()
    };
    assert!(sshd.process.wait_until(|| count(&ends) >= count(&["Connection from "])));
    sshd.process.signal("TERM");
    assert!(!sshd.process.wait_until(|| false));
    let logged = lines(&log);
    assert_found(&site, &sshd, |words, record| assert_eq!(original(record), line_with(&logged, words)));
    // Each line, once, in order, with the return that sshd puts before its end.
    assert!(logged.iter().all(|line| line.ends_with(b"\r")));
    assert_eq!(site.stream(log.to_str().unwrap(), logged.len()), logged);
    // sshd writes no level, the profile knows one.
    site.find(3, &["--action", "login", "--severity", "warn"]);
    let stopped = site.the(&["--action", "service.stop", "--target", "service:ssh"]);
    assert_eq!(original(&stopped), b"Received signal 15; terminating.\r");
}

#[test]
fn who_came_by_ssh_is_found_by_way_of_the_systemd_journal() {
    let dev = Dev::start();
    let Some(journald) = Journald::start(&dev.dir.path().join("journal")) else { return };
    let Some(sshd) = Sshd::start(&dev.dir.path().join("ssh"), &Log::Journal(&journald)) else { return };
    let site = Site::start(dev, &journald.table());
    let (acted, ()) = timed(|| act(&sshd));
    // What serves a connection writes on after the client has gone.
    let acted = *acted.start()..;
    assert_found(&site, &sshd, |words, record| {
        // As the journal has it, by its own program.
        let kept = journald.messages("sshd");
        assert_eq!(original(record), line_with(&kept, words));
        assert_says(record, &json!({ "program": "sshd" }));
        assert!(record["process_id"].as_u64() > Some(0), "{record:#}");
        let (time, read) = (event_time(record), time_of(record, "observed_time"));
        assert!(acted.contains(&time) && time < read, "{words}: {time}, acted {acted:?}, read {read}");
    });
}
