use std::{process::Command, sync::atomic::Ordering::Relaxed};

use sigillo_proto::{
    record::Fields,
    v1::{CorePart, PersonalPart, any_value::Value},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::{
    act::{Act, Peer},
    *,
};
use crate::{
    line::LINE_MAX_BYTES,
    scrub::{ScrubSettings, Scrubber},
    source::{CHUNK_BYTES, Chunk},
};

struct Agent {
    dir: TempDir,
    task: JoinHandle<Result<(), AgentError>>,
    chunks: mpsc::Receiver<Chunk>,
    meter: Arc<Meter>,
}

fn settings(path: &Path) -> SocketSettings {
    toml::from_str(&format!("path = '{}'\ntenant = 'acme'", path.display())).unwrap()
}

fn start(settings: SocketSettings) -> (JoinHandle<Result<(), AgentError>>, mpsc::Receiver<Chunk>, Arc<Meter>) {
    let (sender, chunks) = mpsc::channel(4);
    let pin = ScrubSettings { name: "pin".into(), pattern: r"pin=(\d{4,8})".into() };
    let maker = Maker::new("ours", "", Arc::new(Scrubber::new(&[pin]).unwrap())).of("socket");
    let meter = Arc::new(Meter::default());
    let task = tokio::spawn(follow(settings, maker, Mode::Follow, Feed::new(sender), Arc::clone(&meter)));
    (task, chunks, meter)
}

impl Agent {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (task, chunks, meter) = start(settings(&dir.path().join("run/socket")));
        let agent = Self { dir, task, chunks, meter };
        while !agent.path().exists() {
            tokio::task::yield_now().await;
        }
        agent
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("run/socket")
    }

    async fn connect(&self) -> Client {
        let (input, output) = UnixStream::connect(self.path()).await.unwrap().into_split();
        Client { answers: BufReader::new(input).lines(), output: Some(output) }
    }

    async fn chunk(&mut self) -> Chunk {
        timeout(Duration::from_secs(20), self.chunks.recv()).await.expect("a chunk comes").unwrap()
    }
}

struct Client {
    answers: Lines<BufReader<OwnedReadHalf>>,
    output: Option<OwnedWriteHalf>,
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        self.output.as_mut().unwrap().write_all(bytes).await.unwrap();
    }

    async fn answer(&mut self) -> serde_json::Value {
        let line = timeout(Duration::from_secs(20), self.answers.next_line()).await.expect("an answer comes").unwrap();
        line.map_or(serde_json::Value::Null, |line| serde_json::from_str(&line).unwrap())
    }
}

fn keep(chunk: Chunk) -> Vec<Fields> {
    assert!(chunk.urgent && chunk.mark.is_none());
    chunk.synced.unwrap().send(()).unwrap();
    chunk.records.iter().map(|record| Fields::decode(record.as_ref())).collect()
}

#[tokio::test]
async fn a_line_is_answered_only_when_it_is_kept() {
    let mut agent = Agent::start().await;
    let mut client = agent.connect().await;
    client
        .send(b"{\"action\":\"login\",\"message\":\"password=hunter2secret\",\"actor\":{\"name\":\"rossi\"}}\n")
        .await;
    let chunk = agent.chunk().await;
    assert!(timeout(Duration::from_millis(100), client.answer()).await.is_err(), "answered before it was kept");
    let fields = keep(chunk).remove(0);
    assert_eq!(client.answer().await, serde_json::json!({"ok": true, "line": 1}));
    let core = fields.core.unwrap();
    let expected = CorePart {
        observed_time_unix_nano: core.observed_time_unix_nano,
        action: "login".into(),
        host: "ours".into(),
        tenant: "acme".into(),
        stream: "socket".into(),
        process_id: std::process::id(),
        ..CorePart::default()
    };
    assert_eq!(core, expected);
    assert_eq!(fields.personal.unwrap().actor.unwrap().name, "rossi");
    let content = fields.content.unwrap();
    let shown = format!("{content:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(content.body.is_some() && content.original.starts_with(b"{\"action\":\"login\""));
    let pid = content.attributes.iter().find(|pair| pair.key == "peer.pid").and_then(|pair| pair.value.clone()?.value);
    assert_eq!(pid, Some(Value::IntValue(std::process::id().into())));
}

