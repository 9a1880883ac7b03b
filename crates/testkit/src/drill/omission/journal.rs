//! A journal as its owner holds it: whatever is in its plan is numbered, chained and put into entries and a tree, by the rules or not.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use sigillo_model::{
    audit::{Holder, Shown, Trust, Walker},
    batch::{batch_hash, commitments, epoch_opening},
    block::{Block, BlockBuilder, Inflater, compress},
    chain,
    class::Class,
    entry::{Entry, Gone, Run, Salts},
    envelope::{Envelope, Flags},
    ids::{
        BatchHash, BatchSecret, ChainHash, Commitment, Count, Epoch, NodeHash, Origin, ReceiptTime, Seq, SourceId,
        SourceSeq, TenantId,
    },
    note::Note,
    policy::Policy,
    proof::Subtrees,
    record::Record,
    state::JournalState,
    statement::counters::{CounterEntry, CounterKey, CounterTree},
    tree::{self, RootBuilder},
};

const EPOCH: Epoch = Epoch::new(1);
/// Nanoseconds since 1970 of the first batch; each is received a second after the one before.
const START_NS: u64 = 1_772_438_400_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Records as a source sent them at once.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) records: Vec<Record>,
    pub(super) secret: BatchSecret,
    commitments: Vec<Commitment>,
    block_bytes: u32,
    compressed: Vec<u8>,
}

impl Sealed {
    pub(super) fn new(records: Vec<Record>, secret: [u8; 32]) -> Result<Arc<Self>> {
        let mut builder = BlockBuilder::default();
        records.iter().try_for_each(|record| builder.push(record.as_ref()))?;
        let block = builder.take();
        let secret = BatchSecret::new(secret);
        let commitments = commitments(&secret, &Block::parse(&block)?);
        let (block_bytes, compressed) = (u32::try_from(block.len())?, compress(&block, 1));
        Ok(Arc::new(Self { records, secret, commitments, block_bytes, compressed }))
    }

    /// One record of the product's own that states this.
    pub(super) fn statement(text: &[u8], secret: [u8; 32]) -> Result<Arc<Self>> {
        // Protobuf: field 3, `original`, of the content part.
        let mut content = vec![3 << 3 | 2];
        let mut length = text.len();
        while length > 0x7f {
            content.push(0x80 | u8::try_from(length & 0x7f)?);
            length >>= 7;
        }
        content.push(u8::try_from(length)?);
        content.extend(text);
        Self::new(vec![Record { content: Some(content.into()), ..Record::default() }], secret)
    }
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Records(Arc<Sealed>),
    /// A counters record. A lie takes so much off what it says of somebody.
    Counters {
        salt: [u8; 32],
        lie: Option<(CounterKey, u64)>,
    },
}

/// One batch of a plan.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) source: String,
    pub(super) class: Class,
    pub(super) tenant: String,
    pub(super) content: Content,
    /// By how much the number of its first record is off what should follow, for the source and for the tenant.
    pub(super) source_shift: i64,
    pub(super) tenant_shift: i64,
}

impl Piece {
    pub(super) fn new(source: &str, class: Class, tenant: &str, content: Content) -> Self {
        Self { source: source.into(), class, tenant: tenant.into(), content, source_shift: 0, tenant_shift: 0 }
    }

    pub(super) fn own(content: Content) -> Self {
        Self::new(Class::Journal.name(), Class::Journal, "home", content)
    }

    pub(super) fn concerns(&self, key: &CounterKey) -> bool {
        match key {
            CounterKey::Source(id) => SourceId::from_name(&self.source) == *id,
            CounterKey::Tenant(id) => TenantId::from_name(&self.tenant) == *id,
        }
    }

    pub(super) fn count(&self) -> u64 {
        match &self.content {
            Content::Records(sealed) => sealed.records.len() as u64,
            Content::Counters { .. } => 1,
        }
    }
}

/// What a journal is made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) pieces: Vec<Piece>,
    /// What was erased, by sequence.
    pub(super) gone: BTreeMap<u64, Gone>,
}

