//! Backups while the server runs, and their restoration.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use sigillo_client::{Connection, PROTOCOL};
use sigillo_model::{
    checkpoint::Checkpoint,
    entry::checksum,
    ids::NodeHash,
    note::{KeyKind, Note, SigningKey},
    record::Record,
};
use sigillo_proto::v1::{self, append_request, append_response::Message};
use sigillo_testkit::{
    batches::BatchChain,
    binaries::{binary, run},
    config::{self, Source},
    database::Database,
    records::records,
    server::{Server, ServerCommand},
};
use tempfile::TempDir;

use crate::support::{Dev, said, sigillo_json};

fn sigillod(dir: &Path, arguments: &[&str]) -> Output {
    let config = dir.join("sigillod.toml");
    run("sigillod", dir, arguments.iter().chain(&["--config", config.to_str().unwrap()])).unwrap()
}

fn sigillod_ok(dir: &Path, arguments: &[&str]) -> String {
    let output = sigillod(dir, arguments);
    assert!(output.status.success(), "sigillod {arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What it said, which must be a refusal with this exit code.
fn sigillod_fails(dir: &Path, arguments: &[&str], code: i32) -> String {
    let output = sigillod(dir, arguments);
    assert_eq!(output.status.code(), Some(code), "sigillod {arguments:?}: {}", said(&output));
    assert!(output.stdout.is_empty(), "what failed goes to standard error: {}", said(&output));
    String::from_utf8(output.stderr).unwrap()
}

/// An attribute of a record.
fn attribute<'a>(record: &'a Value, key: &str) -> &'a Value {
    let attributes = record["attributes"].as_array().unwrap();
    &attributes.iter().find(|attribute| attribute["key"] == key).unwrap_or_else(|| panic!("no {key:?} in {record}"))["value"]
}

/// The value of a line of what a command printed.
fn value(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("no line {name:?} in {text:?}"))[9..].trim().to_owned()
}

fn verify(dir: &Path, journal: &Path) -> Output {
    run("sigillo", dir, ["verify", "--db", journal.to_str().unwrap()]).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_dir(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

fn one_source() -> (TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    config::write(dir.path(), &[Source { name: "source".into(), class: "service" }]).unwrap();
    let server = ServerCommand::configured(dir.path()).start().unwrap();
    (dir, server)
}

/// Sends batches until it is told to stop, or the server ends; the records acknowledged, and the longest wait for an
/// acknowledgement.
struct Load {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<(u64, Duration)>,
}

impl Load {
    fn start(server: &Server) -> Self {
        let endpoint = server.endpoint("source");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async move {
                let connection = Connection::open(&endpoint).await.unwrap();
                let hello = v1::Hello { protocol: PROTOCOL, agent: "test 1".into(), epoch: 1, ..v1::Hello::default() };
                let mut session = connection.append(hello).await.unwrap();
                let mut chain = BatchChain::new(&config::origin().unwrap(), "source", 1);
                let mut records = records(1);
                let (mut acknowledged, mut longest) = (0, Duration::ZERO);
                while !stopped.load(Ordering::Relaxed) {
                    let batch: Vec<Record> = records.by_ref().take(500).collect();
                    let batch = chain.seal(&batch).unwrap();
                    let sent = Instant::now();
                    if session.send(append_request::Message::Batch((&batch).into())).await.is_err() {
                        break;
                    }
                    match session.recv().await {
                        Ok(Some(Message::Ack(ack))) => acknowledged = ack.next_sequence,
                        Ok(Some(other)) => panic!("{other:?}"),
                        Ok(None) | Err(_) => break,
                    }
                    longest = longest.max(sent.elapsed());
                }
                (acknowledged, longest)
            })
        });
        Self { stop, thread }
    }

    fn end(self) -> (u64, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn a_backup_is_whole_while_records_come_in() {
    let (dir, server) = one_source();
    let dir = dir.path();
    let load = Load::start(&server);
    let mut sizes = Vec::new();
    for number in 0..3 {
        thread::sleep(Duration::from_millis(300));
        let to = format!("backup-{number}");
        let told = sigillod_ok(dir, &["backup", "--to", &to]);
        let size: u64 = value(&told, "size").parse().unwrap();
        assert!(value(&told, "verified").starts_with(&format!("intact: {size} records in")), "{told}");
        sizes.push(size);
        assert_eq!(names(&dir.join(&to)), ["backup", "head", "journal", "signed"]);
    }
    let (acknowledged, longest) = load.end();
    assert!(sizes.is_sorted() && sizes[0] > 500 && sizes[2] > sizes[0] && acknowledged > 0, "{sizes:?}");
    assert!(longest < Duration::from_secs(2), "a backup held the writer up for {longest:?}");

    let head: u64 = value(&sigillod_ok(dir, &["status"]), "size").parse().unwrap();
    assert!(head >= acknowledged && head > sizes[2], "{head}");
    // Each stands alone, also when the server has gone on and has gone.
    drop(server);
    for (number, size) in sizes.iter().enumerate() {
        let output = verify(dir, &dir.join(format!("backup-{number}")));
        assert!(
            output.status.success() && said(&output).contains(&format!("intact: {size} records")),
            "{}",
            said(&output)
        );
    }
    assert!(!dir.join("data/copying").exists());
}

#[test]
fn an_act_is_on_record_with_its_account() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    dev.ship("app.log", b"one\ntwo\n");
    let told = sigillod_ok(dir, &["backup", "--to", "first"]);
    sigillod_fails(dir, &["backup", "--to", "first"], 4);
    let events = sigillo_json(dir, &["query", "--class", "journal", "--reason", "test"]);
    let of = |name: &str| -> Vec<_> { events.iter().filter(|record| record["event_name"] == name).collect() };
    let (begun, ended) = (of("journal.backup_begun"), of("journal.backup_ended"));
    assert_eq!((begun.len(), ended.len()), (2, 2), "{events:?}");
    let first = dir.join("first");
    assert_eq!(begun[0]["target"]["id"], first.to_str().unwrap(), "{begun:?}");
    let account = Command::new("id").arg("-un").output().unwrap().stdout;
    assert_eq!(begun[0]["actor"]["id"], String::from_utf8(account).unwrap().trim(), "{begun:?}");
    assert_eq!(attribute(ended[0], "size").to_string(), value(&told, "size"), "{ended:?}");
    assert_eq!((&ended[0]["outcome"], &ended[1]["outcome"]), (&"success".into(), &"failure".into()), "{ended:?}");
}

