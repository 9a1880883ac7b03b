//! Reads an evidence file section by section and checks each byte of it once.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::{
    about::{About, Attachment, Tools},
    gone::Gone,
    heads::Heads,
    record::{RecordBody, RecordView},
    report::{
        Checkpointed, Completeness, EarlierFault, Existed, Finding, Hidden, NotShown, Report, RunVerdict, Signed,
    },
    run::{CounterProof, Run, RunFault, Tally},
    seal::Seal,
    section::{Header, Kind, MAGIC, Order},
    shared::{GAP_MAX_HASHES, Nodes, SharedRoot},
};
use crate::{
    chain,
    class::Class,
    commitment::Committer,
    cursor::Cursor,
    hash,
    ids::{ChainHash, Count, Epoch, NodeHash, Origin, ReceiptTime, SourceId},
    note::{Note, VerifierKey},
    policy::{Judgement, Policy},
    proof,
    record::Part,
    record_proof::RecordLink,
    rotation::{LogKeys, Rotation},
    statement::{
        self,
        counters::{CounterEntry, CounterKey, Counters},
    },
    tree,
};

/// Sees what a file holds while it is verified. Nothing is proved before [`Verifier::finish`].
pub trait Watch: Nodes {
    /// The next record, with its link to the tree.
    fn record(&mut self, record: &RecordView<'_>, link: &RecordLink);
}

impl Watch for () {
    fn record(&mut self, _: &RecordView<'_>, _: &RecordLink) {}
}

/// Verifies one file.
pub struct Verifier {
    policy: Policy,
    seal: Seal,
    order: Order,
    rotations: Vec<Rotation>,
    about: Option<About>,
    trust: Vec<u8>,
    checkpoint: Option<Checkpointed>,
    /// Known once the checkpoint is.
    keys: Option<LogKeys>,
    records: Records,
    earlier: Vec<Existed>,
    earlier_size: u64,
    earlier_count: usize,
    notes: Vec<(u64, [u8; 32])>,
    root: Option<NodeHash>,
    counters: Vec<CounterProof>,
    attachments: Vec<Attachment>,
    names: BTreeSet<String>,
    tools: Tools,
    end: Option<(Vec<String>, Vec<String>)>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("order", &self.order).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Verifies by this trust file.
    pub fn new(policy: &Policy) -> Self {
        let mut seal = Seal::default();
        seal.update(MAGIC);
        Self {
            policy: policy.clone(),
            seal,
            order: Order::default(),
            rotations: Vec::new(),
            about: None,
            trust: Vec::new(),
            checkpoint: None,
            keys: None,
            records: Records::default(),
            earlier: Vec::new(),
            earlier_size: 0,
            earlier_count: 0,
            notes: Vec::new(),
            root: None,
            counters: Vec::new(),
            attachments: Vec::new(),
            names: BTreeSet::new(),
            tools: Tools::default(),
            end: None,
        }
    }

    /// Takes the next section: its header and its bytes, as many as the header says.
    pub fn section(&mut self, header: Header, payload: &[u8], watch: &mut impl Watch) -> Result<(), Finding> {
        if payload.len() != header.length {
            return Err(Finding::Truncated);
        }
        self.order.step(header.kind)?;
        if header.kind != Kind::End {
            self.seal.update(&header.to_bytes());
            self.seal.update(payload);
        }
        match header.kind {
            Kind::About => self.about = Some(About::parse(payload)?),
            Kind::Trust => self.trust = payload.to_vec(),
            Kind::Rotation => {
                let note = Note::parse(payload).map_err(|error| Finding::Rotation(error.into()))?;
                let origin = &self.known_about()?.origin;
                self.rotations.push(Rotation::verify(&note, origin, self.policy.recovery())?);
            }
            Kind::Checkpoint => self.checkpoint(payload)?,
            Kind::Earlier => self.earlier(payload)?,
            Kind::Run => self.run(Run::parse(payload)?)?,
            Kind::Head => {
                let origin = &self.about.as_ref().ok_or(Finding::Truncated)?.origin;
                self.records.heads.add(payload, origin)?;
            }
            Kind::Records => self.records.section(payload, watch)?,
            Kind::Edge => self.root = Some(self.records.edge(payload, watch)?),
            Kind::Counters => self.counters.push(CounterProof::parse(payload)?),
            Kind::Token | Kind::Register => self.attachment(Attachment::parse(header.kind, payload)?)?,
            Kind::Tools => self.tools = Tools::parse(payload)?,
            Kind::End => {
                let origin = &self.known_about()?.origin;
                self.end = Some(self.seal.check(payload, origin, self.policy.exporters())?);
            }
        }
        Ok(())
    }

