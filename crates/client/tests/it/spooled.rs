//! Records by way of a spool, against a server that cuts, forgets, refuses and moves on.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sigillo_client::{
    ClientError, Endpoint, Guard,
    spooled::{Chunk, Engine, Loss, Options, Progress, SpoolOptions, Ticket},
    unix_nanos,
};
use sigillo_model::{
    ids::{BatchHash, Epoch, SourceSeq},
    record::Record,
};
use sigillo_proto::v1::RefusalKind;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::{
    journal::{Tree, receipt_key, sign, write_trust},
    server::{Act, Shared, TestServer},
};

const SOON: Duration = Duration::from_secs(20);

/// A sender's disk, which outlives its engines.
struct Sender {
    dir: TempDir,
    max_bytes: u64,
    guard: Option<Arc<Guard>>,
    /// On another disk.
    spool: Option<PathBuf>,
}

/// A file system of 4 MiB; unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, and a word about it, where this user may not mount.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(dir.path()).status();
        if !status.is_ok_and(|status| status.success()) {
            let skipped = b"SKIPPED: a file system of a fixed size can't be mounted here (this takes root)\n";
            std::io::Write::write_all(&mut std::io::stdout(), skipped).unwrap();
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

impl Sender {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), max_bytes: 16 << 20, guard: None, spool: None }
    }

    fn spool(&self) -> PathBuf {
        self.spool.clone().unwrap_or_else(|| self.dir.path().join("spool"))
    }

    fn options(&self, server: &TestServer) -> Options {
        let mut spool = SpoolOptions::new(self.spool());
        (spool.max_bytes, spool.segment_bytes) = (self.max_bytes, 1 << 20);
        let declare = |loss: &Loss| record(&format!("LOST {} {}", loss.from, loss.to));
        let quarantine = self.dir.path().join("quarantine");
        Options {
            guard: self.guard.clone(),
            max_records: 2,
            ..Options::new(server.endpoint.clone(), spool, quarantine, "test 1", Arc::new(declare))
        }
    }

    async fn start(&self, server: &TestServer) -> Engine {
        Engine::start(self.options(server)).await.unwrap()
    }
}

fn record(text: &str) -> Record {
    Record { content: Some(text.to_owned().into()), ..Record::default() }
}

fn line(number: usize) -> Vec<u8> {
    format!("line {number}").into_bytes()
}

fn lines(numbers: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    numbers.into_iter().map(line).collect()
}

/// A record that does not get smaller.
fn noise(seed: u32, bytes: usize) -> Record {
    let mut state = u64::from(seed) + 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    Record { content: Some((0..bytes).map(next).collect()), ..Record::default() }
}

async fn push(engine: &Engine, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let mark = Some((Arc::from("log"), Bytes::from(number.to_string())));
        let chunk = Chunk { records: vec![record(&format!("line {number}"))], mark, urgent: true };
        timeout(SOON, engine.push(chunk)).await.unwrap().unwrap();
    }
}

/// Pushes, and waits until everything is acknowledged.
async fn ship(engine: &Engine, numbers: std::ops::Range<usize>) {
    push(engine, numbers).await;
    let mut ticket = engine.push(Chunk::default()).await.unwrap();
    timeout(SOON, ticket.acknowledged()).await.expect("an ack").unwrap();
}

async fn until(engine: &Engine, what: impl FnMut(&Progress) -> bool) {
    timeout(SOON, engine.progress().wait_for(what)).await.expect("this comes in time").unwrap();
}

async fn drain(engine: Engine) -> u64 {
    engine.drain("test", sleep(SOON)).await.unwrap()
}

