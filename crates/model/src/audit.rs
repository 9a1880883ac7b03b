//! The audit walk: recomputes every commitment and every link of a journal from its stored entries.
//!
//! It is fed entries in order, from wherever they come, and names the first that does not fit. What was erased or purged is
//! gone lawfully only if statements in the journal say so.

mod removals;
mod saved;
mod statements;
mod trust;

use std::{
    collections::{HashMap, hash_map},
    fmt,
};

pub use removals::{InForce, Removed};
pub use saved::{Saved, SavedError};
pub use trust::{Holder, Judged, Missed, Shown, Trust};

use crate::{
    audit::statements::statements,
    batch::batch_hash,
    block::{Block, BlockError, Inflater},
    class::Class,
    entry::{Entry, EntryError, Gone, Salts},
    ids::{ChainHash, Count, Epoch, Origin, ReceiptTime, RetentionId, SourceId, SourceSeq},
    note::VerifierKey,
    state::{JournalState, SourceState},
    statement,
    tree::TreeRow,
};

use removals::Removals;

/// The first place at which a journal is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Finding {
    /// First sequence that may be touched.
    pub from: u64,
    /// The sequence after the last of those that this finding is about.
    pub to: u64,
    /// What does not fit.
    pub fault: Fault,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.to == self.from + 1 {
            write!(f, "record {}: {}", self.from, self.fault)
        } else if self.to > self.from {
            write!(f, "records {} to {}: {}", self.from, self.to - 1, self.fault)
        } else {
            write!(f, "at record {}: {}", self.from, self.fault)
        }
    }
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The stored entry can't be read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The records can't be read.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The entry stands in another place than it says, or another one is missing before it.
    #[error("sequence {expected} was expected here, the entry says {found}")]
    Sequence {
        /// By the walk.
        expected: u64,
        /// By the entry.
        found: u64,
    },
    /// The block holds another number of records than its entry.
    #[error("the entry states {stated} records, its block holds {found}")]
    Count {
        /// By the entry.
        stated: u32,
        /// By the block.
        found: u32,
    },
    /// Receipt time goes back.
    #[error("receipt time {found} is before that of the record before, {before}")]
    Time {
        /// By the record before.
        before: ReceiptTime,
        /// By the entry.
        found: ReceiptTime,
    },
    /// The sender's numbers do not go on where they stopped.
    #[error("the source's numbers do not go on where they stopped ({0})")]
    SourceNumbers(&'static str),
    /// The count of a tenant does not go on where it stopped.
    #[error("the count of tenant {tenant} should be {expected} and is {found}")]
    TenantCount {
        /// Hexadecimal id.
        tenant: String,
        /// By the walk.
        expected: Count,
        /// By the entry.
        found: Count,
    },
    /// The sender's hash does not follow from the records.
    #[error("the records or their secret are not those that the source sent (batch hash differs)")]
    BatchHash,
    /// The chain does not follow.
    #[error("the records or their envelopes are not those that were chained (chain value differs)")]
    ChainHash,
    /// The walk ends elsewhere than the head says.
    #[error("the head says {head_size} records and chain value {head}, the records give {size} and {chain}")]
    Head {
        /// By the head.
        head_size: u64,
        /// By the head.
        head: ChainHash,
        /// By the walk.
        size: u64,
        /// By the walk.
        chain: ChainHash,
    },
    /// A head that somebody noted earlier is not met.
    #[error(
        "a head noted earlier, in the head file or by a person, has {size} records and chain value {chain}: {}",
        .found.map_or("the walk has no such place".to_owned(), |found| format!("the records now give {found}"))
    )]
    Noted {
        /// By the head noted.
        size: u64,
        /// By the head noted.
        chain: ChainHash,
        /// By the walk, if it has come to just so many records.
        found: Option<ChainHash>,
    },
    /// A checkpoint that the log has signed is not met.
    #[error("{0}")]
    Checkpoint(Box<Missed>),
    /// A fault within an entry that lacks a signed root besides.
    #[error("{fault}; besides, {missed}")]
    Besides {
        /// What does not fit.
        fault: Box<Fault>,
        /// What is missed besides.
        missed: Box<Fault>,
    },
    /// Something is gone, and nothing in the journal makes that lawful.
    #[error("gone ({0}), and no lawful order or purge in the journal explains it")]
    Unexplained(Gone),
    /// Something derived from the records, kept beside them, is not what the records give.
    #[error("{0}")]
    Derived(String),
}