#[test]
fn a_target_that_can_not_be_used_is_refused() {
    let (dir, server) = one_source();
    let dir = dir.path();
    fs::create_dir(dir.join("full")).unwrap();
    fs::write(dir.join("full/file"), "mine").unwrap();
    assert!(sigillod_fails(dir, &["backup", "--to", "full"], 4).contains("something in it"));
    assert_eq!(names(&dir.join("full")), ["file"]);
    assert!(sigillod_fails(dir, &["backup", "--to", "not/there/yet"], 4).contains("above it does not exist"));
    sigillod_fails(dir, &["backup", "--to", "data/journal/backup"], 4);
    // An empty folder is as good as none.
    fs::create_dir(dir.join("empty")).unwrap();
    sigillod_ok(dir, &["backup", "--to", "empty"]);
    drop(server);
    assert!(sigillod_fails(dir, &["backup", "--to", "other"], 3).contains("no server runs"));
    sigillod_fails(dir, &["status"], 3);
    assert_eq!(names(dir).iter().filter(|name| name.contains("partial")).count(), 0);
}

#[test]
fn a_kill_in_the_middle_leaves_nothing_that_looks_whole() {
    let (dir, mut server) = one_source();
    let dir = dir.path();
    let load = Load::start(&server);
    thread::sleep(Duration::from_secs(2));
    load.end();
    let to = dir.join("backup");
    let (mut cut_off, mut whole) = (0, 0);
    for trial in 0..12_u64 {
        let mut asking = Command::new(binary("sigillod").unwrap());
        asking.args(["backup", "--to", "backup", "--config", "sigillod.toml"]).current_dir(dir);
        let mut asking = asking.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        thread::sleep(Duration::from_millis(10 + trial * 25));
        let stopped = server.kill().unwrap();
        let mut told = String::new();
        asking.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        let status = asking.wait().unwrap();
        if to.exists() {
            whole += 1;
            assert!(to.join("backup").exists(), "a backup without its manifest has its name");
            let output = verify(dir, &to);
            assert!(output.status.success(), "trial {trial}: {}", said(&output));
            fs::remove_dir_all(&to).unwrap();
        } else {
            cut_off += u32::from(dir.join("backup.partial").exists());
            assert_eq!(status.code(), Some(3), "{told}");
            assert!(
                !dir.join("backup.partial/backup").exists()
                    || verify(dir, &dir.join("backup.partial")).status.success()
            );
        }
        server = stopped.command.start().unwrap();
        assert!(!dir.join("data/copying").exists(), "what a crash left pins no files");
    }
    println!("{cut_off} of 12 were cut off in the middle, {whole} were whole");
    assert!(cut_off > 0, "no kill came in the middle");
    // What was left is not in the way.
    sigillod_ok(dir, &["backup", "--to", "backup"]);
    assert!(!dir.join("backup.partial").exists());
}

