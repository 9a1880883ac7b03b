use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use proptest::prelude::*;
use sigillo_proto::{
    record::Fields,
    v1::{ActorKind, Outcome},
};
use tempfile::TempDir;

use super::*;
use crate::scrub::Scrubber;

const EXECVE: [&str; 5] = [
    r#"type=SYSCALL msg=audit(1700000000.123:456): arch=c000003e syscall=59 success=yes exit=0 a0=55d a1=55e a2=55f a3=8 items=2 ppid=2101 pid=2102 auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts0 ses=3 comm="useradd" exe="/usr/sbin/useradd" subj=unconfined key="identity""#,
    r#"type=EXECVE msg=audit(1700000000.123:456): argc=2 a0="useradd" a1="mallory""#,
    r#"type=CWD msg=audit(1700000000.123:456): cwd="/root""#,
    r#"type=PATH msg=audit(1700000000.123:456): item=0 name="/usr/sbin/useradd" inode=1311 dev=fd:00 mode=0100755 ouid=0 ogid=0 rdev=00:00 nametype=NORMAL"#,
    "type=PROCTITLE msg=audit(1700000000.123:456): proctitle=75736572616464006D616C6C6F7279",
];

struct Case {
    dir: TempDir,
    reader: Reader,
    mark: Option<Bytes>,
}

fn reader(path: PathBuf, mark: Option<&Bytes>) -> Reader {
    let maker = Maker::new("ours", "", Arc::new(Scrubber::new(&[]).unwrap()));
    let mark = mark.map(|mark| serde_json::from_slice(mark).unwrap());
    Reader::new(AuditSettings { path }, &maker, Arc::from("audit"), mark, Arc::default())
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let reader = reader(dir.path().join("audit.log"), None);
        Self { dir, reader, mark: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, lines: &[String]) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path("audit.log")).unwrap();
        for line in lines {
            writeln!(file, "{line}").unwrap();
        }
    }

    /// As auditd does it.
    fn rotate(&self) {
        for number in (1..9).rev() {
            let _ =
                fs::rename(self.path(&format!("audit.log.{number}")), self.path(&format!("audit.log.{}", number + 1)));
        }
        fs::rename(self.path("audit.log"), self.path("audit.log.1")).unwrap();
        fs::write(self.path("audit.log"), "").unwrap();
    }

    fn read(&mut self, to_end: bool) -> Vec<Fields> {
        let mut all = Vec::new();
        loop {
            let (chunks, went_on) = self.reader.read(to_end).unwrap();
            for chunk in chunks {
                let mark = chunk.mark.unwrap();
                assert!(mark.len() <= 4_096, "{}", mark.len());
                self.mark = Some(mark);
                all.extend(chunk.records.iter().map(|record| Fields::decode(record.as_ref())));
            }
            if !went_on {
                return all;
            }
        }
    }

    /// Numbers of the events and of their lines; losses as their first and last number.
    fn events(&mut self, to_end: bool) -> Vec<String> {
        self.read(to_end).into_iter().map(shown).collect()
    }

    fn restart(&mut self) {
        self.reader = reader(self.path("audit.log"), self.mark.as_ref());
    }
}

fn shown(fields: Fields) -> String {
    let content = fields.content.unwrap();
    let value = |key| {
        let pair = content.attributes.iter().find(|pair| pair.key == key);
        let text = pair.and_then(|pair| match pair.value.clone()?.value? {
            sigillo_proto::v1::any_value::Value::StringValue(text) => Some(text),
            _ => None,
        });
        text.unwrap_or_default()
    };
    if fields.core.unwrap().event_name == "agent.loss" {
        return format!("lost {}-{}", value("from"), value("to"));
    }
    let text = String::from_utf8_lossy(&content.original).into_owned();
    let serial = text.split([':', ')']).nth(1).unwrap_or_default();
    format!("{serial}x{}", text.lines().count())
}

fn line(kind: &str, second: u64, serial: u64) -> String {
    format!(
        "type={kind} msg=audit({}.000:{serial}): pid=1 uid=0 auid=1000 ses=3 msg='op=login res=success'",
        1_700_000_000 + second
    )
}