    /// True once the end section was taken: nothing may follow it.
    pub fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    /// What the file proves. Claims that do not hold are in the report; anything else that does not is an error.
    pub fn finish(self) -> Result<Report, Finding> {
        let (Some((exporters, strangers)), Some(about), Some(checkpoint), Some(root)) =
            (self.end, self.about, self.checkpoint, self.root)
        else {
            return Err(Finding::Truncated);
        };
        if root != checkpoint.root {
            return Err(Finding::Root { found: root, stated: checkpoint.root });
        }
        let runs: Vec<RunVerdict> = (0..)
            .zip(&self.records.tallies)
            .map(|(index, tally)| RunVerdict {
                run: tally.run.clone(),
                completeness: match verdict(index, tally, &self.counters, self.records.counters.as_ref()) {
                    Err(fault) => Completeness::NotShownComplete(NotShown::Fault(fault)),
                    Ok(()) if checkpoint.auditors.is_empty() => Completeness::CompleteByProvidersWord,
                    Ok(()) => Completeness::CompleteCheckedBy(checkpoint.auditors.clone()),
                },
            })
            .collect();
        let findings = runs.iter().enumerate().filter_map(|(run, verdict)| match verdict.completeness {
            Completeness::NotShownComplete(NotShown::Fault(fault)) => Some(Finding::Run { run, fault }),
            _ => None,
        });
        let heads = self.records.heads.finish();
        let faults = heads.iter().enumerate();
        let faults = faults.filter_map(|(index, head)| Some(Finding::Head { index, fault: head.fault.clone()? }));
        let findings = findings.chain(faults).collect();
        let mut existed_by = self.earlier;
        existed_by.extend(checkpoint.quorum_time.map(|time| Existed { size: checkpoint.size, time }));
        // What existed by a time with more records existed by then with fewer.
        for at in (1..existed_by.len()).rev() {
            if let [.., earlier, later] = existed_by.get_mut(..=at).unwrap_or_default() {
                earlier.time = earlier.time.min(later.time);
            }
        }
        Ok(Report {
            about,
            trust: self.trust,
            records: self.records.count,
            stretches: self.records.stretches,
            span: self.records.first.zip(self.records.next.checked_sub(1)),
            checkpoint,
            existed_by,
            runs,
            heads,
            removed: self.records.gone.finish(),
            hidden: self.records.hidden,
            attachments: self.attachments,
            notes: self.notes,
            tools: self.tools,
            exporters,
            strangers,
            findings,
        })
    }

    fn known_about(&self) -> Result<&About, Finding> {
        // The order of sections puts it first.
        self.about.as_ref().ok_or(Finding::Truncated)
    }

    fn checkpoint(&mut self, payload: &[u8]) -> Result<(), Finding> {
        let origin = self.known_about()?.origin.clone();
        let note = Note::parse(payload)?;
        let keys = LogKeys::new(&self.policy, std::mem::take(&mut self.rotations))?;
        let judgement = keys.check(&note)?;
        if judgement.checkpoint.origin != origin.as_str() {
            return Err(Finding::Origin(judgement.checkpoint.origin));
        }
        let checkpoint = checkpointed(&judgement, payload);
        self.records = Records::new(checkpoint.size, origin, self.policy.officers());
        self.notes.push((checkpoint.size, Sha256::digest(payload).into()));
        self.checkpoint = Some(checkpoint);
        self.keys = Some(keys);
        Ok(())
    }

    /// `u8 number of hashes; the hashes: consistency with the checkpoint; then the note`
    fn earlier(&mut self, payload: &[u8]) -> Result<(), Finding> {
        let index = self.earlier_count;
        self.earlier_count += 1;
        let fault = |fault: EarlierFault| Finding::Earlier { index, fault };
        let (Some(newest), Some(keys)) = (&self.checkpoint, &self.keys) else { return Err(Finding::Truncated) };
        let mut cursor = Cursor::new(payload);
        let mut hashes = Vec::new();
        for _ in 0..cursor.u8()? {
            hashes.push(NodeHash::new(cursor.array()?));
        }
        let bytes = cursor.take(cursor.remaining())?;
        let note = Note::parse(bytes).map_err(|error| fault(error.into()))?;
        let judgement = keys.check(&note).map_err(|error| fault(error.into()))?;
        let (size, root) = (judgement.checkpoint.size, judgement.checkpoint.root);
        let of_this = judgement.checkpoint.origin == self.known_about()?.origin.as_str();
        if !of_this || size <= self.earlier_size || size >= newest.size {
            return Err(fault(EarlierFault::Order));
        }
        proof::verify_consistency(size, &root, newest.size, &newest.root, &hashes)
            .map_err(|error| fault(error.into()))?;
        if let Some(time) = judgement.quorum_time {
            self.earlier.push(Existed { size, time });
        }
        self.earlier_size = size;
        self.notes.push((size, Sha256::digest(bytes).into()));
        Ok(())
    }