/// One entry that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Records of the entry.
    pub records: u32,
    /// Bytes of its block before compression.
    pub raw_bytes: u64,
    /// Who sent it.
    pub source: SourceId,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The sender's number of the first record.
    pub source_seq: SourceSeq,
}

/// Walks a journal, or a part of it.
#[derive(Debug)]
pub struct Walker {
    state: JournalState,
    whole: bool,
    inflater: Inflater,
    /// Rows of the tree that the last step completed.
    rows: Vec<TreeRow>,
    /// Heads noted earlier that the walk has still to meet: size and chain value.
    noted: Vec<(u64, ChainHash)>,
    trust: Option<Trust>,
    removals: Removals,
    /// Source of the records that may be statements.
    own: SourceId,
}

impl Walker {
    /// Walks from the first record. `state` is [`JournalState::genesis`], or where an earlier whole walk ended.
    pub fn whole(state: JournalState) -> Self {
        Self::new(state, true)
    }

    /// Walks a part of a journal, of which `state` need hold only size, chain value, tree and time: a source's or tenant's
    /// numbers are believed where they are first met.
    pub fn part(state: JournalState) -> Self {
        Self::new(state, false)
    }

    fn new(state: JournalState, whole: bool) -> Self {
        Self {
            removals: Removals::new(state.size),
            own: statement::journal_source(),
            state,
            whole,
            inflater: Inflater::default(),
            rows: Vec::new(),
            noted: Vec::new(),
            trust: None,
        }
    }

    /// Demands that two of these officers have signed each order by which something is gone. Without, two signatures must be
    /// there, and who made them is the provider's word.
    #[must_use]
    pub fn trusting(mut self, officers: Vec<VerifierKey>) -> Self {
        self.removals.trust(officers);
        self
    }

    /// What is gone of the records walked; a finding if lawful statements do not explain all of it. To be asked at the end of a
    /// walk: what explains a removal comes after it.
    pub fn removed(&self) -> Result<&Removed, Finding> {
        let finding = |(from, to, gone)| Finding { from, to, fault: Fault::Unexplained(gone) };
        self.removals.explained().map_err(finding)
    }

    /// The retention statements in force, by class, as far as they were walked.
    pub fn retentions(&self) -> &HashMap<RetentionId, InForce> {
        self.removals.retentions()
    }

    /// The end of the newest purge of each class, as far as they were walked.
    pub fn purged_to(&self) -> &HashMap<RetentionId, u64> {
        self.removals.purged_to()
    }

    /// Holds the walk to a trust file: to the checkpoints that it is made to [`expect`](Walker::expect), and to the statements among
    /// the records. Its officers must have signed each order by which something is gone.
    #[must_use]
    pub fn held_to(mut self, trust: Trust) -> Self {
        self.removals.trust(trust.policy().officers().to_vec());
        self.trust = Some(trust);
        self
    }

    /// What has come of the trust file's demands.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// As [`Walker::trust`], to go on with it.
    pub fn trust_mut(&mut self) -> Option<&mut Trust> {
        self.trust.as_mut()
    }

    /// Demands that the walk meets a checkpoint, at exactly its size. Without a trust file there is nobody to judge it, and it says
    /// nothing.
    pub fn expect(&mut self, shown: Shown) -> Result<(), Finding> {
        let (size, root) = (self.state.size, self.state.tree.root());
        self.trust.as_mut().map_or(Ok(()), |trust| trust.expect(shown, size, &root))
    }

    /// Demands that the walk meets a head that somebody noted earlier: after `size` records, `chain`.
    #[must_use]
    pub fn meeting(mut self, size: u64, chain: ChainHash) -> Self {
        if (size, chain) != (self.state.size, self.state.chain) {
            self.noted.push((size, chain));
        }
        self
    }

