//! A sender that holds its server to what it has said, against servers that lie.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sigillo_client::{
    ClientError, Connection, Guard,
    ship::{Options, Shipper},
};
use sigillo_model::{
    ids::ChainHash,
    misconduct::{Misconduct, Worth},
    record::Record,
};
use sigillo_proto::v1;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::{
    journal::{Tree, log_key, receipt_key, sign, write_trust},
    server::{Act, Shared, TestServer},
};

const LONG: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(20);
/// What the test server says to be the chain value of every record.
const ENTRY: ChainHash = ChainHash::new([0xc0; 32]);

/// A sender's memory, which outlives its guards.
struct Sender {
    dir: TempDir,
}

impl Sender {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_trust(&dir.path().join("trust.txt"));
        Self { dir }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn guard(&self, grace: Duration) -> Arc<Guard> {
        Arc::new(Guard::open(&self.dir.path().join("trust.txt"), &self.state(), grace).unwrap())
    }

    async fn start(&self, server: &TestServer, guard: &Arc<Guard>) -> Result<Shipper, ClientError> {
        let connection = Connection::open(&server.endpoint).await.unwrap();
        let guard = Some(Arc::clone(guard));
        let options = Options { max_records: 1, guard, refusals_are_final: true, ..Options::new("test 1") };
        Shipper::start(&connection, options).await
    }

    /// The one file of misconduct, and what it is worth to somebody who has the trust file's keys.
    fn evidence(&self) -> (Misconduct, Worth) {
        let is_evidence = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("misconduct-");
        let mut files: Vec<_> = fs::read_dir(self.state()).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(is_evidence);
        assert_eq!(files.len(), 1, "{files:?}");
        let (misconduct, _) = Misconduct::parse(&fs::read_to_string(&files[0]).unwrap()).unwrap();
        let (log, receipts) = (log_key(), receipt_key(1));
        let worth = misconduct.check(&[log.verifier().clone()], &[receipts.verifier().clone()]).unwrap();
        (misconduct, worth)
    }
}

/// A server that shows this tree and signs its receipts.
async fn server(shown: Tree) -> TestServer {
    let server = TestServer::start([]).await;
    server.shared().shown = shown;
    server.shared().sign = |receipt| sign(receipt, Shared::source(), &receipt_key(1));
    server
}

fn record() -> Record {
    Record { content: Some("line".into()), ..Record::default() }
}

async fn ship_one(shipper: &mut Shipper) -> Result<(), ClientError> {
    shipper.push(&record()).await?;
    timeout(SOON, shipper.flush()).await.expect("an outcome").map(drop)
}

fn is_misconduct(error: &ClientError, path: &Path) -> bool {
    matches!(error, ClientError::Misconduct { evidence: Some(file), .. } if file.starts_with(path))
}

#[tokio::test]
async fn the_newest_checkpoint_is_remembered_and_every_later_one_continues_it() {
    let sender = Sender::new();
    let server = server(Tree::of(1, 5)).await;
    let guard = sender.guard(LONG);
    assert!(guard.remembered().is_empty());
    let mut shipper = sender.start(&server, &guard).await.unwrap();
    assert_eq!(guard.remembered(), Tree::of(1, 5).note());
    // News on the open stream, then a restart.
    let news = Tree::of(1, 9);
    server.shared().news = Some(v1::CheckpointNews { checkpoint: news.note(), consistency: news.consistency(5) });
    ship_one(&mut shipper).await.unwrap();
    timeout(SOON, async {
        while guard.remembered() != news.note() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    shipper.close().await;

    let guard = sender.guard(LONG);
    assert_eq!(guard.remembered(), news.note());
    server.shared().shown = Tree::of(1, 14);
    sender.start(&server, &guard).await.unwrap();
    assert_eq!(server.shared().hellos.last().unwrap().checkpoint, news.note());
    assert_eq!(sender.guard(LONG).remembered(), Tree::of(1, 14).note());
}

#[tokio::test]
async fn another_history_of_the_same_size_is_proved() {
    let sender = Sender::new();
    let server = server(Tree::of(1, 5)).await;
    sender.start(&server, &sender.guard(LONG)).await.unwrap();
    server.shared().shown = Tree::of(2, 5);
    let error = sender.start(&server, &sender.guard(LONG)).await.unwrap_err();
    assert!(is_misconduct(&error, &sender.state()), "{error}");
    let (misconduct, worth) = sender.evidence();
    assert!(matches!(misconduct, Misconduct::TwoRoots { .. }) && worth == Worth::Proof);
    assert_eq!(sender.guard(LONG).remembered(), Tree::of(1, 5).note(), "what was remembered stays");
}

#[tokio::test]
async fn another_longer_history_is_no_continuation() {
    let sender = Sender::new();
    let server = server(Tree::of(1, 5)).await;
    let guard = sender.guard(LONG);
    let mut shipper = sender.start(&server, &guard).await.unwrap();
    // On the open stream, with the proof of its own history.
    let forged = Tree::of(2, 9);
    server.shared().news = Some(v1::CheckpointNews { checkpoint: forged.note(), consistency: forged.consistency(5) });
    ship_one(&mut shipper).await.unwrap();
    shipper.push(&record()).await.unwrap();
    let error = timeout(SOON, shipper.settled()).await.unwrap().unwrap_err();
    assert!(is_misconduct(&error, &sender.state()), "{error}");
    let (misconduct, worth) = sender.evidence();
    assert!(matches!(misconduct, Misconduct::NotContinued { .. }) && worth == Worth::Question);
}

#[tokio::test]
async fn checkpoints_of_strangers_and_of_other_journals_are_not_taken() {
    let sender = Sender::new();
    let server = server(Tree::of(1, 5)).await;
    let guard = sender.guard(LONG);
    let mut shipper = sender.start(&server, &guard).await.unwrap();
    let checkpoint = Tree::of(1, 9).note_by(&receipt_key(1));
    let consistency = Tree::of(1, 9).consistency(5);
    server.shared().news = Some(v1::CheckpointNews { checkpoint, consistency });
    ship_one(&mut shipper).await.unwrap();
    shipper.push(&record()).await.unwrap();
    let error = timeout(SOON, shipper.settled()).await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Checkpoint(_)), "{error}");
    assert_eq!(guard.remembered(), Tree::of(1, 5).note());
}

