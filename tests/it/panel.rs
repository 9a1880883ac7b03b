//! Activities on their way from a control panel into the journal, over the panel library.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use serde_json::{Value as Json, json};
use sigillo_panel::{Activity, Actor, ActorKind, Options, Outcome, Panel, PanelError, Severity, Value, Written};
use sigillo_testkit::{
    binaries::binary,
    server::{Server, ServerCommand},
};
use tempfile::TempDir;

use crate::support::{Dev, said, sigillo_json};

const SOURCE: &str = "panel";
const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(300);

fn options(server: &Server, dir: &Path) -> Options {
    Options { patience: PATIENCE, ..Options::new(server.endpoint(SOURCE), dir.join("queue"), "it-panel 1") }
}

fn numbered(number: usize) -> Activity {
    Activity { message: format!("number {number}"), ..Activity::new("server.reboot").on("server", "srv-17") }
}

/// Activities of the dev panel in the journal.
fn found(dir: &Path) -> Vec<Json> {
    sigillo_json(dir, &["query", "--source", "dev-panel", "--action", "server.reboot", "--reason", "test"])
}

/// Their messages.
fn messages(dir: &Path) -> Vec<String> {
    found(dir).iter().map(|record| record["body"].as_str().unwrap().to_owned()).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("number {number}")).collect()
}

/// A stopped server goes on where it was, under the same address.
fn restart(command: &ServerCommand, address: SocketAddr) -> Server {
    command.clone().listening(address).start().unwrap()
}

fn stop(server: Server) -> (ServerCommand, SocketAddr) {
    let address = server.listen();
    (server.kill().unwrap().command, address)
}