#[test]
fn a_restored_journal_is_the_one_that_was_backed_up() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    dev.ship("app.log", b"kept one\nkept two\n");
    let backup = sigillod_ok(dir, &["backup", "--to", "saved"]);
    let size: u64 = value(&backup, "size").parse().unwrap();
    let Dev { server, dir } = dev;
    let dir = dir.path();
    assert!(sigillod_fails(dir, &["restore", "--from", "saved"], 4).contains("in use"));
    let command = server.stop().unwrap().command;

    // The disk is lost, the backup was copied elsewhere.
    copy_dir(&dir.join("saved"), &dir.join("elsewhere"));
    fs::remove_dir_all(dir.join("saved")).unwrap();
    fs::remove_dir_all(dir.join("data")).unwrap();
    let told = sigillod_ok(dir, &["restore", "--from", "elsewhere"]);
    assert!(value(&told, "lost").starts_with("not known"), "{told}");
    let output = verify(dir, &dir.join("data"));
    assert!(said(&output).contains(&format!("intact: {size} records")), "{}", said(&output));

    let server = command.start().unwrap();
    let query = |what: &[&str]| sigillo_json(dir, &[&["query", "--reason", "test"], what].concat());
    assert_eq!(query(&["kept", "--source", "dev-agent"]).len(), 2);
    let restored = query(&["--class", "journal"]);
    let restored: Vec<_> = restored.iter().filter(|record| record["event_name"] == "journal.restored").collect();
    assert_eq!(restored.len(), 1);
    assert_eq!(attribute(restored[0], "size").as_u64(), Some(size), "{restored:?}");
    let command = server.stop().unwrap().command;
    drop(command.start().unwrap());
    assert!(!dir.join("data/restored").exists(), "it is recorded once");
}

#[test]
fn a_loss_is_told_and_must_be_accepted_to_the_record() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    dev.ship("app.log", b"before\n");
    let backup = sigillod_ok(dir, &["backup", "--to", "saved"]);
    let held: u64 = value(&backup, "size").parse().unwrap();
    dev.ship("more.log", "after\n".repeat(70).as_bytes());
    let Dev { server, dir } = dev;
    let dir = dir.path();
    fs::create_dir(dir.join("data/keys")).unwrap();
    fs::write(dir.join("data/keys/log.key"), "secret").unwrap();
    let command = server.stop().unwrap().command;
    let data = dir.join("data");
    // The server signs twice a second: as if it had not signed since the backup.
    fs::copy(dir.join("saved/signed"), data.join("signed")).unwrap();
    let size = Database::open_read_only(&data).unwrap().get("meta", b"head").unwrap();
    let size = u64::from_be_bytes(size[1..9].try_into().unwrap());
    let lost = size - held;

    let refused = sigillod_fails(dir, &["restore", "--from", "saved"], 4);
    assert_eq!(value(&refused, "lost"), format!("{lost} records, sequences {held} to {}", size - 1), "{refused}");
    assert!(refused.contains("72 of dev-agent") && refused.contains("of journal"), "{refused}");
    assert!(value(&refused, "received").contains(" to "), "{refused}");
    assert!(refused.contains(&format!("--accept-loss {lost}")), "{refused}");
    for wrong in [lost - 1, lost + 1, 0] {
        sigillod_fails(dir, &["restore", "--from", "saved", "--accept-loss", &wrong.to_string()], 4);
    }
    assert!(said(&verify(dir, &data)).contains(&format!("intact: {size} records")), "nothing was changed");
    assert_eq!(names(dir).iter().filter(|name| name.starts_with("data")).count(), 1, "{:?}", names(dir));

    let told = sigillod_ok(dir, &["restore", "--from", "saved", "--accept-loss", &lost.to_string()]);
    let aside = PathBuf::from(value(&told, "before").split(':').next().unwrap());
    assert!(said(&verify(dir, &aside)).contains(&format!("intact: {size} records")), "{told}");
    assert!(said(&verify(dir, &data)).contains(&format!("intact: {held} records")), "{told}");
    assert_eq!(fs::read_to_string(data.join("keys/log.key")).unwrap(), "secret");
    let server = command.start().unwrap();
    let events = sigillo_json(dir, &["query", "--class", "journal", "--reason", "test"]);
    let restored = events.iter().find(|record| record["event_name"] == "journal.restored").unwrap();
    assert_eq!(attribute(restored, "records_given_up").as_u64(), Some(lost), "{restored}");
    drop(server);
}

