//! A journal taken apart into batches, and put together again so that everything fits: what the owner of the database and of
//! the log's key can do.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use sigillo_journal::TenantRun;
use sigillo_model::{
    batch,
    block::{self, Block, BlockBuilder, Inflater},
    class::Class,
    entry::{Entry, Run, Salts},
    ids::{
        BatchHash, BatchSecret, ChainHash, ClassId, Commitment, Count, Epoch, NodeHash, Origin, ReceiptTime, Seq,
        SourceId, SourceSeq, TenantId,
    },
    record::Record,
    state::{JournalState, SourceState},
    statement::{
        self,
        counters::{self, CounterEntry, CounterKey, CounterTree},
    },
    tree::TreeRow,
};
use sigillo_proto::{
    record::Fields,
    v1::{ContentPart, CorePart},
};

use super::super::edits::beside::batch_key;

/// zstd's level for blocks that are made anew.
const LEVEL: i32 = 1;

/// A batch, without what follows from its place.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) class: ClassId,
    pub(super) received: ReceiptTime,
    pub(super) source: SourceId,
    pub(super) epoch: Epoch,
    pub(super) secret: BatchSecret,
    pub(super) runs: Vec<TenantRun>,
    /// Changed through [`Piece::change`] only.
    records: Vec<Record>,
    /// Numbers that are wrong on purpose.
    pub(super) off: Off,
    /// Whether it is a counters record, which is written anew wherever it comes to stand.
    pub(super) counts: bool,
    sealed: Option<Arc<Sealed>>,
}

/// By how much a batch's numbers do not go on where they stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Off {
    pub(super) source_seq: i64,
    pub(super) source_count: i64,
    /// Of the first tenant.
    pub(super) tenant_count: i64,
}

#[derive(Debug)]
struct Sealed {
    commitments: Vec<Commitment>,
    block_bytes: u32,
    compressed: Vec<u8>,
}

/// A record of the product itself that states something.
pub(super) fn statement(text: impl Into<Vec<u8>>) -> Record {
    let content = ContentPart { original: text.into().into(), ..ContentPart::default() };
    let core = CorePart { event_name: "journal.statement".into(), program: "sigillod".into(), ..CorePart::default() };
    Fields { core: Some(core), personal: None, content: Some(content), unreadable: Vec::new() }.encode()
}

/// Runs over the records of a batch that concerns the provider alone.
pub(super) fn provider_run(class: Class, records: usize) -> Result<Vec<TenantRun>> {
    let (tenant, records) = (TenantId::from_name("provider"), u32::try_from(records)?);
    Ok(vec![TenantRun {
        tenant,
        retention: class.retention(),
        flags: sigillo_model::envelope::Flags::default(),
        records,
    }])
}

