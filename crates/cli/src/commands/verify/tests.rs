//! Verdicts over real databases, held against checkpoints of real keys.

use std::{fs, os::unix::fs::PermissionsExt};

use clap::Parser;
use serde_json::Value;
use sigillo_journal::{Journal, Options, Submission, TenantRun};
use sigillo_model::{
    batch::{self, Batch},
    block::{BlockBuilder, Inflater},
    checkpoint::Checkpoint,
    class::Class,
    envelope::Flags,
    ids::{BatchHash, BatchSecret, Count, Epoch, NodeHash, Origin, ReceiptTime, SourceId, SourceSeq, TenantId},
    note::{KeyKind, Note, SigningKey},
    record::RecordRef,
    rotation::Rotation,
    statement::counters::{CounterEntry, CounterKey, CounterTree},
};
use tempfile::TempDir;

use super::*;
use crate::{Cli, Command};

const ORIGIN: &str = "verify.test/1";
/// When witnesses cosigned, seconds since 1970.
const THEN: u64 = 1_800_000_000;

fn key(name: &str, kind: KeyKind, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, kind, &[seed; 32]).unwrap()
}

fn log() -> SigningKey {
    key(ORIGIN, KeyKind::Log, 1)
}

fn witness(seed: u8) -> SigningKey {
    key(&format!("w{seed}.test"), KeyKind::Cosigner, seed)
}

fn recovery() -> SigningKey {
    key("recovery", KeyKind::Log, 90)
}

/// A trust file that asks for the witness 11.
fn trust() -> String {
    let (log, one, two) = (log(), witness(11), witness(12));
    format!(
        "log {}\nrecovery {}\nwitness w1 {}\nwitness w2 {}\nquorum w1\n",
        log.verifier(),
        recovery().verifier(),
        one.verifier(),
        two.verifier()
    )
}

fn note(log: &SigningKey, witnesses: &[SigningKey], size: u64, root: NodeHash) -> Note {
    let text = Checkpoint { origin: ORIGIN.into(), size, root }.text();
    let cosignatures = witnesses.iter().map(|witness| witness.cosign(&text, THEN).unwrap());
    let signatures = [log.sign(&text).unwrap()].into_iter().chain(cosignatures).collect();
    Note::new(text, signatures).unwrap()
}

/// A journal being written, and a folder for the auditor's files.
struct Case {
    home: TempDir,
    journal: Option<Journal>,
    places: std::collections::HashMap<SourceId, (SourceSeq, BatchHash)>,
}

impl Case {
    /// Three batches of three records.
    async fn new(words: &[&str]) -> Self {
        let mut case = Self::empty();
        for words in words.chunks(3) {
            case.append("a", Class::Admin, words.iter().map(|word| word.as_bytes().to_vec()).collect()).await;
        }
        case
    }

