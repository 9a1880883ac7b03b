//! A batch: what a source sends at once, immutable once made; and the chain that a source makes of its batches.
//!
//! ```text
//! a_-1   = D(epoch, origin || source[16] || u64 epoch || the previous epoch's last head, or 32 zeros when unknown)
//! a_b    = D(batch, a_(b-1) || source[16] || u64 epoch || u64 first || u32 count || root_b)
//! root_b = RFC 6962 root (SHA-256) over the batch's commitments
//! ```

use std::ops::Range;

use bytes::Bytes;

use crate::{
    block::{self, Block, BlockBuilder, BlockError, Inflater},
    commitment::Committer,
    hash,
    ids::{BatchHash, BatchSecret, Commitment, Epoch, NodeHash, Origin, SourceId, SourceSeq},
    tree::{self, RootBuilder},
};

/// A batch as it is sent, spooled and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Epoch of its sender.
    pub epoch: Epoch,
    /// The sender's number of its first record.
    pub first: SourceSeq,
    /// How many records, at least one.
    pub count: u32,
    /// a_(b-1).
    pub previous: BatchHash,
    /// `a_b`.
    pub hash: BatchHash,
    /// From which the salts of its records are derived.
    pub secret: BatchSecret,
    /// Length of the block before compression, bytes.
    pub block_bytes: u32,
    /// One zstd frame around the block.
    pub compressed: Bytes,
}

/// A batch that is not what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The block can't be read.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The block holds another number of records than the batch states.
    #[error("the batch states {stated} records, its block holds {found}")]
    Count {
        /// By the batch.
        stated: u32,
        /// By the block.
        found: u32,
    },
    /// The numbers run past their end.
    #[error("the batch's sequences run past the end of 64-bit numbers")]
    Overflow,
    /// The hash does not follow from the content.
    #[error("the batch's hash does not follow from its content and the hash before it")]
    Hash,
}

/// Value before the first batch of an epoch.
pub fn epoch_opening(
    origin: &Origin,
    source: SourceId,
    epoch: Epoch,
    previous_epoch_head: Option<BatchHash>,
) -> BatchHash {
    let mut hasher = hash::EPOCH.hasher();
    // The origin is the only field without a fixed length, and it comes first: the rest is counted from the end.
    hasher.update(origin.as_str().as_bytes()).update(source.as_bytes()).update(&epoch.get().to_be_bytes());
    hasher.update(previous_epoch_head.map_or([0; 32], |head| *head.as_bytes()).as_slice());
    BatchHash::new(*hasher.finalize().as_bytes())
}

/// Value after a batch whose records have these commitments.
pub fn batch_hash(
    previous: &BatchHash,
    source: SourceId,
    epoch: Epoch,
    first: SourceSeq,
    commitments: &[Commitment],
) -> BatchHash {
    let mut root = RootBuilder::default();
    for commitment in commitments {
        root.push(tree::leaf(commitment.as_bytes()));
    }
    // A block holds at most BATCH_MAX_RECORDS.
    let count = u32::try_from(commitments.len()).unwrap_or(u32::MAX);
    batch_hash_of_root(previous, source, epoch, first, count, &root.root())
}

/// Value after a batch of `count` records whose commitments have this root.
pub fn batch_hash_of_root(
    previous: &BatchHash,
    source: SourceId,
    epoch: Epoch,
    first: SourceSeq,
    count: u32,
    root: &NodeHash,
) -> BatchHash {
    let mut hasher = hash::BATCH.hasher();
    hasher
        .update(previous.as_bytes())
        .update(source.as_bytes())
        .update(&epoch.get().to_be_bytes())
        .update(&first.get().to_be_bytes())
        .update(&count.to_be_bytes())
        .update(root.as_bytes());
    BatchHash::new(*hasher.finalize().as_bytes())
}

/// The commitments of a block's records, in order.
pub fn commitments(secret: &BatchSecret, block: &Block<'_>) -> Vec<Commitment> {
    commitments_within(secret, block, 0..block.count())
}

/// The commitments of those of a block's records that have these places in it, in order.
pub fn commitments_within(secret: &BatchSecret, block: &Block<'_>, places: Range<u32>) -> Vec<Commitment> {
    let mut committer = Committer::default();
    let records = (0..).zip(block.records()).skip(places.start as usize).take(places.len());
    records.map(|(index, record)| committer.commit(secret, index, record)).collect()
}

impl Batch {
    /// Makes a batch of the records in `builder`, which is empty afterwards. `secret` must come from a cryptographic
    /// random source and be used once. `level` is zstd's.
    pub fn seal(
        builder: &mut BlockBuilder,
        source: SourceId,
        epoch: Epoch,
        first: SourceSeq,
        previous: BatchHash,
        secret: BatchSecret,
        level: i32,
    ) -> Result<Self, BatchError> {
        let bytes = builder.take();
        let block = Block::parse(&bytes)?;
        let commitments = commitments(&secret, &block);
        first.checked_add(u64::from(block.count())).ok_or(BatchError::Overflow)?;
        Ok(Self {
            epoch,
            first,
            count: block.count(),
            previous,
            hash: batch_hash(&previous, source, epoch, first, &commitments),
            secret,
            // At most BLOCK_MAX_BYTES, kept by the builder.
            block_bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            compressed: block::compress(&bytes, level).into(),
        })
    }

    /// Inflates and checks the block. What it borrows lives in `inflater`.
    pub fn open<'a>(&self, inflater: &'a mut Inflater) -> Result<Block<'a>, BatchError> {
        let block = Block::parse(inflater.inflate(&self.compressed, self.block_bytes as usize)?)?;
        if block.count() != self.count {
            return Err(BatchError::Count { stated: self.count, found: block.count() });
        }
        self.first.checked_add(u64::from(self.count)).ok_or(BatchError::Overflow)?;
        Ok(block)
    }

    /// Checks that this batch's hash follows from `commitments`, those of its opened block.
    pub fn check_hash(&self, source: SourceId, commitments: &[Commitment]) -> Result<(), BatchError> {
        let expected = batch_hash(&self.previous, source, self.epoch, self.first, commitments);
        if expected == self.hash { Ok(()) } else { Err(BatchError::Hash) }
    }

    /// The sequence after its last record. Saturates; `open` refuses batches for which that matters.
    pub fn end(&self) -> SourceSeq {
        SourceSeq::new(self.first.get().saturating_add(u64::from(self.count)))
    }
}
