//! What each decoder reads when all is well: golden files, and a few that are made here.

use std::{fs, path::Path};

use sigillo_model::{
    add_checkpoint::AddCheckpoint,
    audit::Saved,
    block::Block,
    checkpoint::Checkpoint,
    entry::Entry,
    envelope::{ENVELOPE_BYTES, Envelope},
    evidence::{Kind, gap_hashes},
    head::{
        SignedHead,
        statement::{SourceKey, SourceKeys},
    },
    ids::{BatchHash, ChainHash, Count, Epoch, NodeHash, Origin, SourceId, SourceSeq, TenantId},
    misconduct::Misconduct,
    note::{KeyKind, Note, SigningKey, VerifierKey},
    policy::Policy,
    proof::{self, Subtrees},
    receipt::{Receipt, SignedReceipt},
    record_proof::{PartLink, PartLinks, RecordLink},
    rotation::Rotation,
    state::{JournalState, SourceState},
    statement::{
        self, Statement,
        counters::{CounterEntry, CounterKey, CounterTree, Counters},
    },
    tile::TilePath,
    tlog_proof::TlogProof,
    tree::{self, RootBuilder},
};
use sigillo_verify::{read, token};

use crate::points::{self, CASE, TOKEN, TRUST};

const ORIGIN: &str = "journal.example.net/2026";

fn origin() -> Origin {
    Origin::new(ORIGIN).unwrap()
}

/// A file of the golden ones; from the package's folder, in which cargo runs its tests.
fn golden(name: &str) -> Vec<u8> {
    let path = Path::new("../../tests/golden").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The values of a golden file of lines `name = hexadecimal` whose names begin so.
fn vectors(file: &str, start: &str) -> Vec<Vec<u8>> {
    let text = String::from_utf8(golden(file)).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(" = ")).filter(|(name, _)| name.starts_with(start));
    lines.map(|(_, digits)| hex::decode(digits).unwrap()).collect()
}

fn section(kind: Kind) -> Vec<Vec<u8>> {
    let all = points::sections(CASE).unwrap();
    all.into_iter().filter(|(other, _)| *other == kind).map(|(_, payload)| payload.to_vec()).collect()
}

fn key(name: &str, kind: KeyKind, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, kind, &[seed; 32]).unwrap()
}

fn signed(text: &str, key: &SigningKey) -> Note {
    Note::new(text, vec![key.sign(text).unwrap()]).unwrap()
}

fn checkpoint_note() -> Note {
    Note::parse(&section(Kind::Checkpoint)[0]).unwrap()
}

struct Leaves(Vec<NodeHash>);

impl Leaves {
    fn of(count: u8) -> Self {
        Self((0..count).map(|leaf| tree::leaf(&[leaf])).collect())
    }

    fn root(&self, size: u64) -> NodeHash {
        let mut root = RootBuilder::default();
        self.0.iter().take(usize::try_from(size).unwrap()).for_each(|leaf| root.push(*leaf));
        root.root()
    }
}

impl Subtrees for Leaves {
    type Error = ();

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, ()> {
        let first = usize::try_from(index << height).unwrap();
        let mut root = RootBuilder::default();
        self.0[first..first + (1 << height)].iter().for_each(|leaf| root.push(*leaf));
        Ok(root.root())
    }
}

fn proofs() -> Vec<Vec<u8>> {
    let leaves = Leaves::of(100);
    let flat = |first: u64, second: u64, hashes: &[&[NodeHash]]| {
        let mut bytes = [first.to_be_bytes(), second.to_be_bytes()].concat();
        hashes.concat().iter().for_each(|hash| bytes.extend(hash.as_bytes()));
        bytes
    };
    let mut all = Vec::new();
    for (first, second) in [(0, 1), (3, 7), (63, 64), (64, 65), (1, 100), (99, 100), (50, 77)] {
        let leaf = leaves.0[usize::try_from(first).unwrap()];
        let inclusion = proof::inclusion(first, second, &leaves).unwrap();
        all.push(flat(first, second, &[&[leaf, leaves.root(second)], &inclusion]));
        let consistency = proof::consistency(first, second, &leaves).unwrap();
        all.push(flat(first, second, &[&[leaves.root(first), leaves.root(second)], &consistency]));
        let before = gap_hashes(0, first, second, &leaves).unwrap();
        let after = gap_hashes(first + 1, second, second, &leaves).unwrap();
        all.push(flat(first, second, &[&[leaf, leaves.root(second)], &before, &after]));
    }
    all
}