async fn until(panel: &Panel, what: impl FnMut(&sigillo_panel::Progress) -> bool) {
    let mut progress = panel.progress();
    let reached = tokio::time::timeout(Duration::from_secs(60), progress.wait_for(what)).await;
    assert!(reached.is_ok_and(|reached| reached.is_ok()), "{:?}", panel.progress().borrow());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activity_is_durable_with_all_its_fields() {
    let dev = Dev::start();
    let mut options = options(&dev.server, dev.dir.path());
    options.endpoint.trust = Some(dev.dir.path().join("trust.txt"));
    options.host = Some("panel-1".into());
    let panel = Panel::open(options).await.unwrap();
    let activity = Activity {
        target: Some(("server".into(), "srv-17".into())),
        outcome: Some(Outcome::Denied),
        actor: Some(Actor { id: "c-1042".into(), name: "m.rossi".into(), kind: ActorKind::Customer }),
        impersonator: Some(Actor { id: "s-7".into(), name: "a.bianchi".into(), kind: ActorKind::Staff }),
        customer: "acme".into(),
        session: "9f3c".into(),
        client_address: Some("192.0.2.7".parse().unwrap()),
        user_agent: "Browser/1".into(),
        time: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
        severity: Some(Severity::Warn),
        message: "rebooted for the kernel update".into(),
        attributes: vec![("ticket".into(), "T-1".into()), ("cores".into(), Value::Int(4))],
        ..Activity::new("server.reboot")
    };
    let written = panel.write(activity).await.unwrap();
    let Written::Durable { sequence: Some(sequence), received: Some(_) } = written else { panic!("{written:?}") };

    let found = found(dev.dir.path());
    assert_eq!(found.len(), 1);
    let record = &found[0];
    let expected = json!({
        "sequence": sequence, "action": "server.reboot", "event_name": "panel.activity", "outcome": "denied",
        "host": "panel-1", "program": "it-panel 1", "tenant": "acme", "session": "9f3c", "client_address": "192.0.2.7",
        "user_agent": "Browser/1", "body": "rebooted for the kernel update", "class": "panel",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&record[key], value, "{key} of {record}");
    }
    let text = record.to_string();
    for part in ["srv-17", "c-1042", "m.rossi", "customer", "s-7", "a.bianchi", "staff", "2023-11-14T22:13:20", "T-1"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    // A checkpoint covers it soon, and only then the queue lets it go.
    until(&panel, |now| now.waiting_records == 0).await;
    assert_eq!(panel.close(PATIENCE).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_queued_is_delivered_once_and_in_order() {
    let dev = Dev::start();
    let mut patient = options(&dev.server, dev.dir.path());
    patient.patience = SHORT;
    let Dev { server, dir } = dev;
    let panel = Panel::open(patient).await.unwrap();
    until(&panel, |now| now.connected).await;
    assert!(matches!(panel.write(numbered(0)).await, Ok(Written::Durable { .. })));
    let (command, address) = stop(server);
    for number in 1..4 {
        let written = panel.write(numbered(number)).await.unwrap();
        assert!(matches!(&written, Written::Queued { why } if !why.is_empty()), "{written:?}");
    }
    assert_eq!(panel.progress().borrow().waiting_records, 3);
    // Closed in vain: it stays queued, and is there when the panel is opened again.
    assert_eq!(panel.close(SHORT).await.unwrap(), 3);
    let server = restart(&command, address);
    let panel = Panel::open(options(&server, dir.path())).await.unwrap();
    let written = panel.write(numbered(4)).await.unwrap();
    assert!(matches!(written, Written::Durable { sequence: Some(_), .. }), "{written:?}");
    assert_eq!(messages(dir.path()), numbers(0..5));
    assert_eq!(panel.close(PATIENCE).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_share_a_panel() {
    let dev = Dev::start();
    let panel = std::sync::Arc::new(Panel::open(options(&dev.server, dev.dir.path())).await.unwrap());
    let write = |number| {
        let panel = std::sync::Arc::clone(&panel);
        tokio::spawn(async move { (number, panel.write(numbered(number)).await.unwrap()) })
    };
    let writers: Vec<_> = (0..100).map(write).collect();
    let mut places = Vec::new();
    for writer in writers {
        let (number, written) = writer.await.unwrap();
        let Written::Durable { sequence: Some(sequence), .. } = written else { panic!("{written:?}") };
        places.push((sequence, format!("number {number}")));
    }
    places.sort();
    // Each is where its answer said.
    let found: Vec<_> = found(dev.dir.path())
        .iter()
        .map(|record| (record["sequence"].as_u64().unwrap(), record["body"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(found, places);
}

/// The example, writing one activity.
fn example(server: SocketAddr, dir: &Path, message: &str, times: [&str; 2]) -> Command {
    let mut command =
        Command::new(binary("examples/panel").expect("built by `cargo build --release --workspace --examples`"));
    command.args([&format!("https://{server}"), dir.to_str().unwrap(), SOURCE, dir.join("queue").to_str().unwrap()]);
    command.args(["server.reboot", "server:srv-17", message]).args(times).stdin(Stdio::null());
    command
}

/// Its first line.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line
}

#[test]
fn a_panel_that_is_killed_has_lost_nothing() {
    let Dev { server, dir } = Dev::start();
    let listen = server.listen();
    let output = example(listen, dir.path(), "number 0", ["10000", "10000"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("durable ") && text.ends_with("waiting 0\n"), "{}", said(&output));
    let (command, address) = stop(server);
    for number in 1..3 {
        let mut child = example(address, dir.path(), &format!("number {number}"), ["200", "60000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let line = first_line(&mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(line.starts_with("queued: "), "{line:?}");
    }
    let _server = restart(&command, address);
    let output = example(address, dir.path(), "number 3", ["10000", "10000"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(messages(dir.path()), numbers(0..4));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_has_the_queue() {
    let dev = Dev::start();
    let panel = Panel::open(options(&dev.server, dev.dir.path())).await.unwrap();
    panel.write(numbered(0)).await.unwrap();
    let listen = dev.server.listen();
    let output = example(listen, dev.dir.path(), "number 1", ["1000", "1000"]).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("is in use"), "{}", said(&output));
    panel.close(PATIENCE).await.unwrap();
    let output = example(listen, dev.dir.path(), "number 1", ["10000", "1000"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(messages(dev.dir.path()), numbers(0..2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_written_is_said() {
    let dir = TempDir::new().unwrap();
    let dev = Dev::start();
    // Nobody has ever answered.
    let mut away = options(&dev.server, dir.path());
    (away.endpoint.url, away.patience) = ("https://127.0.0.1:1".into(), SHORT);
    let panel = Panel::open(away).await.unwrap();
    let error = panel.write(numbered(0)).await.unwrap_err();
    assert!(matches!(&error, PanelError::NotMet(why) if why.contains("127.0.0.1:1")), "{error}");
    panel.close(SHORT).await.unwrap();
    // One that breaks a rule; what is written after it stands alone.
    let panel = Panel::open(options(&dev.server, dir.path())).await.unwrap();
    let error = panel.write(Activity { session: "x".repeat(5_000), ..numbered(0) }).await.unwrap_err();
    assert!(matches!(&error, PanelError::Activity(what) if what.contains("session")), "{error}");
    let error = panel.write(Activity { message: "x".repeat(2 << 20), ..numbered(0) }).await.unwrap_err();
    assert!(matches!(&error, PanelError::Activity(_)), "{error}");
    panel.write(numbered(1)).await.unwrap();
    assert_eq!(messages(dev.dir.path()), numbers(1..2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_what_it_took_arrives() {
    let Dev { server, dir } = Dev::start();
    let mut small = options(&server, dir.path());
    (small.max_bytes, small.patience) = (16 << 20, SHORT);
    let panel = Panel::open(small).await.unwrap();
    until(&panel, |now| now.connected && now.synced.0.get() > 0).await;
    let (command, address) = stop(server);
    until(&panel, |now| !now.connected).await;
    // Nothing that a compressor makes smaller.
    let (mut state, mut taken) = (1_u64, Vec::new());
    let error = loop {
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{:016x}", state ^ (state >> 29))
        };
        let text: String = (0..60_000).map(|_| noise()).collect();
        let activity = Activity { message: text, ..numbered(0) };
        match panel.write(activity.clone()).await {
            Ok(Written::Queued { .. }) => taken.push(activity.message),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        assert!(taken.len() < 100, "it never fills");
    };
    assert!(matches!(&error, PanelError::Full(_)) && error.to_string().contains("queue is full"), "{error}");
    assert!(panel.progress().borrow().full && taken.len() > 10, "{}", taken.len());
    let again = panel.write(Activity { message: taken[0].clone(), ..numbered(0) }).await;
    assert!(matches!(&again, Err(PanelError::Full(_) | PanelError::Busy(_))), "{again:?}");
    let _server = restart(&command, address);
    until(&panel, |now| now.waiting_records == 0).await;
    // There is room again, and what was refused is nowhere.
    let written = loop {
        match panel.write(numbered(1)).await {
            Err(PanelError::Full(_) | PanelError::Busy(_)) => tokio::time::sleep(SHORT).await,
            written => break written.unwrap(),
        }
    };
    until(&panel, |now| now.waiting_records == 0).await;
    taken.push("number 1".into());
    assert!(messages(dir.path()) == taken, "{written:?}: {} of {}", messages(dir.path()).len(), taken.len());
}

/// A program in another language, written from the format page and the proto alone.
#[test]
#[ignore = "needs the Python packages of tests/foreign: cargo xtask test"]
fn foreign_program_of_a_panel_writes_directly() {
    let foreign =
        env::var_os("SIGILLO_FOREIGN").expect("SIGILLO_FOREIGN names the folder of the programs of tests/foreign");
    let python = Path::new(&foreign).join("programs/bin/python");
    let dev = Dev::start();
    let script = Path::new("tests/foreign/python/panel.py").canonicalize().unwrap();
    let run = |activities: &[Json]| {
        let mut command = Command::new(&python);
        command.arg(&script).arg(dev.server.listen().to_string()).arg(dev.dir.path()).arg(SOURCE);
        command.args(activities.iter().map(ToString::to_string)).output().unwrap()
    };
    let activity = |number: usize| {
        json!({
            "action": "server.reboot", "outcome": "success", "message": format!("number {number}"), "customer": "acme",
            "actor": {"id": "c-1042", "name": "m.rossi", "kind": "customer"}, "target": {"type": "server", "id": "srv-17"},
            "client_address": "192.0.2.7", "session": "9f3c", "attributes": {"ticket": "T-1"},
        })
    };
    let output = run(&[activity(0), activity(1), json!({"action": "server.reboot", "message": "number 2"})]);
    assert!(output.status.success(), "{}", said(&output));
    // Another process, in another epoch.
    let again = run(&[activity(3)]);
    assert!(again.status.success(), "{}", said(&again));
    let found = found(dev.dir.path());
    assert_eq!(messages(dev.dir.path()), numbers(0..4));
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&again.stdout);
    let told: Vec<Json> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sequences: Vec<&Json> = told.iter().map(|line| &line["sequence"]).collect();
    assert_eq!(sequences, found.iter().map(|record| &record["sequence"]).collect::<Vec<_>>());
    assert!(found[0].to_string().contains("m.rossi") && found[0]["tenant"] == "acme", "{}", found[0]);
    // A batch that is not what it says is refused.
    let broken = fs::read_to_string(&script).unwrap().replace("bitmap |= 1 << j", "bitmap = 7");
    fs::write(dev.dir.path().join("broken.py"), broken).unwrap();
    let proto = Path::new("proto").canonicalize().unwrap();
    let mut command = Command::new(&python);
    command.arg(dev.dir.path().join("broken.py")).arg(dev.server.listen().to_string()).arg(dev.dir.path());
    command.arg(SOURCE).arg("{\"action\":\"server.reboot\"}").env("SIGILLO_PROTO", proto);
    let output = command.output().unwrap();
    assert!(!output.status.success() && said(&output).contains("Refused"), "{}", said(&output));
    assert_eq!(messages(dev.dir.path()).len(), 4);
}
