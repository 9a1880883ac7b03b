//! The vectors in `tests/golden`: what this version hashes and writes, and what every later one must.
//!
//! `SIGILLO_BLESS=1` writes the files anew. Only a new format version may do that.

use std::{env, fmt::Write, fs, path::Path};

use sigillo_model::{
    batch::{Batch, batch_hash, commitments, epoch_opening},
    block::{Block, BlockBuilder, Inflater, compress},
    chain::{genesis, link_all},
    commitment::Committer,
    entry::{Entry, Gone, Run, Salts},
    envelope::{ENVELOPE_BYTES, Envelope, Flags},
    head::{
        HeadKey, SignedHead,
        statement::{KeyLine, SourceKey, SourceKeys},
    },
    ids::{
        BatchHash, BatchSecret, ChainHash, ClassId, Count, Epoch, Origin, ReceiptTime, RetentionId, Seq, SourceId,
        SourceSeq, TenantId,
    },
    note::{KeyKind, Note, SigningKey},
    record::{Part, RecordRef},
    statement::{Act, Erasure, Order, Purge, Retention},
    tree,
};

// Relative to the package, in which cargo runs its tests: a path fixed when compiling would be that of another checkout, where
// several share one target directory.
const FILE: &str = "../../tests/golden/v1/vectors.txt";
const TREE_FILE: &str = "../../tests/golden/v2/vectors.txt";
const REDUCED_FILE: &str = "../../tests/golden/v2/reduced.txt";
const HEADS_FILE: &str = "../../tests/golden/v3/heads.txt";

fn records() -> [RecordRef<'static>; 3] {
    [
        RecordRef { core: Some(b"core zero"), personal: Some(b"personal zero"), content: Some(b"content zero") },
        RecordRef { core: Some(b"core one"), personal: None, content: Some(b"") },
        RecordRef { core: None, personal: None, content: Some(b"\xff\x00 any bytes") },
    ]
}

fn block() -> Vec<u8> {
    let mut builder = BlockBuilder::default();
    for record in records() {
        builder.push(record).unwrap();
    }
    builder.take()
}

fn vectors() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut put = |name: &str, bytes: &[u8]| lines.push((name.to_owned(), hex(bytes)));

    let origin = Origin::new("journal.example.net/2026").unwrap();
    let source = SourceId::from_name("web-1");
    let tenant = TenantId::from_name("acme");
    let secret = BatchSecret::new(std::array::from_fn(|i| u8::try_from(i).unwrap()));
    let epoch = Epoch::new(1_764_000_000_000_000_000);
    put("origin (text)", origin.as_str().as_bytes());
    put("source id of web-1", source.as_bytes());
    put("tenant id of acme", tenant.as_bytes());
    put("batch secret", secret.expose());

    let mut committer = Committer::default();
    for (index, record) in (0..).zip(records()) {
        for part in Part::ALL {
            let Some(bytes) = record.part(part) else { continue };
            let j = part.number();
            let salt = committer.salt(&secret, index, part);
            put(&format!("record {index} part {j} bytes"), bytes);
            put(&format!("record {index} part {j} salt"), &salt);
            put(&format!("record {index} part {j} hash"), &committer.part_hash(&salt, part, bytes));
        }
        put(&format!("record {index} commitment"), committer.commit(&secret, index, record).as_bytes());
    }

    let block_bytes = block();
    put("block", &block_bytes);
    let block = Block::parse(&block_bytes).unwrap();
    let commitments = commitments(&secret, &block);
    let mut root = tree::RootBuilder::default();
    for commitment in &commitments {
        root.push(tree::leaf(commitment.as_bytes()));
    }
    put("batch root", root.root().as_bytes());
    let opening = epoch_opening(&origin, source, epoch, None);
    put("epoch opening", opening.as_bytes());
    let known = epoch_opening(&origin, source, epoch, Some(BatchHash::new([9; 32])));
    put("epoch opening after a head of 32 bytes 09", known.as_bytes());
    let batch = batch_hash(&opening, source, epoch, SourceSeq::new(0), &commitments);
    put("batch hash", batch.as_bytes());

    let entry = entry(&commitments, &origin, batch, &block_bytes);
    let decoded = Entry::decode(&entry).unwrap();
    put("genesis", genesis(&origin).as_bytes());
    let mut chain = genesis(&origin);
    for (envelope, commitment) in decoded.envelopes().zip(&commitments) {
        let at = envelope.seq;
        put(&format!("record {at} envelope"), &envelope.to_bytes());
        chain = link_all(chain, [envelope], [commitment]);
        put(&format!("record {at} chain"), chain.as_bytes());
    }
    put("entry", &entry);
    lines
}