impl Piece {
    /// Reads a stored entry of which nothing is gone.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let entry = Entry::decode(bytes)?;
        let secret = entry.secret().context("something is gone of this entry")?.clone();
        let mut inflater = Inflater::default();
        let block = entry.block(&mut inflater)?;
        let commitments = entry.commitments(&block);
        let runs = entry.runs.iter().map(|run| {
            let (tenant, _) = entry.tenants.get(usize::from(run.tenant)).context("a run without its tenant")?;
            Ok(TenantRun { tenant: *tenant, retention: run.retention, flags: run.flags, records: run.records })
        });
        let records: Vec<Record> = block.records().map(Record::from).collect();
        let original = records.first().and_then(|record| statement::original(record.content.as_deref()?));
        let counts = original.is_some_and(|text| text.starts_with(counters::HEADER.as_bytes()));
        let sealed = Sealed { commitments, block_bytes: entry.block_bytes, compressed: entry.compressed.to_vec() };
        Ok(Self {
            class: entry.class,
            received: entry.receipt_time,
            source: entry.source,
            epoch: entry.epoch,
            secret,
            runs: runs.collect::<Result<_>>()?,
            counts,
            records,
            off: Off::default(),
            sealed: Some(Arc::new(sealed)),
        })
    }

    /// A batch of the product's own that holds one statement.
    pub(super) fn stating(text: impl Into<Vec<u8>>, received: ReceiptTime, secret: [u8; 32]) -> Result<Self> {
        Ok(Self {
            class: Class::Journal.id(),
            received,
            source: statement::journal_source(),
            epoch: Epoch::new(1),
            secret: BatchSecret::new(secret),
            runs: provider_run(Class::Journal, 1)?,
            records: vec![statement(text)],
            off: Off::default(),
            counts: false,
            sealed: None,
        })
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(super) fn len(&self) -> u64 {
        self.records.len() as u64
    }

    /// Whether it is of the product itself.
    pub(super) fn is_own(&self) -> bool {
        self.class == Class::Journal.id()
    }

    /// The records, to be changed.
    pub(super) fn change(&mut self) -> &mut Vec<Record> {
        self.sealed = None;
        &mut self.records
    }

    /// First places of its runs.
    pub(super) fn run_starts(&self) -> Vec<u64> {
        let sum = |start: &mut u64, run: &TenantRun| {
            let at = *start;
            *start += u64::from(run.records);
            Some(at)
        };
        self.runs.iter().scan(0, sum).collect()
    }

    /// The place of the run that holds the record at `index`.
    pub(super) fn run_of(&self, index: u64) -> Result<usize> {
        self.run_starts().iter().rposition(|start| *start <= index).context("there is no such record")
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, index: usize) -> Result<()> {
        let run = self.run_of(index as u64)?;
        self.runs[run].records -= 1;
        self.change().remove(index);
        Ok(())
    }

    /// Puts a record in.
    pub(super) fn insert(&mut self, index: usize, record: Record) -> Result<()> {
        let run = self.run_of(index as u64)?;
        self.runs[run].records += 1;
        self.change().insert(index, record);
        Ok(())
    }

    fn sealed(&self) -> Result<Arc<Sealed>> {
        if let Some(sealed) = &self.sealed {
            return Ok(sealed.clone());
        }
        let mut builder = BlockBuilder::default();
        self.records.iter().try_for_each(|record| builder.push(record.as_ref()))?;
        let block = builder.take();
        let commitments = batch::commitments(&self.secret, &Block::parse(&block)?);
        let block_bytes = u32::try_from(block.len())?;
        Ok(Arc::new(Sealed { commitments, block_bytes, compressed: block::compress(&block, LEVEL) }))
    }

    /// Tenants in order of first appearance, and runs in the one form that is allowed.
    fn tenants_and_runs(&self) -> Result<(Vec<TenantId>, Vec<Run>)> {
        let (mut tenants, mut runs): (Vec<TenantId>, Vec<Run>) = Default::default();
        for run in self.runs.iter().filter(|run| run.records > 0) {
            let known = tenants.iter().position(|tenant| *tenant == run.tenant);
            let index = known.unwrap_or_else(|| {
                tenants.push(run.tenant);
                tenants.len() - 1
            });
            let run =
                Run { tenant: u16::try_from(index)?, retention: run.retention, flags: run.flags, records: run.records };
            match runs.last_mut() {
                Some(last) if (last.tenant, last.retention, last.flags) == (run.tenant, run.retention, run.flags) => {
                    last.records += run.records;
                }
                _ => runs.push(run),
            }
        }
        Ok((tenants, runs))
    }
}

/// Puts batches together.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) state: JournalState,
    pub(super) rows: Vec<TreeRow>,
    /// Rows of `batches`.
    pub(super) memory: Vec<([u8; 32], u64)>,
    /// Root after each batch.
    pub(super) roots: BTreeMap<u64, NodeHash>,
    counted: HashMap<CounterKey, CounterEntry>,
}

impl Replay {
    pub(super) fn new(origin: &Origin) -> Self {
        Self {
            state: JournalState::genesis(origin.clone()),
            rows: Vec::new(),
            memory: Vec::new(),
            roots: BTreeMap::new(),
            counted: HashMap::new(),
        }
    }

    /// Appends a batch. Its entry, as it is stored.
    pub(super) fn append(&mut self, piece: &Piece) -> Result<Vec<u8>> {
        if !piece.counts {
            return self.append_as_it_is(piece);
        }
        let salt = *piece.secret.expose();
        let entries = standing(&self.state, 1);
        let text = counters_text(&self.state.origin, salt, entries.clone(), &self.counted);
        self.counted = entries.into_iter().map(|entry| (entry.key, entry)).collect();
        let mut piece = piece.clone();
        let record = statement(text);
        if piece.records() != [record.clone()] {
            *piece.change() = vec![record];
        }
        self.append_as_it_is(&piece)
    }