fn counters() -> Counters {
    let entry = |key, epoch, next| CounterEntry { key, epoch: Epoch::new(epoch), next: Count::new(next) };
    let entries = vec![
        entry(CounterKey::Source(SourceId::from_name("web-1")), 3, 70),
        entry(CounterKey::Source(SourceId::from_name("web-2")), 1, 9),
        entry(CounterKey::Tenant(TenantId::from_name("acme")), 0, 79),
    ];
    let tree = CounterTree::build([0xab; 32], entries.clone());
    tree.statement(&origin(), tree.entries().to_vec())
}

/// As the content part of a record carries it: field 3, bytes.
fn content(text: &[u8]) -> Vec<u8> {
    let mut content = vec![0x0a, 3, b'a', b'b', b'c', 0x1a];
    let mut length = text.len();
    while length >= 128 {
        content.push(u8::try_from(length % 128).unwrap() | 0x80);
        length /= 128;
    }
    content.push(u8::try_from(length).unwrap());
    content.extend(text);
    content
}

fn statements() -> Vec<Vec<u8>> {
    let mut all = vectors("v2/reduced.txt", "erasure order");
    all.extend(vectors("v2/reduced.txt", "retention order"));
    all.extend(vectors("v2/reduced.txt", "purge"));
    all.extend(all.clone().iter().map(|text| content(text)));
    all
}

fn link(parts: PartLinks) -> RecordLink {
    let envelope = &vectors("v1/vectors.txt", "record 0 envelope")[0];
    assert_eq!(envelope.len(), ENVELOPE_BYTES);
    RecordLink { previous: ChainHash::new([5; 32]), envelope: Envelope::from_bytes(envelope).unwrap(), parts }
}

fn links() -> Vec<Vec<u8>> {
    let parts = [PartLink::Shown([1; 32]), PartLink::Absent, PartLink::Hidden([2; 32])];
    let commitment = PartLinks::Commitment(sigillo_model::ids::Commitment::new([3; 32]));
    vec![link(PartLinks::Parts(parts)).encode(), link(commitment).encode()]
}

fn tlog_proof(extra: Vec<u8>) -> Vec<u8> {
    let hashes = (0..5).map(|leaf| tree::leaf(&[leaf])).collect();
    TlogProof { extra, index: 5, hashes, checkpoint: checkpoint_note() }.to_string().into_bytes()
}

fn saved() -> Saved {
    let mut state = JournalState::genesis(origin());
    for number in 0..13 {
        state.tree.push(tree::leaf(&[number]), |_, _, _| ());
        let (epoch, next) = (Epoch::new(u64::from(number)), SourceSeq::new(7));
        let source = SourceState { epoch, next, head: BatchHash::new([number; 32]), count: Count::new(9) };
        state.sources.insert(SourceId::new([number; 16]), source);
        state.tenants.insert(TenantId::new([number; 16]), Count::new(u64::from(number)));
    }
    (state.size, state.chain) = (13, ChainHash::new([5; 32]));
    Saved { state, rotations: vec![rotation()], accepted: Some(checkpoint_note()) }
}

fn rotation() -> Rotation {
    Rotation { origin: origin(), size: 4, key: key(ORIGIN, KeyKind::Log, 3).verifier().clone() }
}

fn misconducts() -> Vec<Vec<u8>> {
    (0..5).map(|number| golden(&format!("v2/receipt/misconduct-{number}.txt"))).collect()
}

fn entries() -> Vec<Vec<u8>> {
    [vectors("v1/vectors.txt", "entry"), vectors("v2/reduced.txt", "reduced entry")].concat()
}