/// An entry of the three records: two tenants, a refused claim. Its block is compressed as zstd 1.5.7 does at level 1; another
/// compressor may give other bytes of the same content, which is why only reading it is promised.
fn entry(
    commitments: &[sigillo_model::ids::Commitment],
    origin: &Origin,
    batch_hash: BatchHash,
    block: &[u8],
) -> Vec<u8> {
    let compressed = compress(block, 1);
    let run = |tenant, flags, records| Run { tenant, retention: RetentionId::new(3), flags, records };
    let mut entry = Entry {
        class: ClassId::new(3),
        seq: Seq::new(0),
        count: 3,
        receipt_time: ReceiptTime::new(1_764_000_000_123_456_789),
        source: SourceId::from_name("web-1"),
        epoch: Epoch::new(1_764_000_000_000_000_000),
        source_seq: SourceSeq::new(0),
        source_count: Count::new(0),
        batch_hash,
        chain_hash: ChainHash::new([0; 32]),
        salts: Salts::Secret(BatchSecret::new(std::array::from_fn(|i| u8::try_from(i).unwrap()))),
        tenants: vec![(TenantId::from_name("provider"), Count::new(0)), (TenantId::from_name("acme"), Count::new(41))],
        runs: vec![run(0, Flags::TENANT_REFUSED, 1), run(1, Flags::default(), 2)],
        block_bytes: u32::try_from(block.len()).unwrap(),
        compressed: &compressed,
    };
    let chain = link_all(genesis(origin), entry.envelopes(), commitments);
    entry.chain_hash = chain;
    entry.encode()
}

/// The tree over the chain values of those three records, and one of two levels of tiles.
fn tree_vectors() -> Vec<(String, String)> {
    let value = |text: &str| ChainHash::from_hex(text).unwrap();
    let chain = vectors().into_iter().filter_map(|(name, text)| name.ends_with("chain").then_some(text));
    let mut lines = Vec::new();
    let mut tree = tree::Frontier::default();
    lines.push(("root of 0 records".to_owned(), tree.root().to_string()));
    for (index, text) in (0..).zip(chain) {
        let leaf = tree::record_leaf(&value(&text));
        tree.push(leaf, |_, _, _| ());
        lines.push((format!("record {index} leaf"), leaf.to_string()));
        lines.push((format!("root of {} records", index + 1), tree.root().to_string()));
    }
    // Entry i is the number i in 32 bytes.
    let mut tree = tree::Frontier::default();
    let mut tiles = Vec::new();
    for index in 0_u64..600 {
        let mut entry = [0; 32];
        entry[24..].copy_from_slice(&index.to_be_bytes());
        tree.push(tree::record_leaf(&ChainHash::new(entry)), |level, tile, hash| tiles.push((level, tile, hash)));
    }
    for (level, tile, hash) in tiles {
        lines.push((format!("numbers 0 to 599, level {level} hash {tile}"), hash.to_string()));
    }
    lines.push(("numbers 0 to 599, root".to_owned(), tree.root().to_string()));
    lines
}

#[test]
fn vectors_stand() {
    stand(FILE, vectors());
}

#[test]
fn tree_vectors_stand() {
    stand(TREE_FILE, tree_vectors());
}