#[tokio::test]
async fn secrets_are_in_no_field_whatever_their_form_and_the_original_agrees() {
    let mut agent = Agent::start().await;
    let mut client = agent.connect().await;
    for act in [
        r#""attributes":{"token":12345678,"password":"hunter22"}"#,
        r#""attributes":{"password":"hunter22","n":7}"#,
        r#""attributes":{"password":"two words, hunter22"}"#,
        r#""attributes":{"p\u0061ssword":"hunter22","tok\u0065n":-12345678.5}"#,
        r#""attributes":{"password":{"old":"hunter22","new":["hunter22",{"x":12345678}]}}"#,
        r#""attributes":{"a":[{"secret":["hunter22"],"b":true},null],"api_key":[12345678]}"#,
        r#""attributes":{"pin":12345678,"card":{"pin":"12345678"}}"#,
        r#""attributes":{"password=hunter22":1}"#,
        r#""message":"m\u0079sql\t-phunter22 db""#,
        r#""message":"p\u0061ssword=hunter22\nnext \"line\"""#,
        r#""message":"{\"token\":12345678,\"password\":[\"hunter22\"]}""#,
        r#""message":"https:\/\/bob:hunter22@192.0.2.1\/""#,
        r#""actor":{"id":"token=12345678","name":"password: hunter22"}"#,
        r#""target":{"type":"t","id":"api_key='hunter22'"},"program":"password=hunter22""#,
        r#""session":"Authorization: Basic hunter22","user_agent":"bearer hunter22hunter22""#,
    ] {
        client.send(format!("{{\"action\":\"a\",\"time\":17, {act} }}\n").as_bytes()).await;
        let record = tokio::select! {
            chunk = agent.chunks.recv() => keep(chunk.unwrap()).remove(0),
            answer = client.answer() => panic!("{act}: {answer}"),
        };
        assert_eq!(client.answer().await["ok"], true);
        let shown = format!("{record:?}");
        assert!(!shown.contains("hunter22") && !shown.contains("12345678"), "{act}: {shown}");
        let content = record.content.unwrap();
        assert_eq!(content.attributes.last().unwrap().key, "scrubbed", "{act}");
        // What is kept as the original says what the record says.
        let original = Act::parse(&content.original).unwrap();
        let peer = Peer { process_id: None, user: 0, group: 0 };
        let said = original.facts("acme", peer).unwrap();
        let theirs: Vec<_> = content.attributes.into_iter().filter(|pair| !pair.key.starts_with("peer.")).collect();
        assert_eq!(theirs.split_last().unwrap().1, &said.attributes[2..], "{act}");
        let body = content.body.map(|body| body.value.unwrap());
        assert_eq!(body, (!said.message.is_empty()).then(|| Value::StringValue(said.message.to_string())), "{act}");
    }
}

#[tokio::test]
async fn a_line_of_which_too_much_is_a_secret_is_refused_and_not_read_as_it_came() {
    let mut agent = Agent::start().await;
    let mut client = agent.connect().await;
    client.send(b"{\"action\":\"a\",\"time\":\"token: hunter22\"}\n").await;
    let answer = client.answer().await;
    assert!(answer["ok"] == false && answer["error"].as_str().unwrap().contains("took token"), "{answer}");
    assert!(!answer.to_string().contains("hunter22") && agent.chunks.try_recv().is_err());
}

