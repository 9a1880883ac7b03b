//! Batches, receipts and heads between wire and model.

use bytes::Bytes;
use sigillo_model::{
    batch::Batch,
    ids::{BatchHash, BatchSecret, Epoch, SourceSeq},
};

use crate::v1;

/// A field of a message has the wrong length or an impossible value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field} of the message must have {expected}")]
pub struct FieldError {
    /// The field's name in the `.proto` file.
    pub field: &'static str,
    /// What it should have.
    pub expected: &'static str,
}

impl TryFrom<v1::Batch> for Batch {
    type Error = FieldError;

    fn try_from(message: v1::Batch) -> Result<Self, FieldError> {
        let hash = |field, bytes: &[u8]| BatchHash::from_slice(bytes).ok_or(FieldError { field, expected: "32 bytes" });
        Ok(Self {
            epoch: Epoch::new(message.epoch),
            first: SourceSeq::new(message.first),
            count: message.count,
            previous: hash("previous_hash", &message.previous_hash)?,
            hash: hash("hash", &message.hash)?,
            secret: BatchSecret::from_slice(&message.secret)
                .ok_or(FieldError { field: "secret", expected: "32 bytes" })?,
            block_bytes: u32::try_from(message.block_bytes)
                .map_err(|_| FieldError { field: "block_bytes", expected: "a value below 2^32" })?,
            compressed: message.block,
        })
    }
}

impl From<&Batch> for v1::Batch {
    fn from(batch: &Batch) -> Self {
        Self {
            epoch: batch.epoch.get(),
            first: batch.first.get(),
            count: batch.count,
            previous_hash: Bytes::copy_from_slice(batch.previous.as_bytes()),
            hash: Bytes::copy_from_slice(batch.hash.as_bytes()),
            secret: Bytes::copy_from_slice(batch.secret.expose()),
            block: batch.compressed.clone(),
            block_bytes: u64::from(batch.block_bytes),
        }
    }
}
