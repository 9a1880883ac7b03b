//! The agent as a process.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    ops::Range,
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use sigillo_client::Connection;
use sigillo_proto::v1;
use sigillo_testkit::{
    agent::AgentCommand,
    binaries::{binary, run},
    config::{self, READER, Source},
    process::wait_exit,
    server::{Server, ServerCommand},
    wire::{Flow, Wire},
};

use crate::support::{Dev, sigillo_json};

#[test]
fn a_signal_ends_the_agent_while_standard_input_is_open() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    let connection = fs::read_to_string(dir.join("agent.toml")).unwrap();
    // `stdin` belongs to the top level, before the first table.
    fs::write(dir.join("stdin-agent.toml"), format!("stdin = true\n{connection}")).unwrap();
    let mut agent = Command::new(binary("sigillo-agent").unwrap())
        .current_dir(dir)
        .args(["run", "--config", "stdin-agent.toml"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = agent.stdin.take().unwrap();
    stdin.write_all(b"before the signal\n").unwrap();
    // Once this line is durable the next read has begun.
    let deadline = Instant::now() + Duration::from_secs(20);
    while sigillo_json(dir, &["query", "before the signal", "--source", "dev-agent", "--reason", "test"]).is_empty() {
        assert!(Instant::now() < deadline, "the line does not arrive");
    }
    let killed = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ended = wait_exit(&agent, Duration::from_secs(5)).unwrap();
    drop(stdin);
    assert!(agent.wait().unwrap().success());
    assert!(ended, "it has waited for the end of its input");
}

/// A server with one source, and the place of its agent.
struct House {
    dir: tempfile::TempDir,
    server: ServerCommand,
}

impl House {
    fn new(class: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        config::write(dir.path(), &[Source { name: "host".into(), class }]).unwrap();
        Self { server: ServerCommand::configured(dir.path()), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn agent(&self, address: SocketAddr, tables: &str) -> AgentCommand {
        let file = format!("{tables}\n[[file]]\npath = \"{}\"\n", self.path("log").display());
        AgentCommand::new(self.dir.path(), address, "host", true, &file).unwrap()
    }

    /// Adds lines to the file.
    fn write(&self, numbers: Range<usize>) {
        let mut file = fs::File::options().append(true).create(true).open(self.path("log")).unwrap();
        let text = numbered(numbers).join("\n") + "\n";
        file.write_all(text.as_bytes()).unwrap();
    }

    fn status(&self) -> Value {
        let arguments = ["status", "--config", "agent.toml", "-o", "json"];
        let output = run("sigillo-agent", self.dir.path(), arguments).unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn wait_status(&self, what: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let status = self.status();
            if what(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:#}");
            sleep(Duration::from_millis(50));
        }
    }
}

const SOON: Duration = Duration::from_secs(60);

fn numbered(numbers: Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("line {number} of this test")).collect()
}

/// All records of the source: the events of its own, and the lines, in the journal's order.
async fn journal(server: &Server) -> (Vec<String>, Vec<String>) {
    let reader = Connection::open(&server.endpoint(READER)).await.unwrap();
    let filter = v1::Filter { sources: vec!["host".into()], ..v1::Filter::default() };
    let request = v1::SearchRequest { filter: Some(filter), reason: "test".into(), ..v1::SearchRequest::default() };
    let mut answers = reader.search(request).await.unwrap();
    let (mut events, mut lines) = (Vec::new(), Vec::new());
    while let Some(answer) = answers.next().await.unwrap() {
        let Some(v1::search_response::Message::Record(record)) = answer.message else { continue };
        let fields = sigillo_proto::record::Fields::decode(sigillo_model::record::RecordRef {
            core: record.core.as_deref(),
            personal: record.personal.as_deref(),
            content: record.content.as_deref(),
        });
        let original = fields.content.map(|content| content.original).unwrap_or_default();
        if original.is_empty() {
            events.push(fields.core.unwrap().event_name);
        } else {
            lines.push(String::from_utf8_lossy(&original).into_owned());
        }
    }
    (events, lines)
}

/// Waits until the journal has this many lines of the source.
async fn journal_with(server: &Server, lines: usize) -> (Vec<String>, Vec<String>) {
    let deadline = Instant::now() + SOON;
    loop {
        let found = journal(server).await;
        if found.1.len() >= lines {
            return found;
        }
        assert!(Instant::now() < deadline, "{} of {lines} lines", found.1.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let house = House::new("service");
    let mut server = house.server.start().unwrap();
    for round in 0..8 {
        let agent = house.agent(server.listen(), "");
        house.write(round * 3_000..(round + 1) * 3_000);
        // At another place each time: while it connects, reads, spools, sends.
        agent.start_and_kill(Duration::from_millis(60 + 90 * round as u64)).unwrap();
        if round % 3 == 1 {
            server = server.kill().unwrap().command.start().unwrap();
        }
    }
    let agent = house.agent(server.listen(), "").start().unwrap();
    let (_, lines) = journal_with(&server, 24_000).await;
    assert_eq!(lines, numbered(0..24_000));
    assert!(agent.stop().unwrap().0.success());
    let (events, lines) = journal(&server).await;
    assert_eq!(lines.len(), 24_000);
    assert_eq!((events.first().unwrap().as_str(), events.last().unwrap().as_str()), ("agent.started", "agent.stopped"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_waited_for_and_status_says_so() {
    let house = House::new("service");
    let wire = Wire::new().await.unwrap();
    let server = house.server.start().unwrap();
    wire.lead_to(server.listen());
    let command = house.agent(wire.address(), "");
    house.write(0..10);
    let agent = command.start().unwrap();
    journal_with(&server, 10).await;
    let status = house.wait_status(|status| status["connected"] == true && status["spool"]["waiting_records"] == 0);
    assert_eq!((&status["class"], &status["sources"][0]["lines"]), (&Value::from("service"), &Value::from(10)));
    wire.set(Flow::Cut);
    house.write(10..5_000);
    let status =
        house.wait_status(|status| status["connected"] == false && status["spool"]["waiting_records"] == 4_990);
    assert!(status["error"].as_str().unwrap().contains("no connection"), "{status:#}");
    let asked = run("sigillo-agent", house.dir.path(), ["status", "--config", "agent.toml"]).unwrap();
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asked.stdout).contains("NOT CONNECTED"));
    // A stop does not wait for the server for ever, and keeps what it has.
    assert!(agent.stop().unwrap().0.success());
    let asked = run("sigillo-agent", house.dir.path(), ["status", "--config", "agent.toml"]).unwrap();
    assert_eq!(asked.status.code(), Some(3));
    wire.set(Flow::Open);
    let agent = command.start().unwrap();
    assert_eq!(journal_with(&server, 5_000).await.1, numbered(0..5_000));
    agent.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_stops_reading_and_the_file_keeps_the_lines() {
    let house = House::new("service");
    let wire = Wire::new().await.unwrap();
    let server = house.server.start().unwrap();
    wire.lead_to(server.listen());
    let command = house.agent(wire.address(), "[spool]\nmax_bytes = 16777216\n");
    house.write(0..1);
    let agent = command.start().unwrap();
    journal_with(&server, 1).await;
    wire.set(Flow::Cut);
    // Lines that compress to a half: 65 MB of them.
    let mut state = 7_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", state ^ (state >> 29))
    };
    let expected: Vec<String> = (0..120_000).map(|_| (0..34).map(|_| word()).collect()).collect();
    fs::File::options()
        .append(true)
        .open(house.path("log"))
        .unwrap()
        .write_all((expected.join("\n") + "\n").as_bytes())
        .unwrap();
    house.wait_status(|status| status["spool"]["full"] == true);
    sleep(Duration::from_secs(2));
    let bytes = house.status()["spool"]["bytes"].as_u64().unwrap();
    assert!(bytes <= 17 << 20, "{bytes}");
    wire.set(Flow::Open);
    let (_, lines) = journal_with(&server, 120_001).await;
    assert!(lines[1..] == expected, "all of them, in order");
    house.wait_status(|status| status["spool"]["full"] == false);
    assert!(agent.stop().unwrap().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_without_a_spool_remembered_is_taken_over() {
    use std::os::unix::fs::MetadataExt;
    let house = House::new("service");
    let server = house.server.start().unwrap();
    house.write(0..20);
    let file = fs::metadata(house.path("log")).unwrap();
    // It had shipped ten lines.
    let offset = numbered(0..10).iter().map(|line| line.len() + 1).sum::<usize>();
    let text = fs::read(house.path("log")).unwrap();
    let beginning = hex::encode(&text[..64]);
    let state = format!(
        r#"{{"version":1,"epoch":7,"next":10,"head":"","files":{{"{}":{{"dev":{},"inode":{},"offset":{offset},"pieces":0,"beginning":"{beginning}"}}}},"journald":{{}}}}"#,
        house.path("log").display(),
        file.dev(),
        file.ino()
    );
    let state_dir = house.path("agent");
    fs::create_dir(&state_dir).unwrap();
    fs::write(state_dir.join("state.json"), state).unwrap();
    let agent = house.agent(server.listen(), "").start().unwrap();
    assert_eq!(journal_with(&server, 10).await.1, numbered(10..20));
    let deadline = Instant::now() + SOON;
    while !state_dir.join("state.json.imported").exists() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(20));
    }
    assert!(agent.stop().unwrap().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_under_load_without_a_failed_batch() {
    let house = House::new("service");
    // The source may use either of two certificates.
    let dir = house.dir.path();
    config::write(
        dir,
        &[Source { name: "host".into(), class: "service" }, Source { name: "renewed".into(), class: "service" }],
    )
    .unwrap();
    let text = fs::read_to_string(house.path("sigillod.toml")).unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    let sources = table["source"].as_array_mut().unwrap();
    let fingerprint = sources.pop().unwrap()["fingerprint"].clone();
    let both = toml::Value::Array(vec![sources[0]["fingerprint"].clone(), fingerprint]);
    sources[0].as_table_mut().unwrap().insert("fingerprint".into(), both);
    fs::write(house.path("sigillod.toml"), toml::to_string(&table).unwrap()).unwrap();
    let server = house.server.start().unwrap();
    let agent = house.agent(server.listen(), "");
    house.write(0..100);
    let running = agent.start().unwrap();
    let (mut written, started) = (100, Instant::now());
    let mut renewed = false;
    while started.elapsed() < Duration::from_secs(14) {
        house.write(written..written + 200);
        written += 200;
        if !renewed && started.elapsed() > Duration::from_secs(2) {
            fs::rename(house.path("renewed.pem"), house.path("host.pem")).unwrap();
            fs::rename(house.path("renewed.key"), house.path("host.key")).unwrap();
            renewed = true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (_, lines) = journal_with(&server, written).await;
    assert!(lines == numbered(0..written));
    assert!(running.stop().unwrap().0.success());
    let log = fs::read_to_string(house.path("agent.log")).unwrap();
    assert!(log.contains("certificates were renewed"), "{log}");
    assert!(!log.contains("connection lost") && !log.contains("refuse"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_panel_stay_until_a_checkpoint_covers_them() {
    let house = House::new("panel");
    let server = house.server.start().unwrap();
    let agent = house.agent(server.listen(), "[spool]\nsegment_bytes = 1048576\n");
    let mut state = 7_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", state ^ (state >> 29))
    };
    let text: Vec<String> = (0..20_000).map(|_| (0..34).map(|_| word()).collect()).collect();
    fs::write(house.path("log"), text.join("\n") + "\n").unwrap();
    let running = agent.start().unwrap();
    journal_with(&server, 20_000).await;
    let before = house.status();
    // The journal signs twice a second, tells of it every three, and then the segments go.
    let after = house.wait_status(|status| status["spool"]["bytes"].as_u64().unwrap_or(u64::MAX) < 3 << 20);
    assert_eq!(after["spool"]["waiting_records"], 0, "{before:#}");
    assert!(running.stop().unwrap().0.success());
}
