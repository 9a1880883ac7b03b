//! Segments of a spool as whoever takes the machine reads them: by their layout, without a look at checksums or hashes.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use sigillo_model::{
    batch::{Batch, batch_hash, commitments},
    block::Inflater,
    ids::{BatchHash, BatchSecret, Epoch, SourceId, SourceSeq},
};

/// Bytes of a frame before its payload, and behind it.
const HEADER_BYTES: usize = 13;
const CHECKSUM_BYTES: usize = 8;
/// Magic and length of a segment's header.
const PREFIX_BYTES: usize = 20;
/// A batch's numbers begin behind the time at which it was made.
pub(super) const NUMBERS_AT: usize = HEADER_BYTES + 8;
/// And its block ends before its marks.
const BLOCK_AT: usize = HEADER_BYTES + 132;

/// A frame, of whatever it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Batch(Batch),
    /// The note.
    Head(Bytes),
}

/// The frames of a folder's segments, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pub(super) segments: Vec<Vec<Bytes>>,
}

impl Image {
    /// Reads the segments in a folder.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut paths: Vec<_> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
        paths.sort();
        let segments = paths.iter().map(|path| frames(&Bytes::from(fs::read(path)?))).collect::<Result<_>>()?;
        Ok(Self { segments })
    }
}

/// The frames of a segment that hold batches or heads.
fn frames(segment: &Bytes) -> Result<Vec<Bytes>> {
    let number = |at: usize| -> Result<usize> {
        let bytes = segment.get(at..at + 4).context("a segment ends within a number")?;
        Ok(u32::from_be_bytes(bytes.try_into()?) as usize)
    };
    let mut at = PREFIX_BYTES + number(PREFIX_BYTES - 4)? + CHECKSUM_BYTES;
    let mut frames = Vec::new();
    while at < segment.len() {
        let end = at + HEADER_BYTES + number(at + 1)? + CHECKSUM_BYTES;
        ensure!(end <= segment.len(), "a frame ends behind its segment");
        let frame = segment.slice(at..end);
        if item(&frame).is_some() {
            frames.push(frame);
        }
        at = end;
    }
    Ok(frames)
}

/// What a frame holds; `None` if it can't be read or holds neither batch nor head.
pub(super) fn item(frame: &Bytes) -> Option<Item> {
    let payload = frame.get(HEADER_BYTES..frame.len().checked_sub(CHECKSUM_BYTES)?)?;
    match frame.first()? {
        1 => {
            let mut at = 8;
            let mut take = |length: usize| {
                let bytes = payload.get(at..at + length);
                at += length;
                bytes
            };
            let epoch = Epoch::new(u64::from_be_bytes(take(8)?.try_into().ok()?));
            let first = SourceSeq::new(u64::from_be_bytes(take(8)?.try_into().ok()?));
            let count = u32::from_be_bytes(take(4)?.try_into().ok()?);
            let previous = BatchHash::from_slice(take(32)?)?;
            let hash = BatchHash::from_slice(take(32)?)?;
            let secret = BatchSecret::new(take(32)?.try_into().ok()?);
            let block_bytes = u32::from_be_bytes(take(4)?.try_into().ok()?);
            let length = u32::from_be_bytes(take(4)?.try_into().ok()?) as usize;
            let compressed = Bytes::copy_from_slice(take(length)?);
            Some(Item::Batch(Batch { epoch, first, count, previous, hash, secret, block_bytes, compressed }))
        }
        2 => Some(Item::Head(Bytes::copy_from_slice(payload))),
        _ => None,
    }
}

/// The bytes of a frame that reach the server: of a batch what lies between its time and its marks, of a head all.
pub(super) fn sent_bytes(frame: &Bytes) -> std::ops::Range<usize> {
    match item(frame) {
        Some(Item::Batch(batch)) => NUMBERS_AT..BLOCK_AT + batch.compressed.len(),
        _ => HEADER_BYTES..frame.len() - CHECKSUM_BYTES,
    }
}

/// Whether two items say the same: of a batch its block counts, not how it is compressed.
pub(super) fn same(one: &Item, other: &Item) -> bool {
    match (one, other) {
        (Item::Batch(one), Item::Batch(other)) => {
            let (mut first, mut second) = (Inflater::default(), Inflater::default());
            let plain = |batch: &Batch, inflater: &mut Inflater| {
                inflater.inflate(&batch.compressed, batch.block_bytes as usize).map(<[u8]>::to_vec).ok()
            };
            let without = |batch: &Batch| Batch { compressed: Bytes::new(), ..batch.clone() };
            without(one) == without(other) && plain(one, &mut first) == plain(other, &mut second)
        }
        (one, other) => one == other,
    }
}

/// Gives a batch the hash that follows from its content, its numbers and the hash before it.
pub(super) fn mend_hash(batch: &mut Batch, source: SourceId) -> Result<()> {
    let mut inflater = Inflater::default();
    let commitments = commitments(&batch.secret, &batch.open(&mut inflater)?);
    batch.hash = batch_hash(&batch.previous, source, batch.epoch, batch.first, &commitments);
    Ok(())
}
