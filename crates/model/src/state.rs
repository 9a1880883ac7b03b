//! What the chain has come to: the state that one more batch changes. The writer and every verifier step it alike.

use std::collections::HashMap;

use crate::{
    batch::epoch_opening,
    chain,
    ids::{BatchHash, ChainHash, Count, Epoch, Origin, ReceiptTime, SourceId, SourceSeq, TenantId},
};

/// Where a journal stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalState {
    /// The journal's name.
    pub origin: Origin,
    /// Number of records; the next one's sequence.
    pub size: u64,
    /// Chain value of the last record, or genesis.
    pub chain: ChainHash,
    /// Receipt time of the last record; 0 before the first.
    pub receipt_time: ReceiptTime,
    /// Every source that ever sent.
    pub sources: HashMap<SourceId, SourceState>,
    /// The next count of every tenant that ever was concerned.
    pub tenants: HashMap<TenantId, Count>,
}

/// Where a source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceState {
    /// Its newest epoch.
    pub epoch: Epoch,
    /// The sequence expected next in that epoch.
    pub next: SourceSeq,
    /// Its batch chain's last value.
    pub head: BatchHash,
    /// The server's next count of its records.
    pub count: Count,
}

impl JournalState {
    /// A journal without records.
    pub fn genesis(origin: Origin) -> Self {
        Self {
            chain: chain::genesis(&origin),
            origin,
            size: 0,
            receipt_time: ReceiptTime::new(0),
            sources: HashMap::new(),
            tenants: HashMap::new(),
        }
    }

    /// The value that the first batch of `source` in a new `epoch` must name as the one before it.
    pub fn epoch_opening(&self, source: SourceId, epoch: Epoch) -> BatchHash {
        epoch_opening(&self.origin, source, epoch, self.sources.get(&source).map(|state| state.head))
    }
}
