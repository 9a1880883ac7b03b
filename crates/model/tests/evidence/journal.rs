//! A small journal in memory, and evidence made of it.

use std::{convert::Infallible, fmt::Write, ops::Range};

use sigillo_model::{
    chain,
    checkpoint::Checkpoint,
    class::Class,
    commitment::Committer,
    envelope::{Envelope, Flags},
    evidence::{
        About, CounterProof, HeadProof, PartBody, RecordBody, RecordView, Run, Seal, Tools, Writer, gap_hashes,
    },
    ids::{
        BatchSecret, ChainHash, Commitment, Count, Epoch, NodeHash, Origin, ReceiptTime, Seq, SourceId, SourceSeq,
        TenantId,
    },
    note::{KeyKind, Note, SigningKey},
    proof::{self, Subtrees},
    record::Part,
    statement::counters::{CounterEntry, CounterKey, CounterTree},
    tree,
};

pub(crate) const ORIGIN: &str = "journal.example.net/2026";
pub(crate) const TIME: u64 = 1_764_000_000;

pub(crate) fn key(name: &str, kind: KeyKind, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, kind, &[seed; 32]).unwrap()
}

pub(crate) fn log_key() -> SigningKey {
    key(ORIGIN, KeyKind::Log, 1)
}

pub(crate) fn witness(number: u8) -> SigningKey {
    key(&format!("witness-{number}.example"), KeyKind::Cosigner, 10 + number)
}

pub(crate) fn auditor() -> SigningKey {
    key("auditor.example", KeyKind::Auditor, 20)
}

pub(crate) fn exporter() -> SigningKey {
    key("exporter.example", KeyKind::Log, 30)
}

pub(crate) fn officer(number: u8) -> SigningKey {
    key(&format!("officer-{number}.example"), KeyKind::Log, 40 + number)
}

pub(crate) fn recovery() -> SigningKey {
    key("recovery.example", KeyKind::Log, 50)
}

/// A trust file that asks for two of three witnesses.
pub(crate) fn trust() -> String {
    let mut text = format!("log {}\n", log_key().verifier());
    for number in 0..3 {
        writeln!(text, "witness w{number} {}", witness(number).verifier()).unwrap();
    }
    text += "group all 2 w0 w1 w2\nquorum all\n";
    for (word, key) in [
        ("auditor", auditor()),
        ("exporter", exporter()),
        ("officer", officer(0)),
        ("officer", officer(1)),
        ("recovery", recovery()),
    ] {
        writeln!(text, "{word} {}", key.verifier()).unwrap();
    }
    text
}

/// One record, whole.
pub(crate) struct Record {
    pub(crate) envelope: Envelope,
    pub(crate) parts: [Option<Vec<u8>>; 3],
    secret: BatchSecret,
    pub(crate) commitment: Commitment,
}

impl Record {
    /// All of it, or with `hidden` parts as hashes; `gone` says why.
    pub(crate) fn view(&self, hidden: u8, gone: bool) -> RecordView<'_> {
        let mut committer = Committer::default();
        let parts = Part::ALL.map(|part| match &self.parts[usize::from(part.number())] {
            None => PartBody::Absent,
            Some(bytes) => {
                let salt = committer.salt(&self.secret, 0, part);
                if hidden >> part.number() & 1 == 1 {
                    PartBody::Hidden { hash: committer.part_hash(&salt, part, bytes), gone }
                } else {
                    PartBody::Shown { salt, bytes }
                }
            }
        });
        RecordView { envelope: self.envelope, body: RecordBody::Parts(parts) }
    }

    pub(crate) fn commitment_only(&self, gone: bool) -> RecordView<'_> {
        RecordView { envelope: self.envelope, body: RecordBody::Commitment { commitment: self.commitment, gone } }
    }
}

#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) records: Vec<Record>,
    /// Chain value before each record, and after the last.
    pub(crate) chain: Vec<ChainHash>,
    leaves: Vec<NodeHash>,
    pub(crate) counters: Option<CounterTree>,
}

