//! What the chain has come to: the state that one more batch changes. The writer and every verifier step it alike.

use std::collections::HashMap;

use crate::{
    batch::epoch_opening,
    chain,
    envelope::Envelope,
    ids::{BatchHash, ChainHash, Commitment, Count, Epoch, Origin, ReceiptTime, SourceId, SourceSeq, TenantId},
    tree::{self, ANCHOR_INTERVAL, Frontier, TreeRow},
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
    /// The tree over the chain values of all records.
    pub tree: Frontier,
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
            tree: Frontier::default(),
            receipt_time: ReceiptTime::new(0),
            sources: HashMap::new(),
            tenants: HashMap::new(),
        }
    }

    /// Adds the records of these envelopes and commitments to the chain and to the tree, in one pass. `rows` gets the rows of
    /// the tree that they complete, each level's in order. The other fields are left as they are.
    pub fn link<'a>(
        &mut self,
        envelopes: impl IntoIterator<Item = Envelope>,
        commitments: impl IntoIterator<Item = &'a Commitment>,
        rows: &mut Vec<TreeRow>,
    ) {
        self.link_watched(envelopes, commitments, rows, |_| ());
    }

    /// As [`JournalState::link`]; `grown` gets the tree after each record.
    pub fn link_watched<'a>(
        &mut self,
        envelopes: impl IntoIterator<Item = Envelope>,
        commitments: impl IntoIterator<Item = &'a Commitment>,
        rows: &mut Vec<TreeRow>,
        mut grown: impl FnMut(&Frontier),
    ) {
        let (tree, size) = (&mut self.tree, &mut self.size);
        self.chain = chain::link_each(self.chain, envelopes, commitments, |value| {
            tree.push(tree::record_leaf(value), |level, index, hash| {
                rows.push(TreeRow { level, index, hash: *hash.as_bytes() });
            });
            if tree.size().is_multiple_of(ANCHOR_INTERVAL) {
                rows.push(TreeRow { level: 0, index: tree.size() / ANCHOR_INTERVAL, hash: *value.as_bytes() });
            }
            *size += 1;
            grown(tree);
        });
    }

    /// The value that the first batch of `source` in a new `epoch` must name as the one before it.
    pub fn epoch_opening(&self, source: SourceId, epoch: Epoch) -> BatchHash {
        epoch_opening(&self.origin, source, epoch, self.sources.get(&source).map(|state| state.head))
    }
}
