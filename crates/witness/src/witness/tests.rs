use std::{convert::Infallible, fs, path::Path};

use sigillo_model::{
    ids::NodeHash,
    note::{KeyKind, Verified},
    proof::{self, Subtrees},
};
use tempfile::TempDir;

use super::*;

/// A log of two versions that part at leaf 10.
struct Log {
    fork: bool,
}

impl Subtrees for Log {
    type Error = Infallible;

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, Infallible> {
        if height == 0 {
            return Ok(tree::leaf(&[u8::try_from(index).unwrap(), u8::from(self.fork && index >= 10)]));
        }
        Ok(tree::node(&self.subtree(height - 1, index * 2)?, &self.subtree(height - 1, index * 2 + 1)?))
    }
}

const ORIGIN: &str = "example.com/log";

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap()
}

fn sign(text: &str) -> Note {
    Note::new(text, vec![key(ORIGIN, 1).sign(text).unwrap()]).unwrap()
}

impl Log {
    fn text(&self, size: u64) -> String {
        let root = proof::root(size, self).unwrap();
        Checkpoint { origin: ORIGIN.into(), size, root }.text()
    }

    fn request(&self, old_size: u64, size: u64) -> AddCheckpoint {
        let proof = proof::consistency(old_size.min(size), size, self).unwrap();
        AddCheckpoint { old_size, proof, checkpoint: sign(&self.text(size)) }
    }
}

const TRUE: Log = Log { fork: false };
const FORK: Log = Log { fork: true };

fn config(dir: &Path) -> Config {
    let key_path = dir.join("key");
    if !key_path.exists() {
        key_file::create("w.example", &key_path).unwrap();
    }
    let path = dir.join("witness.toml");
    let verifier = key(ORIGIN, 1).verifier().to_string();
    let text = format!(
        "name = \"w.example\"\nkey = \"key\"\nstate_dir = \"state\"\nlisten = \"127.0.0.1:0\"\n\
         [[log]]\norigin = \"{ORIGIN}\"\nkeys = [\"{verifier}\", \"{}\"]\n",
        key(ORIGIN, 2).verifier()
    );
    fs::write(&path, text).unwrap();
    Config::load(&path).unwrap()
}

fn witness() -> (TempDir, Witness) {
    let dir = tempfile::tempdir().unwrap();
    let witness = Witness::open(&config(dir.path())).unwrap();
    (dir, witness)
}

fn send(witness: &Witness, request: &AddCheckpoint) -> Result<Signature, Refusal> {
    witness.add_checkpoint(request.to_string().as_bytes(), 1_000)
}

/// Sends and checks that the cosignature is one of this very text.
fn accept(witness: &Witness, request: &AddCheckpoint) {
    let signature = send(witness, request).unwrap();
    let note = Note::new(request.checkpoint.text(), vec![signature]).unwrap();
    assert_eq!(note.verify(&[witness.key().clone()]), Ok(vec![Verified { key: 0, time: Some(1_000) }]));
}

#[test]
fn a_log_that_grows_is_cosigned() {
    let (dir, witness) = witness();
    for (old, new) in [(0, 0), (0, 3), (3, 3), (3, 9), (9, 10), (10, 64), (64, 200)] {
        accept(&witness, &TRUE.request(old, new));
    }
    drop(witness);
    let again = Witness::open(&config(dir.path())).unwrap();
    assert_eq!(again.sizes().next().unwrap().1.unwrap(), 200);
    accept(&again, &TRUE.request(200, 201));
}

#[test]
fn a_log_that_forks_is_not() {
    let (_dir, witness) = witness();
    accept(&witness, &TRUE.request(0, 12));
    assert!(matches!(send(&witness, &FORK.request(12, 12)), Err(Refusal::OtherRoot(12))));
    assert!(matches!(send(&witness, &FORK.request(12, 13)), Err(Refusal::Inconsistent(_))));
    assert!(matches!(send(&witness, &FORK.request(10, 13)), Err(Refusal::OtherSize(12))));
    assert!(matches!(send(&witness, &FORK.request(0, 13)), Err(Refusal::OtherSize(12))));
    // A proof of the true log for the fork's checkpoint, and the other way round.
    let mixed = AddCheckpoint { checkpoint: FORK.request(12, 13).checkpoint, ..TRUE.request(12, 13) };
    assert!(matches!(send(&witness, &mixed), Err(Refusal::Inconsistent(_))));
    let mixed = AddCheckpoint { proof: FORK.request(12, 13).proof, ..TRUE.request(12, 13) };
    assert!(matches!(send(&witness, &mixed), Err(Refusal::Inconsistent(_))));
    accept(&witness, &TRUE.request(12, 13));
}

