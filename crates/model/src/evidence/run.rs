//! Runs of counters: what a gapless run claims, and whether the records of a file are one.

use super::{report::Finding, section::Kind, write::WriteError};
use crate::{
    cursor::Cursor,
    envelope::Envelope,
    ids::{NAME_MAX_BYTES, NodeHash, SourceId, TenantId, check_name},
    statement::counters::CounterKey,
};

/// A run of a source's or tenant's counters that a file claims to hold whole.
///
/// ```text
/// u8  kind: 1 source, 2 tenant
/// [16] id
/// u64 first count
/// u64 count after the last
/// u8  end: 1 = the run reaches the end of the journal at the checkpoint
/// u8  bytes of the name, the name: that of which the id is made; may be empty
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Whose counters.
    pub key: CounterKey,
    /// First count.
    pub from: u64,
    /// The count after the last.
    pub to: u64,
    /// There were no more records at the checkpoint.
    pub reaches_end: bool,
    /// The name of the source or tenant, if the exporter knew it. Its hash is the id.
    pub name: Option<String>,
}

impl Run {
    pub(super) fn encode(&self) -> Result<Vec<u8>, WriteError> {
        let name = self.name.as_deref().unwrap_or_default();
        let length = u8::try_from(name.len()).map_err(|_| WriteError::TooLong(Kind::Run))?;
        let mut out = self.key.to_bytes().to_vec();
        out.extend(self.from.to_be_bytes());
        out.extend(self.to.to_be_bytes());
        out.extend([u8::from(self.reaches_end), length]);
        out.extend(name.as_bytes());
        Ok(out)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Finding> {
        let wrong = Finding::Section(Kind::Run);
        let mut cursor = Cursor::new(bytes);
        let key = CounterKey::from_bytes(cursor.array()?).ok_or(wrong.clone())?;
        let (from, to, end) = (cursor.u64()?, cursor.u64()?, cursor.u8()?);
        let length = usize::from(cursor.u8()?);
        let name = std::str::from_utf8(cursor.take(length)?).map_err(|_| wrong.clone())?;
        let named = match &key {
            _ if name.is_empty() => true,
            _ if name.len() > NAME_MAX_BYTES || check_name(name).is_err() => false,
            CounterKey::Source(id) => SourceId::from_name(name) == *id,
            CounterKey::Tenant(id) => TenantId::from_name(name) == *id,
        };
        // Who has no number is in no counters record: a run of nothing says nothing, and would be called complete.
        if !named || from >= to || end > 1 || cursor.remaining() != 0 {
            return Err(wrong);
        }
        let name = (!name.is_empty()).then(|| name.to_owned());
        Ok(Self { key, from, to, reaches_end: end == 1, name })
    }
}

/// The proof that a run reaches the end: its entry in the tree over the counters.
///
/// ```text
/// u8  index of the run among the file's runs, from 0
/// u64 epoch (0 for a tenant)
/// u64 index of the entry
/// u8  number of hashes, then the hashes: the entry's inclusion in the counters record's root
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterProof {
    /// Which run of the file.
    pub run: u8,
    /// The source's epoch; 0 for a tenant.
    pub epoch: u64,
    /// Place of the entry.
    pub index: u64,
    /// Siblings, from the leaf to the root.
    pub hashes: Vec<NodeHash>,
}

impl CounterProof {
    pub(super) fn encode(&self) -> Result<Vec<u8>, WriteError> {
        let count = u8::try_from(self.hashes.len()).map_err(|_| WriteError::TooLong(Kind::Counters))?;
        let mut out = vec![self.run];
        out.extend(self.epoch.to_be_bytes());
        out.extend(self.index.to_be_bytes());
        out.push(count);
        out.extend(self.hashes.iter().flat_map(NodeHash::as_bytes));
        Ok(out)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Finding> {
        let mut cursor = Cursor::new(bytes);
        let (run, epoch, index, count) = (cursor.u8()?, cursor.u64()?, cursor.u64()?, cursor.u8()?);
        let mut hashes = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            hashes.push(NodeHash::new(cursor.array()?));
        }
        if cursor.remaining() != 0 {
            return Err(Finding::Section(Kind::Counters));
        }
        Ok(Self { run, epoch, index, hashes })
    }
}

/// Why the records of a file are not the run that it claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RunFault {
    /// Records are left out.
    #[error("number {expected} is missing, number {found} follows")]
    Gap {
        /// The next number.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// The last records are left out.
    #[error("the numbers from {from} to {to} are missing at its end")]
    Suffix {
        /// First that is missing.
        from: u64,
        /// Last that is missing.
        to: u64,
    },
    /// Records follow after what is said to be the end.
    #[error("it is said to reach the end of the journal, and number {0} follows")]
    Beyond(u64),
    /// It is said to reach the end, and nothing shows it.
    #[error("it is said to reach the end of the journal, and the file has no proof of that")]
    NoCounters,
    /// The last record of the checkpoint is no counters record, or is not shown.
    #[error("the last record under the checkpoint is not a counters record whose content is shown")]
    NoCountersRecord,
    /// The entry is not in the counters' tree.
    #[error("the counters record does not hold this entry")]
    Counters,
}

/// Follows the records of a file for one run.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub(super) run: Run,
    next: u64,
    last: Option<u64>,
    fault: Option<RunFault>,
}

impl Tally {
    pub(super) fn new(run: Run) -> Self {
        Self { next: run.from, run, last: None, fault: None }
    }

    /// Takes the next record. A number that does not grow was used twice, which no lawful server does.
    pub(super) fn step(&mut self, envelope: &Envelope) -> Result<(), Finding> {
        let count = match &self.run.key {
            CounterKey::Source(id) if envelope.source == *id => envelope.source_count.get(),
            CounterKey::Tenant(id) if envelope.tenant == *id => envelope.tenant_count.get(),
            _ => return Ok(()),
        };
        if self.last.is_some_and(|last| count <= last) {
            return Err(Finding::CountTwice { seq: envelope.seq, count });
        }
        self.last = Some(count);
        if (self.run.from..self.run.to).contains(&count) {
            if count != self.next && self.fault.is_none() {
                self.fault = Some(RunFault::Gap { expected: self.next, found: count });
            }
            self.next = count + 1;
        } else if self.run.reaches_end && count >= self.run.to && self.fault.is_none() {
            self.fault = Some(RunFault::Beyond(count));
        }
        Ok(())
    }

    /// Whether each number of the run came once.
    pub(super) fn finish(&self) -> Result<(), RunFault> {
        match self.fault {
            Some(fault) => Err(fault),
            None if self.next != self.run.to => Err(RunFault::Suffix { from: self.next, to: self.run.to - 1 }),
            None => Ok(()),
        }
    }
}