    fn append_as_it_is(&mut self, piece: &Piece) -> Result<Vec<u8>> {
        let sealed = piece.sealed()?;
        let off = |number: u64, off: i64| number.checked_add_signed(off).context("a number would be below zero");
        let known = self.state.sources.get(&piece.source).copied();
        let (next, previous) = match known {
            Some(source) if source.epoch == piece.epoch => (source.next.get(), source.head),
            _ => (0, self.state.epoch_opening(piece.source, piece.epoch)),
        };
        let source_seq = SourceSeq::new(off(next, piece.off.source_seq)?);
        let counted = known.map_or(0, |source| source.count.get());
        let source_count = Count::new(off(counted, piece.off.source_count)?);
        let batch_hash = batch::batch_hash(&previous, piece.source, piece.epoch, source_seq, &sealed.commitments);
        let (tenants, runs) = piece.tenants_and_runs()?;
        let first = |(index, tenant): (usize, TenantId)| {
            let count = self.state.tenants.get(&tenant).map_or(0, |count| count.get());
            let count = if index == 0 { off(count, piece.off.tenant_count)? } else { count };
            Ok((tenant, Count::new(count)))
        };
        let tenants = tenants.into_iter().enumerate().map(first).collect::<Result<Vec<_>>>()?;
        let mut entry = Entry {
            class: piece.class,
            seq: Seq::new(self.state.size),
            count: u32::try_from(piece.records.len())?,
            receipt_time: piece.received,
            source: piece.source,
            epoch: piece.epoch,
            source_seq,
            source_count,
            batch_hash,
            chain_hash: ChainHash::new([0; 32]),
            salts: Salts::Secret(piece.secret.clone()),
            tenants,
            runs,
            block_bytes: sealed.block_bytes,
            compressed: &sealed.compressed,
        };
        self.memory.push((batch_key(entry.source, entry.epoch, entry.source_seq), entry.seq.get()));
        self.state.link(entry.envelopes(), &sealed.commitments, &mut self.rows);
        entry.chain_hash = self.state.chain;
        self.stepped(&entry, batch_hash);
        let bytes = entry.encode();
        ensure!(Entry::decode(&bytes).is_ok(), "what was put together is not well formed");
        Ok(bytes)
    }

    /// Moves numbers and time on.
    fn stepped(&mut self, entry: &Entry<'_>, head: BatchHash) {
        let count = u64::from(entry.count);
        let source = SourceState {
            epoch: entry.epoch,
            next: SourceSeq::new(entry.source_seq.get() + count),
            head,
            count: Count::new(entry.source_count.get() + count),
        };
        self.state.sources.insert(entry.source, source);
        for ((tenant, first), index) in entry.tenants.iter().zip(0_u16..) {
            let of = entry.runs.iter().filter(|run| run.tenant == index);
            let records: u64 = of.map(|run| u64::from(run.records)).sum();
            self.state.tenants.insert(*tenant, Count::new(first.get() + records));
        }
        self.state.receipt_time = entry.receipt_time;
        self.roots.insert(self.state.size, self.state.tree.root());
    }
}

/// Where everybody stands right after a counters record of `own` records that comes next.
pub(super) fn standing(state: &JournalState, own: u64) -> Vec<CounterEntry> {
    let (journal, provider) = (statement::journal_source(), TenantId::from_name("provider"));
    let with = |count: Count, itself: bool| Count::new(count.get() + if itself { own } else { 0 });
    let source = |(id, source): (&SourceId, &SourceState)| CounterEntry {
        key: CounterKey::Source(*id),
        epoch: source.epoch,
        next: with(source.count, *id == journal),
    };
    let tenant = |(id, count): (&TenantId, &Count)| CounterEntry {
        key: CounterKey::Tenant(*id),
        epoch: Epoch::new(0),
        next: with(*count, *id == provider),
    };
    state.sources.iter().map(source).chain(state.tenants.iter().map(tenant)).collect()
}

/// A counters record that says this.
pub(super) fn counters_text(
    origin: &Origin,
    salt: [u8; 32],
    entries: Vec<CounterEntry>,
    last: &HashMap<CounterKey, CounterEntry>,
) -> String {
    let tree = CounterTree::build(salt, entries);
    let changes = tree.entries().iter().filter(|entry| last.get(&entry.key) != Some(entry)).copied().collect();
    tree.statement(origin, changes).text()
}