#[tokio::test]
async fn nothing_is_shipped_to_a_server_that_shows_an_older_checkpoint() {
    let sender = Sender::new();
    let server = server(Tree::of(1, 9)).await;
    sender.start(&server, &sender.guard(LONG)).await.unwrap();
    for shown in [Tree::of(1, 5), Tree::default()] {
        server.shared().shown = shown;
        // It catches up.
        let guard = sender.guard(LONG);
        let catching_up = async {
            sleep(Duration::from_millis(300)).await;
            server.shared().shown = Tree::of(1, 9);
        };
        let (shipper, ()) = tokio::join!(timeout(SOON, sender.start(&server, &guard)), catching_up);
        let mut shipper = shipper.unwrap().unwrap();
        ship_one(&mut shipper).await.unwrap();
        shipper.close().await;
    }
    for shown in [Tree::of(1, 5), Tree::default()] {
        server.shared().shown = shown;
        // It does not.
        let before = server.shared().durable.len();
        for _ in 0..2 {
            let error = sender.start(&server, &sender.guard(Duration::from_millis(300))).await.unwrap_err();
            assert!(matches!(error, ClientError::Misconduct { stale: true, .. }), "{error}");
        }
        assert_eq!(server.shared().durable.len(), before);
        let (misconduct, worth) = sender.evidence();
        assert!(matches!(misconduct, Misconduct::RolledBack { .. }) && worth == Worth::Question);
        for path in fs::read_dir(sender.state()).unwrap().map(|file| file.unwrap().path()) {
            if path.file_name().unwrap().to_string_lossy().starts_with("misconduct-") {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn news_of_an_older_checkpoint_end_an_open_stream() {
    let sender = Sender::new();
    let server = server(Tree::of(1, 9)).await;
    let mut shipper = sender.start(&server, &sender.guard(Duration::from_millis(300))).await.unwrap();
    ship_one(&mut shipper).await.unwrap();
    // It comes with the next ack, and the next welcome shows no more.
    server.shared().shown = Tree::of(1, 5);
    server.shared().news = Some(v1::CheckpointNews { checkpoint: Tree::of(1, 5).note(), consistency: Vec::new() });
    ship_one(&mut shipper).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let before = server.shared().durable.len();
    let error = ship_one(&mut shipper).await.unwrap_err();
    assert!(matches!(error, ClientError::Misconduct { stale: true, .. }), "{error}");
    assert_eq!(server.shared().durable.len(), before, "nothing more is shipped");
    assert!(matches!(sender.evidence(), (Misconduct::RolledBack { .. }, Worth::Question)));
}

#[tokio::test]
async fn people_look_too() {
    let sender = Sender::new();
    let server = server(Tree::of(1, 5)).await;
    let connection = Connection::open(&server.endpoint).await.unwrap();
    sender.guard(LONG).look(&connection).await.unwrap();
    server.shared().shown = Tree::of(1, 8);
    sender.guard(LONG).look(&connection).await.unwrap();
    assert_eq!(sender.guard(LONG).remembered(), Tree::of(1, 8).note());
    server.shared().shown = Tree::of(1, 6);
    let stale = sender.guard(Duration::from_millis(300)).look(&connection).await.unwrap_err();
    assert!(matches!(stale, ClientError::Misconduct { stale: true, .. }), "{stale}");
    server.shared().shown = Tree::of(2, 12);
    let forked = sender.guard(LONG).look(&connection).await.unwrap_err();
    assert!(matches!(forked, ClientError::Misconduct { stale: false, .. }), "{forked}");
}

#[tokio::test]
async fn receipts_that_are_not_right_acknowledge_nothing() {
    let unsigned: fn(&mut v1::Receipt) = |_| {};
    let forged: fn(&mut v1::Receipt) = |receipt| sign(receipt, Shared::source(), &receipt_key(9));
    let swapped: fn(&mut v1::Receipt) = |receipt| {
        let mut other = v1::Receipt { first: receipt.first + 1, ..receipt.clone() };
        sign(&mut other, Shared::source(), &receipt_key(1));
        *receipt = v1::Receipt { first: receipt.first, ..other };
    };
    let truncated: fn(&mut v1::Receipt) = |receipt| {
        sign(receipt, Shared::source(), &receipt_key(1));
        receipt.frame_path.truncate(32);
    };
    let altered: fn(&mut v1::Receipt) = |receipt| {
        sign(receipt, Shared::source(), &receipt_key(1));
        receipt.sequence += 1;
    };
    let anothers: fn(&mut v1::Receipt) =
        |receipt| sign(receipt, sigillo_model::ids::SourceId::from_name("another"), &receipt_key(1));
    for wrong in [unsigned, forged, swapped, truncated, altered, anothers] {
        let sender = Sender::new();
        let server = server(Tree::of(1, 5)).await;
        server.shared().sign = wrong;
        let mut shipper = sender.start(&server, &sender.guard(LONG)).await.unwrap();
        let error = ship_one(&mut shipper).await.unwrap_err();
        assert!(matches!(error, ClientError::Receipt { .. }), "{error}");
        assert_eq!(shipper.waiting(), 1, "nothing is let go");
    }
}

/// Ships a record, tells of a checkpoint of `tree` that covers it, and gives the guard.
async fn ship_and_cover(sender: &Sender, tree: &Tree, answer: Option<v1::Proof>) -> (Arc<Guard>, Shipper, TestServer) {
    let server = server(Tree::default()).await;
    let guard = sender.guard(LONG);
    let mut shipper = sender.start(&server, &guard).await.unwrap();
    server.shared().inclusion = answer;
    server.shared().news = Some(v1::CheckpointNews { checkpoint: tree.note(), consistency: Vec::new() });
    ship_one(&mut shipper).await.unwrap();
    (guard, shipper, server)
}

#[tokio::test]
async fn a_receipt_is_let_go_once_a_checkpoint_holds_what_it_says() {
    let sender = Sender::new();
    let mut tree = Tree::of(1, 5);
    tree.0[0] = ENTRY;
    let (guard, shipper, _server) = ship_and_cover(&sender, &tree, Some(tree.inclusion(0))).await;
    timeout(SOON, async {
        while !guard.uncovered().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    shipper.close().await;
}

#[tokio::test]
async fn a_receipt_that_is_contradicted_is_a_proof() {
    let sender = Sender::new();
    let tree = Tree::of(1, 5);
    let (_, mut shipper, _server) = ship_and_cover(&sender, &tree, Some(tree.inclusion(0))).await;
    let error = timeout(SOON, shipper.settled()).await.unwrap().unwrap_err();
    assert!(is_misconduct(&error, &sender.state()), "{error}");
    let (misconduct, worth) = sender.evidence();
    assert!(matches!(misconduct, Misconduct::ReceiptContradicted { .. }) && worth == Worth::Proof);
}

#[tokio::test]
async fn a_receipt_stays_while_nothing_valid_is_shown_for_it() {
    let mut tree = Tree::of(1, 5);
    tree.0[0] = ENTRY;
    let wrong_place = tree.inclusion(1);
    let lie = v1::Proof { entry: vec![7; 32].into(), ..tree.inclusion(0) };
    for answer in [None, Some(v1::Proof::default()), Some(wrong_place), Some(lie)] {
        let sender = Sender::new();
        let (guard, mut shipper, _server) = ship_and_cover(&sender, &tree, answer).await;
        ship_one(&mut shipper).await.unwrap();
        sleep(Duration::from_millis(100)).await;
        assert!(!guard.uncovered().is_empty());
        shipper.close().await;
        // It is held against the journal in a later life, too.
        let kept = guard.uncovered();
        let guard = sender.guard(LONG);
        guard.hold(kept.clone());
        assert_eq!(guard.uncovered(), kept);
    }
}

#[tokio::test]
async fn a_server_is_checked_again_on_each_connection() {
    let sender = Sender::new();
    let server = TestServer::start([Act::Lose]).await;
    server.shared().shown = Tree::of(1, 5);
    server.shared().sign = |receipt| sign(receipt, Shared::source(), &receipt_key(1));
    let mut shipper = sender.start(&server, &sender.guard(LONG)).await.unwrap();
    server.shared().shown = Tree::of(2, 6);
    let error = ship_one(&mut shipper).await.unwrap_err();
    assert!(is_misconduct(&error, &sender.state()), "{error}");
    assert!(server.shared().durable.is_empty(), "nothing more is shipped");
}
