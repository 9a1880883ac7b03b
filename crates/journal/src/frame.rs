//! What goes into the journal and what comes out: submissions, receipts, refusals, heads.

use sigillo_model::{
    batch::Batch,
    entry::Entry,
    envelope::Flags,
    ids::{
        BatchHash, ChainHash, ClassId, Commitment, Epoch, NodeHash, ReceiptTime, RetentionId, Seq, SourceId, SourceSeq,
        TenantId,
    },
    state::JournalState,
};

/// A checked batch on its way into the journal: everything the envelopes need is here, taken before it is ordered.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Who sent it.
    pub source: SourceId,
    /// Class of the source.
    pub class: ClassId,
    /// The batch; its hash has been checked against `commitments`.
    pub batch: Batch,
    /// The commitments of its records, in order.
    pub commitments: Vec<Commitment>,
    /// Which records concern which tenant; together they cover the batch.
    pub runs: Vec<TenantRun>,
    /// When the server took it.
    pub received: ReceiptTime,
}

/// Records that follow one another and share tenant, retention class and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantRun {
    /// Whom they concern.
    pub tenant: TenantId,
    /// How long they are kept.
    pub retention: RetentionId,
    /// Flags of their envelopes.
    pub flags: Flags,
    /// How many.
    pub records: u32,
}

/// Where the journal stands, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of records.
    pub size: u64,
    /// Chain value of the last record, or genesis.
    pub chain: ChainHash,
    /// Root of the tree over the chain values of all records.
    pub root: NodeHash,
    /// Receipt time of the last record; 0 before the first.
    pub receipt_time: ReceiptTime,
}

impl Head {
    pub(crate) fn of(state: &JournalState) -> Self {
        Self { size: state.size, chain: state.chain, root: state.tree.root(), receipt_time: state.receipt_time }
    }
}

/// What the journal made of a batch. The same batch sent again gets the same receipt, but for `repeated`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// The sender's number of the first record.
    pub first: SourceSeq,
    /// How many records.
    pub count: u32,
    /// Sequence of the first record in the journal; the others follow without a gap.
    pub seq: Seq,
    /// Chain value after the last record.
    pub chain_hash: ChainHash,
    /// `a_b`.
    pub batch_hash: BatchHash,
    /// When the server took it.
    pub receipt_time: ReceiptTime,
    /// The batch had been received before.
    pub repeated: bool,
}

impl Receipt {
    /// The receipt of a stored entry.
    pub(crate) fn of(entry: &Entry<'_>, repeated: bool) -> Self {
        Self {
            epoch: entry.epoch,
            first: entry.source_seq,
            count: entry.count,
            seq: entry.seq,
            chain_hash: entry.chain_hash,
            batch_hash: entry.batch_hash,
            receipt_time: entry.receipt_time,
            repeated,
        }
    }
}

/// Why a batch does not fit what the journal holds of its source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Records before it are missing.
    #[error("records are missing before this batch: sequence {expected} of epoch {expected_epoch} is expected")]
    Gap {
        /// Newest epoch.
        expected_epoch: Epoch,
        /// Next sequence in it.
        expected: SourceSeq,
    },
    /// Other records were received under these numbers.
    #[error(
        "other records were received under these numbers; sequence {expected} of epoch {expected_epoch} is expected"
    )]
    Fork {
        /// Newest epoch.
        expected_epoch: Epoch,
        /// Next sequence in it.
        expected: SourceSeq,
    },
    /// A newer epoch has begun.
    #[error("the epoch is over: sequence {expected} of epoch {expected_epoch} is expected")]
    StaleEpoch {
        /// Newest epoch.
        expected_epoch: Epoch,
        /// Next sequence in it.
        expected: SourceSeq,
    },
    /// The batch breaks a rule.
    #[error("{0}")]
    Invalid(String),
}
