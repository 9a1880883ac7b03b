//! An entry: one batch as the journal stores it, with what the server added. Envelopes are derived from its columns.
//!
//! ```text
//! u8  version: 1 whole, 2 reduced
//! u16 class
//! u64 first sequence
//! u32 count
//! u64 receipt time (ns)
//! [16] source
//! u64 epoch
//! u64 first source sequence
//! u64 first source count
//! [32] batch hash a_b
//! [32] chain hash after the last record
//! [32] batch secret                                                   version 1 only
//! u16 tenants, each: [16] tenant, u64 first tenant count      in order of first appearance, all used
//! u32 runs, each: u16 tenant's index, u16 retention class, u8 flags, u32 records      neighbours differ
//! what remains of each record (`remains`)                             version 2 only
//! u32 block bytes before compression
//! u32 compressed bytes, then these bytes
//! u64 checksum: first 8 bytes of D(checksum, all before)
//! ```
//!
//! An entry of which something was erased or purged is *reduced*: it has no secret, for the secret gives every salt of the
//! batch; the salts of what is kept stand beside it.

mod remains;

use std::ops::Range;

use crate::{
    batch,
    block::{Block, BlockError, Inflater},
    commitment::Committer,
    cursor::{Cursor, Short},
    envelope::{Envelope, Flags},
    hash,
    ids::{
        BatchHash, BatchSecret, ChainHash, ClassId, Commitment, Count, Epoch, ReceiptTime, RetentionId, Seq, SourceId,
        SourceSeq, TenantId,
    },
    limits::{BATCH_MAX_RECORDS, BLOCK_MAX_BYTES},
};

pub use remains::{Gone, Held, HeldPart, HeldRecords, Reduction, Remains};

/// Version of an entry that is whole.
pub const ENTRY_VERSION: u8 = 1;
/// Version of an entry of which something is gone.
pub const REDUCED_VERSION: u8 = 2;

/// From what the salts of an entry's records are had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Salts<'a> {
    /// Derived from the batch's secret: the entry is whole.
    Secret(BatchSecret),
    /// Kept one by one: something is gone.
    Remains(Remains<'a>),
}

/// Records of a batch that follow one another and share tenant, retention class and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Index into the entry's tenants.
    pub tenant: u16,
    /// How long they are kept.
    pub retention: RetentionId,
    /// Flags of their envelopes.
    pub flags: Flags,
    /// How many, at least one.
    pub records: u32,
}

/// A stored batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Class of the source.
    pub class: ClassId,
    /// Sequence of the first record.
    pub seq: Seq,
    /// How many records.
    pub count: u32,
    /// When the server took them.
    pub receipt_time: ReceiptTime,
    /// Who sent them.
    pub source: SourceId,
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// The sender's number of the first record.
    pub source_seq: SourceSeq,
    /// The server's count of the first record within the source.
    pub source_count: Count,
    /// `a_b`.
    pub batch_hash: BatchHash,
    /// Chain value after the last record.
    pub chain_hash: ChainHash,
    /// The batch's secret, or what remains where something is gone.
    pub salts: Salts<'a>,
    /// Tenants concerned, each with the count of its first record in this batch.
    pub tenants: Vec<(TenantId, Count)>,
    /// Which record concerns which tenant.
    pub runs: Vec<Run>,
    /// Length of the block before compression.
    pub block_bytes: u32,
    /// One zstd frame around the block; [`Entry::block`] reads it.
    pub compressed: &'a [u8],
}

/// Bytes that are not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The checksum does not fit the bytes.
    #[error("the stored checksum does not fit")]
    Checksum,
    /// The layout's version is not known.
    #[error("the entry has version {0}, this program knows versions {ENTRY_VERSION} and {REDUCED_VERSION}")]
    Version(u8),
    /// The bytes end early or go on too long.
    #[error("the entry's lengths do not add up")]
    Layout,
    /// A value that the layout does not allow.
    #[error("the entry's {0} is not canonical")]
    NotCanonical(&'static str),
}

impl From<Short> for EntryError {
    fn from(_: Short) -> Self {
        Self::Layout
    }
}

const CHECKSUM_BYTES: usize = 8;

/// A checksum for stored values: against rot, not against people.
pub fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut short = [0; CHECKSUM_BYTES];
    short.iter_mut().zip(hash::CHECKSUM.hash(bytes)).for_each(|(to, from)| *to = from);
    short
}

