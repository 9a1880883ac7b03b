//! Real programs, and an agent that reads what they write while they write it: what was done is found again, in the words of the
//! audit core, with the bytes of the program's own line. One module a program; what is not installed is skipped, and says so.

mod audit;
mod journald;
mod nginx;
mod plesk;
mod socket;
mod sshd;

use std::{
    fs, io,
    net::TcpListener,
    ops::RangeInclusive,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::Value;
use sigillo_testkit::agent::{Agent, AgentCommand};

use crate::support::{Dev, sigillo_json, skipped};

/// Zone of the machine, as far as its programs and its agent know: what is taken for another one is hours off.
const ZONE: (&str, &str) = ("TZ", "<+0530>-05:30");
/// Most time that something may take which is to happen at once.
const SOON: Duration = Duration::from_secs(30);

/// A server, and an agent that follows.
struct Site {
    dev: Dev,
    command: AgentCommand,
    _agent: Agent,
}

impl Site {
    /// Starts an agent at the server with these tables in its configuration.
    fn start(dev: Dev, tables: &str) -> Self {
        let command = AgentCommand::new(dev.dir.path(), dev.server.listen(), "agent", true, tables).unwrap();
        let command = command.env(ZONE.0, ZONE.1);
        let agent = command.start().unwrap();
        Self { dev, command, _agent: agent }
    }

    fn dir(&self) -> &Path {
        self.dev.dir.path()
    }

    /// The records with which these filters leave the reader, oldest first, once there are so many; it is wrong if there are more.
    fn find(&self, count: usize, filters: &[&str]) -> Vec<Value> {
        let found = self.once(filters, |found| found.len() >= count);
        assert_eq!(found.len(), count, "{filters:?}: {found:#?}");
        found
    }

    /// The only such record.
    fn the(&self, filters: &[&str]) -> Value {
        self.find(1, filters).remove(0)
    }

    /// The original bytes of a stream, in their order, once so many are there.
    fn stream(&self, name: &str, count: usize) -> Vec<Vec<u8>> {
        let of_stream = |found: &[Value]| -> Vec<Vec<u8>> {
            found.iter().filter(|record| record["stream"] == name).map(original).collect()
        };
        let found = of_stream(&self.once(&["--source", "dev-agent"], |found| of_stream(found).len() >= count));
        assert_eq!(found.len(), count, "{name}");
        found
    }

    fn once(&self, filters: &[&str], is_enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let arguments = [&["query", "--reason", "test"], filters].concat();
        let deadline = Instant::now() + SOON;
        loop {
            let found = sigillo_json(self.dir(), &arguments);
            if is_enough(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{filters:?}: {found:#?}\n{}", self.command.log_tail());
            sleep(Duration::from_millis(50));
        }
    }
}

/// A record says what is expected of it: fields by their names, attributes as `attributes.NAME`; `null` is nothing.
fn assert_says(record: &Value, expected: &Value) {
    for (name, expected) in expected.as_object().unwrap() {
        let found = match name.strip_prefix("attributes.") {
            Some(key) => attribute(record, key),
            None => &record[name],
        };
        assert_eq!(found, expected, "{name} of {record:#}");
    }
}

fn attribute<'a>(record: &'a Value, key: &str) -> &'a Value {
    let pairs = record["attributes"].as_array().into_iter().flatten();
    pairs.filter(|pair| pair["key"] == key).map(|pair| &pair["value"]).next().unwrap_or(&Value::Null)
}

fn original(record: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(record["original_base64"].as_str().unwrap_or_default()).unwrap()
}

fn event_time(record: &Value) -> Timestamp {
    time_of(record, "event_time")
}

fn time_of(record: &Value, name: &str) -> Timestamp {
    record[name].as_str().unwrap_or_else(|| panic!("no {name} in {record:#}")).parse().unwrap()
}

/// When `act` was done, in whole seconds as logs have them, and what came of it.
fn timed<T>(act: impl FnOnce() -> T) -> (RangeInclusive<Timestamp>, T) {
    let begun = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let done = act();
    (begun..=Timestamp::now(), done)
}

/// The lines of a file, without their ends.
fn lines(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let whole = bytes.strip_suffix(b"\n").unwrap_or_else(|| panic!("{} ends within a line", path.display()));
    whole.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// The only line with these words.
fn line_with(lines: &[Vec<u8>], words: &str) -> Vec<u8> {
    let has = |line: &&Vec<u8>| line.windows(words.len()).any(|window| window == words.as_bytes());
    let found: Vec<_> = lines.iter().filter(has).collect();
    assert_eq!(found.len(), 1, "{words}");
    found[0].clone()
}

/// A program of somebody else, ended when dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).env(ZONE.0, ZONE.1).spawn().map(Self)
    }

    /// Waits until it has done something at its start; `false` if it has ended instead.
    fn wait_until(&mut self, is_done: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + SOON;
        while !is_done() {
            if self.0.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "{:?} does not start", self.0);
            sleep(Duration::from_millis(10));
        }
        true
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has ended already, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of loopback that is free now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs a program to its end; whether it was content, and what it printed.
fn run(command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}