#[test]
fn other_requests_are_refused_each_with_its_reason() {
    let (_dir, witness) = witness();
    let mut early = TRUE.request(0, 5);
    early.proof = vec![tree::leaf(b"")];
    assert!(matches!(send(&witness, &early), Err(Refusal::Inconsistent(_))));
    accept(&witness, &TRUE.request(0, 5));
    assert!(matches!(send(&witness, &TRUE.request(6, 5)), Err(Refusal::Backwards { old: 6, new: 5 })));
    assert!(matches!(send(&witness, &TRUE.request(4, 6)), Err(Refusal::OtherSize(5))));
    assert!(matches!(send(&witness, &TRUE.request(0, 6)), Err(Refusal::OtherSize(5))));
    let mut longer = TRUE.request(5, 6);
    longer.proof.push(tree::leaf(b""));
    assert!(matches!(send(&witness, &longer), Err(Refusal::Inconsistent(_))));
    let mut same = TRUE.request(5, 5);
    same.proof.push(tree::leaf(b""));
    assert!(matches!(send(&witness, &same), Err(Refusal::Inconsistent(_))));

    let text = TRUE.text(6);
    let signed = |text: &str, key: &SigningKey| AddCheckpoint {
        checkpoint: Note::new(text, vec![key.sign(text).unwrap()]).unwrap(),
        ..TRUE.request(5, 6)
    };
    assert!(matches!(send(&witness, &signed(&text, &key(ORIGIN, 9))), Err(Refusal::NotSigned(_))));
    let stranger = signed(&text.replace(ORIGIN, "example.com/other"), &key("example.com/other", 9));
    assert!(matches!(send(&witness, &stranger), Err(Refusal::UnknownLog(_))));
    assert!(matches!(send(&witness, &signed("no checkpoint\n", &key(ORIGIN, 1))), Err(Refusal::Checkpoint(_))));
    let forged = TRUE.request(5, 6).to_string().replace("\n6\n", "\n7\n");
    assert!(matches!(witness.add_checkpoint(forged.as_bytes(), 1), Err(Refusal::NotSigned(_))));
    assert!(matches!(witness.add_checkpoint(b"old 5\n", 1), Err(Refusal::Body(_))));
    // Either of the log's keys will do, beside a stranger's.
    let mut second = signed(&text, &key("stranger", 9));
    second.checkpoint.add(key(ORIGIN, 2).sign(&text).unwrap()).unwrap();
    accept(&witness, &second);
}

#[test]
fn extension_lines_are_cosigned() {
    let (_dir, witness) = witness();
    let text = format!("{}one more line\n", TRUE.text(5));
    accept(&witness, &AddCheckpoint { checkpoint: sign(&text), ..TRUE.request(0, 5) });
    accept(&witness, &TRUE.request(5, 6));
}

#[test]
fn readers_get_the_newest_with_both_signatures() {
    let (_dir, witness) = witness();
    let hash = origin_hash(ORIGIN);
    assert!(witness.newest(&hash).unwrap().is_none());
    let mut request = TRUE.request(0, 5);
    request.checkpoint.add(key("stranger", 9).sign(&TRUE.text(5)).unwrap()).unwrap();
    accept(&witness, &request);
    let note = witness.newest(&hash).unwrap().unwrap();
    let known = [key(ORIGIN, 1).verifier().clone(), witness.key().clone()];
    assert_eq!(note.verify(&known).unwrap().len(), 2);
    assert_eq!(note.signatures().len(), 2, "strangers are not kept");
    assert!(witness.newest(&origin_hash("x")).unwrap().is_none() && witness.newest("../lock").unwrap().is_none());
}

#[test]
fn a_damaged_memory_refuses_and_says_what_to_do() {
    let (dir, witness) = witness();
    accept(&witness, &TRUE.request(0, 5));
    let path = dir.path().join("state").join(origin_hash(ORIGIN));
    let good = fs::read_to_string(&path).unwrap();
    let rolled_back = good.replace("\n5\n", "\n4\n");
    for bad in ["", rolled_back.as_str()] {
        fs::write(&path, bad).unwrap();
        for request in [TRUE.request(5, 6), TRUE.request(0, 6), FORK.request(0, 12)] {
            let refusal = send(&witness, &request).unwrap_err();
            assert!(matches!(refusal, Refusal::State(StateError::Damaged { .. })));
            assert!(refusal.to_string().contains("restore the file"), "{refusal}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), bad, "evidence of what happened is kept");
    }
    fs::write(&path, good).unwrap();
    accept(&witness, &TRUE.request(5, 6));
}

#[test]
fn what_cannot_be_remembered_is_not_cosigned() {
    let (dir, witness) = witness();
    accept(&witness, &TRUE.request(0, 5));
    // A folder where the next file would be written.
    let next = dir.path().join("state").join(origin_hash(ORIGIN)).with_extension("next");
    fs::create_dir(&next).unwrap();
    assert!(matches!(send(&witness, &TRUE.request(5, 6)), Err(Refusal::State(StateError::Io { .. }))));
    fs::remove_dir(&next).unwrap();
    accept(&witness, &TRUE.request(5, 6));
}

#[test]
fn the_key_must_have_the_configured_name() {
    let dir = tempfile::tempdir().unwrap();
    let other = Config { name: "v.example".into(), ..config(dir.path()) };
    assert!(matches!(Witness::open(&other), Err(WitnessError::Name { .. })));
}