impl Plan {
    /// The sequence of the first record of the piece at this place.
    pub(super) fn seq_of(&self, place: usize) -> u64 {
        self.pieces.iter().take(place).map(Piece::count).sum()
    }
}

/// A record in its place.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) envelope: Envelope,
    pub(super) batch: Arc<Sealed>,
    pub(super) index: u32,
}

/// A journal.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    pub(super) origin: Origin,
    pub(super) rows: Vec<Row>,
    /// Chain values: of genesis, then after each record.
    pub(super) values: Vec<ChainHash>,
    leaves: Vec<NodeHash>,
    entries: Vec<Vec<u8>>,
    /// By the sequence of their records.
    pub(super) counters: BTreeMap<u64, CounterTree>,
    pub(super) gone: BTreeMap<u64, Gone>,
}

#[derive(Default)]
struct Counts {
    sources: HashMap<SourceId, (u64, BatchHash, u64)>,
    tenants: HashMap<TenantId, u64>,
}

impl Counts {
    fn tree(&self, salt: [u8; 32], lie: Option<(CounterKey, u64)>) -> CounterTree {
        let sources = self.sources.iter().map(|(id, (_, _, next))| (CounterKey::Source(*id), EPOCH, *next));
        let tenants = self.tenants.iter().map(|(id, next)| (CounterKey::Tenant(*id), Epoch::new(0), *next));
        let off = |key| lie.filter(|(about, _)| *about == key).map_or(0, |(_, off)| off);
        let entry = |(key, epoch, next): (CounterKey, Epoch, u64)| CounterEntry {
            key,
            epoch,
            next: Count::new(next.saturating_sub(off(key))),
        };
        CounterTree::build(salt, sources.chain(tenants).map(entry).collect())
    }
}

impl Journal {
    /// Numbers, chains and stores what the plan says.
    pub(super) fn build(origin: &Origin, plan: &Plan) -> Result<Self> {
        let mut journal = Self {
            origin: origin.clone(),
            rows: Vec::new(),
            values: vec![chain::genesis(origin)],
            leaves: Vec::new(),
            entries: Vec::new(),
            counters: BTreeMap::new(),
            gone: plan.gone.clone(),
        };
        let mut counts = Counts::default();
        for (piece, second) in plan.pieces.iter().zip(0..) {
            journal.add(piece, START_NS + second * SECOND_NS, &mut counts)?;
        }
        Ok(journal)
    }