impl<'a> Entry<'a> {
    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.tenants.len() * 24 + self.runs.len() * 9 + self.compressed.len());
        out.push(match self.salts {
            Salts::Secret(_) => ENTRY_VERSION,
            Salts::Remains(_) => REDUCED_VERSION,
        });
        out.extend(self.class.get().to_be_bytes());
        out.extend(self.seq.get().to_be_bytes());
        out.extend(self.count.to_be_bytes());
        out.extend(self.receipt_time.get().to_be_bytes());
        out.extend(self.source.as_bytes());
        out.extend(self.epoch.get().to_be_bytes());
        out.extend(self.source_seq.get().to_be_bytes());
        out.extend(self.source_count.get().to_be_bytes());
        out.extend(self.batch_hash.as_bytes());
        out.extend(self.chain_hash.as_bytes());
        if let Salts::Secret(secret) = &self.salts {
            out.extend(secret.expose());
        }
        out.extend(u16::try_from(self.tenants.len()).unwrap_or(u16::MAX).to_be_bytes());
        for (tenant, count) in &self.tenants {
            out.extend(tenant.as_bytes());
            out.extend(count.get().to_be_bytes());
        }
        out.extend(u32::try_from(self.runs.len()).unwrap_or(u32::MAX).to_be_bytes());
        for run in &self.runs {
            out.extend(run.tenant.to_be_bytes());
            out.extend(run.retention.get().to_be_bytes());
            out.push(run.flags.bits());
            out.extend(run.records.to_be_bytes());
        }
        if let Salts::Remains(remains) = &self.salts {
            remains.encode(&mut out);
        }
        out.extend(self.block_bytes.to_be_bytes());
        out.extend(u32::try_from(self.compressed.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(self.compressed);
        let checksum = checksum(&out);
        out.extend(checksum);
        out
    }

    /// Reads an entry, refusing every form that [`Entry::encode`] would not have written.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let (body, stored) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(EntryError::Layout)?;
        if checksum(body) != *stored {
            return Err(EntryError::Checksum);
        }
        Self::decode_checked(bytes)
    }

    /// As [`Entry::decode`], of bytes whose checksum has been compared since they were read.
    pub fn decode_checked(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let (body, _) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(EntryError::Layout)?;
        let mut cursor = Cursor::new(body);
        let version = cursor.u8()?;
        if version != ENTRY_VERSION && version != REDUCED_VERSION {
            return Err(EntryError::Version(version));
        }
        let class = ClassId::new(cursor.u16()?);
        let seq = Seq::new(cursor.u64()?);
        let count = cursor.u32()?;
        let receipt_time = ReceiptTime::new(cursor.u64()?);
        let source = SourceId::new(cursor.array()?);
        let epoch = Epoch::new(cursor.u64()?);
        let source_seq = SourceSeq::new(cursor.u64()?);
        let source_count = Count::new(cursor.u64()?);
        let batch_hash = BatchHash::new(cursor.array()?);
        let chain_hash = ChainHash::new(cursor.array()?);
        let secret = match version {
            ENTRY_VERSION => Some(BatchSecret::new(cursor.array()?)),
            _ => None,
        };
        if count == 0 || count as usize > BATCH_MAX_RECORDS {
            return Err(EntryError::NotCanonical("count"));
        }
        let ends = [seq.get(), source_seq.get(), source_count.get()];
        if ends.iter().any(|first| first.checked_add(u64::from(count)).is_none()) {
            return Err(EntryError::NotCanonical("range"));
        }
        let tenants = (0..cursor.u16()?)
            .map(|_| Ok((TenantId::new(cursor.array()?), Count::new(cursor.u64()?))))
            .collect::<Result<Vec<_>, Short>>()?;
        let runs = read_runs(&mut cursor, count, &tenants)?;
        let salts = match secret {
            Some(secret) => Salts::Secret(secret),
            None => Salts::Remains(Remains::read(&mut cursor, count)?),
        };
        let block_bytes = cursor.u32()?;
        let compressed_bytes = cursor.u32()? as usize;
        let compressed = cursor.take(compressed_bytes)?;
        if cursor.remaining() != 0 {
            return Err(EntryError::Layout);
        }
        if block_bytes as usize > BLOCK_MAX_BYTES {
            return Err(EntryError::NotCanonical("block length"));
        }
        if let Salts::Remains(remains) = &salts
            && (remains.keeps_any(), remains.keeps_any()) != (block_bytes > 0, compressed_bytes > 0)
        {
            return Err(EntryError::NotCanonical("block of what is kept"));
        }
        Ok(Self {
            class,
            seq,
            count,
            receipt_time,
            source,
            epoch,
            source_seq,
            source_count,
            batch_hash,
            chain_hash,
            salts,
            tenants,
            runs,
            block_bytes,
            compressed,
        })
    }

    /// The envelopes of its records, in order.
    pub fn envelopes(&self) -> Envelopes<'_> {
        Envelopes {
            entry: self,
            next_counts: self.tenants.iter().map(|(_, count)| count.get()).collect(),
            index: 0,
            runs: self.runs.iter(),
            run: None,
            left: 0,
        }
    }

    /// Its records, as far as they are kept: of one that is gone the block has no part. What it borrows lives in `inflater`.
    pub fn block<'b>(&'b self, inflater: &'b mut Inflater) -> Result<Block<'b>, BlockError> {
        match &self.salts {
            Salts::Secret(_) => Block::parse(inflater.inflate(self.compressed, self.block_bytes as usize)?),
            Salts::Remains(remains) if !remains.keeps_any() => Block::parse_kept(remains.shapes(), &[]),
            Salts::Remains(remains) => {
                Block::parse_kept(remains.shapes(), inflater.inflate(self.compressed, self.block_bytes as usize)?)
            }
        }
    }

    /// The commitments of its records, in order. `block` is [`Entry::block`].
    pub fn commitments(&self, block: &Block<'_>) -> Vec<Commitment> {
        self.commitments_within(block, 0..self.count)
    }

    /// The commitments of those of its records that have these places in it, in order. `block` is [`Entry::block`].
    pub fn commitments_within(&self, block: &Block<'_>, places: Range<u32>) -> Vec<Commitment> {
        match &self.salts {
            Salts::Secret(secret) => batch::commitments_within(secret, block, places),
            Salts::Remains(_) => {
                let mut committer = Committer::default();
                let held = self.held(block).skip(places.start as usize).take(places.len());
                held.map(|held| committer.commit_held(&held)).collect()
            }
        }
    }

    /// The batch's secret, while the entry is whole.
    pub fn secret(&self) -> Option<&BatchSecret> {
        match &self.salts {
            Salts::Secret(secret) => Some(secret),
            Salts::Remains(_) => None,
        }
    }

    /// What is gone of the record at `index`.
    pub fn gone(&self, index: usize) -> Gone {
        match &self.salts {
            Salts::Secret(_) => Gone::NOTHING,
            Salts::Remains(remains) => remains.gone(index),
        }
    }

    /// The sequence after its last record.
    pub fn end(&self) -> u64 {
        self.seq.get().saturating_add(u64::from(self.count))
    }
}

