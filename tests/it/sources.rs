//! What hosters run, from its own log to `sigillo query`: who did what to what, and how it ended.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sigillo_testkit::binaries::run;

use crate::support::{Dev, said, sigillo_json};

/// Longest wait for a program that was just started.
const START_MAX: Duration = Duration::from_secs(20);

#[test]
#[ignore = "needs nginx"]
fn real_nginx_says_who_asked_for_what() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let port = free_port();
    let site = dir.join("site");
    fs::create_dir(&site).unwrap();
    fs::write(site.join("index.html"), "hello").unwrap();
    fs::write(dir.join("users"), "m.rossi:{PLAIN}secret\n").unwrap();
    let place = dir.display();
    let config = format!(
        "daemon off; master_process off; pid {place}/nginx.pid; error_log {place}/nginx-error.log notice;\n\
         events {{}}\n\
         http {{ access_log {place}/nginx-access.log combined;\n\
         client_body_temp_path {place}/t1; proxy_temp_path {place}/t2; fastcgi_temp_path {place}/t3;\n\
         uwsgi_temp_path {place}/t4; scgi_temp_path {place}/t5;\n\
         server {{ listen 127.0.0.1:{port}; root {place}/site;\n\
         location /private/ {{ auth_basic private; auth_basic_user_file {place}/users; }} }} }}\n"
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut nginx = Program::start(Command::new("/usr/sbin/nginx").args([
        "-p".as_ref(),
        dir,
        "-c".as_ref(),
        &dir.join("nginx.conf"),
    ]));
    // "m.rossi:secret" and "m.rossi:wrong".
    ask(port, "/", "");
    ask(port, "/private/invoice.pdf", "Authorization: Basic bS5yb3NzaTpzZWNyZXQ=\r\n");
    ask(port, "/private/invoice.pdf", "Authorization: Basic bS5yb3NzaTp3cm9uZw==\r\n");
    nginx.stop();
    ship(dir, "[[file]]\npath = \"nginx-access.log\"\n[[file]]\npath = \"nginx-error.log\"\n");

    let found = sigillo_json(dir, &["query", "--source", "dev-agent", "--reason", "test"]);
    let access = |record: &&Value| {
        record["stream"] == "nginx-access.log" || text(record, "stream").ends_with("/nginx-access.log")
    };
    let requests: Vec<Value> = found.iter().filter(access).map(core).collect();
    let request = |path: &str, outcome: &str, who: Value| {
        json!({"action": "http.request", "target": {"type": "url", "id": path}, "outcome": outcome, "actor": who,
            "client_address": "127.0.0.1", "user_agent": "tester/1.0"})
    };
    let rossi = json!({"name": "m.rossi"});
    let (page, file) = ("/", "/private/invoice.pdf");
    assert_eq!(
        requests.iter().map(without_empty).collect::<Vec<_>>(),
        [
            without_empty(&request(page, "success", Value::Null)),
            // There is no such file, but they may ask for it.
            without_empty(&request(file, "failure", rossi.clone())),
            without_empty(&request(file, "denied", rossi)),
        ],
        "{found:#?}"
    );
    let mismatch = found.iter().find(|record| text(record, "original").contains("password mismatch"));
    let mismatch = mismatch.unwrap_or_else(|| panic!("no mismatch among {found:#?}"));
    assert_eq!(mismatch["client_address"], "127.0.0.1", "{mismatch:#}");
    let lines = fs::read_to_string(dir.join("nginx-access.log")).unwrap();
    let originals: Vec<&str> = found.iter().map(|record| text(record, "original")).collect();
    assert!(lines.lines().all(|line| originals.contains(&line)), "every line is kept as it was");
}

