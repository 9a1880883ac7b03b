//! Names, beginnings, long lines, messages, and what is no log at all.

use rustix::time::{ClockId, clock_gettime};
use sigillo_proto::v1::Fragment;

use super::*;
use crate::{
    line::LINE_MAX_BYTES,
    source::file::{
        import,
        settings::{Begin, Multiline},
    },
    state::FilePlace,
};

fn table(glob: &str) -> FileSettings {
    FileSettings { glob: Some(glob.into()), ..FileSettings::default() }
}

fn stopped(mut agent: Agent) -> Agent {
    agent.restart();
    agent
}

#[test]
fn files_and_folders_that_come_later_are_found_and_read_from_their_beginning() {
    let table = |glob| FileSettings { from: Begin::End, ..table(glob) };
    let mut agent = Agent::with(vec![table("*/*.log"), table("*.log")]);
    agent.run("line a.log old; part a.log half");
    assert_eq!(agent.read(), [""; 0], "they were there before us");
    agent.run("line a.log whole; line b.log first; mkdir d; line d/c.log deep");
    assert_eq!(agent.read(), ["halfwhole", "first", "deep"]);
    agent.run("line e.log away; line a.log more");
    let mut agent = stopped(agent);
    assert_eq!(agent.read(), ["more", "away"], "what came while we were away is new, too");
    assert_eq!(stopped(agent).read(), [""; 0]);
}

#[test]
fn a_file_with_two_names_is_read_once() {
    let mut agent = Agent::with(vec![table("*.log*"), table("*")]);
    agent.run("line a.log x; hard b.log a.log; link c.log a.log; link 0.log a.log; line a.log.1 history");
    assert_eq!(agent.read(), ["x"]);
    agent.run("line b.log y");
    assert_eq!(agent.read_long(), ["y"]);
    let mut agent = stopped(agent);
    agent.run("line b.log z; mv a.log.1 a.log.2; mv a.log a.log.1; line a.log new");
    assert_eq!(agent.read_long(), ["z", "new"]);
    assert_eq!(stopped(agent).read_long(), [""; 0]);
}

#[test]
fn a_file_that_is_moved_to_another_name_that_is_followed_is_read_on_there() {
    let mut agent = Agent::with(vec![table("*.log")]);
    agent.run("line a.log x");
    assert_eq!(agent.read(), ["x"]);
    agent.run("mv a.log b.log; line b.log y; line a.log new");
    assert_eq!(agent.read_long(), ["y", "new"]);
    agent.run("line b.log z");
    assert_eq!(agent.read_long(), ["z"]);
    assert_eq!(stopped(agent).read_long(), [""; 0]);
}

#[test]
fn a_renamed_file_is_followed_while_its_writer_goes_on_in_it() {
    let mut agent = Agent::new();
    agent.run("line log a");
    assert_eq!(agent.read(), ["a"]);
    agent.run("mv log log.1; line log b");
    assert_eq!(agent.read_long(), ["b"]);
    agent.run("line log.1 late; line log c");
    assert_eq!(agent.read_long(), ["c", "late"]);
    agent.run("part log.1 unfin; look .; mv log.1 log.2; line log.2 ished");
    assert_eq!(agent.read_long(), ["unfinished"]);
    agent.run("mv log log.1; mv log.2 log");
    assert_eq!(agent.read_long(), [""; 0]);
    agent.run("line log back");
    assert_eq!(agent.read_long(), ["back"]);
    agent.restart();
    assert_eq!(agent.read_long(), [""; 0], "none of it comes twice");
    agent.run("line log d");
    assert_eq!(agent.read_long(), ["d"]);
}

#[test]
fn what_comes_late_to_a_renamed_file_comes_also_after_a_restart() {
    for end in ["", "; mv log.1 log.2; mv log log.1; line log d"] {
        let mut agent = Agent::new();
        agent.run("line log.1 history; line log a; look .; mv log log.1; line log b");
        assert_eq!(agent.read_long(), ["b"]);
        agent.run(&format!("line log c; line log.1 late; part log.1 unfin{end}"));
        let mut agent = stopped(agent);
        let expected = if end.is_empty() { vec!["c", "late"] } else { vec!["c", "late", "d"] };
        assert_eq!(agent.read(), if end.is_empty() { &expected[..] } else { &expected[..2] });
        agent.run(&format!("line log.{} ished", if end.is_empty() { 1 } else { 2 }));
        assert_eq!(
            stopped(agent).read_long(),
            if end.is_empty() { vec!["unfinished"] } else { vec!["unfinished", "d"] }
        );
    }
}