/// The golden entry with something gone: of record 0 a part, record 1 erased whole; then record 2 purged as well.
fn reduced_vectors() -> Vec<(String, String)> {
    let whole = golden_entry();
    let once = reduced(&whole, |index| match index {
        0 => Gone::part(Part::Personal),
        1 => Gone::RECORD,
        _ => Gone::NOTHING,
    });
    let twice = reduced(&once, |index| if index == 2 { Gone::PURGED } else { Gone::NOTHING });
    let origin = Origin::new("journal.example.net/2026").unwrap();
    let ada = SigningKey::from_seed("ada", KeyKind::Log, &[1; 32]).unwrap();
    let ben = SigningKey::from_seed("ben", KeyKind::Log, &[2; 32]).unwrap();
    let targets = vec![(0, Gone::part(Part::Personal)), (1, Gone::RECORD)];
    let order = |act: &Act| {
        let text = Order::text(&origin, act);
        let signatures = [&ada, &ben].map(|key| key.sign(&text).unwrap()).to_vec();
        Note::new(text, signatures).unwrap().to_bytes()
    };
    let purge = Purge { from: 0, to: 3, class: RetentionId::new(3), retention: 4 };
    vec![
        ("officer ada".to_owned(), hex(ada.verifier().to_string().as_bytes())),
        ("officer ben".to_owned(), hex(ben.verifier().to_string().as_bytes())),
        ("erasure order".to_owned(), hex(&order(&Act::Erase(Erasure { basis: "GDPR 17, case 12".into(), targets })))),
        (
            "retention order".to_owned(),
            hex(&order(&Act::Keep(Retention { class: RetentionId::new(3), keep_s: 86_400 }))),
        ),
        ("purge".to_owned(), hex(purge.text(&origin).as_bytes())),
        ("reduced entry".to_owned(), hex(&once)),
        ("reduced entry, again".to_owned(), hex(&twice)),
    ]
}

fn reduced(stored: &[u8], what: impl Fn(usize) -> Gone) -> Vec<u8> {
    let entry = Entry::decode(stored).unwrap();
    let mut inflater = Inflater::default();
    let block = entry.block(&mut inflater).unwrap();
    entry.reduce(&block, |index, _| what(index)).unwrap().bytes
}

#[test]
fn reduced_vectors_stand() {
    stand(REDUCED_FILE, reduced_vectors());
}

#[test]
fn golden_reduced_entries_are_read() {
    let golden = fs::read_to_string(REDUCED_FILE).unwrap();
    let whole = golden_entry();
    let whole = Entry::decode(&whole).unwrap();
    let mut inflater = Inflater::default();
    let expected = whole.commitments(&whole.block(&mut inflater).unwrap());
    let origin = Origin::new("journal.example.net/2026").unwrap();
    for (name, gone) in [("reduced entry", [2, 7, 0]), ("reduced entry, again", [2, 7, 15])] {
        let bytes = value(&golden, name);
        let entry = Entry::decode(&bytes).unwrap();
        let mut inflater = Inflater::default();
        let block = entry.block(&mut inflater).unwrap();
        assert_eq!(entry.commitments(&block), expected);
        assert_eq!([0, 1, 2].map(|index| entry.gone(index).bits()), gone);
        let chain = link_all(genesis(&origin), entry.envelopes(), &entry.commitments(&block));
        assert_eq!(chain, entry.chain_hash);
    }
}

