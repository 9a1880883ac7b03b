//! One pass over a batch: inflate, limits, commitments, the sender's chain, tenants. Afterwards its bytes are not looked at again.

use sigillo_journal::{Submission, TenantRun};
use sigillo_model::{
    batch::{Batch, BatchError},
    block::Inflater,
    commitment::Committer,
    ids::{Commitment, ReceiptTime},
};
use sigillo_proto::record::LimitError;

use super::{
    shape,
    tenants::{Claims, Tenants},
};
use crate::{config::SourceSettings, sources::Declared};

/// Memory for inflating that a stream keeps between batches; what a larger batch needed is given back after it.
const KEPT_BYTES: u32 = 1 << 20;

/// A batch that can't be taken, and won't be when it comes again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CheckError {
    /// The batch is not what it says.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// One of its records breaks a limit.
    #[error("record {index} of the batch: {error}")]
    Record {
        /// Place in the batch.
        index: usize,
        /// Which limit, and what to do.
        error: LimitError,
    },
}

/// Checks the batches of one stream, with memory that is used again.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    inflater: Inflater,
    claims: Claims,
    declared: Declared,
}

impl Checker {
    /// Forgets what was decided about tenants.
    pub(crate) fn forget(&mut self) {
        self.claims.forget();
    }

    /// What the records of the last batch declare about their sender.
    pub(crate) fn declared(&self) -> Declared {
        self.declared
    }

    /// Makes a batch into a submission, or says why it can't be one.
    pub(crate) fn check(
        &mut self,
        source: &SourceSettings,
        tenants: &Tenants,
        batch: Batch,
        received: ReceiptTime,
    ) -> Result<Submission, CheckError> {
        let (commitments, runs) = self.read(source, tenants, &batch)?;
        batch.check_hash(source.id, &commitments)?;
        if batch.block_bytes > KEPT_BYTES {
            self.inflater = Inflater::default();
        }
        Ok(Submission { source: source.id, class: source.class, batch, commitments, runs, received })
    }

    fn read(
        &mut self,
        source: &SourceSettings,
        tenants: &Tenants,
        batch: &Batch,
    ) -> Result<(Vec<Commitment>, Vec<TenantRun>), CheckError> {
        let block = batch.open(&mut self.inflater)?;
        let mut committer = Committer::default();
        let mut commitments = Vec::with_capacity(block.count() as usize);
        let mut runs: Vec<TenantRun> = Vec::with_capacity(1);
        let mut last: Option<&[u8]> = None;
        self.declared = Declared::default();
        for ((number, index), record) in (0_u32..).zip(0_usize..).zip(block.records()) {
            let outside = shape::check(record).map_err(|error| CheckError::Record { index, error })?;
            self.declared.note(outside.event_name, record);
            let claim = outside.tenant;
            commitments.push(committer.commit(&batch.secret, number, record));
            if let (true, Some(run)) = (last == Some(claim), runs.last_mut()) {
                run.records += 1;
                continue;
            }
            last = Some(claim);
            let (tenant, flags) = self.claims.decide(source, tenants, claim);
            match runs.last_mut() {
                // Two claims may come to the same: neighbours that share everything are one run.
                Some(run) if (run.tenant, run.flags) == (tenant, flags) => run.records += 1,
                _ => runs.push(TenantRun { tenant, retention: source.retention, flags, records: 1 }),
            }
        }
        Ok((commitments, runs))
    }
}