    fn add(&mut self, piece: &Piece, time: u64, counts: &mut Counts) -> Result<()> {
        let (source, tenant) = (SourceId::from_name(&piece.source), TenantId::from_name(&piece.tenant));
        let opening = epoch_opening(&self.origin, source, EPOCH, None);
        let (source_seq, previous, expected) = *counts.sources.entry(source).or_insert((0, opening, 0));
        let shifted = |count: u64, shift| count.checked_add_signed(shift).context("a count below zero");
        let source_count = shifted(expected, piece.source_shift)?;
        let tenant_count = shifted(*counts.tenants.entry(tenant).or_default(), piece.tenant_shift)?;
        let records = piece.count();
        counts.sources.insert(source, (source_seq + records, previous, source_count + records));
        counts.tenants.insert(tenant, tenant_count + records);
        let seq = self.size();
        let batch = match &piece.content {
            Content::Records(batch) => batch.clone(),
            Content::Counters { salt, lie } => {
                let tree = counts.tree(*salt, *lie);
                let text = tree.statement(&self.origin, Vec::new()).text();
                self.counters.insert(seq, tree);
                Sealed::statement(text.as_bytes(), *salt)?
            }
        };
        let hash = batch_hash(&previous, source, EPOCH, SourceSeq::new(source_seq), &batch.commitments);
        if let Some((_, head, _)) = counts.sources.get_mut(&source) {
            *head = hash;
        }
        let run = Run {
            tenant: 0,
            retention: piece.class.retention(),
            flags: Flags::default(),
            records: u32::try_from(records)?,
        };
        let mut entry = Entry {
            class: piece.class.id(),
            seq: Seq::new(seq),
            count: run.records,
            receipt_time: ReceiptTime::new(time),
            source,
            epoch: EPOCH,
            source_seq: SourceSeq::new(source_seq),
            source_count: Count::new(source_count),
            batch_hash: hash,
            chain_hash: ChainHash::new([0; 32]),
            salts: Salts::Secret(batch.secret.clone()),
            tenants: vec![(tenant, Count::new(tenant_count))],
            runs: vec![run],
            block_bytes: batch.block_bytes,
            compressed: &batch.compressed,
        };
        let envelopes: Vec<Envelope> = entry.envelopes().collect();
        let start = *self.values.last().context("begins with the genesis")?;
        let (values, leaves) = (&mut self.values, &mut self.leaves);
        entry.chain_hash = chain::link_each(start, envelopes.iter().copied(), &batch.commitments, |value| {
            values.push(*value);
            leaves.push(tree::record_leaf(value));
        });
        let gone = |index: usize| self.gone.get(&(seq + index as u64)).copied().unwrap_or(Gone::NOTHING);
        let mut inflater = Inflater::default();
        let block = entry.block(&mut inflater)?;
        let reduced = entry.reduce(&block, |index, _| gone(index));
        self.entries.push(reduced.map_or_else(|| entry.encode(), |reduced| reduced.bytes));
        let rows =
            envelopes.into_iter().zip(0..).map(|(envelope, index)| Row { envelope, batch: batch.clone(), index });
        self.rows.extend(rows);
        Ok(())
    }

    pub(super) fn size(&self) -> u64 {
        self.rows.len() as u64
    }

    /// The root over the first so many records.
    pub(super) fn root(&self, size: u64) -> NodeHash {
        let mut root = RootBuilder::default();
        self.leaves.iter().zip(0..size).for_each(|(leaf, _)| root.push(*leaf));
        root.root()
    }

    /// The sequences of a source's or tenant's records among the first `size`.
    pub(super) fn of(&self, key: &CounterKey, size: u64) -> Vec<u64> {
        let of = |envelope: &Envelope| match key {
            CounterKey::Source(id) => envelope.source == *id,
            CounterKey::Tenant(id) => envelope.tenant == *id,
        };
        self.rows.iter().zip(0..size).filter(|(row, _)| of(&row.envelope)).map(|(_, seq)| seq).collect()
    }

    /// This journal up to a sequence, from there on the records of another, under this one's tree.
    pub(super) fn spliced(&self, other: &Self, at: usize) -> Self {
        let mut spliced = self.clone();
        spliced.rows.splice(at.., other.rows.iter().skip(at).cloned());
        spliced.values.splice(at + 1.., other.values.iter().skip(at + 1).copied());
        spliced
    }

    /// Walks everything below the size of `note` as an auditor does who holds these checkpoints. An error: it would not sign.
    pub(super) fn audit(&self, policy: &Policy, note: &Note, remembered: &[Note]) -> Result<()> {
        let mut walker = Walker::whole(JournalState::genesis(self.origin.clone())).held_to(Trust::new(policy.clone()));
        for note in remembered {
            walker.expect(Shown::new(note.clone(), Holder::Remembered("drill".into()))?)?;
        }
        let shown = Shown::new(note.clone(), Holder::Server)?;
        let size = shown.checkpoint().size;
        walker.expect(shown)?;
        for entry in &self.entries {
            if walker.state().size < size {
                walker.step(entry)?;
            }
        }
        ensure!(walker.state().size == size, "the checkpoint's size is within a batch");
        walker.removed()?;
        Ok(())
    }
}

impl Subtrees for Journal {
    type Error = Infallible;

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, Infallible> {
        let width = 1_usize << height;
        let first = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(width);
        let mut root = RootBuilder::default();
        self.leaves.iter().skip(first).take(width).for_each(|leaf| root.push(*leaf));
        Ok(root.root())
    }
}
