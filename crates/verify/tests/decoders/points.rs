//! Every decoder of input from disk or network, as a function of bytes that returns if all is well: it neither panics nor takes
//! another form than the one that is written. Used by the tests here and by the fuzz targets in `tests/fuzz`.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};
use sigillo_model::{
    add_checkpoint::AddCheckpoint,
    audit::Saved,
    block::{Block, BlockBuilder, Inflater},
    checkpoint::Checkpoint,
    entry::{Entry, Gone, checksum},
    evidence::{HEADER_BYTES, Header, Kind, MAGIC, Seal, SharedRoot, peek_origin},
    head::{
        HeadKey, SignedHead,
        statement::{SourceKey, SourceKeys},
    },
    ids::{NodeHash, Origin},
    misconduct::Misconduct,
    note::{Note, SigningKey, VerifierKey},
    policy::Policy,
    proof::{shared_root, verify_consistency, verify_inclusion},
    receipt::{Receipt, SignedReceipt},
    record_proof::RecordLink,
    rotation::{LogKeys, Rotation},
    statement::{self, Order, Statement, counters::Counters},
    tile::TilePath,
    tlog_proof::TlogProof,
};
use sigillo_verify::{read, token};

/// An evidence file that holds.
pub const CASE: &[u8] = include_bytes!("../../../../tests/golden/v2/evidence/case.sigillo");
/// The trust file by which it does.
pub const TRUST: &[u8] = include_bytes!("../../../../tests/golden/v2/evidence/trust.txt");

static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy::parse(TRUST).expect("the golden trust file holds"));
static ORIGIN: LazyLock<Origin> =
    LazyLock::new(|| Origin::new("journal.example.net/2026").expect("the golden origin holds"));

/// A decoder by its name.
pub type Point = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: &[Point] = &[
    ("note", note),
    ("verifier_key", verifier_key),
    ("signing_key", signing_key),
    ("checkpoint", checkpoint),
    ("trust_file", trust_file),
    ("tile_path", tile_path),
    ("tlog_proof", tlog_proof),
    ("add_checkpoint", add_checkpoint),
    ("proofs", proofs),
    ("statement", statement),
    ("counters", counters),
    ("rotation", rotation),
    ("entry", entry),
    ("block", block),
    ("receipt", receipt),
    ("signed_receipt", signed_receipt),
    ("misconduct", misconduct),
    ("record_link", record_link),
    ("audit_state", audit_state),
    ("evidence", evidence),
    ("evidence_section", evidence_section),
    ("token", token),
    ("head", head),
    ("source_keys", source_keys),
];

/// A signed note.
pub fn note(bytes: &[u8]) {
    let Ok(note) = Note::parse(bytes) else { return };
    assert_eq!(note.to_bytes(), bytes);
    let keys: Vec<VerifierKey> = POLICY.officers().iter().chain(POLICY.exporters()).cloned().collect();
    if let Ok(verified) = note.verify(&keys) {
        assert!(!verified.is_empty() && verified.len() <= note.signatures().len());
    }
    // One that is judged holds for the text that was signed and for no other.
    if let Ok(judgement) = POLICY.check(&note) {
        assert_eq!(judgement.checkpoint.text(), note.text());
    }
    let _ = LogKeys::unchanged(&POLICY).check(&note);
}

/// A public key.
pub fn verifier_key(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(key) = VerifierKey::parse(text) else { return };
    assert_eq!(key.to_string(), text);
}

/// A private key; a file's last newline is no part of it.
pub fn signing_key(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(key) = SigningKey::parse(text) else { return };
    assert_eq!(key.encode().as_str(), text.trim_end());
    assert_eq!(VerifierKey::parse(&key.verifier().to_string()).as_ref(), Ok(key.verifier()));
}

/// A checkpoint's text.
pub fn checkpoint(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let any = Checkpoint::parse(text);
    match Checkpoint::parse_own(text) {
        Ok(own) => assert_eq!((own.text().as_str(), any.as_ref()), (text, Ok(&own))),
        // Another log's has more lines.
        Err(_) => assert!(any.is_ok_and(|any| text.starts_with(&any.text())) || Checkpoint::parse(text).is_err()),
    }
}