    fn empty() -> Self {
        let home = tempfile::tempdir().unwrap();
        let options = Options::new(home.path().join("db"), Origin::new(ORIGIN).unwrap());
        let journal = Journal::open(&options).unwrap().journal;
        fs::write(home.path().join("trust"), trust()).unwrap();
        Self { home, journal: Some(journal), places: std::collections::HashMap::new() }
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    async fn append(&mut self, source: &str, class: Class, contents: Vec<Vec<u8>>) {
        let (source, epoch) = (SourceId::from_name(source), Epoch::new(1));
        let opening = (SourceSeq::new(0), self.journal().epoch_opening(source, epoch));
        let place = self.places.entry(source).or_insert(opening);
        let mut builder = BlockBuilder::default();
        for content in &contents {
            builder.push(RecordRef { content: Some(content), ..RecordRef::default() }).unwrap();
        }
        let secret = BatchSecret::new([7; 32]);
        let batch = Batch::seal(&mut builder, source, epoch, place.0, place.1, secret, 1).unwrap();
        *place = (batch.end(), batch.hash);
        let commitments = batch::commitments(&batch.secret, &batch.open(&mut Inflater::default()).unwrap());
        let (tenant, records) = (TenantId::from_name("provider"), u32::try_from(contents.len()).unwrap());
        let runs = vec![TenantRun { tenant, retention: class.retention(), flags: Flags::default(), records }];
        let (class, received) = (class.id(), ReceiptTime::new(1));
        self.journal().submit(Submission { source, class, batch, commitments, runs, received }).await.unwrap();
    }

    /// Appends a statement of the journal itself.
    async fn state(&mut self, text: &str) {
        let length = u32::try_from(text.len()).unwrap();
        // Field 3, of bytes; the length in seven bits a byte.
        let mut content = vec![0x1a];
        let mut left = length;
        while left > 127 {
            content.push(u8::try_from(left & 127).unwrap() | 128);
            left >>= 7;
        }
        content.push(u8::try_from(left).unwrap());
        content.extend(text.bytes());
        self.append("journal", Class::Journal, vec![content]).await;
    }

    fn root(&self, size: u64) -> NodeHash {
        self.journal().reader().root_at(size).unwrap()
    }

    /// The note of a true checkpoint, by log and witness.
    fn cosigned(&self, size: u64) -> Note {
        note(&log(), &[witness(11)], size, self.root(size))
    }

    async fn keep(&self, note: &Note) {
        let size = Checkpoint::parse(note.text()).unwrap().size;
        self.journal().keep_checkpoint(size, note.to_bytes()).await.unwrap();
    }

    /// Writes a file of the auditor; its path.
    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    async fn close(&mut self) {
        if let Some(journal) = self.journal.take() {
            journal.close().await.unwrap();
        }
    }

    /// Verifies, a minute after the witnesses have cosigned unless something else is said.
    async fn verify(&mut self, more: &[&str]) -> (u8, Value) {
        self.try_verify(more).await.unwrap()
    }

    async fn try_verify(&mut self, more: &[&str]) -> Result<(u8, Value), Failure> {
        self.close().await;
        let now = format!("@{}", THEN + 60);
        let (db, trust) = (self.home.path().join("db"), self.home.path().join("trust"));
        let mut line = vec!["sigillo", "verify", "-o", "json", "--db", db.to_str().unwrap()];
        if !more.contains(&"--policy") {
            line.extend(["--policy", trust.to_str().unwrap()]);
        }
        if !more.contains(&"--now") {
            line.extend(["--now", &now]);
        }
        line.extend(more);
        let cli = Cli::try_parse_from(line).unwrap();
        let Command::Verify(args) = cli.command else { panic!("not verify") };
        let judge = Judge::new(&args, args.policy.as_deref())?;
        let (code, said) = look(&args, &cli.global, judge).await?;
        Ok((code, serde_json::from_slice(&said).unwrap()))
    }
}

const WORDS: [&str; 9] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"];

/// As [`WORDS`], with record 4 rewritten.
fn rewritten() -> [&'static str; 9] {
    let mut words = WORDS;
    words[4] = "fourteen";
    words
}

fn says(value: &Value, remark: &str) -> bool {
    value["remarks"].as_array().unwrap().iter().any(|said| said.as_str().unwrap().contains(remark))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intact_journal_under_a_fresh_quorum() {
    let mut case = Case::new(&WORDS).await;
    // Within an entry, and at the end of one; with a signature of somebody unknown.
    case.keep(&case.cosigned(4)).await;
    let mut known = case.cosigned(9);
    known.add(witness(77).cosign(known.text(), 5).unwrap()).unwrap();
    case.keep(&known).await;
    let remembered = case.file("seen", &case.cosigned(5).to_bytes());
    let agent = [b"sigillo remembered v1\n0011223344556677\n\n".as_slice(), &case.cosigned(7).to_bytes()].concat();
    let agent = case.file("agent", &agent);
    let (code, said) = case.verify(&["--remembered", &remembered, "--remembered", &agent]).await;
    assert_eq!((code, &said["verdict"], &said["checkpoint_size"]), (0, &"intact".into(), &9.into()), "{said}");
    assert_eq!(said["remarks"], Value::Array(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_checkpoint_covers_is_told() {
    let mut case = Case::new(&WORDS).await;
    let (code, said) = case.verify(&[]).await;
    assert_eq!((code, &said["verdict"]), (6, &"unmet".into()), "{said}");
    assert!(says(&said, "no checkpoint covers"), "{said}");
    let mut case = Case::new(&WORDS).await;
    case.keep(&case.cosigned(4)).await;
    case.keep(&note(&log(), &[], 7, case.root(7))).await;
    let (code, said) = case.verify(&[]).await;
    assert_eq!(code, 0, "{said}");
    assert!(says(&said, "records from 7 on") && says(&said, "records from 4 on"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_that_is_not_met() {
    let mut case = Case::new(&WORDS).await;
    case.keep(&note(&log(), &[witness(12)], 9, case.root(9))).await;
    let (code, said) = case.verify(&[]).await;
    assert_eq!((code, &said["verdict"]), (6, &"unmet".into()), "{said}");
    // Where both are asked for, each shows its own cosignature: the two notes are one.
    for (of_view, expected) in [(11, 0), (12, 6)] {
        let mut case = Case::new(&WORDS).await;
        case.keep(&note(&log(), &[witness(12)], 9, case.root(9))).await;
        let view = case.file("view", &note(&log(), &[witness(of_view)], 9, case.root(9)).to_bytes());
        let both = case.file("both", trust().replace("quorum w1", "group both all w1 w2\nquorum both").as_bytes());
        let (code, said) = case.verify(&["--policy", &both, "--witness-view", &view]).await;
        assert_eq!(code, expected, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_quorum_is_stale() {
    for (age, expected) in [(600, 0), (601, 5), (86_400, 5)] {
        let mut case = Case::new(&WORDS).await;
        case.keep(&case.cosigned(9)).await;
        let now = format!("@{}", THEN + age);
        let (code, said) = case.verify(&["--now", &now]).await;
        assert_eq!(code, expected, "{age}: {said}");
        if expected == 5 {
            assert_eq!((&said["verdict"], &said["quorum_age_seconds"]), (&"stale".into(), &age.into()));
        }
    }
    let mut case = Case::new(&WORDS).await;
    case.keep(&case.cosigned(9)).await;
    assert_eq!(case.verify(&["--now", &format!("@{}", THEN - 301)]).await.0, 5, "a quorum from the future");
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_records_than_others_know_are_stale() {
    let later = Case::new(&[&WORDS[..], &["nine", "ten", "eleven"]].concat()).await.cosigned(12).to_bytes();
    for option in ["--remembered", "--witness-view"] {
        let mut case = Case::new(&WORDS).await;
        case.keep(&case.cosigned(9)).await;
        let file = case.file("later", &later);
        let (code, said) = case.verify(&[option, &file]).await;
        assert_eq!((code, &said["size"], &said["known_size"]), (5, &9.into(), &12.into()), "{said}");
        assert!(said["by"].as_str().unwrap().contains("later"), "{said}");
    }
    // A view that no witness has cosigned says nothing.
    let mut case = Case::new(&WORDS).await;
    case.keep(&case.cosigned(9)).await;
    let file = case.file("view", &note(&log(), &[], 12, NodeHash::new([3; 32])).to_bytes());
    let (code, said) = case.verify(&["--witness-view", &file]).await;
    assert!(code == 0 && says(&said, "no witness of the trust file has cosigned it"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_journal_is_found_by_who_remembers() {
    let genuine = Case::new(&WORDS).await;
    let notes: Vec<Note> = [3, 5, 9].map(|size| genuine.cosigned(size)).into();
    // All that follows from the records was computed anew, and the genuine checkpoints were dropped.
    let mut case = Case::new(&rewritten()).await;
    case.close().await;
    let without =
        Cli::try_parse_from(["sigillo", "verify", "--db", case.home.path().join("db").to_str().unwrap()]).unwrap();
    let Command::Verify(args) = without.command else { panic!("not verify") };
    assert_eq!(look(&args, &without.global, None).await.unwrap().0, 0, "by itself it fits");
    let files: Vec<String> =
        notes.iter().enumerate().map(|(at, note)| case.file(&format!("n{at}"), &note.to_bytes())).collect();
    let all: Vec<&str> = files.iter().flat_map(|file| ["--remembered", file]).collect();
    let (code, said) = case.verify(&all).await;
    assert_eq!((code, &said["from"], &said["to"]), (1, &3.into(), &5.into()), "{said}");
    let (code, said) = case.verify(&["--witness-view", &files[2]]).await;
    assert_eq!(
        (code, &said["from"], &said["to"], &said["misconduct"]),
        (1, &0.into(), &9.into(), &false.into()),
        "{said}"
    );
    // The checkpoints that the journal itself keeps are as good.
    let mut case = Case::new(&rewritten()).await;
    case.keep(&notes[0]).await;
    case.keep(&notes[2]).await;
    let (code, said) = case.verify(&[]).await;
    assert_eq!((code, &said["from"], &said["to"], &said["known_size"]), (1, &3.into(), &9.into(), &9.into()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_roots_of_one_size_are_misconduct() {
    let genuine = Case::new(&WORDS).await.cosigned(9);
    // Signed anew by who has the log's key, but no witness.
    let mut case = Case::new(&rewritten()).await;
    case.keep(&note(&log(), &[], 9, case.root(9))).await;
    let file = case.file("seen", &genuine.to_bytes());
    let (code, said) = case.verify(&["--remembered", &file]).await;
    assert_eq!((code, &said["misconduct"]), (1, &true.into()), "{said}");
    assert!(said["fault"].as_str().unwrap().contains("two roots"), "{said}");
    // Of more records than there are.
    let mut case = Case::new(&WORDS).await;
    let one = case.file("one", &note(&log(), &[], 30, NodeHash::new([1; 32])).to_bytes());
    let two = case.file("two", &note(&log(), &[], 30, NodeHash::new([2; 32])).to_bytes());
    let (code, said) = case.verify(&["--remembered", &one, "--remembered", &two]).await;
    assert_eq!((code, &said["misconduct"], &said["known_size"]), (1, &true.into(), &30.into()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_checkpoints() {
    let stranger = key(ORIGIN, KeyKind::Log, 66);
    let mut case = Case::new(&WORDS).await;
    case.keep(&note(&stranger, &[witness(11)], 4, case.root(4))).await;
    let (code, said) = case.verify(&[]).await;
    assert_eq!((code, &said["to"]), (1, &4.into()), "{said}");
    // What the auditor itself remembers must be usable, or nothing is said.
    let mut case = Case::new(&WORDS).await;
    case.keep(&case.cosigned(9)).await;
    let file = case.file("seen", &note(&stranger, &[], 4, case.root(4)).to_bytes());
    let failure = case.try_verify(&["--remembered", &file]).await.unwrap_err();
    assert_eq!(failure.exit_code(), Some(3), "{failure}");
    let other = case
        .file("other", b"log.example\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\xe2\x80\x94 x AAAAAAA=\n");
    assert!(case.try_verify(&["--remembered", &other]).await.unwrap_err().to_string().contains("log.example"));
    let foreign = case.file("foreign", trust().replace(ORIGIN, "other.test").as_bytes());
    assert_eq!(case.try_verify(&["--policy", &foreign]).await.unwrap_err().exit_code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_changed() {
    let new = key(ORIGIN, KeyKind::Log, 2);
    let rotation = |by: &SigningKey| {
        let text = Rotation { origin: Origin::new(ORIGIN).unwrap(), size: 9, key: new.verifier().clone() }.text();
        Note::new(text.clone(), vec![by.sign(&text).unwrap()]).unwrap().to_string()
    };
    for (rotated_by, signed_by, expected) in [
        (recovery(), &new, 0),
        (log(), &new, 1),
        (recovery(), &log(), 1),
        (recovery(), &key(ORIGIN, KeyKind::Log, 3), 1),
    ] {
        let mut case = Case::new(&WORDS).await;
        case.keep(&case.cosigned(9)).await;
        case.state(&rotation(&rotated_by)).await;
        case.keep(&note(signed_by, &[witness(11)], 10, case.root(10))).await;
        let (code, said) = case.verify(&[]).await;
        assert_eq!(code, expected, "{said}");
        if expected == 1 {
            assert_eq!((&said["from"], &said["to"]), (&9.into(), &10.into()), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_that_are_stated_are_counted() {
    for (stated, expected) in [(9, 0), (8, 1)] {
        let mut case = Case::new(&WORDS).await;
        let entry = |key, epoch, next| CounterEntry { key, epoch: Epoch::new(epoch), next: Count::new(next) };
        let entries = vec![
            entry(CounterKey::Source(SourceId::from_name("a")), 1, stated),
            entry(CounterKey::Source(SourceId::from_name("journal")), 1, 1),
            entry(CounterKey::Tenant(TenantId::from_name("provider")), 0, 10),
        ];
        let tree = CounterTree::build([4; 32], entries);
        case.state(&tree.statement(&Origin::new(ORIGIN).unwrap(), Vec::new()).text()).await;
        case.keep(&case.cosigned(10)).await;
        let (code, said) = case.verify(&[]).await;
        assert_eq!(code, expected, "{said}");
        if expected == 1 {
            assert_eq!((&said["from"], &said["to"]), (&9.into(), &10.into()), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_remembered() {
    let mut case = Case::new(&WORDS).await;
    case.keep(&case.cosigned(9)).await;
    let memory = case.home.path().join("memory").display().to_string();
    assert_eq!(case.verify(&["--remember", &memory]).await.0, 0);
    assert_eq!(fs::read_dir(&memory).unwrap().count(), 1);
    let mut case = Case::new(&rewritten()).await;
    case.keep(&case.cosigned(9)).await;
    let (code, said) = case.verify(&["--remember", &memory]).await;
    assert_eq!((code, &said["misconduct"]), (1, &true.into()), "{said}");
    assert_eq!(fs::read_dir(&memory).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_signs_what_is_intact_only() {
    let auditor = key("auditor.test", KeyKind::Auditor, 50);
    let mut case = Case::new(&WORDS).await;
    case.keep(&case.cosigned(9)).await;
    let file = case.file("auditor.key", auditor.encode().as_bytes());
    let out = case.home.path().join("out").display().to_string();
    let with = ["--cosign", &file, "--out", &out];
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(case.try_verify(&with).await.unwrap_err().to_string().contains("chmod 600"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let late = format!("@{}", THEN + 700);
    assert_eq!(case.verify(&[&with[..], &["--now", &late]].concat()).await.0, 5);
    assert!(!fs::exists(&out).unwrap(), "not what is stale");
    assert_eq!(case.verify(&with).await.0, 0);
    let policy = Policy::parse(format!("{}auditor {}\n", trust(), auditor.verifier()).as_bytes()).unwrap();
    let note = Note::parse(&fs::read(&out).unwrap()).unwrap();
    let judgement = policy.check(&note).unwrap();
    assert_eq!((judgement.checkpoint.size, judgement.quorum, judgement.auditors.len()), (9, true, 1));
}

#[test]
fn what_needs_a_trust_file_says_so() {
    for option in [["--remembered", "x"], ["--witness-view", "x"], ["--state", "x"]] {
        let cli = Cli::try_parse_from(["sigillo", "verify", option[0], option[1]]).unwrap();
        let Command::Verify(args) = cli.command else { panic!("not verify") };
        let failure = Judge::new(&args, None).err().unwrap();
        assert!(failure.to_string().contains(option[0]) && failure.exit_code() == Some(2), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_journal_is_held_against_a_head_noted_earlier() {
    let mut case = Case::new(&WORDS).await;
    let chain = case.journal().head().chain.to_string();
    let noted = |size: &str| ["--expect-size", size, "--expect-chain", &chain].map(str::to_owned);
    let failure = walk::local(&case.home.path().join("db"), Demands::default(), &ProgressBar::hidden()).unwrap_err();
    assert!(matches!(failure, Stopped::Failed(Failure::Unreadable(what)) if what.contains("in use")));
    case.keep(&case.cosigned(9)).await;
    for (size, expected) in [("9", 0), ("6", 1), ("4", 1), ("10", 1)] {
        let noted = noted(size);
        let (code, said) = case.verify(&noted.each_ref().map(String::as_str)).await;
        assert_eq!(code, expected, "{size}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_journal_there_is_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let verdict = walk::local(folder.path(), Demands::default(), &ProgressBar::hidden());
    assert!(matches!(verdict, Err(Stopped::Failed(Failure::Unreadable(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn witnesses_with_an_address_are_asked() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let case = Case::new(&WORDS).await;
    let cosigned = case.cosigned(9);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let path = format!("GET /w/checkpoint/{} ", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(ORIGIN)));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let length = stream.read(&mut request).await.unwrap();
            let found = String::from_utf8_lossy(&request[..length]).starts_with(&path);
            let body = if found { cosigned.to_string() } else { String::new() };
            let status = if found { "200 OK" } else { "404 Not Found" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    for (prefix, shown, missing) in [("/w/", 1, 0), ("/other", 0, 1)] {
        let one = witness(11).verifier().to_string();
        let trust = trust().replace(&format!("w1 {one}"), &format!("w1 {one} http://{address}{prefix}"));
        let file = case.file("asked", trust.as_bytes());
        let cli = Cli::try_parse_from(["sigillo", "verify", "--policy", &file]).unwrap();
        let Command::Verify(args) = cli.command else { panic!("not verify") };
        let had = Judge::new(&args, Some(Path::new(&file))).unwrap().unwrap().views.gather().await.unwrap();
        assert_eq!((had.shown.len(), had.missing.len()), (shown, missing), "{had:?}");
        if let Some(shown) = had.shown.first() {
            assert_eq!(*shown.by(), sigillo_model::audit::Holder::Witness("w1".into()));
        }
    }
}