fn logins(second: u64, serials: std::ops::Range<u64>) -> Vec<String> {
    serials.map(|serial| line("USER_LOGIN", second, serial)).collect()
}

#[test]
fn an_event_is_one_record_with_its_core_filled() {
    let mut case = Case::new();
    case.write(&EXECVE.map(String::from));
    let records = case.read(false);
    let [fields] = &records[..] else { panic!("{records:?}") };
    let core = fields.core.as_ref().unwrap();
    assert_eq!(core.event_time_unix_nano, 1_700_000_000_123_000_000);
    assert_eq!((core.host.as_str(), core.outcome()), ("ours", Outcome::Success));
    assert!(core.event_name.starts_with("audit.") && !core.action.is_empty(), "{core:?}");
    assert!(core.stream.ends_with("/audit.log"));
    let actor = fields.personal.as_ref().unwrap().actor.as_ref().unwrap();
    assert_eq!((actor.id.as_str(), actor.kind()), ("1000", ActorKind::System));
    assert_eq!(fields.content.as_ref().unwrap().original, EXECVE.join("\n"));
    assert_eq!(case.reader.meter.lines.load(Relaxed), 5);
}

#[test]
fn a_gap_is_declared_and_a_boot_is_none() {
    let mut case = Case::new();
    case.write(&logins(0, 10..12));
    case.write(&logins(1, 15..16));
    case.write(&[line("DAEMON_END", 1, 7_000)]);
    case.write(&logins(9, 16..17));
    assert_eq!(case.events(false), ["10x1", "11x1", "15x1", "7000x1", "lost 12-14", "16x1"]);
    assert_eq!((case.reader.meter.gaps.load(Relaxed), case.reader.meter.lost_lines.load(Relaxed)), (1, 3));
    case.write(&logins(90, 3..5));
    assert_eq!(case.events(false), ["3x1", "4x1"]);
}

#[test]
fn rotated_files_are_read_in_order_and_through() {
    let mut case = Case::new();
    case.write(&logins(0, 1..3));
    case.rotate();
    case.write(&logins(0, 3..5));
    case.rotate();
    case.write(&logins(0, 5..6));
    assert_eq!(case.events(false), ["1x1", "2x1", "3x1", "4x1", "5x1"]);
    case.write(&[line("SYSCALL", 0, 6)]);
    case.rotate();
    case.write(&[line("PROCTITLE", 0, 6), line("USER_LOGIN", 0, 7)]);
    assert_eq!(case.events(false), ["6x2", "7x1"]);
    // While away, twice, with the remembered file by now the third.
    case.write(&logins(0, 8..9));
    case.rotate();
    case.write(&logins(0, 9..10));
    case.rotate();
    case.write(&logins(0, 10..11));
    case.restart();
    assert_eq!(case.events(false), ["8x1", "9x1", "10x1"]);
    assert_eq!(case.reader.meter.gaps.load(Relaxed), 0);
}

/// Files are renamed while they are listed and opened.
#[test]
fn rotation_at_any_moment_passes_no_file_over_and_reads_none_twice() {
    const ROTATIONS: u64 = 4_000;
    let mut case = Case::new();
    let (dir, read) = (case.dir.path().to_owned(), Arc::new(AtomicU64::new(0)));
    let progress = Arc::clone(&read);
    let writing = std::thread::spawn(move || {
        let path = |number: u64| match number {
            0 => dir.join("audit.log"),
            _ => dir.join(format!("audit.log.{number}")),
        };
        for serial in 1..=ROTATIONS {
            fs::write(path(0), format!("{}\n", line("USER_LOGIN", 0, serial))).unwrap();
            // No more files than auditd keeps.
            while serial > progress.load(Relaxed) + 6 {
                std::thread::yield_now();
            }
            (0..8).rev().for_each(|number| drop(fs::rename(path(number), path(number + 1))));
        }
    });
    let mut events = Vec::new();
    loop {
        let is_finished = writing.is_finished();
        let new = case.events(false);
        if is_finished && new.is_empty() {
            break;
        }
        events.extend(new);
        read.store(events.len() as u64, Relaxed);
    }
    writing.join().unwrap();
    let expected: Vec<_> = (1..=ROTATIONS).map(|serial| format!("{serial}x1")).collect();
    let wrong = events.iter().zip(&expected).position(|(event, expected)| event != expected);
    assert_eq!((wrong.map(|at| &events[at..events.len().min(at + 9)]), events.len()), (None, expected.len()));
}