#[test]
fn an_altered_backup_is_refused_with_the_first_record() {
    let dev = Dev::start();
    let dir = dev.dir.path();
    dev.ship("app.log", "line\n".repeat(3_000).as_bytes());
    sigillod_ok(dir, &["backup", "--to", "saved"]);
    let Dev { server, dir } = dev;
    let dir = dir.path();
    server.stop().unwrap();
    let before = fs::read(dir.join("data/head")).unwrap();
    let altered = |name: &str, edit: &dyn Fn(&Path)| {
        let copy = dir.join(name);
        copy_dir(&dir.join("saved"), &copy);
        edit(&copy);
        let told = sigillod_fails(dir, &["restore", "--from", name], 1);
        assert_eq!(fs::read(dir.join("data/head")).unwrap(), before, "nothing was changed");
        told
    };

    // With valid checksums: the place is named.
    let place = std::cell::Cell::new(0);
    let told = altered("row", &|copy| {
        let database = Database::open(copy).unwrap();
        let (key, mut value) = database.pairs("tail").unwrap().swap_remove(2);
        place.set(u64::from_be_bytes(key.as_ref().try_into().unwrap()));
        let middle = value.len() / 2;
        value[middle] ^= 1;
        database.put("tail", &key, &value).unwrap();
        database.close().unwrap();
    });
    assert!(told.contains(&format!("record {}", place.get())) && place.get() > 0, "{} {told}", place.get());
    // What no walk sees: the files' hashes do.
    let told = altered("options", &|copy| {
        let options = names(&copy.join("journal")).into_iter().find(|name| name.starts_with("OPTIONS")).unwrap();
        let path = copy.join("journal").join(options);
        let text = fs::read_to_string(&path).unwrap() + "#\n";
        fs::write(path, text).unwrap();
    });
    assert!(told.contains("OPTIONS"), "{told}");
    assert!(altered("added", &|copy| fs::write(copy.join("added"), "x").unwrap()).contains("not in the manifest"));
    let told = altered("manifest", &|copy| {
        let text = fs::read_to_string(copy.join("backup")).unwrap();
        fs::write(copy.join("backup"), text.replacen("localhost", "localhos7", 1)).unwrap();
    });
    assert!(told.contains("manifest"), "{told}");
    altered("head", &|copy| fs::remove_file(copy.join("head")).unwrap());

    // No manifest, no backup.
    copy_dir(&dir.join("saved"), &dir.join("unfinished"));
    fs::remove_file(dir.join("unfinished/backup")).unwrap();
    assert!(sigillod_fails(dir, &["restore", "--from", "unfinished"], 3).contains("never finished"));
    assert!(sigillod_fails(dir, &["restore", "--from", "nowhere"], 3).contains("nowhere"));
}

