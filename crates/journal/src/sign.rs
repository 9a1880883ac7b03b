//! Signs the receipts of a frame: one signature for all, after the commit and before anybody is answered.

use std::sync::Arc;

use sigillo_model::{
    class::Class,
    ids::{Origin, SourceId},
    note::SigningKey,
    receipt::{FrameBuilder, SignedFrame},
};

use crate::{
    error::SubmitError,
    frame::{Receipt, Submission},
};

/// What proves a receipt: its frame, signed, and its place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptProof {
    /// The frame, shared by all its receipts.
    pub frame: Arc<SignedFrame>,
    /// Place of the receipt in it.
    pub index: u32,
}

/// What the writer made of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The receipt.
    pub receipt: Receipt,
    /// Its proof; `None` if the journal has no key for receipts.
    pub proof: Option<ReceiptProof>,
}

/// Holds the key, and the room for a frame's texts.
pub(crate) struct Signer {
    key: Arc<SigningKey>,
    builder: FrameBuilder,
}

impl Signer {
    pub(crate) fn new(key: Arc<SigningKey>) -> Self {
        Self { key, builder: FrameBuilder::default() }
    }

    /// A proof for each receipt, repeated ones too. Refused batches have none, nor has what the product itself submits.
    pub(crate) fn sign(
        &mut self,
        origin: &Origin,
        frame: &[Submission],
        outcomes: &[Result<Receipt, SubmitError>],
    ) -> Vec<Option<ReceiptProof>> {
        let mut push = |submission: &Submission, receipt: &Receipt| {
            let own = submission.class == Class::Journal.id();
            (!own).then(|| self.builder.push(origin, &receipt.signed_part(submission.source)))
        };
        let places: Vec<Option<u32>> = frame
            .iter()
            .zip(outcomes)
            .map(|(submission, outcome)| outcome.as_ref().ok().and_then(|receipt| push(submission, receipt)))
            .collect();
        match self.builder.sign(origin, &self.key) {
            Ok(Some(frame)) => {
                let frame = Arc::new(frame);
                let prove = |index| ReceiptProof { frame: Arc::clone(&frame), index };
                places.into_iter().map(|place| place.map(prove)).collect()
            }
            Ok(None) => vec![None; places.len()],
            Err(error) => {
                // What is durable is acknowledged all the same.
                tracing::error!(%error, "receipts can't be signed");
                vec![None; places.len()]
            }
        }
    }
}

impl Receipt {
    fn signed_part(&self, source: SourceId) -> sigillo_model::receipt::Receipt {
        sigillo_model::receipt::Receipt {
            source,
            epoch: self.epoch,
            first: self.first,
            count: self.count,
            seq: self.seq,
            chain: self.chain_hash,
            batch: self.batch_hash,
            time: self.receipt_time,
        }
    }
}