#[test]
fn files_that_went_meanwhile_are_missed_by_their_numbers() {
    let mut case = Case::new();
    case.write(&logins(0, 1..3));
    assert_eq!(case.events(false), ["1x1", "2x1"]);
    case.write(&logins(0, 3..6));
    case.rotate();
    fs::remove_file(case.path("audit.log.1")).unwrap();
    case.write(&logins(9, 6..7));
    case.write(&logins(19, 7..8));
    case.restart();
    assert_eq!(case.events(false), ["6x1", "lost 3-5", "7x1"]);
    // The same with a boot between: nobody can know how many.
    fs::remove_file(case.path("audit.log")).unwrap();
    case.write(&logins(99, 2..3));
    case.restart();
    assert_eq!(case.events(false), ["lost -", "2x1"]);
}

#[test]
fn a_file_that_was_cut_back_is_read_from_its_beginning() {
    let mut case = Case::new();
    case.write(&logins(0, 1..4));
    assert_eq!(case.events(false).len(), 3);
    fs::write(case.path("audit.log"), "").unwrap();
    case.write(&logins(9, 4..5));
    assert_eq!(case.events(false), ["4x1"]);
    case.restart();
    case.write(&logins(9, 5..6));
    assert_eq!(case.events(false), ["5x1"]);
}

#[test]
fn after_a_restart_nothing_of_mixed_events_is_lost_or_doubled() {
    let mut lines = Vec::new();
    for (kind, serial) in [
        ("SYSCALL", 1),
        ("SYSCALL", 2),
        ("SYSCALL", 3),
        ("PATH", 1),
        ("PROCTITLE", 1),
        ("PROCTITLE", 3),
        ("CWD", 2),
        ("USER_LOGIN", 4),
        ("PROCTITLE", 2),
        ("USER_LOGIN", 5),
    ] {
        lines.push(line(kind, 0, serial));
    }
    // However much was written when the agent stopped, and wherever the file was rotated.
    for stop in 0..=lines.len() {
        for rotate in 0..=lines.len() {
            let mut case = Case::new();
            let mut events = Vec::new();
            for (index, line) in lines.iter().enumerate() {
                if index == rotate && index > 0 {
                    case.rotate();
                }
                if index == stop {
                    events.extend(case.events(false));
                    case.restart();
                }
                case.write(std::slice::from_ref(line));
            }
            events.extend(case.events(true));
            assert_eq!(events, ["1x3", "2x3", "3x2", "4x1", "5x1"], "stopped at {stop}, rotated at {rotate}");
        }
    }
}

#[test]
fn an_event_that_is_not_whole_is_waited_for_unless_the_end_is_the_end() {
    let mut case = Case::new();
    case.write(&[line("SYSCALL", 0, 1)]);
    assert_eq!(case.events(false), [""; 0]);
    assert_eq!(case.events(true), ["1x1"]);
    fs::write(case.path("audit.log.1"), "unfinished").unwrap();
}

#[tokio::test]
async fn a_log_is_followed() {
    let case = Case::new();
    let (sender, mut chunks) = tokio::sync::mpsc::channel(1);
    let maker = Maker::new("ours", "", Arc::new(Scrubber::new(&[]).unwrap()));
    let settings = AuditSettings { path: case.path("audit.log") };
    let task = tokio::spawn(follow(settings, maker, Marks::default(), Mode::Follow, Feed::new(sender), Arc::default()));
    case.write(&logins(0, 1..2));
    assert_eq!(chunks.recv().await.unwrap().records.len(), 1);
    // Without an end: after two seconds.
    case.write(&[line("AVC", 0, 2)]);
    assert_eq!(chunks.recv().await.unwrap().records.len(), 1);
    task.abort();
}