    fn run(&mut self, run: Run) -> Result<(), Finding> {
        let tallies = &mut self.records.tallies;
        // Each alone may be whole; together they would look so, whatever is left out between them.
        if tallies.iter().any(|tally| tally.run.key == run.key) {
            return Err(Finding::RunTwice(tallies.len()));
        }
        tallies.push(Tally::new(run));
        Ok(())
    }

    fn attachment(&mut self, attachment: Attachment) -> Result<(), Finding> {
        // Names that differ in case only are one file on some systems.
        if !self.names.insert(attachment.name.to_ascii_lowercase()) {
            return Err(Finding::AttachmentTwice);
        }
        // What this version does not read is not kept either: its name alone is reported.
        let bytes = if attachment.kind == Kind::Token { attachment.bytes } else { Vec::new() };
        self.attachments.push(Attachment { bytes, ..attachment });
        Ok(())
    }
}

fn checkpointed(judgement: &Judgement<'_>, note: &[u8]) -> Checkpointed {
    let signed = |(name, time): (String, u64)| Signed { name, time };
    Checkpointed {
        size: judgement.checkpoint.size,
        root: judgement.checkpoint.root,
        log: judgement.log.name().to_owned(),
        witnesses: judgement.cosignatures.iter().map(|(name, time)| signed((name.to_string(), *time))).collect(),
        quorum: judgement.quorum,
        quorum_time: judgement.quorum_time,
        auditors: judgement.auditors.iter().map(|(key, time)| signed((key.name().to_owned(), *time))).collect(),
        note: note.to_vec(),
    }
}

/// Whether a claimed run holds.
fn verdict(index: u8, tally: &Tally, proofs: &[CounterProof], counters: Option<&Counters>) -> Result<(), RunFault> {
    tally.finish()?;
    if !tally.run.reaches_end {
        return Ok(());
    }
    let proof = proofs.iter().find(|proof| proof.run == index).ok_or(RunFault::NoCounters)?;
    let counters = counters.ok_or(RunFault::NoCountersRecord)?;
    let (key, next) = (tally.run.key, Count::new(tally.run.to));
    let entry = CounterEntry { key, epoch: Epoch::new(proof.epoch), next };
    let of_kind = proof.epoch == 0 || matches!(key, CounterKey::Source(_));
    if of_kind && counters.holds(&entry, proof.index, &proof.hashes) { Ok(()) } else { Err(RunFault::Counters) }
}

/// Follows the records of a file.
struct Records {
    origin: Option<Origin>,
    genesis: ChainHash,
    size: u64,
    shared: SharedRoot,
    committer: Committer,
    linker: blake3::Hasher,
    own_source: SourceId,
    officers: Vec<VerifierKey>,
    tallies: Vec<Tally>,
    gone: Gone,
    heads: Heads,
    counters: Option<Counters>,
    hidden: Hidden,
    chain: ChainHash,
    time: ReceiptTime,
    first: Option<u64>,
    next: u64,
    count: u64,
    stretches: u64,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            origin: None,
            genesis: ChainHash::new([0; 32]),
            size: 0,
            shared: SharedRoot::new(0),
            committer: Committer::default(),
            linker: hash::CHAIN.hasher(),
            officers: Vec::new(),
            own_source: statement::journal_source(),
            tallies: Vec::new(),
            gone: Gone::default(),
            heads: Heads::default(),
            counters: None,
            hidden: Hidden::default(),
            chain: ChainHash::new([0; 32]),
            time: ReceiptTime::new(0),
            first: None,
            next: 0,
            count: 0,
            stretches: 0,
        }
    }
}

impl Records {
    fn new(size: u64, origin: Origin, officers: &[VerifierKey]) -> Self {
        Self {
            genesis: chain::genesis(&origin),
            origin: Some(origin),
            officers: officers.to_vec(),
            size,
            shared: SharedRoot::new(size),
            ..Self::default()
        }
    }