    /// Where the walk stands.
    pub fn state(&self) -> &JournalState {
        &self.state
    }

    /// The rows of the tree that the last step completed, each level's in order.
    pub fn tree_rows(&self) -> &[TreeRow] {
        &self.rows
    }

    /// Checks the next stored entry and steps over it. After a finding the walk does not go on.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Walked, Finding> {
        let from = self.state.size;
        let at = |to: u64| move |fault: Fault| Finding { from, to, fault };
        let entry = Entry::decode(bytes).map_err(Fault::from).map_err(at(from))?;
        if entry.seq.get() != from {
            return Err(at(from)(Fault::Sequence { expected: from, found: entry.seq.get() }));
        }
        let mut missed = None;
        let checked = self.check(&entry, &mut missed);
        let walked = match (checked, missed) {
            (Ok(walked), None) => walked,
            (Ok(_), Some(missed)) => return Err(missed),
            (Err(inner), None) => return Err(at(entry.end())(inner)),
            (Err(inner), Some(missed)) => {
                let fault = Fault::Besides { fault: Box::new(inner), missed: Box::new(missed.fault) };
                return Err(at(entry.end())(fault));
            }
        };
        self.meet(from)?;
        Ok(walked)
    }

    /// Checks that the walk has come to what the head says, and has met every head noted earlier.
    pub fn check_head(&self, size: u64, chain: ChainHash) -> Result<(), Finding> {
        let state = &self.state;
        if (state.size, state.chain) == (size, chain) {
            return match self.noted.first() {
                Some((size, chain)) => {
                    let fault = Fault::Noted { size: *size, chain: *chain, found: None };
                    Err(Finding { from: state.size.min(*size), to: state.size.max(*size), fault })
                }
                None => Ok(()),
            };
        }
        let fault = Fault::Head { head_size: size, head: chain, size: state.size, chain: state.chain };
        Err(Finding { from: state.size.min(size), to: state.size.max(size), fault })
    }

    /// Compares with the heads noted within the entry that was just stepped over. A head stands at the end of an entry always.
    fn meet(&mut self, from: u64) -> Result<(), Finding> {
        let (now, chain) = (self.state.size, self.state.chain);
        let passed = |size: u64| from < size && size <= now;
        let missed = self.noted.iter().find(|(size, noted)| passed(*size) && (*size, *noted) != (now, chain));
        if let Some((size, noted)) = missed {
            let found = (*size == now).then_some(chain);
            return Err(Finding { from: 0, to: *size, fault: Fault::Noted { size: *size, chain: *noted, found } });
        }
        self.noted.retain(|(size, _)| !passed(*size));
        Ok(())
    }

    /// Steps over an entry. `missed` gets the first checkpoint within it that is not met.
    fn check(&mut self, entry: &Entry<'_>, missed: &mut Option<Finding>) -> Result<Walked, Fault> {
        if entry.receipt_time < self.state.receipt_time {
            return Err(Fault::Time { before: self.state.receipt_time, found: entry.receipt_time });
        }
        let block = entry.block(&mut self.inflater)?;
        if block.count() != entry.count {
            return Err(Fault::Count { stated: entry.count, found: block.count() });
        }
        let commitments = entry.commitments(&block);

        let known = self.state.sources.get(&entry.source).copied();
        if known.is_some() || self.whole {
            let previous = previous_hash(&self.state, entry, known)?;
            let hash = batch_hash(&previous, entry.source, entry.epoch, entry.source_seq, &commitments);
            if hash != entry.batch_hash {
                return Err(Fault::BatchHash);
            }
        }
        let statements = if self.trust.is_some() { statements(entry, &block) } else { Vec::new() };
        if let Some(trust) = &mut self.trust {
            // Before the checkpoints within this entry are judged: the new key may have signed them.
            for statement in statements.iter().filter(|statement| statement.is_rotation()) {
                trust.rotation(entry.seq.get() + u64::from(statement.index), statement.text, &self.state.origin);
            }
        }
        if let Some(trust) = &mut self.trust {
            // Likewise: which of them end with a counters record.
            for statement in statements.iter().filter(|statement| self.whole && statement.is_counters()) {
                trust.counters(entry.seq.get() + u64::from(statement.index) + 1);
            }
        }
        self.rows.clear();
        let trust = &mut self.trust;
        self.state.link_watched(entry.envelopes(), &commitments, &mut self.rows, |tree| {
            if let Some(trust) = trust
                && trust.is_due(tree.size())
                && missed.is_none()
            {
                *missed = trust.meet(tree.size(), &tree.root()).err();
            }
        });
        if self.state.chain != entry.chain_hash {
            return Err(Fault::ChainHash);
        }
        for statement in statements.iter().filter(|statement| self.whole && statement.is_counters()) {
            if let Err(fault) = statement.check_counters(&self.state, entry) {
                let from = entry.seq.get() + u64::from(statement.index);
                missed.get_or_insert(Finding { from, to: from + 1, fault });
            }
        }
        step_tenants(&mut self.state, self.whole, entry)?;
        if matches!(entry.salts, Salts::Remains(_)) {
            for (index, envelope) in entry.envelopes().enumerate() {
                let gone = entry.gone(index);
                if gone != Gone::NOTHING {
                    self.removals.gone(envelope.seq.get(), gone, envelope.retention, envelope.receipt_time);
                }
            }
        }
        if entry.source == self.own && entry.class == Class::Journal.id() {
            meet_statements(&mut self.removals, &self.state.origin, entry, &block);
        }

        let count = u64::from(entry.count);
        self.state.sources.insert(
            entry.source,
            SourceState {
                epoch: entry.epoch,
                next: SourceSeq::new(entry.source_seq.get() + count),
                head: entry.batch_hash,
                count: Count::new(entry.source_count.get() + count),
            },
        );
        self.state.receipt_time = entry.receipt_time;
        Ok(Walked {
            records: entry.count,
            raw_bytes: u64::from(entry.block_bytes),
            source: entry.source,
            epoch: entry.epoch,
            source_seq: entry.source_seq,
        })
    }
}