#[tokio::test]
async fn lines_that_are_there_are_kept_together_as_far_as_a_chunk_goes() {
    let mut agent = Agent::start().await;
    let mut client = agent.connect().await;
    let long = format!("{{\"action\":\"a\",\"message\":\"{}\"}}\n", "y".repeat(LINE_MAX_BYTES - 30));
    let text = format!("{}{long}{long}{long}", "{\"action\":\"a\"}\n".repeat(300));
    let mut output = client.output.take().unwrap();
    let sending = tokio::spawn(async move {
        output.write_all(text.as_bytes()).await.unwrap();
        output
    });
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 303 {
        let chunk = agent.chunk().await;
        let bytes: usize = chunk.records.iter().map(|record| record.as_ref().length()).sum();
        assert!(chunk.records.len() == 1 || bytes <= CHUNK_BYTES, "{bytes}");
        sizes.push(keep(chunk).len());
    }
    assert!(sizes.len() < 10, "{sizes:?}");
    for line in 1..=303 {
        let answer = client.answer().await;
        assert!(answer["ok"] == true && answer["line"] == line, "{answer}");
    }
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn lines_are_answered_in_order_and_the_bad_ones_say_why() {
    let mut agent = Agent::start().await;
    let mut client = agent.connect().await;
    let mut text = Vec::new();
    for number in 0..3_000 {
        match number % 3 {
            0 => text.extend(format!("{{\"action\":\"a\",\"message\":\"{number}\"}}\n").into_bytes()),
            1 => text.extend(b"not JSON\n"),
            _ => text.extend(b"{\"action\":\"b\",\"outcom\":\"success\"}\n"),
        }
    }
    let mut output = client.output.take().unwrap();
    let sending = tokio::spawn(async move {
        output.write_all(&text).await.unwrap();
        output
    });
    let (mut line, mut kept) = (0, 0);
    while line < 3_000 {
        tokio::select! {
            chunk = agent.chunks.recv() => kept += keep(chunk.unwrap()).len(),
            answer = client.answer() => {
                line += 1;
                let ok = (line - 1) % 3 == 0;
                assert_eq!((answer["line"].as_u64(), answer["ok"].as_bool()), (Some(line), Some(ok)));
                assert_eq!(answer["error"].is_string(), !ok);
            }
        }
    }
    assert_eq!((kept, agent.meter.lines.load(Relaxed)), (1_000, 3_000));
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn long_lines_are_refused_and_half_ones_dropped() {
    let mut agent = Agent::start().await;
    let mut client = agent.connect().await;
    client.send(&[&b"x".repeat(3 * LINE_MAX_BYTES + 7)[..], b"\n"].concat()).await;
    let answer = client.answer().await;
    assert!(answer["ok"] == false && answer["error"].as_str().unwrap().contains("262144"), "{answer}");
    let message = "y".repeat(LINE_MAX_BYTES - 30);
    let longest = format!("{{\"action\":\"a\",\"message\":\"{message}\"}}");
    assert!(longest.len() <= LINE_MAX_BYTES);
    client.send(format!("{longest}\n{{\"action\":\"half\"}}").as_bytes()).await;
    assert_eq!(keep(agent.chunk().await).len(), 1);
    assert_eq!(client.answer().await["ok"], true);
    client.output = None;
    let answer = client.answer().await;
    assert!(answer["line"] == 3 && answer["error"].as_str().unwrap().contains("ended within"), "{answer}");
    assert!(client.answer().await.is_null() && agent.chunks.try_recv().is_err());
}

#[tokio::test]
async fn a_line_that_makes_too_large_a_record_is_refused_alone() {
    let mut agent = Agent::start().await;
    let mut client = agent.connect().await;
    // Each one-letter password becomes a longer text, in the original and in the message.
    let message = "_pwd=1,".repeat(30_000);
    client.send(format!("{{\"action\":\"a\",\"message\":\"{message}\"}}\n{{\"action\":\"b\"}}\n").as_bytes()).await;
    let mut kept = Vec::new();
    let mut answers = Vec::new();
    while answers.len() < 2 {
        tokio::select! {
            chunk = agent.chunks.recv() => kept.extend(keep(chunk.unwrap())),
            answer = client.answer() => answers.push(answer),
        }
    }
    assert!(answers[0]["ok"] == false && answers[0]["error"].as_str().unwrap().contains("1048576"), "{answers:?}");
    assert_eq!((answers[1]["ok"].as_bool(), kept.len()), (Some(true), 1));
}

#[tokio::test]
async fn what_is_not_kept_is_said() {
    let mut agent = Agent::start().await;
    let mut client = agent.connect().await;
    client.send(b"{\"action\":\"a\"}\n").await;
    drop(agent.chunk().await);
    let answer = client.answer().await;
    assert!(answer["ok"] == false && answer["error"].as_str().unwrap().contains("send it again"), "{answer}");
}

#[tokio::test]
async fn connections_have_a_bound() {
    let mut agent = Agent::start().await;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        clients.push(agent.connect().await);
    }
    // All were accepted before this one: a line of the last passes.
    clients[CONNECTIONS_MAX - 1].send(b"{\"action\":\"a\"}\n").await;
    keep(agent.chunk().await);
    let mut refused = agent.connect().await;
    assert!(refused.answer().await["error"].as_str().unwrap().contains("64 connections"));
    assert!(refused.answer().await.is_null());
    clients.pop();
    loop {
        let mut client = agent.connect().await;
        client.send(b"{\"action\":\"b\"}\n").await;
        tokio::select! {
            chunk = agent.chunks.recv() => break drop(keep(chunk.unwrap())),
            _ = client.answer() => {}
        }
    }
}

#[tokio::test]
async fn a_senders_slowness_is_its_own() {
    let mut agent = Agent::start().await;
    let (mut slow, mut other) = (agent.connect().await, agent.connect().await);
    slow.send(b"{\"action\":\"slow\"}\n").await;
    let held = agent.chunk().await;
    other.send(b"{\"action\":\"other\"}\n").await;
    keep(agent.chunk().await);
    assert_eq!(other.answer().await["ok"], true);
    keep(held);
    assert_eq!(slow.answer().await["ok"], true);
}

#[tokio::test]
async fn the_file_has_its_mode_and_nothing_else_is_replaced() {
    let agent = Agent::start().await;
    let path = agent.path();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
    // Somebody listens.
    let (task, _chunks, meter) = start(settings(&path));
    let error = refusal(&meter).await;
    assert!(error.contains("another process listens"), "{error}");
    task.abort();
    agent.task.abort();
    let _ = agent.task.await;
    assert!(!path.exists(), "the file goes with its listener");
    // Nobody listens any more.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (task, ..) = start(SocketSettings { mode: 0o600, ..settings(&path) });
    while fs::metadata(&path).unwrap().mode() & 0o777 != 0o600 {
        tokio::task::yield_now().await;
    }
    task.abort();
    let _ = task.await;
    // A file.
    fs::write(&path, "precious").unwrap();
    let (task, _chunks, meter) = start(settings(&path));
    assert!(refusal(&meter).await.contains("something else"));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    // It waits until there is nothing.
    fs::remove_file(&path).unwrap();
    while !path.exists() {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(meter.error(), None);
    task.abort();
}

/// Why the socket can't be offered, as the status says it.
async fn refusal(meter: &Meter) -> String {
    loop {
        match meter.error() {
            Some(error) => return error,
            None => tokio::task::yield_now().await,
        }
    }
}

#[test]
fn owners_are_found_and_wrong_settings_named() {
    let base = settings(Path::new("/tmp/x"));
    let named = SocketSettings { user: Some("root".into()), group: Some("4711".into()), ..base.clone() };
    assert_eq!(named.owner(), Ok((Some(0), Some(4_711))));
    for (wrong, word) in [
        (SocketSettings { group: Some("no-such-group".into()), ..base.clone() }, "no-such-group"),
        (SocketSettings { mode: 660, ..base }, "octal"),
    ] {
        assert!(wrong.validate().unwrap_err().contains(word));
    }
}

/// The program of the page, against a real socket.
#[tokio::test]
async fn the_documented_example_works() {
    let page = include_str!("../../../SOCKET.md");
    let program = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let mut agent = Agent::start().await;
    let mut command = Command::new("python3");
    let child = command.arg("-c").arg(program).arg(agent.path()).spawn();
    let Ok(mut child) = child else {
        return std::io::Write::write_all(&mut std::io::stdout(), b"SKIPPED: there is no python3 here\n").unwrap();
    };
    let fields = keep(agent.chunk().await).remove(0);
    assert!(tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap().success());
    let (core, personal) = (fields.core.unwrap(), fields.personal.unwrap());
    assert_eq!(
        (core.action.as_str(), core.tenant.as_str(), core.target.unwrap().id.as_str()),
        ("server.reboot", "acme", "srv-17")
    );
    let PersonalPart { actor, impersonator, client_address, session, .. } = personal;
    assert_eq!((actor.unwrap().name.as_str(), impersonator.unwrap().name.as_str()), ("m.rossi", "a.bianchi"));
    assert_eq!((client_address.as_str(), session.as_str()), ("192.0.2.7", "9f3c"));
}