#[test]
fn a_file_that_is_cut_to_nothing_while_it_waits_for_an_older_one_is_missed() {
    let mut agent = Agent::new();
    agent.run("line log a; look .; mv log log.1; empty log; look .; line log b; look .; empty log; line log c");
    assert_eq!(agent.read_long(), ["b", "lost:2-", "c"], "as long as before");
    agent.run("mv log log.2; empty log; look .; line log d; look .; cp log elsewhere; empty log; line log longer");
    assert_eq!(agent.read_long(), ["d", "lost:2-", "longer"]);
    agent.run("mv log log.3; empty log; look .; line log e; long log fg; long log hi; look .; empty log; line log x");
    assert_eq!(agent.read_long(), ["e", &"fg".repeat(300), "lost:603-", "x"], "a piece of a line is no line");
}

#[test]
fn what_is_forgotten_is_only_what_is_gone() {
    let mut agent = Agent::with(vec![table("*.log")]);
    agent.run("line a.log x; line b.log y");
    assert_eq!(agent.read(), ["x", "y"]);
    assert_eq!(agent.marks.len(), 2);
    agent.run("line a.log unread; rm a.log; mv b.log elsewhere");
    agent.read();
    agent.now += LONG;
    assert_eq!(agent.read(), [""; 0]);
    assert_eq!(agent.marks.len(), 1, "it may come back for some minutes");
    agent.now += 20 * LONG;
    agent.read();
    assert!(agent.marks.is_empty());
}

#[test]
fn the_disk_of_a_remembered_file_may_be_mounted_late() {
    let mut agent = Agent::new();
    agent.run("line log x");
    assert_eq!(agent.read(), ["x"]);
    agent.run("mv log hidden");
    let mut agent = stopped(agent);
    assert_eq!(agent.read(), [""; 0]);
    agent.now += Duration::from_secs(20);
    assert_eq!(agent.read(), [""; 0]);
    agent.run("mv hidden log; line log y");
    assert_eq!(agent.read_long(), ["y"]);
}

#[test]
fn what_is_no_file_is_waited_for_and_never_holds_anything_up() {
    let mut agent = Agent::with(vec![table("*"), FileSettings::of_path("pipe"), FileSettings::of_path("loop/log")]);
    agent.run("mkdir dir; link loop loop; line z x");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        agent.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert_eq!(agent.read(), ["x"]);
    fs::remove_file(agent.path("pipe")).unwrap();
    agent.run("line pipe y");
    assert_eq!(agent.read(), ["y"]);
}

#[test]
fn bytes_arrive_unchanged() {
    let mut agent = Agent::new();
    fs::write(agent.path("log"), b"\xff\x00\x1b[31m\r\n\x00\n\xc3").unwrap();
    let records = agent.next().unwrap().records;
    let found: Vec<_> =
        records.iter().map(|record| Fields::decode(record.as_ref()).content.unwrap().original.to_vec()).collect();
    assert_eq!(found, [b"\xff\x00\x1b[31m\r".to_vec(), b"\x00".to_vec()]);
}

#[test]
fn a_line_of_ten_megabytes_comes_in_numbered_pieces_also_after_a_restart_in_its_middle() {
    for is_restless in [false, true] {
        let mut agent = Agent::new();
        agent.is_restless = is_restless;
        let line: Vec<u8> = (0..10 << 20).map(|at: u32| (at % 251) as u8 | 0x80).collect();
        agent.append("log", b"short\n");
        agent.append("log", &line);
        let mut records: Vec<_> = std::iter::from_fn(|| agent.next()).flat_map(|chunk| chunk.records).collect();
        agent.append("log", b"\nend\n");
        records.extend(std::iter::from_fn(|| agent.next()).flat_map(|chunk| chunk.records));
        let contents: Vec<_> = records.iter().map(|record| Fields::decode(record.as_ref()).content.unwrap()).collect();
        assert_eq!((&*contents[0].original, &*contents.last().unwrap().original), (&b"short"[..], &b"end"[..]));
        let pieces = &contents[1..contents.len() - 1];
        assert_eq!(pieces.len(), line.len() / LINE_MAX_BYTES);
        let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.original.to_vec()).collect();
        assert!(joined == line);
        for (index, piece) in (0..).zip(pieces) {
            let last = index as usize + 1 == pieces.len();
            assert_eq!(piece.fragment, Some(Fragment { index, last }));
        }
    }
}

#[test]
fn many_short_lines_come_in_chunks_and_none_is_lost_at_the_seams() {
    for is_restless in [false, true] {
        let mut agent = Agent::new();
        agent.is_restless = is_restless;
        let lines: Vec<_> = (0..50_000).map(|number| format!("{number}")).collect();
        agent.append("log", format!("{}\n", lines.join("\n")).as_bytes());
        assert_eq!(agent.read(), lines);
    }
}