    /// `u64 first sequence; [32] chain value before it; u8 number of hashes; the hashes of the gap before it; u32 records; records`
    fn section(&mut self, payload: &[u8], watch: &mut impl Watch) -> Result<(), Finding> {
        let mut cursor = Cursor::new(payload);
        let first = cursor.u64()?;
        let previous = ChainHash::new(cursor.array()?);
        let gap = read_hashes(&mut cursor)?;
        let count = cursor.u32()?;
        let goes_on = self.first.is_some() && first == self.next;
        if goes_on && previous != self.chain {
            return Err(Finding::Link(first));
        }
        if first == 0 && previous != self.genesis {
            return Err(Finding::Genesis);
        }
        if count == 0 || first >= self.size {
            return Err(Finding::Section(Kind::Records));
        }
        self.shared.gap(first, gap, watch)?;
        self.stretches += u64::from(!goes_on);
        self.first = self.first.or(Some(first));
        (self.next, self.chain) = (first, previous);
        for _ in 0..count {
            let record = RecordView::parse(&mut cursor)?;
            self.record(&record, watch)?;
        }
        if cursor.remaining() == 0 { Ok(()) } else { Err(Finding::Section(Kind::Records)) }
    }

    fn record(&mut self, record: &RecordView<'_>, watch: &mut impl Watch) -> Result<(), Finding> {
        let envelope = &record.envelope;
        if envelope.seq.get() != self.next || self.next >= self.size {
            return Err(Finding::Sequence { expected: self.next, found: envelope.seq.get() });
        }
        if envelope.receipt_time < self.time {
            return Err(Finding::Time(envelope.seq));
        }
        let commitment = record.commitment(&mut self.committer);
        let link = RecordLink { previous: self.chain, envelope: *envelope, parts: record.links() };
        self.chain = chain::link(&mut self.linker, &self.chain, envelope, &commitment);
        self.shared.leaf(tree::record_leaf(&self.chain), watch);
        self.time = envelope.receipt_time;
        self.next += 1;
        self.count += 1;
        self.tallies.iter_mut().try_for_each(|tally| tally.step(envelope))?;
        self.heads.record(envelope, &commitment);
        self.count_hidden(record)?;
        if envelope.class == Class::Journal.id() && envelope.source == self.own_source {
            self.statement(record)?;
        }
        watch.record(record, &link);
        Ok(())
    }

    fn count_hidden(&mut self, record: &RecordView<'_>) -> Result<(), Finding> {
        let gone = record.gone();
        if gone != 0 {
            self.gone.note(&record.envelope, gone)?;
        }
        match &record.body {
            RecordBody::Commitment { gone, .. } => self.hidden.records += u64::from(!gone),
            RecordBody::Parts(parts) => {
                for (count, part) in self.hidden.parts.iter_mut().zip(parts) {
                    *count += u64::from(matches!(part, super::record::PartBody::Hidden { gone: false, .. }));
                }
            }
        }
        Ok(())
    }

    /// Takes what the journal says about itself, where it is shown.
    fn statement(&mut self, record: &RecordView<'_>) -> Result<(), Finding> {
        let (Some(origin), Some(content)) = (&self.origin, record.shown(Part::Content)) else { return Ok(()) };
        let Some(text) = statement::original(content) else { return Ok(()) };
        if record.envelope.seq.get() + 1 == self.size {
            self.counters = std::str::from_utf8(text).ok().and_then(|text| Counters::parse(text, origin).ok());
        }
        self.heads.statement(record.envelope.seq.get(), text);
        self.gone.statement(text, origin, &record.envelope, &self.officers)
    }

    /// `u8 number of hashes; the hashes of the gap after the last record`
    fn edge(&mut self, payload: &[u8], watch: &mut impl Watch) -> Result<NodeHash, Finding> {
        let mut cursor = Cursor::new(payload);
        let hashes = read_hashes(&mut cursor)?;
        if cursor.remaining() != 0 {
            return Err(Finding::Section(Kind::Edge));
        }
        let mut shared = std::mem::replace(&mut self.shared, SharedRoot::new(0));
        shared.gap(self.size, hashes, watch)?;
        Ok(shared.finish(watch)?)
    }
}

fn read_hashes(cursor: &mut Cursor<'_>) -> Result<Vec<NodeHash>, Finding> {
    let count = usize::from(cursor.u8()?);
    if count > GAP_MAX_HASHES {
        return Err(Finding::Lengths);
    }
    (0..count).map(|_| Ok(NodeHash::new(cursor.array()?))).collect()
}