/// How often threads that read audit logs have gone to sleep.
fn sleeps() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let audits = tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "audit-idle\n"));
    let sleeps = audits.map(|task| {
        let status = fs::read_to_string(task.join("status")).unwrap();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        count.trim().parse::<u64>().unwrap()
    });
    sleeps.sum()
}

#[test]
fn the_kernel_wakes_the_reader_and_nothing_else_does() {
    let case = Case::new();
    case.write(&logins(0, 1..2));
    let (sender, mut chunks) = tokio::sync::mpsc::channel(1);
    let reader = reader(case.path("audit.log"), None);
    let (stop, stopping) = pipe().unwrap();
    let work = move || work(reader, "audit.log", Mode::Follow, &Feed::new(sender), &stop);
    let thread = thread::Builder::new().name("audit-idle".into()).spawn(work).unwrap();
    assert_eq!(chunks.blocking_recv().unwrap().records.len(), 1);
    thread::sleep(Duration::from_millis(500));
    let before = sleeps();
    thread::sleep(Duration::from_secs(2));
    assert!((1..=before + 1).contains(&sleeps()), "{before} {}", sleeps());
    // Of the file that is read, of one that takes its place, and of one that follows an end of nothing.
    let mut took = Vec::new();
    for serial in [2, 3, 4] {
        if serial > 2 {
            case.rotate();
            thread::sleep(Duration::from_millis(300));
        }
        let begun = Instant::now();
        case.write(&logins(0, serial..serial + 1));
        assert_eq!(chunks.blocking_recv().unwrap().records.len(), 1);
        took.push(begun.elapsed());
    }
    assert!(took.iter().all(|took| *took < LOOK_EVERY / 5), "{took:?}");
    drop(stopping);
    thread.join().unwrap().unwrap();
}

#[test]
fn what_is_there_and_was_not_read_is_told() {
    let mut case = Case::new();
    case.write(&logins(0, 1..3_000));
    case.rotate();
    case.write(&logins(0, 3_000..3_100));
    let sum: u64 = ["audit.log", "audit.log.1"].map(|name| fs::metadata(case.path(name)).unwrap().len()).iter().sum();
    case.reader.read(false).unwrap();
    assert_eq!(case.reader.log.lag(), sum - READ_BYTES as u64);
    while case.reader.read(false).unwrap().1 {}
    assert_eq!(case.reader.log.lag(), 0);

    let reader = reader(case.path("audit.log"), None);
    let (meter, (sender, mut chunks)) = (Arc::clone(&reader.meter), tokio::sync::mpsc::channel(1));
    assert_eq!(meter.lag_bytes(), None);
    let (stop, stopping) = pipe().unwrap();
    let thread = thread::spawn(move || work(reader, "audit.log", Mode::Follow, &Feed::new(sender), &stop));
    let wait = |what: &dyn Fn(u64) -> bool| {
        let begun = Instant::now();
        while !meter.lag_bytes().is_some_and(what) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", meter.lag_bytes());
            thread::sleep(Duration::from_millis(5));
        }
    };
    // Nobody takes more than fits.
    wait(&|bytes| (1..sum).contains(&bytes));
    let taker = thread::spawn(move || while chunks.blocking_recv().is_some() {});
    wait(&|bytes| bytes == 0);
    drop(stopping);
    thread.join().unwrap().unwrap();
    taker.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_come_out_whole(bytes in proptest::collection::vec(any::<u8>(), 0..500), split in 0_usize..500) {
        let mut case = Case::new();
        let split = split.min(bytes.len());
        fs::write(case.path("audit.log"), &bytes[..split]).unwrap();
        let mut records = case.read(false);
        case.restart();
        let mut file = OpenOptions::new().append(true).open(case.path("audit.log")).unwrap();
        file.write_all(&bytes[split..]).unwrap();
        records.extend(case.read(true));
        let lines: Vec<_> = records.iter().map(|fields| fields.content.as_ref().unwrap().original.to_vec()).collect();
        let expected: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let (last, whole) = expected.split_last().unwrap();
        let mut expected = whole.to_vec();
        expected.extend((!last.is_empty()).then(|| last.clone()));
        prop_assert_eq!(lines, expected);
    }
}