/// Two heads of the sender of the first format's vectors, and what the journal records about its keys.
fn head_vectors() -> Vec<(String, String)> {
    let origin = Origin::new("journal.example.net/2026").unwrap();
    let source = SourceId::from_name("web-1");
    let first = HeadKey::from_seed([9; 32]);
    let second = first.clone().ratchet();
    let third = second.clone().ratchet();
    let opened = SignedHead {
        origin: origin.clone(),
        source,
        epoch: Epoch::new(1_764_000_000_000_000_000),
        next: SourceSeq::new(0),
        batch_hash: epoch_opening(&origin, source, Epoch::new(1_764_000_000_000_000_000), None),
        time_ns: 1_764_000_000_000_000_001,
        seen: (0, tree::empty()),
        next_key: second.public(),
    };
    let golden = fs::read_to_string(FILE).unwrap();
    let sent = SignedHead {
        next: SourceSeq::new(3),
        batch_hash: BatchHash::from_slice(&value(&golden, "batch hash")).unwrap(),
        time_ns: 1_764_000_001_000_000_000,
        seen: (8, tree::leaf(b"a root")),
        next_key: third.public(),
        ..opened.clone()
    };
    let line = |source, key: &HeadKey, time_ns| KeyLine { source, key: key.public(), time_ns };
    let keys = vec![line(source, &third, sent.time_ns), line(SourceId::from_name("web-2"), &first, 0)];
    let keys = SourceKeys::new(keys).unwrap().text(&origin);
    vec![
        ("seed 0".to_owned(), hex(first.expose())),
        ("seed 1".to_owned(), hex(second.expose())),
        ("public key 0".to_owned(), hex(&first.public())),
        ("public key 1".to_owned(), hex(&second.public())),
        ("head 0".to_owned(), hex(opened.sign(&first).unwrap().as_bytes())),
        ("head 1".to_owned(), hex(sent.sign(&second).unwrap().as_bytes())),
        ("source key".to_owned(), hex(SourceKey { source, key: first.public() }.text(&origin).as_bytes())),
        ("source keys".to_owned(), hex(keys.as_bytes())),
    ]
}

#[test]
fn head_vectors_stand() {
    stand(HEADS_FILE, head_vectors());
    let golden = fs::read_to_string(HEADS_FILE).unwrap();
    let (opened, note) = SignedHead::parse(&value(&golden, "head 0")).unwrap();
    let key = value(&golden, "public key 0").try_into().unwrap();
    assert_eq!(opened.verify(&note, &key), Ok(()));
    let (sent, note) = SignedHead::parse(&value(&golden, "head 1")).unwrap();
    assert_eq!(sent.verify(&note, &opened.next_key), Ok(()));
}

/// The entry of the first format's vectors.
fn golden_entry() -> Vec<u8> {
    value(&fs::read_to_string(FILE).unwrap(), "entry")
}

/// A value of a file of vectors.
fn value(golden: &str, name: &str) -> Vec<u8> {
    let start = format!("{name} = ");
    let line = golden.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
}

fn stand(file: &str, vectors: Vec<(String, String)>) {
    let mut text = String::from("# name = hexadecimal. Laid out in crates/model/FORMAT.md.\n");
    for (name, value) in vectors {
        writeln!(text, "{name} = {value}").unwrap();
    }
    if env::var_os("SIGILLO_BLESS").is_some() {
        fs::create_dir_all(Path::new(file).parent().unwrap()).unwrap();
        fs::write(file, &text).unwrap();
    }
    let golden = fs::read_to_string(file).unwrap();
    for (line, expected) in text.lines().zip(golden.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn the_golden_entry_is_read() {
    let bytes = golden_entry();
    let entry = Entry::decode(&bytes).unwrap();
    let mut inflater = Inflater::default();
    let block = entry.block(&mut inflater).unwrap();
    assert!(block.records().eq(records()));
    let envelopes: Vec<Envelope> = entry.envelopes().collect();
    assert_eq!(envelopes[2].tenant_count, Count::new(42));
    assert_eq!(envelopes[0].to_bytes().len(), ENVELOPE_BYTES);
    // The first batch of a sealed chain has the same hash as the loose parts give.
    let origin = Origin::new("journal.example.net/2026").unwrap();
    let mut builder = BlockBuilder::default();
    for record in records() {
        builder.push(record).unwrap();
    }
    let opening = epoch_opening(&origin, entry.source, entry.epoch, None);
    let secret = entry.secret().unwrap().clone();
    let batch = Batch::seal(&mut builder, entry.source, entry.epoch, entry.source_seq, opening, secret, 1).unwrap();
    assert_eq!(batch.hash, entry.batch_hash);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