#[test]
fn a_backup_of_another_journal_is_refused() {
    let (dir, server) = one_source();
    let dir = dir.path();
    sigillod_ok(dir, &["backup", "--to", "saved"]);
    server.stop().unwrap();
    let config = dir.join("sigillod.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(config::ORIGIN, "other.example/journal")).unwrap();
    let told = sigillod_fails(dir, &["restore", "--from", "saved"], 4);
    assert!(told.contains(config::ORIGIN) && told.contains("other.example/journal"), "{told}");
}

#[test]
fn what_was_signed_is_never_undone() {
    let (dir, server) = one_source();
    let dir = dir.path();
    let told = sigillod_ok(dir, &["backup", "--to", "saved"]);
    let held: u64 = value(&told, "size").parse().unwrap();
    server.stop().unwrap();
    let sign = |size: u64, root: &str| {
        let body = format!("sigillo signed v1\n{}\n{size}\n{root}\n", config::ORIGIN);
        let sum = u64::from_be_bytes(checksum(body.as_bytes()));
        fs::write(dir.join("data/signed"), format!("{body}{sum:016x}\n")).unwrap();
    };
    let restore = ["restore", "--from", "saved", "--accept-loss", "1000"];
    let manifest = fs::read_to_string(dir.join("saved/backup")).unwrap();
    let root = manifest.lines().nth(4).unwrap();
    // What the backup holds may have been signed.
    sign(held, root);
    assert!(sigillod_fails(dir, &restore, 4).contains("accepted the loss of 1000"));
    for (size, root) in [(held + 1, root), (held, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")] {
        sign(size, root);
        let told = sigillod_fails(dir, &restore, 4);
        assert!(told.contains(&format!("checkpoint of {size} records")) && told.contains("successor"), "{told}");
    }
    // One that can't be read may say anything.
    fs::write(dir.join("data/signed"), "sigillo signed v1\n").unwrap();
    assert!(sigillod_fails(dir, &restore, 4).contains("signed"));
}

#[test]
fn a_full_disk_ends_the_backup_and_nothing_else() {
    let (dir, server) = one_source();
    let dir = dir.path();
    let small = dir.join("small");
    fs::create_dir(&small).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&small).status();
    if !mount.is_ok_and(|status| status.success()) {
        std::io::Write::write_all(
            &mut std::io::stdout(),
            b"SKIPPED: a file system of a fixed size can't be mounted here (this takes root)\n",
        )
        .unwrap();
        return;
    }
    let load = Load::start(&server);
    thread::sleep(Duration::from_millis(500));
    let told = sigillod(dir, &["backup", "--to", "small/backup"]);
    let left = names(&small);
    let _ = Command::new("umount").arg("--lazy").arg(&small).status();
    assert_eq!(told.status.code(), Some(3), "{}", said(&told));
    assert!(said(&told).contains("room"), "{}", said(&told));
    assert_eq!(left, Vec::<String>::new());
    // It goes on.
    sigillod_ok(dir, &["backup", "--to", "roomy"]);
    assert!(load.end().0 > 0);
}

#[test]
fn a_journal_that_can_not_go_on_has_a_successor() {
    const NEXT: &str = "testkit.invalid/journal-2";
    let (dir, server) = one_source();
    let dir = dir.path();
    sigillod_ok(dir, &["backup", "--to", "saved"]);
    server.stop().unwrap();
    // The newest checkpoint, as a witness has it; the records that it covers are lost.
    let text = Checkpoint { origin: config::ORIGIN.to_owned(), size: 900, root: NodeHash::new([9; 32]) }.text();
    let key = SigningKey::from_seed(config::ORIGIN, KeyKind::Log, &[7; 32]).unwrap();
    let note = Note::new(text.clone(), vec![key.sign(&text).unwrap()]).unwrap().to_bytes();
    fs::write(dir.join("note"), &note).unwrap();

    let succeed = ["succeed", "--from", "saved", "--note", "note"];
    assert!(sigillod_fails(dir, &succeed, 4).contains("origin of the journal that ended"));
    let settings = fs::read_to_string(dir.join("sigillod.toml")).unwrap().replace(config::ORIGIN, NEXT);
    // Another origin needs keys of its own; here it signs nothing.
    let (before, keys) = settings.split_once("[checkpoint]").unwrap();
    let (_, after) = keys.split_once("\n[").unwrap();
    fs::write(dir.join("sigillod.toml"), format!("{before}[{after}")).unwrap();
    assert!(sigillod_fails(dir, &succeed, 4).contains("a new folder"));
    fs::rename(dir.join("data"), dir.join("ended")).unwrap();
    let told = sigillod_ok(dir, &succeed);
    let sum = Command::new("sha256sum").arg(dir.join("note")).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap()[..64].to_owned();
    assert!(value(&told, "note").starts_with(&sum), "{told}");
    assert_eq!(fs::read(dir.join("data/predecessor")).unwrap(), note);

    let server = ServerCommand::configured(dir).start().unwrap();
    let connection = format!(
        "url = \"https://{}\"\nca = \"ca.pem\"\ncert = \"reader.pem\"\nkey = \"reader.key\"\n",
        server.listen()
    );
    fs::write(dir.join("sigillo.toml"), connection).unwrap();
    let report = &sigillo_json(dir, &["verify", "--reason", "test"])[0];
    assert_eq!((&report["verdict"], &report["origin"]), (&"intact".into(), &NEXT.into()), "{report}");
    let events = sigillo_json(dir, &["query", "--class", "journal", "--reason", "test"]);
    let started = events.iter().find(|record| record["event_name"] == "journal.started").unwrap();
    assert_eq!(attribute(started, "predecessor_note_sha256"), sum.as_str());
    // Killed, it must find its own beginning again; so must a backup of it.
    let server = server.kill().unwrap().command.start().unwrap();
    sigillod_ok(dir, &["backup", "--to", "second"]);
    server.stop().unwrap();
    assert!(verify(dir, &dir.join("second")).status.success());
    // The first value covers what it succeeds.
    let database = Database::open(&dir.join("data")).unwrap();
    database.put("meta", b"predecessor", &[1; 32]).unwrap();
    database.close().unwrap();
    let output = verify(dir, &dir.join("data"));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}