#[test]
fn messages_of_many_lines_end_with_silence_or_the_next_one() {
    let multiline = |multiline| FileSettings { multiline: Some(multiline), ..FileSettings::of_path("log") };
    for rule in [Multiline::Indented(true), Multiline::Start("^[a-z]".into())] {
        for is_restless in [false, true] {
            let mut agent = Agent::with(vec![multiline(rule.clone())]);
            agent.is_restless = is_restless;
            agent.append("log", b"one\n 1\n");
            assert_eq!(agent.read(), [""; 0]);
            agent.append("log", b" 2\ntwo\n 3\n");
            assert_eq!(agent.read(), ["one\n 1\n 2"]);
            agent.now += Duration::from_millis(900);
            assert_eq!(agent.read(), [""; 0]);
            agent.append("log", b" 4\n");
            agent.read();
            agent.now += Duration::from_millis(900);
            assert_eq!(agent.read(), [""; 0], "each line gives it another second");
            agent.now += Duration::from_secs(1);
            assert_eq!(agent.read(), ["two\n 3\n 4"]);
            // Rotated in the middle of a message.
            agent.append("log", b"three\n 5\n");
            assert_eq!(agent.read(), [""; 0], "silence before a message says nothing about it");
            agent.run("mv log log.1; part log.1  6; line log four");
            assert_eq!(agent.read_long(), ["three\n 5\n 6", "four"]);
            assert_eq!(stopped(agent).read_long(), [""; 0]);
        }
    }
}

#[test]
fn marks_of_older_versions_are_understood() {
    let mut agent = Agent::new();
    agent.run("line log one; line log two");
    let metadata = fs::metadata(agent.path("log")).unwrap();
    let place = FilePlace {
        dev: std::os::unix::fs::MetadataExt::dev(&metadata),
        inode: std::os::unix::fs::MetadataExt::ino(&metadata),
        offset: 4,
        pieces: 0,
        beginning: hex::encode("one\n"),
    };
    let (key, mark) = import(&agent.path("log").to_string_lossy(), &place);
    agent.marks.insert(Arc::from(key), mark);
    agent.run("line log.1 history; mv log log.2; line log new");
    let mut agent = stopped(agent);
    assert_eq!(agent.read_long(), ["two", "history", "new"], "log.1 is newer than where we stood");
    assert_eq!(stopped(agent).read_long(), [""; 0]);
}

/// Through the thread that does it in earnest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_in_a_quiet_file_is_handed_over_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, "first\n").unwrap();
    let (sender, mut chunks) = tokio::sync::mpsc::channel(4);
    let tables = vec![(FileSettings::of_path(&log), maker(), Arc::default())];
    let feed = crate::source::Feed::new(sender);
    let following = tokio::spawn(crate::source::file::follow(tables, Arc::default(), Mode::Follow, feed));
    let mut waits = Vec::new();
    assert!(chunks.recv().await.unwrap().records.is_empty(), "that the file is there is remembered first");
    assert_eq!(shown(&chunks.recv().await.unwrap().records[0]), "first");
    for number in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let written = std::time::Instant::now();
        let mut file = OpenOptions::new().append(true).open(&log).unwrap();
        writeln!(file, "{number}").unwrap();
        assert_eq!(shown(&chunks.recv().await.unwrap().records[0]), number.to_string());
        waits.push(written.elapsed());
    }
    waits.sort();
    assert!(waits[10] < Duration::from_millis(50), "without notice it would be a second: {waits:?}");
    println!("median {:?}, longest {:?}", waits[10], waits[19]);
    following.abort();
    assert!(following.await.unwrap_err().is_cancelled());
    // The thread ends with the future, so that nobody hands over any more.
    assert!(tokio::time::timeout(Duration::from_secs(5), chunks.recv()).await.unwrap().is_none());
}

/// Prints what one core reads; `cargo test --release -p sigillo-agent -- --ignored --nocapture throughput`.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    for (name, line) in [
        ("words", "The quick brown fox jumps over the lazy dog and goes home again. ".repeat(5)[..289].to_owned()),
        (
            "RFC 3339",
            format!("2026-11-23T12:05:18.123456+01:00 h app[123]: {}", "request served in no time ".repeat(10))[..289]
                .to_owned(),
        ),
    ] {
        for profile in [crate::Profile::Plain, crate::Profile::Auto] {
            let mut agent = Agent::with(vec![FileSettings { profile, ..FileSettings::of_path("log") }]);
            let data = format!("{line}\n").repeat(1_000_000);
            agent.append("log", data.as_bytes());
            let mut watch = Watch::none();
            agent.follower.look(Duration::ZERO, &mut watch).unwrap();
            let key = agent.follower.keys().next().unwrap();
            let cpu = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
            let began = cpu();
            let mut records = 0;
            while let Some(chunk) = agent.follower.next(&key, Duration::ZERO, &mut watch).unwrap() {
                records += chunk.records.len();
            }
            let mib = f64::from(u32::try_from(data.len() >> 10).unwrap()) / 1024.0;
            println!(
                "{name}, {profile:?}: {records} lines, {:.0} MiB/s of CPU time",
                mib / cpu().saturating_sub(began).as_secs_f64()
            );
        }
    }
}
