//! Checkpoints: what is signed, what is cosigned, and what is refused.

use std::{fs, path::Path, time::Duration};

use sigillo_model::{
    ids::Origin,
    note::{KeyKind, Note, SigningKey},
    policy::Policy,
    rotation::Rotation,
};
use sigillo_proto::v1::{self, CheckpointState};
use sigillo_server::{clock::Clock, config::Config};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    support::{Chain, Fixture, SOON, attribute, line},
    witness::{Manner, Witness},
};

/// Checkpoints come and witnesses are given up quickly, so that a test takes no longer than it must.
fn hasty(config: &mut Config) {
    let checkpoint = config.checkpoint.as_mut().unwrap();
    (checkpoint.interval_ms, checkpoint.witness_timeout_ms) = (20, 300);
}

/// Names the witnesses in the trust file of `dir`, with the address of each.
fn trust(dir: &Path, witnesses: &[&Witness], quorum: &str) {
    let path = dir.join("trust.txt");
    let keys = fs::read_to_string(&path).unwrap();
    let mut text: String = keys
        .lines()
        .filter(|line| line.starts_with("log ") || line.starts_with("receipt "))
        .fold(String::new(), |text, line| text + line + "\n");
    for (index, witness) in witnesses.iter().enumerate() {
        text += &witness.line(&format!("w{index}"));
    }
    fs::write(path, text + quorum).unwrap();
}

/// A server whose trust file names these witnesses.
async fn start(dir: TempDir, witnesses: &[&Witness], quorum: &str) -> Fixture {
    // Makes the keys.
    crate::support::configure(dir.path(), |_| {});
    trust(dir.path(), witnesses, quorum);
    Fixture::start_in(dir, hasty, Clock::default()).await
}

async fn start_new(witnesses: &[&Witness], quorum: &str) -> Fixture {
    start(tempfile::tempdir().unwrap(), witnesses, quorum).await
}

const ANY: &str = "group all-of-them any w0 w1\nquorum all-of-them\n";

impl Fixture {
    async fn state(&self) -> CheckpointState {
        let head = self.audit().await.get_head(v1::GetHeadRequest {}).await.unwrap().into_inner();
        head.checkpoint_state()
    }