/// A trust file: comments and spaces go, the rest stays.
pub fn trust_file(bytes: &[u8]) {
    let Ok(policy) = Policy::parse(bytes) else { return };
    let written = policy.to_bytes();
    let again = Policy::parse(&written).expect("what is written is read");
    assert!(again == policy && again.to_bytes() == written);
    let whole = CHECKPOINT.as_slice();
    let _ = policy.check(&Note::parse(whole).expect("the golden checkpoint holds"));
}

/// The checkpoint of the golden case.
static CHECKPOINT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let found = sections(CASE).and_then(|all| all.into_iter().find(|(kind, _)| *kind == Kind::Checkpoint));
    found.expect("the golden case has a checkpoint").1.to_vec()
});

/// The path of a tile.
pub fn tile_path(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Some(path) = TilePath::parse(text) else { return };
    assert_eq!(path.to_string(), text);
    // It is joined to a folder.
    assert!(text.split('/').all(|name| !name.is_empty() && name != "." && name != ".."));
}

/// A leaf's proof.
pub fn tlog_proof(bytes: &[u8]) {
    let Ok(proof) = TlogProof::parse(bytes) else { return };
    assert_eq!(proof.to_string().as_bytes(), bytes);
    if let Ok(link) = RecordLink::parse(&proof.extra) {
        assert_eq!(link.encode(), proof.extra);
    }
}

/// What a log sends to a witness.
pub fn add_checkpoint(bytes: &[u8]) {
    let Ok(body) = AddCheckpoint::parse(bytes) else { return };
    assert_eq!(body.to_string().as_bytes(), bytes);
}

/// Proofs of any numbers: two u64, then hashes, the first two as roots.
pub fn proofs(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first_chunk::<8>() else { return };
    let Some((second, rest)) = rest.split_first_chunk::<8>() else { return };
    let (first, second) = (u64::from_be_bytes(*first), u64::from_be_bytes(*second));
    let hashes: Vec<NodeHash> = rest.chunks_exact(32).filter_map(NodeHash::from_slice).collect();
    let [old, new, proof @ ..] = hashes.as_slice() else { return };
    if verify_inclusion(old, first, second, proof, new).is_ok() {
        assert!(first < second && proof.len() <= 64);
        // No other place and no longer proof leads to the same root.
        assert!(verify_inclusion(old, first ^ 1, second, proof, new).is_err() || first ^ 1 >= second || old == new);
        let longer = [proof, &[*old]].concat();
        assert!(verify_inclusion(old, first, second, &longer, new).is_err());
    }
    if verify_consistency(first, old, second, new, proof).is_ok() {
        assert!(first <= second && proof.len() <= 65);
        let longer = [proof, &[*old]].concat();
        assert!(verify_consistency(first, old, second, new, &longer).is_err());
    }
    let whole = shared_root([(first, *old)], second, proof);
    let streamed = || {
        let mut shared = SharedRoot::new(second);
        let left = sigillo_model::evidence::subtrees(0, first, second).count();
        let (before, after) = proof.split_at_checked(left)?;
        shared.gap(first, before.iter().copied(), &mut ()).ok()?;
        shared.leaf(*old, &mut ());
        shared.gap(second, after.iter().copied(), &mut ()).ok()?;
        shared.finish(&mut ()).ok()
    };
    // Two implementations of one proof.
    if first < second {
        assert_eq!(whole.ok(), streamed());
    }
}

/// The content part of a record of the journal's own source, and a statement's text.
pub fn statement(bytes: &[u8]) {
    if let Some(text) = statement::original(bytes) {
        one_statement(text);
    }
    let _ = statement::is_statement(bytes);
    one_statement(bytes);
}

fn one_statement(bytes: &[u8]) {
    match Statement::parse(bytes, &ORIGIN) {
        Some(Ok(Statement::Order(order))) => {
            assert_eq!(Order::text(&ORIGIN, &order.act), order.note().text());
            assert_eq!(order.note().to_bytes(), bytes);
            assert!(order.check(POLICY.officers()).is_err() || order.check_form().is_ok());
        }
        Some(Ok(Statement::Purge(purge))) => assert_eq!(purge.text(&ORIGIN).as_bytes(), bytes),
        _ => (),
    }
}

