//! Against entries as journalctl writes them, and against a real journald (`tests/journald.sh`).

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command as StdCommand},
    sync::atomic::Ordering::Relaxed,
};

use bytes::Bytes;
use sigillo_proto::{
    record::Fields,
    v1::{ContentPart, KeyValue, any_value::Value},
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::*;
use crate::{Profile, scrub::Scrubber};

fn entry(cursor: &str, lines: &str) -> Entry {
    let mut parser = Parser::default();
    parser.push(format!("__CURSOR={cursor}\n{lines}\n\n").as_bytes());
    parser.next_entry().unwrap().unwrap()
}

fn at(number: u64) -> String {
    format!("s=a;i={number:x};b=b;m=1;t=2;x={number:x}")
}

/// A place in the numbers that [`at`] gives.
fn sequence(number: u64) -> String {
    format!("s={:032x};i={number:x}", 10)
}

/// What a follower makes of entries that are long in the journal.
fn missing(follower: &mut Follower, numbers: &[u64]) -> Vec<Option<(String, String, u64)>> {
    let found = numbers.iter().map(|number| follower.take(&entry(&at(*number), "MESSAGE=x"), u64::MAX));
    let shown = |missing: Missing| (missing.from, missing.to, missing.lines);
    found
        .map(|found| match found {
            Found::Pieces(_, missing) => missing.map(shown),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn entries_say_what_they_are() {
    let lines = "__REALTIME_TIMESTAMP=1795435200000001\nMESSAGE=hello\n_HOSTNAME=web-1\nSYSLOG_IDENTIFIER=sshd\n_PID=42\nPRIORITY=3";
    let entry = entry(&at(1), lines);
    let stamp = stamp(&entry);
    assert_eq!((stamp.event_time_unix_nano, stamp.priority), (1_795_435_200_000_001_000, Some(3)));
    assert_eq!((stamp.host, stamp.program, stamp.process_id), ("web-1", "sshd", 42));
    let Found::Pieces(pieces, None) = Follower::new(None).take(&entry, u64::MAX) else { panic!() };
    assert_eq!((&pieces[0].bytes[..], pieces.len(), pieces[0].fragment), (&b"hello"[..], 1, None));
}

#[test]
fn a_gap_in_the_numbers_is_missing() {
    let mut follower = Follower::new(None);
    let gap = Some((sequence(5), sequence(8), 4));
    assert_eq!(missing(&mut follower, &[3, 4, 9, 10]), [None, None, gap, None]);
}

#[test]
fn a_fresh_gap_is_read_again_before_it_is_believed() {
    let mut follower = Follower::new(None);
    let now = 1_795_435_200_000_000_000;
    let fresh = |number| entry(&at(number), "__REALTIME_TIMESTAMP=1795435199000000\nMESSAGE=x");
    assert!(matches!(follower.take(&fresh(1), now), Found::Pieces(_, None)));
    assert_eq!(follower.take(&fresh(3), now), Found::Again);
    follower.begin();
    assert_eq!(follower.take(&fresh(1), now), Found::Nothing);
    // It came late.
    assert!(matches!(follower.take(&fresh(2), now), Found::Pieces(_, None)));
    assert!(matches!(follower.take(&fresh(3), now), Found::Pieces(_, None)));
    assert_eq!(follower.take(&fresh(5), now), Found::Again);
    follower.begin();
    assert_eq!(follower.take(&fresh(3), now), Found::Nothing);
    assert!(matches!(follower.take(&fresh(5), now), Found::Pieces(_, Some(Missing { lines: 1, .. }))));
}

#[test]
fn reading_goes_on_at_the_entry_that_was_read_last() {
    let mut follower = Follower::new(None);
    missing(&mut follower, &[1, 2]);
    let resume = || {
        let mut resumed = Follower::new(Mark::parse(&follower.mark.to_bytes()));
        resumed.begin();
        resumed
    };
    let mut same = resume();
    assert_eq!(same.take(&entry(&at(2), "MESSAGE=x"), u64::MAX), Found::Nothing);
    assert_eq!(missing(&mut same, &[3]), [None]);
    // Cut back exactly to what was read: nothing is lost.
    assert_eq!(missing(&mut resume(), &[3]), [None]);
    assert_eq!(missing(&mut resume(), &[6, 7]), [Some((at(2), at(6), 3)), None]);
    // A mark without numbers, as an agent left it that read some units only: nobody knows how many.
    let mut older = Follower::new(Mark::parse(format!(r#"{{"cursor":"{}"}}"#, at(2)).as_bytes()));
    older.begin();
    assert_eq!(missing(&mut older, &[3, 9]), [Some((at(2), at(3), 0)), Some((sequence(4), sequence(8), 5))]);
}

#[test]
fn a_long_message_goes_on_where_it_was_left() {
    let message = "y".repeat(5 * LINE_MAX_BYTES + 7);
    let mut parser = Parser::default();
    parser.push(format!("__CURSOR={}\nMESSAGE={message}\n\n", at(1)).as_bytes());
    let parts: Vec<_> = std::iter::from_fn(|| parser.next_entry().unwrap()).collect();
    assert!(parts.len() > 3);
    for read in 0..=parts.len() {
        let (mut follower, mut pieces) = (Follower::new(None), Vec::new());
        let mut take = |follower: &mut Follower, part: &Entry| {
            if let Found::Pieces(more, missing) = follower.take(part, u64::MAX) {
                assert_eq!(missing, None);
                pieces.extend(more);
            }
        };
        for part in parts.iter().take(read) {
            take(&mut follower, part);
        }
        let mut resumed = Follower::new(Mark::parse(&follower.mark.to_bytes()));
        resumed.begin();
        for part in &parts {
            take(&mut resumed, part);
        }
        let fragments: Vec<_> = pieces.iter().map(|piece| piece.fragment.unwrap()).collect();
        assert_eq!(fragments.iter().map(|fragment| fragment.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert!(fragments.iter().rposition(|fragment| fragment.last) == Some(5), "{fragments:?}");
        assert_eq!(pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>(), message.len(), "after {read} parts");
    }
}

#[test]
fn what_journald_dropped_is_said_only_by_journald() {
    let dropped = |lines: &str| dropped(&entry(&at(1), lines)).map(|missing| missing.lines);
    let id = "MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e\n";
    let text = "MESSAGE=Suppressed 1731 messages from app.service\n";
    assert_eq!(dropped(&format!("{id}{text}_TRANSPORT=driver\nN_DROPPED=1731")), Some(1_731));
    assert_eq!(dropped(&format!("{id}{text}_TRANSPORT=driver")), Some(1_731));
    assert_eq!(dropped(&format!("{id}{text}_TRANSPORT=journal")), None);
    let missed = "MESSAGE_ID=e9bf28e6e834481bb6f48f548ad13606\nMESSAGE=Missed 12 kernel messages\n_TRANSPORT=driver";
    assert_eq!(dropped(missed), Some(12));
    let audit = "MESSAGE=audit: audit_lost=41 audit_rate_limit=0 audit_backlog_limit=64";
    assert_eq!(dropped(&format!("{audit}\n_TRANSPORT=kernel")), Some(0));
    assert_eq!(dropped(&format!("{audit}\n_TRANSPORT=syslog")), None);
    assert_eq!(dropped("MESSAGE=Suppressed 3 messages from x\n_TRANSPORT=driver"), None);
}

/// A journald of our own.
struct Journald {
    dir: TempDir,
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    socket: UnixDatagram,
}

impl Journald {
    /// `None`, and says so, where namespaces or journald can't be had.
    fn start() -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), "")
    }

    /// The same with a journal that may be there already; `boot`: the boot that it believes in, instead of the present one.
    fn start_in(dir: TempDir, boot: &str) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/journald.sh");
        for options in [&["--mount"][..], &["--map-root-user", "--mount"]] {
            let mut command = StdCommand::new("unshare");
            command.args(options).arg("sh").arg(&script).arg(dir.path()).arg(boot);
            let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
            let Ok(mut child) = child else { break };
            let orders = child.stdin.take();
            let mut answers = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            if answers.read_line(&mut line).is_ok_and(|_| line == "done\n") {
                let socket = UnixDatagram::unbound().unwrap();
                socket.connect(dir.path().join("run/systemd/journal/socket")).unwrap();
                return Some(Self { dir, child, orders, answers, socket });
            }
            let _ = child.wait();
        }
        std::io::Write::write_all(
            &mut std::io::stdout(),
            b"SKIPPED: no journald can be started in a namespace of its own here\n",
        )
        .unwrap();
        None
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }

    /// An entry in journald's native protocol.
    fn send(&self, program: &str, message: &[u8]) {
        let length = (message.len() as u64).to_le_bytes();
        // Root may say what unit an entry is about.
        let head = format!("SYSLOG_IDENTIFIER={program}\nOBJECT_SYSTEMD_UNIT={program}.service\nPRIORITY=6\nMESSAGE\n");
        self.socket.send(&[head.as_bytes(), &length, message, b"\n"].concat()).unwrap();
    }

    /// Sends an entry, and waits until it is in the files.
    fn send_and_see(&self, message: &str) {
        self.send("app", message.as_bytes());
        let mut command = StdCommand::new("journalctl");
        command.args(["--output=cat", "--lines=9", "--directory"]).arg(self.log());
        let begun = Instant::now();
        while !String::from_utf8_lossy(&command.output().unwrap().stdout).lines().any(|line| line == message) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{message}");
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Files put aside by rotation, oldest first.
    fn put_aside(&self) -> Vec<PathBuf> {
        let machine = fs::read_dir(self.log()).unwrap().next().unwrap().unwrap().path();
        let files = fs::read_dir(machine).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().contains('@')).collect();
        files.sort();
        files
    }

    fn follow(&self, mark: Option<Bytes>) -> Following {
        self.follow_units(&[], mark)
    }

    fn follow_units(&self, units: &[&str], mark: Option<Bytes>) -> Following {
        let units = units.iter().map(ToString::to_string).collect();
        let settings = JournaldSettings { units, directory: Some(self.log()), profile: Profile::Auto };
        let marks = mark.map(|mark| (Arc::from(settings.key()), mark)).into_iter().collect();
        let maker = Maker::new("ours", "", Arc::new(Scrubber::new(&[]).unwrap())).of("journald");
        let (sender, chunks) = mpsc::channel(1);
        let meter = Arc::new(Meter::default());
        let task =
            tokio::spawn(follow(settings, maker, Arc::new(marks), Mode::Follow, Feed::new(sender), Arc::clone(&meter)));
        Following { chunks, task, meter, mark: None, lost: Vec::new(), actions: Vec::new() }
    }
}

impl Journald {
    /// Stops it; the journal stays.
    fn stop(mut self) -> TempDir {
        self.orders = None;
        self.child.wait().unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}

struct Following {
    chunks: mpsc::Receiver<Chunk>,
    task: JoinHandle<Result<(), AgentError>>,
    meter: Arc<Meter>,
    mark: Option<Bytes>,
    /// Attributes of the losses that were declared.
    lost: Vec<Vec<KeyValue>>,
    /// What was done, of messages that say so.
    actions: Vec<String>,
}

impl Following {
    /// Messages up to this one, those of journald itself left out.
    async fn up_to(&mut self, last: &str) -> Vec<(String, ContentPart)> {
        let mut all = Vec::new();
        loop {
            let chunk = timeout(Duration::from_secs(20), self.chunks.recv()).await.expect("the entry comes").unwrap();
            assert!(chunk.mark.as_ref().is_some_and(|mark| mark.len() <= 4_096));
            self.mark = chunk.mark;
            for record in chunk.records {
                let fields = Fields::decode(record.as_ref());
                let (core, content) = (fields.core.unwrap(), fields.content.unwrap());
                if core.event_name == "agent.loss" {
                    self.lost.push(content.attributes);
                } else if core.program != "systemd-journald" {
                    self.actions.extend(Some(core.action).filter(|action| !action.is_empty()));
                    all.push((core.program, content));
                }
            }
            if all.iter().any(|(_, content)| content.original == last) {
                return all;
            }
        }
    }

    async fn stop(self) -> Option<Bytes> {
        self.task.abort();
        let _ = self.task.await;
        self.mark
    }
}

/// The number of entries that one declaration names.
fn lines_of(lost: &[Vec<KeyValue>]) -> i64 {
    let [attributes] = lost else { panic!("{lost:?}") };
    let value = attributes.iter().find(|pair| pair.key == "lines").and_then(|pair| pair.value.clone()?.value);
    let Some(Value::IntValue(lines)) = value else { panic!("{attributes:?}") };
    lines
}

fn originals(messages: &[(String, ContentPart)]) -> Vec<&[u8]> {
    messages.iter().map(|(_, content)| &content.original[..]).collect()
}

#[tokio::test]
async fn a_real_journal_is_read_through_rotations_and_restarts() {
    let Some(mut journald) = Journald::start() else { return };
    journald.send("sshd", b"Accepted publickey for root from 192.0.2.7 port 5022 ssh2: ED25519 SHA256:x");
    journald.send("app", b"\xff\x00 two\nlines");
    let mut following = journald.follow(None);
    journald.send("app", b"end 1");
    let messages = following.up_to("end 1").await;
    assert_eq!((messages[0].0.as_str(), following.actions[0].as_str()), ("sshd", "login"));
    assert_eq!(originals(&messages)[1..], [&b"\xff\x00 two\nlines"[..], b"end 1"]);
    for round in 0..5 {
        for number in 0..200 {
            journald.send("app", format!("{round} {number}").as_bytes());
        }
        journald.order("rotate");
    }
    journald.send("app", b"end 2");
    let messages = following.up_to("end 2").await;
    let expected = (0..5).flat_map(|round| (0..200).map(move |number| format!("{round} {number}")));
    let expected: Vec<_> = expected.chain(["end 2".into()]).collect();
    assert_eq!(originals(&messages), expected.iter().map(String::as_bytes).collect::<Vec<_>>());

    let large = journald.dir.path().join("large");
    fs::write(&large, format!("MESSAGE={}\nSYSLOG_IDENTIFIER=app\n", "z".repeat(700_000))).unwrap();
    journald.order(&format!("entry {}", large.display()));
    journald.send("app", b"end 3");
    let messages = following.up_to("end 3").await;
    let (_, large) = messages.split_last().unwrap();
    let sum = large.iter().map(|(_, content)| content.original.len()).sum::<usize>();
    assert_eq!((sum, large.last().unwrap().1.fragment.unwrap().last), (700_000, true));

    assert_eq!(following.meter.gaps.load(Relaxed), 0);
    // The last entry was read, and nobody can know at once that none follows it.
    assert!((1..20_000_000_000).contains(&following.meter.lag_ns(unix_nanos()).unwrap()));
    let begun = Instant::now();
    while following.meter.lag_ns(unix_nanos()) != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(20));
        sleep(Duration::from_millis(20)).await;
    }
    let mark = following.stop().await;
    journald.send("app", b"while away");
    let mut resumed = journald.follow(mark);
    journald.send("app", b"end 4");
    assert_eq!(originals(&resumed.up_to("end 4").await), [&b"while away"[..], b"end 4"]);
    assert_eq!(resumed.meter.gaps.load(Relaxed), 0);
}

#[tokio::test]
async fn what_a_real_journal_has_lost_meanwhile_is_declared() {
    let Some(mut journald) = Journald::start() else { return };
    journald.send("app", b"one");
    let mut following = journald.follow(None);
    following.up_to("one").await;
    let mark = following.stop().await;
    for number in 0..10 {
        journald.send("app", format!("lost {number}").as_bytes());
    }
    journald.send_and_see("lost, too");
    journald.order("rotate");
    for path in journald.put_aside() {
        fs::remove_file(path).unwrap();
    }
    journald.send("app", b"end");
    let mut resumed = journald.follow(mark);
    assert_eq!(originals(&resumed.up_to("end").await), [b"end"]);
    // journald's own message of the new file came first.
    assert!((11..15).contains(&lines_of(&resumed.lost)));
    assert_eq!(i64::try_from(resumed.meter.lost_lines.load(Relaxed)).unwrap(), lines_of(&resumed.lost));
}

#[tokio::test]
async fn a_hole_in_a_real_journal_is_declared_with_its_numbers() {
    let Some(mut journald) = Journald::start() else { return };
    for round in 0..3 {
        for number in 0..7 {
            journald.send("app", format!("{round} {number}").as_bytes());
        }
        journald.send_and_see(&format!("end of {round}"));
        journald.order("rotate");
    }
    fs::remove_file(&journald.put_aside()[1]).unwrap();
    journald.send("app", b"end");
    let mut following = journald.follow(None);
    let messages = following.up_to("end").await;
    let shown = originals(&messages);
    let count = |last| shown.iter().filter(|message| message.ends_with(last)).count();
    assert_eq!((count(b" 6"), count(b"end of 0"), count(b"end of 1"), count(b"end of 2")), (2, 1, 0, 1));
    assert!((8..12).contains(&lines_of(&following.lost)));
}

#[tokio::test]
async fn with_a_choice_of_units_gaps_are_seen_and_the_place_moves_on() {
    let Some(mut journald) = Journald::start() else { return };
    for round in 0..3 {
        for number in 0..7 {
            journald.send("other", format!("{round} {number}").as_bytes());
        }
        journald.send_and_see(&format!("end of {round}"));
        journald.order("rotate");
    }
    journald.send("app", b"end");
    let mut following = journald.follow_units(&["app", "none.timer"], None);
    assert_eq!(originals(&following.up_to("end").await), [&b"end of 0"[..], b"end of 1", b"end of 2", b"end"]);
    assert_eq!(following.meter.gaps.load(Relaxed), 0);
    following.stop().await;

    // Nothing of the gap was of that unit.
    fs::remove_file(&journald.put_aside()[1]).unwrap();
    let mut following = journald.follow_units(&["app"], None);
    following.up_to("end").await;
    assert!((8..12).contains(&lines_of(&following.lost)));

    // Of a unit that is silent it is remembered all the same how far was read.
    let mut following = journald.follow_units(&["silent"], None);
    let chunk = timeout(Duration::from_secs(20), following.chunks.recv()).await.expect("a mark comes").unwrap();
    let mark = Mark::parse(&chunk.mark.unwrap()).unwrap();
    assert!(!mark.cursor.is_empty() && following.meter.lines.load(Relaxed) == 0);
}

#[tokio::test]
async fn a_check_tries_to_read_and_looks_for_units() {
    let Some(journald) = Journald::start() else { return };
    journald.send_and_see("hello");
    let units = ["app.service", "none"].map(String::from).to_vec();
    let mut settings = JournaldSettings { units, directory: Some(journald.log()), profile: Profile::Auto };
    let findings = crate::check::journald(&settings).await;
    let expected = [(true, "is read with"), (true, "unit app.service has entries"), (false, "no entry of unit none")];
    assert_eq!(findings.len(), expected.len(), "{findings:?}");
    for ((is_fine, found), (fine, word)) in findings.iter().zip(expected) {
        assert!(*is_fine == fine && found.contains(word), "{findings:?}");
    }
    let empty = tempfile::tempdir().unwrap();
    (settings.units, settings.directory) = (Vec::new(), Some(empty.path().to_owned()));
    let findings = crate::check::journald(&settings).await;
    assert!(!findings[0].0 && findings[0].1.contains("no entry that can be seen"), "{findings:?}");
}

#[tokio::test]
async fn entries_of_earlier_boots_are_read_while_following() {
    let boot = "5d9a8f3c-71b2-4b0e-9c46-2f1e0d7a6b38";
    let Some(journald) = Journald::start_in(tempfile::tempdir().unwrap(), boot) else { return };
    journald.send_and_see("before the boot");
    let journald = Journald::start_in(journald.stop(), "").unwrap();
    journald.send("app", b"end");
    let mut following = journald.follow(None);
    assert_eq!(originals(&following.up_to("end").await), [&b"before the boot"[..], b"end"]);
}