/// The protobuf of a `ContentPart` with only its field `original`.
pub(crate) fn content(original: &str) -> Vec<u8> {
    let mut out = vec![0x1a];
    let mut length = original.len();
    while length >= 128 {
        out.push(u8::try_from(length & 127).unwrap() | 128);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend(original.as_bytes());
    out
}

impl Journal {
    /// Records of three sources and three tenants, in turns of uneven length.
    pub(crate) fn with(records: usize) -> Self {
        let mut journal = Self { chain: vec![chain::genesis(&origin())], ..Self::default() };
        for i in 0..records {
            let source = ["web-1", "web-2", "panel"][i % 7 % 3];
            let tenant = ["acme", "provider", "beta"][i % 5 % 3];
            let parts = [
                Some(format!("core {i}").into_bytes()),
                (i % 3 != 0).then(|| format!("personal {i}").into_bytes()),
                (i % 4 != 1).then(|| content(&format!("line {i}"))),
            ];
            journal.push(source, tenant, Class::Service, parts);
        }
        journal
    }

    pub(crate) fn size(&self) -> u64 {
        self.records.len() as u64
    }

    fn count(&self, test: impl Fn(&Envelope) -> bool) -> u64 {
        self.records.iter().filter(|record| test(&record.envelope)).count() as u64
    }

    pub(crate) fn push(&mut self, source: &str, tenant: &str, class: Class, parts: [Option<Vec<u8>>; 3]) {
        let (source, tenant) = (SourceId::from_name(source), TenantId::from_name(tenant));
        let seq = self.size();
        let source_count = self.count(|envelope| envelope.source == source);
        let envelope = Envelope {
            flags: Flags::default(),
            class: class.id(),
            retention: class.retention(),
            seq: Seq::new(seq),
            receipt_time: ReceiptTime::new((TIME - 1_000 + seq) * 1_000_000_000),
            source,
            epoch: Epoch::new(1),
            source_seq: SourceSeq::new(source_count),
            source_count: Count::new(source_count),
            tenant,
            tenant_count: Count::new(self.count(|envelope| envelope.tenant == tenant)),
        };
        self.push_as(envelope, parts);
    }

    /// Adds a record under any envelope, as a forger would.
    pub(crate) fn push_as(&mut self, envelope: Envelope, parts: [Option<Vec<u8>>; 3]) {
        let mut secret = [9; 32];
        secret[..8].copy_from_slice(&envelope.seq.get().to_be_bytes());
        let secret = BatchSecret::new(secret);
        let record = sigillo_model::record::RecordRef {
            core: parts[0].as_deref(),
            personal: parts[1].as_deref(),
            content: parts[2].as_deref(),
        };
        let commitment = Committer::default().commit(&secret, 0, record);
        let value = chain::link_all(*self.chain.last().unwrap(), [envelope], [&commitment]);
        self.leaves.push(tree::leaf(value.as_bytes()));
        self.chain.push(value);
        self.records.push(Record { envelope, parts, secret, commitment });
    }

    /// Ends with a counters record.
    pub(crate) fn push_counters(&mut self) {
        let mut entries = Vec::new();
        for record in &self.records {
            let envelope = &record.envelope;
            for key in [CounterKey::Source(envelope.source), CounterKey::Tenant(envelope.tenant)] {
                let next = self.count(|other| match &key {
                    CounterKey::Source(id) => other.source == *id,
                    CounterKey::Tenant(id) => other.tenant == *id,
                });
                let epoch = Epoch::new(u64::from(matches!(key, CounterKey::Source(_))));
                entries.push(CounterEntry { key, epoch, next: Count::new(next) });
            }
        }
        let tree = CounterTree::build([77; 32], entries);
        let text = tree.statement(&origin(), Vec::new()).text();
        self.counters = Some(tree);
        self.push("journal", "provider", Class::Journal, [Some(b"core".to_vec()), None, Some(content(&text))]);
    }

    pub(crate) fn root(&self, size: u64) -> NodeHash {
        proof::root(size, self).unwrap()
    }

    /// A signed checkpoint, cosigned by these witnesses.
    pub(crate) fn note(&self, size: u64, witnesses: &[(u8, u64)], audited: bool) -> Note {
        let text = Checkpoint { origin: ORIGIN.to_owned(), size, root: self.root(size) }.text();
        let mut note = Note::new(text.clone(), vec![log_key().sign(&text).unwrap()]).unwrap();
        for (number, time) in witnesses {
            note.add(witness(*number).cosign(&text, *time).unwrap()).unwrap();
        }
        if audited {
            note.add(auditor().cosign(&text, TIME + 50).unwrap()).unwrap();
        }
        note
    }

    /// The hashes of a gap.
    pub(crate) fn gap(&self, from: u64, to: u64, size: u64) -> Vec<NodeHash> {
        gap_hashes(from, to, size, self).unwrap()
    }

    fn range_root(&self, from: u64, to: u64) -> NodeHash {
        let mut root = tree::RootBuilder::default();
        self.leaves[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()]
            .iter()
            .for_each(|leaf| root.push(*leaf));
        root.root()
    }
}

impl Subtrees for Journal {
    type Error = Infallible;

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, Infallible> {
        Ok(self.range_root(index << height, (index + 1) << height))
    }
}

pub(crate) fn origin() -> Origin {
    Origin::new(ORIGIN).unwrap()
}

/// What an evidence file is made of. The default is lawful; tests change one thing.
pub(crate) struct Case<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) size: u64,
    pub(crate) note: Vec<u8>,
    pub(crate) earlier: Vec<(u64, Vec<u8>)>,
    pub(crate) runs: Vec<Run>,
    pub(crate) heads: Vec<HeadProof>,
    pub(crate) stretches: Vec<Range<u64>>,
    pub(crate) view: Box<dyn Fn(&'a Record) -> RecordView<'a> + 'a>,
    pub(crate) proofs: Vec<CounterProof>,
    pub(crate) rotations: Vec<Vec<u8>>,
    pub(crate) tokens: Vec<(String, Vec<u8>)>,
    pub(crate) signer: Option<SigningKey>,
}

