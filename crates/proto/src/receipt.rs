//! Receipts between wire and model.

use sigillo_model::{
    ids::{BatchHash, ChainHash, Epoch, NodeHash, Origin, ReceiptTime, Seq, SourceId, SourceSeq},
    receipt::{Receipt, SignedReceipt},
};

use crate::{batch::FieldError, v1};

/// Bytes of one hash.
const HASH_BYTES: usize = 32;

/// What a receipt says, given to this source.
pub fn receipt(message: &v1::Receipt, source: SourceId) -> Result<Receipt, FieldError> {
    let expected = "32 bytes";
    Ok(Receipt {
        source,
        epoch: Epoch::new(message.epoch),
        first: SourceSeq::new(message.first),
        count: message.count,
        seq: Seq::new(message.sequence),
        chain: ChainHash::from_slice(&message.chain_hash).ok_or(FieldError { field: "chain_hash", expected })?,
        batch: BatchHash::from_slice(&message.batch_hash).ok_or(FieldError { field: "batch_hash", expected })?,
        time: ReceiptTime::new(message.receipt_time_unix_nano),
    })
}

/// The receipt with what proves it; `None` if the server has not signed it. Nothing is verified.
pub fn signed(message: &v1::Receipt, origin: &Origin, source: SourceId) -> Result<Option<SignedReceipt>, FieldError> {
    if message.frame_note.is_empty() {
        return Ok(None);
    }
    let note = std::str::from_utf8(&message.frame_note)
        .map_err(|_| FieldError { field: "frame_note", expected: "text in UTF-8" })?;
    Ok(Some(SignedReceipt {
        origin: origin.clone(),
        receipt: receipt(message, source)?,
        index: message.frame_index,
        path: hashes_joined(&message.frame_path)
            .ok_or(FieldError { field: "frame_path", expected: "hashes of 32 bytes, 64 at most" })?,
        note: note.to_owned(),
    }))
}

/// Hashes of a proof as they travel one by one; `None` if one of them has not 32 bytes.
pub fn hashes<B: AsRef<[u8]>>(hashes: &[B]) -> Option<Vec<NodeHash>> {
    hashes.iter().map(|hash| NodeHash::from_slice(hash.as_ref())).collect()
}

fn hashes_joined(bytes: &[u8]) -> Option<Vec<NodeHash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    (rest.is_empty() && hashes.len() <= 64).then(|| hashes.iter().map(|hash| NodeHash::new(*hash)).collect())
}