/// The counts of tenants go on where they stopped.
fn step_tenants(state: &mut JournalState, whole: bool, entry: &Entry<'_>) -> Result<(), Fault> {
    let mut counts = vec![0_u64; entry.tenants.len()];
    for run in &entry.runs {
        if let Some(count) = counts.get_mut(usize::from(run.tenant)) {
            *count += u64::from(run.records);
        }
    }
    for ((tenant, first), records) in entry.tenants.iter().zip(counts) {
        let expected = match state.tenants.entry(*tenant) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(new) => new.insert(if whole { Count::new(0) } else { *first }),
        };
        if expected != first {
            let tenant = tenant.to_string();
            return Err(Fault::TenantCount { tenant, expected: *expected, found: *first });
        }
        *expected = Count::new(first.get().saturating_add(records));
    }
    Ok(())
}

/// Lets what is gone be explained by the statements of an entry of the product's own records.
fn meet_statements(removals: &mut Removals, origin: &Origin, entry: &Entry<'_>, block: &Block<'_>) {
    for (seq, record) in (entry.seq.get()..).zip(block.records()) {
        if let Some(content) = record.content {
            removals.meet(content, origin, seq, entry.receipt_time);
        }
    }
}

/// The batch hash that must stand before this entry's, after checking that its numbers go on.
fn previous_hash(
    state: &JournalState,
    entry: &Entry<'_>,
    known: Option<SourceState>,
) -> Result<crate::ids::BatchHash, Fault> {
    let counted = known.map_or(Count::new(0), |source| source.count);
    if entry.source_count != counted {
        return Err(Fault::SourceNumbers("count"));
    }
    match known {
        Some(source) if source.epoch == entry.epoch => {
            if entry.source_seq == source.next {
                Ok(source.head)
            } else {
                Err(Fault::SourceNumbers("sequence"))
            }
        }
        Some(source) if source.epoch > entry.epoch => Err(Fault::SourceNumbers("epoch")),
        _ if entry.source_seq.get() != 0 || entry.epoch.get() == 0 => Err(Fault::SourceNumbers("start of an epoch")),
        _ => Ok(state.epoch_opening(entry.source, entry.epoch)),
    }
}