/// A counters record's text.
pub fn counters(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(counters) = Counters::parse(text, &ORIGIN) else { return };
    assert_eq!(counters.text(), text);
    for entry in &counters.changes {
        let of_tenant = matches!(entry.key, statement::counters::CounterKey::Tenant(_));
        assert!(!of_tenant || entry.epoch.get() == 0, "a tenant has no epochs");
    }
}

/// A rotation's note.
pub fn rotation(bytes: &[u8]) {
    let Ok(note) = Note::parse(bytes) else { return };
    let Ok(rotation) = Rotation::verify(&note, &ORIGIN, POLICY.recovery()) else { return };
    assert_eq!(rotation.text(), note.text());
}

/// A stored batch, whole or reduced, under a checksum that fits.
pub fn entry(bytes: &[u8]) {
    let _ = Entry::decode(bytes);
    let summed = summed(bytes);
    let Ok(entry) = Entry::decode(&summed) else { return };
    assert!(entry.encode() == summed, "another form");
    let envelopes: Vec<_> = entry.envelopes().collect();
    assert_eq!(envelopes.len(), entry.count as usize);
    let mut inflater = Inflater::default();
    let Ok(block) = entry.block(&mut inflater) else { return };
    if block.count() != entry.count {
        return;
    }
    let commitments = entry.commitments(&block);
    assert_eq!(entry.held(&block).count(), commitments.len());
    // What is reduced is read, and keeps its commitments.
    let Some(reduced) = entry.reduce(&block, |index, _| [Gone::RECORD, Gone::PURGED, Gone::NOTHING][index % 3]) else {
        return;
    };
    let less = Entry::decode(&reduced.bytes).expect("what is written is read");
    let mut inflater = Inflater::default();
    let left = less.block(&mut inflater).expect("what is left is read");
    assert!(less.commitments(&left) == commitments);
}

/// The bytes with the last eight replaced by the checksum of those before.
fn summed(bytes: &[u8]) -> Vec<u8> {
    let body = bytes.get(..bytes.len().saturating_sub(8)).unwrap_or_default();
    [body, &checksum(body)].concat()
}

/// A block.
pub fn block(bytes: &[u8]) {
    let Ok(block) = Block::parse(bytes) else { return };
    let mut builder = BlockBuilder::default();
    for record in block.records() {
        if builder.push(record).is_err() {
            return;
        }
    }
    assert_eq!(builder.take(), bytes);
}

/// A receipt's text.
pub fn receipt(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok((origin, receipt)) = Receipt::parse(text) else { return };
    assert_eq!(receipt.text(&origin), text);
}

/// Receipts as they are kept, one after the other.
pub fn signed_receipt(bytes: &[u8]) {
    let Ok(mut text) = str::from_utf8(bytes) else { return };
    while let Ok((receipt, rest)) = SignedReceipt::read(text) {
        assert!(text.strip_suffix(rest) == Some(receipt.to_text().as_str()));
        let _ = receipt.verify(POLICY.receipts());
        text = rest;
    }
}

/// A file of misconduct.
pub fn misconduct(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok((misconduct, seen)) = Misconduct::parse(text) else { return };
    assert_eq!(misconduct.to_text(seen), text);
    let logs: Vec<VerifierKey> = POLICY.logs().iter().map(|log| log.key.clone()).collect();
    let _ = misconduct.check(&logs, POLICY.receipts());
}

/// The extra data of a record's own proof.
pub fn record_link(bytes: &[u8]) {
    let Ok(link) = RecordLink::parse(bytes) else { return };
    assert_eq!(link.encode(), bytes);
}

/// How far an auditor has come, under a checksum that fits.
pub fn audit_state(bytes: &[u8]) {
    let _ = Saved::decode(bytes);
    let summed = summed(bytes);
    let Ok(saved) = Saved::decode(&summed) else { return };
    assert!(saved.encode() == summed, "another form");
}

/// An evidence file: as it is, and under a seal that fits.
pub fn evidence(bytes: &[u8]) {
    let _ = peek_origin(bytes);
    let _ = read::trust(bytes);
    let _ = read::read(bytes, &POLICY, &mut ());
    if let Some(sections) = sections(bytes) {
        sealed_anew(&sections);
    }
}