fn read_runs(cursor: &mut Cursor<'_>, count: u32, tenants: &[(TenantId, Count)]) -> Result<Vec<Run>, EntryError> {
    let number = cursor.u32()?;
    if number > count {
        return Err(EntryError::NotCanonical("number of runs"));
    }
    let mut runs: Vec<Run> = Vec::with_capacity(number as usize);
    let (mut covered, mut tenants_seen) = (0_u64, 0_u16);
    for _ in 0..number {
        let run = Run {
            tenant: cursor.u16()?,
            retention: RetentionId::new(cursor.u16()?),
            flags: Flags::from_bits(cursor.u8()?).ok_or(EntryError::NotCanonical("flags"))?,
            records: cursor.u32()?,
        };
        let joins = runs
            .last()
            .is_some_and(|last| (last.tenant, last.retention, last.flags) == (run.tenant, run.retention, run.flags));
        if joins || run.records == 0 || run.tenant > tenants_seen {
            return Err(EntryError::NotCanonical("run"));
        }
        tenants_seen = tenants_seen.max(run.tenant.saturating_add(1));
        covered += u64::from(run.records);
        runs.push(run);
    }
    let mut ids: Vec<&TenantId> = tenants.iter().map(|(tenant, _)| tenant).collect();
    ids.sort_unstable();
    let repeated = ids.windows(2).any(|pair| pair.first() == pair.last());
    if covered != u64::from(count) || usize::from(tenants_seen) != tenants.len() || repeated {
        return Err(EntryError::NotCanonical("cover of its records"));
    }
    Ok(runs)
}

