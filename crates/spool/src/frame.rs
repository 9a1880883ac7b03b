//! Frames: what stands in a segment after its header.
//!
//! ```text
//! u8  kind
//! u32 bytes of the payload
//! u32 bytes of this segment that were durable when the frame was written
//! u32 the first 4 bytes of D("checksum", u64 segment || u64 place in the file || the nine bytes before)
//! payload
//! u64 checksum: the first 8 bytes of D("checksum", all of the frame before)
//!
//! 1 batch  u64 time at which it was made, ns since 1970 UTC || u64 epoch || u64 first || u32 count || hash before[32]
//!          || batch hash[32] || secret[32] || u32 bytes of the block before compression || u32 bytes of the frame || the frame
//!          || marks that changed with it
//! 2 head   the note
//! 3 marks  marks that changed without any record
//! ```

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use sigillo_model::{
    batch::Batch,
    entry::checksum,
    head::{HEAD_MAX_BYTES, SignedHead},
    ids::{BatchHash, BatchSecret, Epoch, SourceSeq},
    limits::{BLOCK_MAX_BYTES, COMPRESSED_MAX_BYTES},
};

use crate::{
    layout::{CHECKSUM_BYTES, array},
    marks::{self, MARKS_MAX_BYTES},
};

/// Bytes before a payload.
pub(crate) const HEADER_BYTES: usize = 13;
/// Bytes around a payload.
pub(crate) const AROUND_BYTES: usize = HEADER_BYTES + CHECKSUM_BYTES;
/// Bytes of a batch's payload before its block.
const BATCH_BYTES: usize = 132;
/// Bytes of a batch's payload that tell its numbers: time, epoch, first, count.
pub(crate) const NUMBERS_BYTES: usize = 28;
/// Bytes of a payload at most.
pub(crate) const PAYLOAD_MAX_BYTES: usize = BATCH_BYTES + COMPRESSED_MAX_BYTES + MARKS_MAX_BYTES + 2;

/// Marks that changed.
pub(crate) type Changes = Vec<(Arc<str>, Bytes)>;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Batch = 1,
    Head = 2,
    Marks = 3,
}

/// What stands before a payload, after its own check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: Kind,
    /// Bytes of the payload.
    pub(crate) length: usize,
    /// Bytes of the segment that were durable when this was written.
    pub(crate) synced: u64,
}

impl FrameHeader {
    /// Reads the header of a frame at `offset` of segment `segment`. `None` if there is none.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES], segment: u64, offset: u64) -> Option<Self> {
        let mut rest = bytes.as_slice();
        let kind = match rest.try_get_u8().ok()? {
            1 => Kind::Batch,
            2 => Kind::Head,
            3 => Kind::Marks,
            _ => return None,
        };
        let length = rest.try_get_u32().ok()? as usize;
        let synced = u64::from(rest.try_get_u32().ok()?);
        if length > PAYLOAD_MAX_BYTES || rest != check(bytes.split_first_chunk()?.0, segment, offset) {
            return None;
        }
        Some(Self { kind, length, synced })
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        (self.length + AROUND_BYTES) as u64
    }
}

fn check(start: &[u8; 9], segment: u64, offset: u64) -> [u8; 4] {
    let mut bytes = [0; 25];
    let parts = segment.to_be_bytes().into_iter().chain(offset.to_be_bytes()).chain(*start);
    bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    let [a, b, c, d, ..] = checksum(&bytes);
    [a, b, c, d]
}

/// The payload of a frame whose checksum holds, of the bytes of the whole frame.
pub(crate) fn payload(frame: &[u8]) -> Option<&[u8]> {
    let (summed, sum) = frame.split_last_chunk::<CHECKSUM_BYTES>()?;
    if checksum(summed) == *sum { summed.get(HEADER_BYTES..) } else { None }
}

/// A batch as it is spooled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpooledBatch {
    /// When it was made, nanoseconds since 1970 UTC.
    pub(crate) made_ns: u64,
    pub(crate) batch: Batch,
    pub(crate) changes: Changes,
}

/// What a frame holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Batch(SpooledBatch),
    Head { head: SignedHead, note: Bytes },
    Marks(Changes),
}

impl Content {
    /// Reads the payload in `frame`, the bytes of a whole frame whose checksum holds; blocks and notes are not copied.
    pub(crate) fn decode(kind: Kind, frame: &Bytes) -> Option<Self> {
        let end = frame.len().checked_sub(CHECKSUM_BYTES)?;
        let payload = (end >= HEADER_BYTES).then(|| frame.slice(HEADER_BYTES..end))?;
        match kind {
            Kind::Batch => batch(&payload).map(Self::Batch),
            Kind::Head => {
                let (head, _) = SignedHead::parse(&payload).ok()?;
                Some(Self::Head { head, note: payload })
            }
            Kind::Marks => marks::decode(&payload).map(Self::Marks),
        }
    }
}