impl<'a> Case<'a> {
    /// All of `stretches` shown, under a checkpoint of everything.
    pub(crate) fn of(journal: &'a Journal, stretches: Vec<Range<u64>>) -> Self {
        let size = journal.size();
        Self {
            journal,
            size,
            note: journal.note(size, &[(0, TIME + 10), (2, TIME + 20)], false).to_bytes(),
            earlier: Vec::new(),
            runs: Vec::new(),
            heads: Vec::new(),
            stretches,
            view: Box::new(|record| record.view(0, false)),
            proofs: Vec::new(),
            rotations: Vec::new(),
            tokens: Vec::new(),
            signer: Some(exporter()),
        }
    }

    /// The whole run of a source or tenant, with the proof of its end; what is not of it is not in the file, but for the counters
    /// record.
    pub(crate) fn complete(journal: &'a Journal, key: CounterKey) -> Self {
        let of = |envelope: &Envelope| match &key {
            CounterKey::Source(id) => envelope.source == *id,
            CounterKey::Tenant(id) => envelope.tenant == *id,
        };
        let last = journal.size() - 1;
        let wanted = journal.records.iter().filter(|record| of(&record.envelope) || record.envelope.seq.get() == last);
        let mut case =
            Self::of(journal, wanted.map(|record| record.envelope.seq.get()..record.envelope.seq.get() + 1).collect());
        let counters = journal.counters.as_ref().unwrap();
        let (index, entry) = counters.find(&key).unwrap();
        case.runs = vec![Run { key, from: 0, to: entry.next.get(), reaches_end: true, name: None }];
        let hashes = counters.proof(index).unwrap();
        case.proofs = vec![CounterProof { run: 0, epoch: entry.epoch.get(), index, hashes }];
        case
    }

    pub(crate) fn about(&self) -> About {
        About {
            origin: origin(),
            time: TIME * 1_000_000_000,
            who: "m.rossi".into(),
            why: "case 17".into(),
            query: "severity >= warn".into(),
            from: 0,
            to: self.size,
        }
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut writer = Writer::new(&self.about(), trust().as_bytes()).unwrap();
        for rotation in &self.rotations {
            writer.rotation(rotation).unwrap();
        }
        writer.checkpoint(&self.note).unwrap();
        for (size, note) in &self.earlier {
            let proof = proof::consistency(*size, self.size, self.journal).unwrap();
            writer.earlier(note, &proof).unwrap();
        }
        for run in &self.runs {
            writer.run(run).unwrap();
        }
        for head in &self.heads {
            writer.head(head).unwrap();
        }
        let mut at = 0;
        for stretch in &self.stretches {
            let index = |seq: u64| usize::try_from(seq).unwrap();
            // A stretch that goes on where the last one ended needs no gap.
            let gap = self.journal.gap(at, stretch.start, self.size);
            writer.stretch(stretch.start, &self.journal.chain[index(stretch.start)], &gap).unwrap();
            for seq in stretch.clone() {
                let view = (self.view)(&self.journal.records[index(seq)]);
                writer.record(&view, &self.journal.chain[index(seq)]).unwrap();
            }
            at = stretch.end;
        }
        writer.edge(&self.journal.gap(at, self.size, self.size)).unwrap();
        for proof in &self.proofs {
            writer.counters(proof).unwrap();
        }
        for (name, bytes) in &self.tokens {
            writer.token(name, bytes).unwrap();
        }
        writer.tools(&Tools { format_page: [1; 32], verifier: [2; 32] }).unwrap();
        let mut file = writer.take();
        file.extend(end(&file, self.signer.as_ref()));
        file
    }
}

/// The end section of a file, anew.
pub(crate) fn end(file: &[u8], signer: Option<&SigningKey>) -> Vec<u8> {
    let mut seal = Seal::default();
    seal.update(file);
    let text = seal.text(&origin());
    let payload = match signer {
        Some(signer) => Note::new(text.clone(), vec![signer.sign(&text).unwrap()]).unwrap().to_bytes(),
        None => text.into_bytes(),
    };
    let mut out = vec![14];
    out.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend(payload);
    out
}

/// Where each section begins: kind, offset of its header, offset after it.
pub(crate) fn sections(file: &[u8]) -> Vec<(u8, usize, usize)> {
    let mut at = sigillo_model::evidence::MAGIC.len();
    let mut found = Vec::new();
    while at < file.len() {
        let length = u32::from_be_bytes(file[at + 1..at + 5].try_into().unwrap());
        let end = at + 5 + usize::try_from(length).unwrap();
        found.push((file[at], at, end));
        at = end;
    }
    found
}