/// The envelopes of an entry.
#[derive(Debug, Clone)]
pub struct Envelopes<'a> {
    entry: &'a Entry<'a>,
    next_counts: Vec<u64>,
    index: u64,
    runs: std::slice::Iter<'a, Run>,
    run: Option<&'a Run>,
    left: u32,
}

impl Iterator for Envelopes<'_> {
    type Item = Envelope;

    fn next(&mut self) -> Option<Envelope> {
        if self.left == 0 {
            let run = self.runs.next()?;
            self.run = Some(run);
            self.left = run.records;
        }
        let run = self.run?;
        let entry = self.entry;
        let (tenant, _) = entry.tenants.get(usize::from(run.tenant))?;
        let tenant_count = self.next_counts.get_mut(usize::from(run.tenant))?;
        let envelope = Envelope {
            flags: run.flags,
            class: entry.class,
            retention: run.retention,
            seq: Seq::new(entry.seq.get() + self.index),
            receipt_time: entry.receipt_time,
            source: entry.source,
            epoch: entry.epoch,
            source_seq: SourceSeq::new(entry.source_seq.get() + self.index),
            source_count: Count::new(entry.source_count.get() + self.index),
            tenant: *tenant,
            tenant_count: Count::new(*tenant_count),
        };
        *tenant_count = tenant_count.wrapping_add(1);
        self.left -= 1;
        self.index += 1;
        Some(envelope)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(runs: Vec<Run>, tenants: u16) -> Entry<'static> {
        Entry {
            class: ClassId::new(3),
            seq: Seq::new(1_000),
            count: runs.iter().map(|run| run.records).sum(),
            receipt_time: ReceiptTime::new(77),
            source: SourceId::new([5; 16]),
            epoch: Epoch::new(9),
            source_seq: SourceSeq::new(500),
            source_count: Count::new(600),
            batch_hash: BatchHash::new([1; 32]),
            chain_hash: ChainHash::new([2; 32]),
            salts: Salts::Secret(BatchSecret::new([3; 32])),
            tenants: (0..tenants)
                .map(|i| (TenantId::from_name(&i.to_string()), Count::new(u64::from(i) * 10)))
                .collect(),
            runs,
            block_bytes: 100,
            compressed: b"not really compressed",
        }
    }

    fn run(tenant: u16, records: u32) -> Run {
        Run { tenant, retention: RetentionId::new(3), flags: Flags::default(), records }
    }

    #[test]
    fn envelopes_count_each_tenant_apart() {
        let entry = sample(vec![run(0, 2), run(1, 1), run(0, 1)], 2);
        let counts: Vec<(u64, u64, u64)> =
            entry.envelopes().map(|e| (e.seq.get(), e.source_seq.get(), e.tenant_count.get())).collect();
        assert_eq!(counts, [(1000, 500, 0), (1001, 501, 1), (1002, 502, 10), (1003, 503, 2)]);
    }

    #[test]
    fn other_forms_are_refused() {
        let bad = [
            sample(vec![run(0, 2), run(0, 1)], 1),
            sample(vec![run(1, 2), run(0, 1)], 2),
            sample(vec![run(0, 2)], 2),
            sample(vec![run(0, 0), run(1, 1)], 2),
        ];
        for entry in bad {
            assert!(Entry::decode(&entry.encode()).is_err(), "{:?}", entry.runs);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(lengths in proptest::collection::vec(1_u32..50, 1..10)) {
            let runs: Vec<Run> = (0..).zip(lengths).map(|(i, records)| run(i, records)).collect();
            let tenants = u16::try_from(runs.len()).unwrap();
            let entry = sample(runs, tenants);
            let bytes = entry.encode();
            prop_assert_eq!(Entry::decode(&bytes), Ok(entry));
        }

        #[test]
        fn a_flipped_bit_is_found(at: prop::sample::Index, bit in 0..8) {
            let mut bytes = sample(vec![run(0, 2), run(1, 1)], 2).encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert_eq!(Entry::decode(&bytes), Err(EntryError::Checksum));
        }

        #[test]
        fn no_body_is_trusted(mut body: Vec<u8>) {
            let sum = checksum(&body);
            body.extend(sum);
            let _ = Entry::decode(&body);
        }
    }
}
