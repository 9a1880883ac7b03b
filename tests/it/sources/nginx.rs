//! nginx behind something that says for whom it asks, as at every hoster.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Running, SOON, Site, assert_says, event_time, free_port, line_with, lines, original, skipped, timed};
use crate::support::Dev;

const NGINX: &str = "/usr/sbin/nginx";
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64)";

struct Nginx {
    process: Running,
    port: u16,
}

impl Nginx {
    /// Starts one whose files are all below `dir`, its logs in `dir/nginx`.
    fn start(dir: &Path) -> Option<Self> {
        if !Path::new(NGINX).exists() {
            skipped("nginx is not installed (Debian: nginx-light), so its logs are not tested");
            return None;
        }
        let (port, at) = (free_port(), dir.display());
        for folder in ["nginx", "site/private", "site/internal"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        fs::write(dir.join("site/index.html"), "hello").unwrap();
        fs::write(dir.join("site/private/report"), "figures").unwrap();
        fs::write(dir.join("users"), "m.rossi:{PLAIN}right\n").unwrap();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|of| format!("{of}_temp_path {at}/temp_{of};\n")).concat();
        let configuration = format!(
            "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/nginx/error.log info;\n\
             events {{}}\nhttp {{\n{temporary} access_log {at}/nginx/access.log combined;\n\
             set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;\n\
             server {{ listen 127.0.0.1:{port}; server_name shop.example.com; root {at}/site;\n\
             location /private/ {{ auth_basic staff; auth_basic_user_file {at}/users; }}\n\
             location /internal/ {{ deny all; }}\n location = /orders {{ return 201; }}\n }} }}\n"
        );
        fs::write(dir.join("nginx.conf"), configuration).unwrap();
        let mut command = Command::new(NGINX);
        command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(dir.join("nginx.conf"));
        let mut process = Running::start(&mut command).unwrap();
        assert!(process.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok()), "nginx does not start");
        Some(Self { process, port })
    }

    /// Sends bytes; the status of the answer.
    fn send(&self, bytes: &[u8]) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        answer.split(' ').nth(1).unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap()
    }

    fn ask(&self, request: &str, client: &str, more: &str) -> u16 {
        let head = format!(
            "{request} HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: {AGENT}\r\nX-Forwarded-For: {client}\r\n\
             Connection: close\r\n{more}\r\n"
        );
        self.send(head.as_bytes())
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

#[test]
fn what_was_asked_of_nginx_is_found() {
    let dev = Dev::start();
    let dir = dev.dir.path().to_owned();
    let Some(nginx) = Nginx::start(&dir) else { return };
    // Neither log says of what program it is: their names do.
    let site = Site::start(dev, &format!("[[file]]\nglob = \"{}/nginx/*.log\"\n", dir.display()));
    let (access, error) = (dir.join("nginx/access.log"), dir.join("nginx/error.log"));
    let (asked, ()) = timed(|| {
        assert_eq!(nginx.ask("GET /index.html?page=2", "198.51.100.7", "Referer: http://example.com/\r\n"), 200);
        assert_eq!(nginx.ask("GET /absent", "2001:db8::7", ""), 404);
        assert_eq!(nginx.ask("GET /internal/plan", "198.51.100.8", ""), 403);
        assert_eq!(nginx.ask("POST /orders", "198.51.100.9", "Content-Length: 0\r\n"), 201);
        assert_eq!(nginx.ask("GET /private/report", "203.0.113.5", &basic("m.rossi", "right")), 200);
        assert_eq!(nginx.ask("GET /private/report", "203.0.113.6", &basic("m.rossi", "wrong")), 401);
        assert_eq!(nginx.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"), 400);
        assert_eq!(nginx.ask("GET /reset?token=c2lnaWxsby10b2tlbi0x", "198.51.100.7", ""), 404);
    });
    let (mut requests, mut errors) = (lines(&access), lines(&error));

    let check = |filters: &[&str], words: &str, logged: &[Vec<u8>], expected: Value| {
        let record = site.the(filters);
        assert_says(&record, &expected);
        assert_eq!(original(&record), line_with(logged, words));
        let time = event_time(&record);
        assert!(asked.contains(&time) && time.subsec_nanosecond() == 0, "{time}, asked {asked:?}");
    };
    let url = |path: &str| json!({ "type": "url", "id": path });
    let request = |target: &str, words: &str, expected: Value| {
        let filters = ["--action", "http.request", "--target", target, "--contains", words];
        check(&filters, words, &requests, expected);
    };
    request(
        "url:/index.html",
        "GET /index.html",
        json!({
            "event_name": "http.request", "outcome": "success", "target": url("/index.html"), "actor": null,
            "client_address": "198.51.100.7", "user_agent": AGENT, "host": "drill", "stream": access.to_str(),
            "severity": "INFO", "attributes.method": "GET", "attributes.status": 200, "attributes.bytes": 5,
            "attributes.referer": "http://example.com/",
        }),
    );
    request(
        "/absent",
        "GET /absent HTTP/1.1\" 404",
        json!({ "outcome": "failure", "client_address": "2001:db8::7", "attributes.status": 404 }),
    );
    request(
        "/internal/plan",
        "GET /internal/plan HTTP/1.1\" 403",
        json!({ "outcome": "denied", "client_address": "198.51.100.8" }),
    );
    request(
        "/orders",
        "POST /orders",
        json!({ "outcome": "success", "client_address": "198.51.100.9", "attributes.method": "POST", "attributes.status": 201 }),
    );
    check(
        &["--action", "http.request", "--actor", "m.rossi", "--contains", "\" 200 "],
        "GET /private/report HTTP/1.1\" 200",
        &requests,
        json!({ "outcome": "success", "actor": { "name": "m.rossi" }, "client_address": "203.0.113.5" }),
    );
    check(
        &["--action", "http.request", "--actor", "m.rossi", "--contains", "\" 401 "],
        "GET /private/report HTTP/1.1\" 401",
        &requests,
        json!({ "outcome": "denied", "actor": { "name": "m.rossi" }, "client_address": "203.0.113.6" }),
    );
    check(
        &["--action", "http.request", "--contains", "\" 400 "],
        "\" 400 ",
        &requests,
        json!({ "outcome": "failure", "client_address": "127.0.0.1", "target": url(""), "attributes.method": null }),
    );
    check(
        &["--action", "login", "--actor", "m.rossi"],
        "password mismatch",
        &errors,
        json!({
            "event_name": "nginx.error", "outcome": "failure", "actor": { "name": "m.rossi" }, "severity_text": "error",
            "client_address": "203.0.113.6", "target": url("/private/report"), "attributes.method": "GET",
        }),
    );
    let refused = "access forbidden by rule";
    check(
        &["--action", "http.request", "--contains", refused],
        refused,
        &errors,
        json!({ "outcome": "denied", "client_address": "198.51.100.8", "target": url("/internal/plan"), "severity": "ERROR" }),
    );
    let missing = "site/absent\" failed (2: No such file or directory)";
    check(
        &["--action", "http.request", "--contains", missing],
        missing,
        &errors,
        json!({ "outcome": "failure", "client_address": "2001:db8::7", "attributes.vhost": "shop.example.com" }),
    );

    // The logs are put aside, as logrotate does it.
    for path in [&access, &error] {
        fs::rename(path, path.with_extension("log.1")).unwrap();
    }
    nginx.process.signal("USR1");
    while !access.exists() || !error.exists() {
        std::thread::yield_now();
    }
    assert_eq!(nginx.ask("GET /after", "198.51.100.7", ""), 404);
    for (path, lines_of) in [(&access, &mut requests), (&error, &mut errors)] {
        *lines_of = lines(&path.with_extension("log.1"));
        lines_of.extend(lines(path));
        for line in lines_of.iter_mut() {
            // What would let somebody in does not leave the machine. (What is no text has none: nginx writes what it was sent as it came.)
            if let Ok(shown) = std::str::from_utf8(line) {
                *line = shown.replace("token=c2lnaWxsby10b2tlbi0x", "token=[scrubbed:token]").into_bytes();
            }
        }
        assert_eq!(site.stream(path.to_str().unwrap(), lines_of.len()), *lines_of);
    }
    assert!(site.find(2, &["--contains", "[scrubbed:token]"])[0]["attributes"].to_string().contains("scrubbed"));
}
