//! A large evidence file, without a server: seeded records, chained and put into a file as an export would.

use anyhow::{Context, Result};
use sigillo_model::{
    chain,
    checkpoint::Checkpoint,
    class::Class,
    commitment::Committer,
    envelope::{Envelope, Flags},
    evidence::{About, PartBody, RecordBody, RecordView, Seal, Tools, Writer},
    ids::{BatchSecret, Count, Epoch, Origin, ReceiptTime, Seq, SourceId, SourceSeq, TenantId},
    note::{KeyKind, Note, SigningKey},
    policy::Policy,
    record::Part,
    tree::{self, RootBuilder},
};

use crate::records::records;

const ORIGIN: &str = "journal.example.net/bench";

/// A file and the trust file by which it holds.
#[derive(Debug)]
pub struct Case {
    /// The evidence file.
    pub file: Vec<u8>,
    /// Trusts the log that signed it, and asks for no witness.
    pub policy: Policy,
}

/// A file that shows so many records, all of a journal, each whole.
pub fn case(count: u64) -> Result<Case> {
    let origin = Origin::new(ORIGIN)?;
    let key = SigningKey::from_seed(ORIGIN, KeyKind::Log, &[1; 32])?;
    let trust = format!("log {}\nquorum none\n", key.verifier());
    let envelope = |seq: u64| Envelope {
        flags: Flags::default(),
        class: Class::Service.id(),
        retention: Class::Service.retention(),
        seq: Seq::new(seq),
        receipt_time: ReceiptTime::new(1_772_438_400_000_000_000 + seq),
        source: SourceId::from_name("web-1"),
        epoch: Epoch::new(1),
        source_seq: SourceSeq::new(seq),
        source_count: Count::new(seq),
        tenant: TenantId::from_name("provider"),
        tenant_count: Count::new(seq),
    };
    let secret = BatchSecret::new([7; 32]);
    // Which record of its batch: batches of a thousand.
    let index = |seq: u64| u32::try_from(seq % 1_000).unwrap_or_default();
    let mut committer = Committer::default();
    let mut values = vec![chain::genesis(&origin)];
    let mut root = RootBuilder::default();
    for (seq, record) in (0..count).zip(records(1)) {
        let commitment = committer.commit(&secret, index(seq), record.as_ref());
        let before = *values.last().context("begins with the genesis")?;
        let value = chain::link_all(before, [envelope(seq)], [&commitment]);
        root.push(tree::record_leaf(&value));
        values.push(value);
    }
    let text = Checkpoint { origin: ORIGIN.to_owned(), size: count, root: root.root() }.text();
    let note = Note::new(text.clone(), vec![key.sign(&text)?])?;
    let (who, why, query) = ("bench".into(), "speed".into(), "everything".into());
    let about = About { origin: origin.clone(), time: 0, who, why, query, from: 0, to: count };
    let mut writer = Writer::new(&about, trust.as_bytes())?;
    writer.checkpoint(&note.to_bytes())?;
    for ((seq, record), previous) in (0..count).zip(records(1)).zip(&values) {
        if seq == 0 {
            writer.stretch(0, previous, &[])?;
        }
        let parts = Part::ALL.map(|part| match record.as_ref().part(part) {
            Some(bytes) => PartBody::Shown { salt: committer.salt(&secret, index(seq), part), bytes },
            None => PartBody::Absent,
        });
        let view = RecordView { envelope: envelope(seq), body: RecordBody::Parts(parts) };
        writer.record(&view, previous)?;
    }
    writer.edge(&[])?;
    writer.tools(&Tools::default())?;
    let mut file = writer.take();
    let mut seal = Seal::default();
    seal.update(&file);
    writer.end(seal.text(&origin).as_bytes())?;
    file.extend(writer.take());
    Ok(Case { file, policy: Policy::parse(trust.as_bytes())? })
}