    async fn reaches(&self, state: CheckpointState) {
        let reached = timeout(SOON, async {
            while self.state().await != state {
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(reached.await.is_ok(), "the state is {:?}, not {state:?}", self.state().await);
    }

    /// Waits for a checkpoint that covers `size` records.
    async fn checkpoint(&self, size: u64, newest_signed: bool) -> v1::Checkpoint {
        let mut log = self.log().await;
        let request = v1::WatchCheckpointsRequest { newest_signed };
        let mut checkpoints = log.watch_checkpoints(request).await.unwrap().into_inner();
        let found = timeout(SOON, async {
            loop {
                let checkpoint = checkpoints.message().await.unwrap().unwrap();
                if checkpoint.size >= size {
                    return checkpoint;
                }
            }
        });
        found.await.expect("a checkpoint of that size")
    }

    async fn size(&self) -> u64 {
        self.audit().await.get_head(v1::GetHeadRequest {}).await.unwrap().into_inner().size
    }

    /// Waits for own records of a kind.
    async fn recorded(&self, name: &str, at_least: usize) -> Vec<sigillo_proto::record::Fields> {
        timeout(SOON, async {
            loop {
                let events = self.events(name).await;
                if events.len() >= at_least {
                    return events;
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no record {name}"))
    }

    async fn ship(&self, chain: &mut Chain, text: &str) -> u64 {
        let receipt = self.append("agent").await.receipt(chain.seal(&[line(text)])).await;
        receipt.sequence + 1
    }

    fn policy(&self) -> Policy {
        Policy::parse(&fs::read(self.dir.path().join("trust.txt")).unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_meets_the_policy() {
    let (first, second) = (Witness::start(1, Manner::Honest).await, Witness::start(2, Manner::Honest).await);
    let server = start_new(&[&first, &second], "group both all w0 w1\nquorum both\n").await;
    let mut chain = Chain::new("dev-agent");
    let size = server.ship(&mut chain, "to be cosigned").await;
    let checkpoint = server.checkpoint(size, false).await;
    assert!(checkpoint.quorum && checkpoint.quorum_time_unix > 0);
    let policy = server.policy();
    let note = Note::parse(&checkpoint.note).unwrap();
    let judgement = policy.check(&note).unwrap();
    assert_eq!((judgement.quorum, judgement.cosignatures.len(), judgement.checkpoint.size), (true, 2, checkpoint.size));
    let (status, head, body) = server.get("/checkpoint").await;
    let published = policy.check(&Note::parse(&body).unwrap()).unwrap().checkpoint.size;
    assert!(status == 200 && published >= checkpoint.size);
    assert!(head.contains("content-type: text/plain; charset=utf-8") && head.contains("cache-control: no-store"));
    server.reaches(CheckpointState::Met).await;
    let done =
        crate::support::results(server.query().await.search(v1::SearchRequest::default()).await.unwrap().into_inner())
            .await
            .1
            .unwrap();
    assert_eq!(done.checkpoint_state(), CheckpointState::Met);
    // One with the counters as its last leaf is kept.
    server.recorded("journal.counters", 1).await;
    let kept = v1::GetCheckpointRequest { at_or_after: 1, ..Default::default() };
    let kept = server.log().await.get_checkpoint(kept).await.unwrap().into_inner();
    assert!(kept.quorum && kept.size <= checkpoint.size);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_is_enough_where_the_policy_says_so() {
    let (honest, down) = (Witness::start(1, Manner::Honest).await, Witness::start(2, Manner::Down).await);
    let server = start_new(&[&honest, &down], ANY).await;
    let size = server.ship(&mut Chain::new("dev-agent"), "one will do").await;
    assert!(server.checkpoint(size, false).await.quorum);
    server.reaches(CheckpointState::Met).await;
    let failing = server.recorded("witness.failing", 1).await;
    assert_eq!((failing.len(), attribute(&failing[0], "failure")), (1, "no answer".into()));
    // It catches up when it is there again.
    down.behave(Manner::Honest);
    timeout(SOON, async {
        while down.size() < size {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmet_policy_is_flagged_and_never_stops_ingest() {
    let (first, second) = (Witness::start(1, Manner::Down).await, Witness::start(2, Manner::Stall).await);
    let server = start_new(&[&first, &second], ANY).await;
    let mut chain = Chain::new("dev-agent");
    let size = server.ship(&mut chain, "taken").await;
    server.reaches(CheckpointState::Unmet).await;
    assert_eq!(server.get("/checkpoint").await.0, 404);
    assert_eq!(server.recorded("checkpoint.unmet", 1).await.len(), 1);
    let newest = server.checkpoint(size, true).await;
    assert!(!newest.quorum);
    server.ship(&mut chain, "taken as well").await;
    second.behave(Manner::Honest);
    first.behave(Manner::Honest);
    server.reaches(CheckpointState::Met).await;
    assert_eq!(server.recorded("checkpoint.met", 1).await.len(), 1);
    let size = server.ship(&mut chain, "cosigned").await;
    assert!(server.checkpoint(size, false).await.quorum);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_witness_concerns_no_other() {
    for (manner, kind) in [
        (Manner::BadSignature, "bad cosignature"),
        (Manner::OtherRoot, "another history"),
        (Manner::Ahead, "ahead"),
        (Manner::Restless, "another history"),
        (Manner::Future, "clock"),
        (Manner::Stall, "no answer"),
        (Manner::Megabytes, "too large an answer"),
    ] {
        let (honest, hostile) = (Witness::start(1, Manner::Honest).await, Witness::start(2, Manner::Honest).await);
        let server = start_new(&[&honest, &hostile], ANY).await;
        let mut chain = Chain::new("dev-agent");
        let size = server.ship(&mut chain, "before").await;
        server.checkpoint(size, false).await;
        timeout(SOON, async {
            while hostile.size() < size {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        hostile.behave(manner);
        for text in ["one", "two", "three"] {
            let size = server.ship(&mut chain, text).await;
            let checkpoint = server.checkpoint(size, false).await;
            assert!(checkpoint.quorum, "{manner:?}");
        }
        let failing = server.recorded("witness.failing", 1).await;
        let kinds: Vec<String> = failing.iter().map(|event| attribute(event, "failure")).collect();
        // A restless one may at times name what was sent.
        let fits = kinds.iter().all(|found| found == kind || (manner == Manner::Restless && found == "never agrees"));
        assert!(fits && kinds.len() <= 2, "{manner:?}: {kinds:?}");
        assert_eq!(server.state().await, CheckpointState::Met, "{manner:?}");
        let before = hostile.requests();
        sleep(Duration::from_millis(500)).await;
        assert!(hostile.requests() <= before + 3, "{manner:?} is asked again and again");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_history_over_restarts() {
    let witness = Witness::start(1, Manner::Honest).await;
    let mut dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new("dev-agent");
    for round in 0..4 {
        let server = start(dir, &[&witness], "quorum w0\n").await;
        let size = server.ship(&mut chain, &format!("round {round}")).await;
        assert!(server.checkpoint(size, false).await.quorum);
        dir = server.stop().await;
    }
    // The witness has asserted that each continued the one before.
    assert!(witness.cosigned().len() >= 4);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            let _ = fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The data of a server, as they were after some records, and a server's directory where more came and were signed.
async fn earlier_day(witness: &Witness, quorum: &str) -> (TempDir, TempDir, Chain) {
    let mut chain = Chain::new("dev-agent");
    let server = start_new(&[witness], quorum).await;
    let size = server.ship(&mut chain, "backed up").await;
    server.checkpoint(size, false).await;
    let dir = server.stop().await;
    let backup = tempfile::tempdir().unwrap();
    copy(&dir.path().join("data"), backup.path());
    let after_backup = chain.clone();
    let server = start(dir, &[witness], quorum).await;
    let size = server.ship(&mut chain, "signed after the backup").await;
    server.checkpoint(size, false).await;
    (server.stop().await, backup, after_backup)
}

async fn refuses(dir: TempDir, witness: &Witness, quorum: &str, mut chain: Chain, why: &str) {
    let cosigned = witness.cosigned().len();
    let server = start(dir, &[witness], quorum).await;
    let refused = server.recorded("checkpoint.refused", 1).await;
    let body = crate::support::body(
        &server.search(v1::Filter { actions: vec!["checkpoint.refused".into()], ..Default::default() }).await[0],
    );
    assert!(refused.len() == 1 && body.contains(why), "{body}");
    let health = async |service: &str| {
        let request = HealthCheckRequest { service: service.into() };
        HealthClient::new(server.channel("reader").await).check(request).await.unwrap().into_inner().status()
    };
    assert_eq!(health("sigillo.v1.Log").await, ServingStatus::NotServing);
    assert_eq!(health("sigillo.v1.Ingest").await, ServingStatus::Serving);
    // Ingest goes on, and nothing new is signed for it.
    let size = server.ship(&mut chain, "taken all the same").await;
    sleep(Duration::from_millis(300)).await;
    let newest = v1::GetCheckpointRequest { newest_signed: true, ..Default::default() };
    let newest = server.log().await.get_checkpoint(newest).await;
    assert!(newest.is_err() || newest.unwrap().into_inner().size < size);
    assert_ne!(server.state().await, CheckpointState::Met);
    assert!(witness.cosigned().len() <= cosigned + 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_an_earlier_day_signs_nothing() {
    let witness = Witness::start(1, Manner::Honest).await;
    let (dir, backup, chain) = earlier_day(&witness, "quorum none\n").await;
    // The database alone comes from the backup; what was signed is still known.
    let data = dir.path().join("data");
    for part in ["journal", "head"] {
        let (from, to) = (backup.path().join(part), data.join(part));
        if to.is_dir() {
            fs::remove_dir_all(&to).unwrap();
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
    refuses(dir, &witness, "quorum none\n", chain, "this is the database of an earlier day").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn witnesses_know_what_an_earlier_day_has_forgotten() {
    let witness = Witness::start(1, Manner::Honest).await;
    let (dir, backup, chain) = earlier_day(&witness, "quorum w0\n").await;
    fs::remove_dir_all(dir.path().join("data")).unwrap();
    copy(backup.path(), &dir.path().join("data"));
    refuses(dir, &witness, "quorum w0\n", chain, "which was never signed here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_file_signed_the_witnesses_are_asked() {
    let witness = Witness::start(1, Manner::Honest).await;
    let (dir, backup, chain) = earlier_day(&witness, "quorum w0\n").await;
    fs::remove_dir_all(dir.path().join("data")).unwrap();
    copy(backup.path(), &dir.path().join("data"));
    fs::remove_file(dir.path().join("data/signed")).unwrap();
    refuses(dir, &witness, "quorum w0\n", chain, "which was never signed here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_root_at_the_signed_size_is_refused() {
    let server = start_new(&[], "quorum none\n").await;
    let mut chain = Chain::new("dev-agent");
    let size = server.ship(&mut chain, "signed").await;
    server.checkpoint(size, false).await;
    let dir = server.stop().await;
    // Another journal of the same origin, longer than what was signed.
    let data = dir.path().join("data");
    let signed = fs::read(data.join("signed")).unwrap();
    fs::remove_dir_all(&data).unwrap();
    let mut other = Chain::new("dev-agent");
    let server = start(dir, &[], "quorum none\n").await;
    for text in ["another", "history", "that is", "longer"] {
        server.ship(&mut other, text).await;
    }
    while server.size().await < size + 4 {
        server.ship(&mut other, "still longer").await;
    }
    let dir = server.stop().await;
    fs::write(data.join("signed"), signed).unwrap();
    let server = start(dir, &[], "quorum none\n").await;
    let refused = server.recorded("checkpoint.refused", 1).await;
    assert_eq!(refused.len(), 1);
    let health = server.state().await;
    assert_eq!(health, CheckpointState::Unmet);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_trust_file_must_agree() {
    let dir = tempfile::tempdir().unwrap();
    crate::support::configure(dir.path(), |_| {});
    let trust = dir.path().join("trust.txt");
    let text = fs::read_to_string(&trust).unwrap();
    let without = |word: &str| {
        text.lines().filter(|line| !line.starts_with(word)).fold(String::new(), |text, line| text + line + "\n")
    };
    let mut dir = dir;
    for (new, problem) in [
        (without("log "), "names the key that would sign"),
        (without("receipt "), "does not name the key that would sign receipts"),
        (without("quorum"), "quorum"),
    ] {
        fs::write(&trust, new).unwrap();
        let server = Fixture::start_in(dir, hasty, Clock::default()).await;
        dir = tempfile::tempdir().unwrap();
        let told = server.fails_in(&mut dir).await;
        assert!(told.contains(problem), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_signs_only_when_the_recovery_key_says_so() {
    let key = |name: &str, seed: u8| SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    crate::support::configure(dir.path(), |_| {});
    let recovery = key("recovery.example", 9);
    trust(dir.path(), &[], &format!("recovery {}\nquorum none\n", recovery.verifier()));
    let server = Fixture::start_in(dir, hasty, Clock::default()).await;
    let mut chain = Chain::new("dev-agent");
    let size = server.ship(&mut chain, "by the old key").await;
    let size = server.checkpoint(size, false).await.size;
    let mut dir = server.stop().await;

    // Another key by itself is refused.
    let path = dir.path().join("keys/log.key");
    let (old, new) = (fs::read(&path).unwrap(), key(crate::support::ORIGIN, 5));
    fs::write(&path, new.encode().as_bytes()).unwrap();
    let server = Fixture::start_in(dir, hasty, Clock::default()).await;
    dir = tempfile::tempdir().unwrap();
    let told = server.fails_in(&mut dir).await;
    assert!(told.contains("have the recovery key sign a rotation"), "{told}");

    // A rotation that the old key signed is none.
    let origin = Origin::new(crate::support::ORIGIN).unwrap();
    let text = Rotation { origin, size, key: new.verifier().clone() }.text();
    let write = |dir: &Path, by: &SigningKey| {
        let note = Note::new(text.clone(), vec![by.sign(&text).unwrap()]).unwrap();
        fs::write(dir.join("rotation.note"), note.to_bytes()).unwrap();
    };
    let rotated = |config: &mut Config| {
        hasty(config);
        config.checkpoint.as_mut().unwrap().rotations = vec!["rotation.note".into()];
    };
    write(dir.path(), &SigningKey::parse(std::str::from_utf8(&old).unwrap()).unwrap());
    let server = Fixture::start_in(dir, rotated, Clock::default()).await;
    dir = tempfile::tempdir().unwrap();
    let told = server.fails_in(&mut dir).await;
    assert!(told.contains("rotation.note"), "{told}");

    // The recovery key's is recorded, once, and followed.
    write(dir.path(), &recovery);
    let server = Fixture::start_in(dir, rotated, Clock::default()).await;
    let size = server.ship(&mut chain, "by the new key").await;
    let checkpoint = server.checkpoint(size, false).await;
    assert!(Note::parse(&checkpoint.note).unwrap().verify(&[new.verifier().clone()]).is_ok());
    let dir = server.stop().await;
    let server = Fixture::start_in(dir, rotated, Clock::default()).await;
    assert_eq!(server.recorded("key.rotated", 1).await.len(), 1);
    let mut dir = server.stop().await;

    // From then on the old key is refused, though the trust file names it.
    fs::write(dir.path().join("keys/log.key"), old).unwrap();
    let server = Fixture::start_in(dir, hasty, Clock::default()).await;
    dir = tempfile::tempdir().unwrap();
    let told = server.fails_in(&mut dir).await;
    assert!(told.contains("names another key than the one that would sign"), "{told}");
}