/// The inputs from which those of a decoder are made.
pub(crate) fn seeds(name: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    match name {
        "note" => [section(Kind::Checkpoint), section(Kind::End), vectors("v2/reduced.txt", "erasure order")].concat(),
        "verifier_key" => {
            let policy = String::from_utf8(TRUST.to_vec()).unwrap();
            let words = policy.split_whitespace().filter(|word| VerifierKey::parse(word).is_ok());
            words.map(|word| word.as_bytes().to_vec()).collect()
        }
        "signing_key" => {
            let key = |kind| key("a.example/key", kind, 9).encode().as_bytes().to_vec();
            KeyKind::ALL.into_iter().map(key).collect()
        }
        "checkpoint" => {
            let empty = Checkpoint { origin: ORIGIN.into(), size: 0, root: tree::empty() }.text();
            let foreign = format!("{}more\n", checkpoint_note().text());
            texts(&[checkpoint_note().text(), &empty, &foreign])
        }
        "trust_file" => vec![TRUST.to_vec(), b"# no witness\nquorum none\n".to_vec()],
        "tile_path" => texts(&[
            "tile/0/x001/x234/067",
            "tile/entries/005.p/112",
            "tile/63/000",
            "tile/0/x018/x446/x744/x073/x709/x551/615.p/255",
        ]),
        "tlog_proof" => vec![tlog_proof(Vec::new()), tlog_proof(links().remove(0))],
        "add_checkpoint" => [0, 1, 63]
            .map(|hashes| {
                let proof = vec![tree::leaf(b"x"); hashes];
                AddCheckpoint { old_size: 7, proof, checkpoint: checkpoint_note() }.to_string().into_bytes()
            })
            .into(),
        "proofs" => proofs(),
        "statement" => statements(),
        "counters" => texts(&[&counters().text()]),
        "rotation" => {
            let text = rotation().text();
            vec![signed(&text, &key("recovery.example", KeyKind::Log, 50)).to_bytes()]
        }
        "entry" => entries(),
        "block" => vectors("v1/vectors.txt", "block"),
        "receipt" => {
            let text = String::from_utf8(golden("v2/receipt/receipt.txt")).unwrap();
            let (receipt, _) = SignedReceipt::read(&text).unwrap();
            texts(&[&receipt.receipt.text(&receipt.origin)])
        }
        "signed_receipt" => vec![golden("v2/receipt/receipt.txt")],
        "misconduct" => misconducts(),
        "record_link" => links(),
        "audit_state" => vec![saved().encode()],
        "evidence" => vec![CASE.to_vec()],
        "evidence_section" => {
            let all = points::sections(CASE).unwrap().into_iter();
            all.map(|(kind, payload)| [&[kind as u8], payload].concat()).collect()
        }
        "token" => vec![TOKEN.to_vec()],
        "head" => vectors("v3/heads.txt", "head"),
        "source_keys" => vectors("v3/heads.txt", "source key"),
        _ => Vec::new(),
    }
}

/// Whether a decoder takes each of its seeds, by its own word.
pub(crate) fn taken(name: &str) -> bool {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let policy = || Policy::parse(TRUST).unwrap();
    let takes = |bytes: &[u8]| match name {
        "note" => Note::parse(bytes).is_ok(),
        "verifier_key" => VerifierKey::parse(&text(bytes)).is_ok(),
        "signing_key" => SigningKey::parse(&text(bytes)).is_ok(),
        "checkpoint" => Checkpoint::parse(&text(bytes)).is_ok(),
        "trust_file" => Policy::parse(bytes).is_ok(),
        "tile_path" => TilePath::parse(&text(bytes)).is_some(),
        "tlog_proof" => TlogProof::parse(bytes).is_ok(),
        "add_checkpoint" => AddCheckpoint::parse(bytes).is_ok(),
        "proofs" => bytes.len() >= 80,
        "statement" => {
            let text = statement::original(bytes).filter(|text| !text.is_empty()).unwrap_or(bytes);
            Statement::parse(text, &origin()).is_some_and(|read| read.is_ok())
        }
        "counters" => Counters::parse(&text(bytes), &origin()).is_ok(),
        "rotation" => Rotation::verify(&Note::parse(bytes).unwrap(), &origin(), policy().recovery()).is_ok(),
        "entry" => Entry::decode(bytes).is_ok(),
        "block" => Block::parse(bytes).is_ok(),
        "receipt" => Receipt::parse(&text(bytes)).is_ok(),
        "signed_receipt" => SignedReceipt::parse(&text(bytes)).is_ok(),
        "misconduct" => Misconduct::parse(&text(bytes)).is_ok(),
        "record_link" => RecordLink::parse(bytes).is_ok(),
        "audit_state" => Saved::decode(bytes).is_ok(),
        "evidence" => read::read(bytes, &policy(), &mut ()).is_ok(),
        "evidence_section" => !bytes.is_empty(),
        "token" => matches!(token::verify(bytes, &[]), Err(token::TokenError::Stranger(_))),
        "head" => SignedHead::parse(bytes).is_ok(),
        "source_keys" => {
            let (text, origin) = (text(bytes), origin());
            SourceKey::parse(&text, &origin).is_ok() || SourceKeys::parse(&text, &origin).is_ok()
        }
        _ => false,
    };
    seeds(name).iter().all(|seed| takes(seed))
}