/// One section of an evidence file, kind and payload, in the place of the golden case's first of this kind, or before the next
/// kind; under a seal that fits.
pub fn evidence_section(bytes: &[u8]) {
    let Some((number, payload)) = bytes.split_first() else { return };
    let Some(kind) = Kind::ALL.into_iter().find(|kind| *kind as u8 == *number) else { return };
    let Some(mut sections) = sections(CASE) else { return };
    let place_of = |kind: Kind| Kind::ALL.into_iter().position(|one| one == kind);
    let place = sections.partition_point(|(other, _)| place_of(*other) < place_of(kind));
    match sections.get_mut(place) {
        Some(there) if there.0 == kind => *there = (kind, payload),
        _ => sections.insert(place, (kind, payload)),
    }
    sealed_anew(&sections);
}

/// The sections of a file, as far as its headers hold.
pub fn sections(file: &[u8]) -> Option<Vec<(Kind, &[u8])>> {
    let mut rest = file.strip_prefix(MAGIC)?;
    let mut sections = Vec::new();
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::parse(*header).ok()?;
        let (payload, after) = after.split_at_checked(header.length)?;
        sections.push((header.kind, payload));
        rest = after;
    }
    Some(sections)
}

/// Reads a file of these sections whose seal is right: what is proved may not depend on it.
fn sealed_anew(sections: &[(Kind, &[u8])]) {
    let mut file = MAGIC.to_vec();
    for (kind, payload) in sections.iter().filter(|(kind, _)| *kind != Kind::End) {
        file.extend(Header { kind: *kind, length: payload.len() }.to_bytes());
        file.extend_from_slice(payload);
    }
    let Some(origin) = peek_origin(&file) else { return };
    let mut seal = Seal::default();
    seal.update(&file);
    let end = seal.text(&origin);
    file.extend(Header { kind: Kind::End, length: end.len() }.to_bytes());
    file.extend(end.as_bytes());
    let Ok(report) = read::read(file.as_slice(), &POLICY, &mut ()) else { return };
    // Only what the log has signed is ever proved.
    let golden = Note::parse(&CHECKPOINT).expect("the golden checkpoint holds");
    let found = Note::parse(&report.checkpoint.note).expect("a checkpoint that was taken");
    assert_eq!(found.text(), golden.text());
}

/// A time-stamp token; the authority is trusted, whoever it is.
pub fn token(bytes: &[u8]) {
    let imprint = token::imprint(bytes);
    let Err(token::TokenError::Stranger(authority)) = token::verify(bytes, &[]) else { return };
    let mut pin = [0; 32];
    hex::decode_to_slice(&authority, &mut pin).expect("a hash");
    if let Ok(stamp) = token::verify(bytes, &[pin]) {
        assert_eq!(Ok(stamp.imprint), imprint);
        // Nobody here can sign for the authority of the seed but the seed itself.
        let known: [u8; 32] = Sha256::digest(b"sigillo\n").into();
        assert!(stamp.imprint == known || pin != *SEED_AUTHORITY);
    }
}

/// The authority of the token among the seeds.
static SEED_AUTHORITY: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut pin = [0; 32];
    if let Err(token::TokenError::Stranger(authority)) = token::verify(TOKEN, &[]) {
        hex::decode_to_slice(authority, &mut pin).expect("a hash");
    }
    pin
});

/// A time-stamp token of OpenSSL's over the line "sigillo".
pub const TOKEN: &[u8] = include_bytes!("../../../../tests/fuzz/seeds/token");

/// A signed head.
pub fn head(bytes: &[u8]) {
    let Ok((head, note)) = SignedHead::parse(bytes) else { return };
    assert!(note.to_bytes() == bytes && head.text() == note.text());
    // The key of the seeds signed their texts, and nothing else.
    if head.verify(&note, &HEAD_KEY.public()).is_ok() {
        assert_eq!(head.sign(&HEAD_KEY).as_deref().map(str::as_bytes), Ok(bytes));
    }
}

/// The first key of the seeds' heads.
pub const HEAD_KEY: HeadKey = HeadKey::from_seed([9; 32]);

/// What the journal records about the keys of heads.
pub fn source_keys(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(key) = SourceKey::parse(text, &ORIGIN) {
        assert_eq!(key.text(&ORIGIN), text);
    }
    if let Ok(keys) = SourceKeys::parse(text, &ORIGIN) {
        assert_eq!(keys.text(&ORIGIN), text);
        assert!(SourceKeys::new(keys.lines().to_vec()).is_some_and(|again| again == keys));
    }
}