#[test]
#[ignore = "needs sshd, ssh, journald, and root's mounts"]
fn real_sshd_says_who_logged_in() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let port = free_port();
    let system = dir.join("system");
    fs::create_dir(&system).unwrap();
    let (_journald, mut orders) = journald(&system);

    let key = |name: &str| {
        let path = dir.join(name);
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status().unwrap();
        assert!(made.success());
        path
    };
    let (host, mine) = (key("host-key"), key("my-key"));
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}.pub\nStrictModes no\nUsePAM no\n\
         PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel INFO\nPidFile none\n",
        host.display(),
        mine.display()
    );
    fs::write(dir.join("sshd_config"), config).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sshd.sh");
    let mut sshd = Program::start(
        Command::new("unshare").args(["--mount", "sh"]).arg(script).arg(&system).arg(dir.join("sshd_config")),
    );
    wait_for(port);
    assert!(ssh(port, &mine, "root"), "a login with the key");
    assert!(!ssh(port, &mine, "nobody-at-all"), "a login of somebody who does not exist");
    sshd.stop();
    // Once an entry that comes later is there, so are those of sshd.
    fs::write(dir.join("last"), "MESSAGE=the last one\n").unwrap();
    orders.order(&format!("entry {}", dir.join("last").display()));
    ship(dir, &format!("[[journald]]\ndirectory = \"{}\"\n", system.join("log").display()));

    let logins = sigillo_json(dir, &["query", "--source", "dev-agent", "--action", "login", "--reason", "test"]);
    let of = |name: &str| {
        let login = logins.iter().find(|record| record["actor"]["id"] == name || record["actor"]["name"] == name);
        login.unwrap_or_else(|| panic!("{name} is not among {logins:#?}"))
    };
    let (root, nobody) = (of("root"), of("nobody-at-all"));
    for (login, outcome) in [(root, "success"), (nobody, "failure")] {
        assert_eq!((&login["outcome"], &login["client_address"]), (&json!(outcome), &json!("127.0.0.1")), "{login:#}");
        assert_eq!(login["target"], json!({"type": "service", "id": "ssh"}), "{login:#}");
        assert!(text(login, "program").starts_with("sshd") && login["process_id"].as_u64() > Some(0), "{login:#}");
        assert!(login["event_time"].is_string(), "{login:#}");
    }
    assert!(text(root, "original").starts_with("Accepted publickey for root from 127.0.0.1"), "{root:#}");
}

#[test]
fn acts_in_plesk_have_an_actor_and_a_target() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let lines = "203.0.113.9 admin [2026-11-23 10:15:00] 'CP User Login' ('Login Name': '' => 'admin')\n\
        203.0.113.9 admin [2026-11-23 10:16:30] 'Domain Created' ('Domain Name': '' => 'negozio.example')\n";
    fs::write(dir.join("plesk-action.log"), lines).unwrap();
    ship(dir, "[[file]]\npath = \"plesk-action.log\"\n");
    let found = sigillo_json(dir, &["query", "--source", "dev-agent", "admin", "--reason", "test"]);
    let found: Vec<&Value> = found.iter().filter(|record| record["action"].is_string()).collect();
    assert_eq!(found.len(), 2, "{found:#?}");
    for (record, action) in found.iter().zip(["login", "domain.create"]) {
        assert_eq!((text(record, "action"), text(record, "outcome")), (action, "success"), "{record:#}");
        assert_eq!(record["actor"]["name"], "admin", "{record:#}");
        assert_eq!(record["client_address"], "203.0.113.9", "{record:#}");
    }
    assert!(found[1]["target"].to_string().contains("negozio.example"), "{:#}", found[1]);
    assert_eq!(text(found[1], "original"), lines.lines().nth(1).unwrap());
}

/// What a record says in the words of the audit core.
fn core(record: &Value) -> Value {
    let names = ["action", "target", "outcome", "actor", "client_address", "user_agent"];
    names.into_iter().map(|name| (name.to_owned(), record[name].clone())).collect::<serde_json::Map<_, _>>().into()
}

/// Fields of nothing say nothing.
fn without_empty(object: &Value) -> Value {
    let mut object = object.as_object().unwrap().clone();
    object.retain(|_, value| !value.is_null());
    object.into()
}

fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap_or_default()
}

/// Ships what these tables name and what is there now.
fn ship(dir: &Path, tables: &str) {
    let connection = fs::read_to_string(dir.join("agent.toml")).unwrap();
    fs::write(dir.join("sources.toml"), format!("{connection}\n{tables}")).unwrap();
    let output = run("sigillo-agent", dir, ["run", "--once", "--config", "sources.toml"]).unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// A program of somebody else. Killed when dropped.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// As an administrator stops it.
    fn stop(&mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Orders to `tests/journald.sh`, each answered when it is done.
struct Orders {
    orders: std::process::ChildStdin,
    answers: BufReader<std::process::ChildStdout>,
}

impl Orders {
    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        self.wait();
    }

    fn wait(&mut self) {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n");
    }
}

/// A real journald of its own.
fn journald(dir: &Path) -> (Program, Orders) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journald.sh");
    let mut child = Command::new("unshare")
        .args(["--mount", "sh"])
        .arg(script)
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut orders = Orders { orders, answers };
    orders.wait();
    (Program(child), orders)
}

/// Whether a login succeeds.
fn ssh(port: u16, key: &Path, user: &str) -> bool {
    let options = ["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o"];
    let output = Command::new("ssh")
        .args(options)
        .args(["UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-p", &port.to_string(), "-l", user, "-i"])
        .arg(key)
        .args(["127.0.0.1", "true"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    output.status.success()
}

/// Asks a web server for a path.
fn ask(port: u16, path: &str, header: &str) {
    wait_for(port);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: tester/1.0\r\n{header}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
}

fn wait_for(port: u16) {
    let deadline = Instant::now() + START_MAX;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on port {port}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago: these programs can't be asked for the one that they chose.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