fn batch(payload: &Bytes) -> Option<SpooledBatch> {
    let mut rest: &[u8] = payload;
    let made_ns = rest.try_get_u64().ok()?;
    let epoch = Epoch::new(rest.try_get_u64().ok()?);
    let first = SourceSeq::new(rest.try_get_u64().ok()?);
    let count = rest.try_get_u32().ok()?;
    let previous = BatchHash::new(array(&mut rest)?);
    let hash = BatchHash::new(array(&mut rest)?);
    let secret = BatchSecret::new(array(&mut rest)?);
    let block_bytes = rest.try_get_u32().ok()?;
    let length = rest.try_get_u32().ok()? as usize;
    let (compressed, marks) = rest.split_at_checked(length)?;
    first.checked_add(u64::from(count))?;
    if count == 0 || block_bytes as usize > BLOCK_MAX_BYTES || length > COMPRESSED_MAX_BYTES {
        return None;
    }
    let compressed = payload.slice_ref(compressed);
    let changes = marks::decode(marks)?;
    let batch = Batch { epoch, first, count, previous, hash, secret, block_bytes, compressed };
    Some(SpooledBatch { made_ns, batch, changes })
}

/// The numbers of a batch, of the first [`NUMBERS_BYTES`] of its payload: its first record and the one after its last.
pub(crate) fn numbers(mut start: &[u8]) -> Option<(SourceSeq, SourceSeq)> {
    // Time and epoch.
    start = start.get(16..)?;
    let first = SourceSeq::new(start.try_get_u64().ok()?);
    let count = start.try_get_u32().ok()?;
    Some((first, first.checked_add(u64::from(count))?))
}

/// Where a frame is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Bytes of the segment that are durable.
    pub(crate) synced: u64,
}

/// Puts a batch's frame into `out`, which is emptied first.
pub(crate) fn encode_batch(out: &mut Vec<u8>, spot: Spot, made_ns: u64, batch: &Batch, changes: &[(Arc<str>, Bytes)]) {
    frame(out, spot, Kind::Batch, |out| {
        out.put_u64(made_ns);
        out.put_u64(batch.epoch.get());
        out.put_u64(batch.first.get());
        out.put_u32(batch.count);
        out.put_slice(batch.previous.as_bytes());
        out.put_slice(batch.hash.as_bytes());
        out.put_slice(batch.secret.expose());
        out.put_u32(batch.block_bytes);
        // At most COMPRESSED_MAX_BYTES: a block has at most 8 MiB.
        out.put_u32(u32::try_from(batch.compressed.len()).unwrap_or(u32::MAX));
        out.put_slice(&batch.compressed);
        marks::encode(out, changes.iter().map(|(key, value)| (key, value)));
    });
}

/// Bytes of a batch's frame, with marks of so many bytes.
pub(crate) fn batch_frame_bytes(batch: &Batch, marks_bytes: usize) -> usize {
    AROUND_BYTES + BATCH_BYTES + batch.compressed.len() + 2 + marks_bytes
}

/// Puts a head's frame into `out`, which is emptied first.
pub(crate) fn encode_head(out: &mut Vec<u8>, spot: Spot, note: &str) {
    debug_assert!(note.len() <= HEAD_MAX_BYTES);
    frame(out, spot, Kind::Head, |out| out.put_slice(note.as_bytes()));
}

/// Puts a frame of marks into `out`, which is emptied first.
pub(crate) fn encode_marks(out: &mut Vec<u8>, spot: Spot, changes: &[(Arc<str>, Bytes)]) {
    frame(out, spot, Kind::Marks, |out| marks::encode(out, changes.iter().map(|(key, value)| (key, value))));
}

fn frame(out: &mut Vec<u8>, spot: Spot, kind: Kind, payload: impl FnOnce(&mut Vec<u8>)) {
    out.clear();
    out.extend([0; HEADER_BYTES]);
    payload(out);
    let length = u32::try_from(out.len() - HEADER_BYTES).unwrap_or(u32::MAX).to_be_bytes();
    // A segment has less than 4 GiB: its bound and one frame.
    let synced = u32::try_from(spot.synced).unwrap_or(u32::MAX).to_be_bytes();
    let mut start = [0; 9];
    start.iter_mut().zip([kind as u8].into_iter().chain(length).chain(synced)).for_each(|(to, from)| *to = from);
    let check = check(&start, spot.segment, spot.offset);
    out.iter_mut().zip(start.into_iter().chain(check)).for_each(|(to, from)| *to = from);
    out.extend(checksum(out));
}
