//! Batches made ahead of time, chained as a source chains them.

use anyhow::Result;
use rand::RngCore;
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use sigillo_model::{
    batch::{Batch, epoch_opening},
    block::BlockBuilder,
    ids::{BatchHash, BatchSecret, Epoch, Origin, SourceId, SourceSeq},
    record::Record,
};

/// zstd's level for every batch made here: what the agent uses.
const LEVEL: i32 = 1;

/// One source's chain of batches in its first epoch.
#[derive(Debug, Clone)]
pub struct BatchChain {
    source: SourceId,
    epoch: Epoch,
    next: SourceSeq,
    head: BatchHash,
    secrets: ChaCha12Rng,
}

impl BatchChain {
    /// Begins epoch 1 of a source that the journal has never seen. Secrets follow from the seed: for trials only.
    pub fn new(origin: &Origin, source_name: &str, seed: u64) -> Self {
        let source = SourceId::from_name(source_name);
        let epoch = Epoch::new(1);
        let head = epoch_opening(origin, source, epoch, None);
        Self { source, epoch, next: SourceSeq::new(0), head, secrets: ChaCha12Rng::seed_from_u64(seed) }
    }

    /// The next batch, with these records.
    pub fn seal(&mut self, records: &[Record]) -> Result<Batch> {
        let mut builder = BlockBuilder::default();
        records.iter().try_for_each(|record| builder.push(record.as_ref()))?;
        let mut secret = [0; 32];
        self.secrets.fill_bytes(&mut secret);
        let secret = BatchSecret::new(secret);
        let batch = Batch::seal(&mut builder, self.source, self.epoch, self.next, self.head, secret, LEVEL)?;
        self.next = batch.end();
        self.head = batch.hash;
        Ok(batch)
    }

    /// The epoch of its batches.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The sequence that the next record gets.
    pub fn next(&self) -> SourceSeq {
        self.next
    }

    /// Value of the chain after the last batch.
    pub fn head(&self) -> BatchHash {
        self.head
    }
}