/// As `kill -9` leaves it: nothing more is said or written.
async fn kill(engine: Engine) {
    drop(engine);
    // Its thread lets go of the folder.
    sleep(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_signed_and_marks_survive() {
    let (server, sender) = (TestServer::start([]).await, Sender::new());
    let engine = sender.start(&server).await;
    assert!(engine.marks().is_empty());
    ship(&engine, 0..10).await;
    assert_eq!(drain(engine).await, 0);
    let engine = sender.start(&server).await;
    assert_eq!(*engine.marks(), BTreeMap::from([(Arc::from("log"), Bytes::from("9"))]));
    ship(&engine, 10..15).await;
    assert_eq!(drain(engine).await, 0);
    let shared = server.shared();
    assert_eq!(shared.durable, lines(0..15));
    assert!(shared.hellos.iter().all(|hello| hello.resident));
    let (head, keys) = (shared.heads.last().unwrap(), &shared.keys);
    assert_eq!((head.epoch, head.next.get()), (shared.epoch, 15), "the last head covers everything");
    assert_eq!((keys.len(), keys[0].reason.as_str()), (1, ""), "the key of one life is that of the next");
    assert_eq!(shared.goodbyes, ["test", "test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_synced_survives_and_comes_once() {
    let (server, sender) = (TestServer::start([Act::Take, Act::TakeSilently, Act::Lose]).await, Sender::new());
    for life in 0..5 {
        let engine = sender.start(&server).await;
        push(&engine, life * 20..(life + 1) * 20).await;
        let mut ticket = engine.push(Chunk::default()).await.unwrap();
        timeout(SOON, ticket.synced()).await.unwrap().unwrap();
        kill(engine).await;
    }
    let engine = sender.start(&server).await;
    assert_eq!(engine.marks().get("log"), Some(&Bytes::from("99")));
    ship(&engine, 100..101).await;
    drain(engine).await;
    assert_eq!(server.shared().durable, lines(0..101));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_to_be_synced_is_synced() {
    let (server, sender) = (TestServer::start([]).await, Sender::new());
    // Mostly by heads, and whenever the spool closes a segment.
    let options = Options { sync_every: SOON, max_records: 1, ..sender.options(&server) };
    let engine = Engine::start(options).await.unwrap();
    let mut progress = engine.progress();
    let watch = tokio::spawn(async move {
        while progress.changed().await.is_ok() {
            let (records, (_, durable)) = (progress.borrow().synced_records, progress.borrow().synced);
            assert!(records <= durable.get(), "{records} are told to be synced, {durable} are");
        }
    });
    for number in 0..1_000 {
        let chunk = Chunk { records: vec![noise(number, 20_000)], ..Chunk::default() };
        timeout(SOON, engine.push(chunk)).await.unwrap().unwrap();
    }
    drain(engine).await;
    watch.await.unwrap();
    assert_eq!(server.shared().durable.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_stand_so_close_that_a_limited_link_has_one_in_time() {
    let (server, sender) = (TestServer::start([]).await, Sender::new());
    let engine = sender.start(&server).await;
    ship(&engine, 0..1).await;
    drain(engine).await;
    // Of 1 KiB a second nothing arrives here; what is spooled is sent without a limit later.
    server.shared().script = (0..1_000).map(|_| Act::Throttle { wait_ms: 1_000 }).collect();
    let limited = Options { bandwidth_bytes_s: Some(1_024), ..sender.options(&server) };
    let engine = Engine::start(limited).await.unwrap();
    for number in 0..60 {
        engine.push(Chunk { records: vec![noise(number, 10_000)], ..Chunk::default() }).await.unwrap();
    }
    engine.push(Chunk::default()).await.unwrap().synced().await.unwrap();
    kill(engine).await;
    server.shared().script.clear();
    let engine = sender.start(&server).await;
    ship(&engine, 1..2).await;
    drain(engine).await;
    let shared = server.shared();
    let places: Vec<u64> = shared.heads.iter().map(|head| head.next.get()).collect();
    let records = places.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(records * 10_000 <= 60 * 1_024, "a minute's worth at most: {places:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_marks_than_the_spool_takes_at_once_are_no_trouble() {
    let (server, sender) = (TestServer::start([]).await, Sender::new());
    // All of them wait for one sync.
    let options = Options { sync_every: Duration::from_secs(3), max_records: 16_384, ..sender.options(&server) };
    let engine = Engine::start(options).await.unwrap();
    let count = 9_000;
    for number in 0..count {
        // One file that grows, and as many as are followed at once.
        for key in ["log".to_owned(), format!("file {}", number % 4_096)] {
            let mark = Some((Arc::from(key), Bytes::from(number.to_string())));
            engine.push(Chunk { records: vec![record("x")], mark, urgent: false }).await.unwrap();
        }
    }
    let mut ticket = engine.push(Chunk::default()).await.unwrap();
    timeout(SOON, ticket.acknowledged()).await.unwrap().unwrap();
    drain(engine).await;
    let engine = sender.start(&server).await;
    let marks = engine.marks();
    assert_eq!((marks.len(), marks.get("log")), (4_097, Some(&Bytes::from((count - 1).to_string()))));
    drain(engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_waited_for() {
    let sender = Sender::new();
    let server = TestServer::start([]).await;
    let engine = sender.start(&server).await;
    ship(&engine, 0..1).await;
    let script: Vec<Act> = (0..4).flat_map(|_| [Act::Lose, Act::Throttle { wait_ms: 50 }]).collect();
    server.shared().script = script.into();
    ship(&engine, 1..50).await;
    drain(engine).await;
    assert_eq!(server.shared().durable, lines(0..50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_tells_every_10_s_what_waits() {
    // Who may not send, and has nothing else to say, is silent without it.
    let (server, sender) = (TestServer::start([Act::Throttle { wait_ms: 60_000 }; 8]).await, Sender::new());
    let (begun, begun_ns) = (Instant::now(), unix_nanos());
    let engine = sender.start(&server).await;
    push(&engine, 0..3).await;
    let mut ticket = engine.push(Chunk::default()).await.unwrap();
    timeout(SOON, ticket.synced()).await.unwrap().unwrap();
    let synced_ns = unix_nanos();
    let heartbeats = loop {
        let heartbeats = server.shared().heartbeats.clone();
        if heartbeats.len() == 2 {
            break heartbeats;
        }
        assert!(begun.elapsed() < Duration::from_secs(25), "{heartbeats:?}");
        sleep(Duration::from_millis(50)).await;
    };
    for heartbeat in &heartbeats {
        assert_eq!(heartbeat.waiting_records, 3);
        assert!((begun_ns..=synced_ns).contains(&heartbeat.oldest_unix_nano), "{heartbeat:?}");
    }
    let [first, second] = [0, 1].map(|number: usize| (heartbeats[number].clock_unix_nano - begun_ns) / 1_000_000_000);
    assert!((9..=14).contains(&first) && (9..=14).contains(&(second - first)), "after {first} s and {second} s");
    kill(engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_makes_pushing_wait_and_loses_nothing() {
    let sender = Sender::new();
    let server = TestServer::start([]).await;
    let engine = sender.start(&server).await;
    ship(&engine, 0..1).await;
    server.shared().script = (0..1_000).map(|_| Act::Throttle { wait_ms: 100 }).collect();
    let mut pushed = 0;
    let started = Instant::now();
    loop {
        let chunk = Chunk { records: vec![noise(pushed, 256 << 10)], ..Chunk::default() };
        if timeout(Duration::from_secs(2), engine.push(chunk)).await.is_err() {
            break;
        }
        pushed += 1;
        assert!(pushed < 200 && started.elapsed() < Duration::from_secs(60), "it takes more than it has room for");
    }
    assert!(engine.progress().borrow().full && pushed > 40, "{pushed}");
    server.shared().script.clear();
    ship(&engine, 1..2).await;
    assert!(!engine.progress().borrow().full);
    drain(engine).await;
    let shared = server.shared();
    assert_eq!(shared.durable.len(), pushed as usize + 2);
    let expected = (0..pushed).map(|number| noise(number, 256 << 10).content.unwrap().to_vec());
    assert!(shared.durable[1..=pushed as usize].iter().cloned().eq(expected), "in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_is_set_aside_and_declared() {
    let (server, sender) = (TestServer::start([Act::Take, Act::Refuse(RefusalKind::Invalid)]).await, Sender::new());
    let engine = sender.start(&server).await;
    ship(&engine, 0..1).await;
    let epoch = server.shared().epoch;
    ship(&engine, 1..2).await;
    ship(&engine, 2..10).await;
    assert_eq!(engine.progress().borrow().refused_batches, 1);
    drain(engine).await;
    let shared = server.shared();
    let declared = format!("LOST {epoch}:1 {epoch}:2").into_bytes();
    let expected: Vec<_> = [line(0), declared].into_iter().chain(lines(2..10)).collect();
    assert_eq!(shared.durable, expected);
    assert!(shared.epoch > epoch && shared.keys.len() == 1, "the head key goes on");
    let mut kept: Vec<_> =
        fs::read_dir(sender.dir.path().join("quarantine")).unwrap().map(|file| file.unwrap()).collect();
    kept.sort_by_key(fs::DirEntry::file_name);
    assert_eq!(fs::read_to_string(kept[0].path()).unwrap(), "because");
    assert_eq!(kept[1].file_name().to_string_lossy(), format!("{epoch}-1.zst"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_cannot_be_read_is_declared_by_whoever_is_welcomed_first() {
    let (server, sender) = (TestServer::start([]).await, Sender::new());
    let engine = sender.start(&server).await;
    ship(&engine, 0..1).await;
    drain(engine).await;
    for file in fs::read_dir(sender.dir.path().join("spool")).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|end| end == "spool") {
            fs::write(file, "not a segment").unwrap();
        }
    }
    // Ends before a server has heard of it.
    let offline = Endpoint { url: "https://127.0.0.1:9".into(), ..server.endpoint.clone() };
    let engine = Engine::start(Options { endpoint: offline, ..sender.options(&server) }).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    kill(engine).await;
    let engine = sender.start(&server).await;
    ship(&engine, 1..2).await;
    assert_eq!(engine.progress().borrow().losses, 1);
    drain(engine).await;
    assert_eq!(server.shared().durable, [line(0), b"LOST  ".to_vec(), line(1)]);
    assert!(sender.dir.path().join("spool.damaged-1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_declared_once_however_long_the_disk_is_full() {
    let (server, mut sender) = (TestServer::start([]).await, Sender::new());
    let Some(disk) = SmallDisk::new() else { return };
    sender.spool = Some(disk.path().join("spool"));
    let engine = sender.start(&server).await;
    ship(&engine, 0..1).await;
    // It is synced, and the disk is full when it is refused.
    server.shared().script = (0..1_000).map(|_| Act::Throttle { wait_ms: 50 }).collect();
    push(&engine, 1..2).await;
    engine.push(Chunk::default()).await.unwrap().synced().await.unwrap();
    let filler = disk.path().join("filler");
    let full = std::io::copy(&mut std::io::repeat(1), &mut fs::File::create(&filler).unwrap());
    assert!(full.is_err());
    let hellos = server.shared().hellos.len();
    server.shared().script = [Act::Refuse(RefusalKind::Invalid)].into();
    let deadline = Instant::now() + SOON;
    loop {
        if server.shared().hellos.len() >= hellos + 4 {
            break;
        }
        assert!(Instant::now() < deadline, "it is tried again");
        sleep(Duration::from_millis(10)).await;
    }
    fs::remove_file(&filler).unwrap();
    ship(&engine, 2..3).await;
    let (losses, refused) = (engine.progress().borrow().losses, engine.progress().borrow().refused_batches);
    assert_eq!((losses, refused), (1, 1));
    drain(engine).await;
    let durable = server.shared().durable.clone();
    assert_eq!((durable.len(), &durable[0], &durable[2]), (3, &line(0), &line(2)), "one loss between them");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_offers_learns_of_each_chunk_what_became_of_it() {
    let script = [Act::Take, Act::Refuse(RefusalKind::Invalid)];
    let (server, sender) = (TestServer::start(script).await, Sender::new());
    let engine = sender.start(&server).await;
    ship(&engine, 0..1).await;
    let offer = async |number| {
        let chunk = Chunk { records: vec![record(&format!("line {number}"))], ..Chunk::default() };
        timeout(SOON, engine.offer(chunk)).await.unwrap().unwrap()
    };
    let (mut refused, mut taken) = (offer(1).await, offer(2).await);
    let told = timeout(SOON, refused.acknowledged()).await.unwrap();
    assert!(matches!(&told, Err(ClientError::Refused { message, .. }) if message.contains("because")), "{told:?}");
    timeout(SOON, taken.acknowledged()).await.unwrap().unwrap();
    taken.synced().await.unwrap();
    let place = |ticket: &Ticket| ticket.place().unwrap().1.get();
    assert_eq!((place(&refused), place(&taken), taken.withdraw()), (1, 2, false));
    drain(engine).await;
    let durable = server.shared().durable.clone();
    assert!(durable.contains(&line(2)) && !durable.contains(&line(1)), "{durable:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_epoch_of_somebody_else_is_overtaken_and_nothing_comes_twice() {
    let (server, sender) = (TestServer::start([]).await, Sender::new());
    let engine = sender.start(&server).await;
    ship(&engine, 0..3).await;
    // The next is durable, nobody says so, and then another sender begins an epoch.
    server.shared().script = [Act::TakeSilently].into();
    push(&engine, 3..4).await;
    let deadline = Instant::now() + SOON;
    while server.shared().durable.len() < 4 {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(1)).await;
    }
    {
        let mut shared = server.shared();
        shared.epoch = Epoch::new(shared.epoch.get() + 1);
        (shared.next, shared.head) = (SourceSeq::new(7), Some(BatchHash::new([9; 32])));
    }
    let theirs = server.shared().epoch;
    ship(&engine, 4..10).await;
    drain(engine).await;
    let shared = server.shared();
    assert_eq!(shared.durable, lines(0..10));
    assert!(shared.epoch > theirs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_has_forgotten_gets_what_is_left_and_the_rest_is_declared() {
    let (server, sender) = (TestServer::start([]).await, Sender::new());
    let engine = sender.start(&server).await;
    ship(&engine, 0..10).await;
    drain(engine).await;
    // Everything is gone; the spool still has it all.
    {
        let mut shared = server.shared();
        (shared.epoch, shared.next, shared.head) = (Epoch::new(0), SourceSeq::new(0), None);
        shared.durable.clear();
        shared.forget_receipts();
    }
    let engine = sender.start(&server).await;
    ship(&engine, 10..12).await;
    drain(engine).await;
    assert_eq!(server.shared().durable, lines(0..12));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_was_brought_back_is_a_fork_and_nothing_comes_twice() {
    let (server, sender) = (TestServer::start([]).await, Sender::new());
    let engine = sender.start(&server).await;
    ship(&engine, 0..5).await;
    drain(engine).await;
    let (spool, copy) = (sender.dir.path().join("spool"), sender.dir.path().join("copy"));
    let copied = |from: &std::path::Path, to: &std::path::Path| {
        fs::create_dir(to).unwrap();
        for file in fs::read_dir(from).unwrap().map(|file| file.unwrap()) {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    copied(&spool, &copy);
    let engine = sender.start(&server).await;
    ship(&engine, 5..8).await;
    drain(engine).await;
    fs::remove_dir_all(&spool).unwrap();
    copied(&copy, &spool);
    let before = server.shared().epoch;
    let engine = sender.start(&server).await;
    // Read again, since the marks were brought back, too: those are other records to everybody.
    ship(&engine, 5..9).await;
    drain(engine).await;
    let shared = server.shared();
    assert!(shared.epoch > before);
    assert_eq!(shared.durable, [lines(0..8), lines(5..9)].concat(), "what the spool held came once");
    assert_eq!(shared.keys.len(), 2, "the old key was used up");
    assert!(shared.keys[1].reason.contains("goes on in epoch"), "{}", shared.keys[1].reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_journal_gets_nothing_without_consent() {
    let (server, mut sender) = (TestServer::start([]).await, Sender::new());
    let engine = sender.start(&server).await;
    ship(&engine, 0..2).await;
    drain(engine).await;
    let offline = Endpoint { url: "https://127.0.0.1:9".into(), ..server.endpoint.clone() };
    let engine = Engine::start(Options { endpoint: offline, ..sender.options(&server) }).await.unwrap();
    push(&engine, 2..4).await;
    engine.push(Chunk::default()).await.unwrap().synced().await.unwrap();
    kill(engine).await;
    let other = TestServer::start([]).await;
    other.shared().origin = "journal.test/2";
    let mut options = sender.options(&other);
    options.refusals_are_final = true;
    let mut engine = Engine::start(options).await.unwrap();
    let error = timeout(SOON, engine.ended()).await.unwrap();
    assert!(matches!(error, ClientError::OtherJournal { .. }) && error.to_string().contains("trust"), "{error}");
    kill(engine).await;
    // The operator names the successor's trust file.
    let trust = sender.dir.path().join("trust.txt");
    write_trust(&trust);
    let text = fs::read_to_string(&trust).unwrap();
    let log = sigillo_model::note::SigningKey::from_seed("journal.test/2", sigillo_model::note::KeyKind::Log, &[2; 32]);
    let rest: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("log ") && !line.starts_with("receipt ")).collect();
    fs::write(&trust, format!("log {}\n{}\n", log.unwrap().verifier(), rest.join("\n"))).unwrap();
    sender.guard = Some(Arc::new(Guard::open(&trust, &sender.dir.path().join("state"), SOON).unwrap()));
    let engine = sender.start(&other).await;
    ship(&engine, 4..6).await;
    drain(engine).await;
    assert_eq!(server.shared().durable, lines(0..2));
    assert_eq!(other.shared().durable, lines(2..6));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_checkpoint_covers_is_held() {
    let (server, mut sender) = (TestServer::start([]).await, Sender::new());
    server.shared().class = "panel";
    server.shared().sign = |receipt| sign(receipt, Shared::source(), &receipt_key(1));
    write_trust(&sender.dir.path().join("trust.txt"));
    let open = |sender: &Sender| {
        Arc::new(Guard::open(&sender.dir.path().join("trust.txt"), &sender.dir.path().join("state"), SOON).unwrap())
    };
    sender.guard = Some(open(&sender));
    let engine = sender.start(&server).await;
    let mut ticket = engine.push(Chunk::default()).await.unwrap();
    for number in 0..40 {
        ticket = engine.push(Chunk { records: vec![noise(number, 200 << 10)], ..Chunk::default() }).await.unwrap();
    }
    timeout(SOON, ticket.acknowledged()).await.unwrap().unwrap();
    sleep(Duration::from_millis(300)).await;
    let held = engine.progress().borrow().spool_bytes;
    assert!(held > 7 << 20, "everything acknowledged is held: {held}");
    drain(engine).await;
    // Another life, whose guard knows no receipts: it asks for them again.
    sender.guard = Some(open(&sender));
    let tree = Tree::of(3, 60);
    {
        let mut shared = server.shared();
        shared.shown = tree.clone();
        shared.inclusion = None;
    }
    let engine = sender.start(&server).await;
    until(&engine, |progress| progress.connected).await;
    assert!(engine.progress().borrow().class == "panel");
    drain(engine).await;
    assert_eq!(server.shared().durable.len(), 40, "asked for, not sent as new");
}
