//! Names of files, and the header of a segment.
//!
//! ```text
//! "sigillo spool 1\n"
//! u32 bytes of what follows, up to the checksum
//! u64 number of the segment
//! u64 number of the segment of another epoch from which this one was made, or 0
//! u8  length of the origin || origin
//! [16] source
//! u64 epoch
//! u64 sequence of the next record
//! [32] hash of the last batch, or the epoch's opening
//! [32] public key of the next head
//! u64 time of the last head, 0 when none
//! marks, all of them, ascending
//! u64 checksum
//! ```

use std::{fs::File, os::unix::fs::FileExt};

use bytes::Buf;
use sigillo_model::{
    entry::checksum,
    head::{HeadKey, SignedHead},
    ids::{BatchHash, Epoch, NodeHash, Origin, SourceId, SourceSeq},
};

use crate::{
    SpoolError,
    marks::{self, MARKS_MAX_BYTES, Table},
    spool::Identity,
};

pub(crate) const CHECKSUM_BYTES: usize = 8;
pub(crate) const LOCK: &str = "lock";
/// Room that is kept for the next segment when the disk is full.
pub(crate) const RESERVE: &str = "reserve";
pub(crate) const HEAD_KEY: &str = "head-key";
/// Ends the name of a segment that is being made.
pub(crate) const UNFINISHED: &str = ".new";
const SEGMENT: &str = ".spool";
const MAGIC: &[u8; 16] = b"sigillo spool 1\n";
const PREFIX_BYTES: usize = 20;
/// Bytes of a header beside its magic, length and checksum at most.
const BODY_MAX_BYTES: usize = MARKS_MAX_BYTES + 1_024;

/// The name of a segment's file: its number with 20 digits.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:020}{SEGMENT}")
}

/// The number in the name of a segment's file.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT)?;
    let number = if digits.len() == 20 { digits.parse().ok() } else { None };
    number.filter(|number| segment_name(*number) == name)
}

/// Where a chain of batches and heads stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tip {
    /// The sequence of the next record.
    pub(crate) next: SourceSeq,
    /// Hash of the last batch, or the epoch's opening.
    pub(crate) hash: BatchHash,
    /// Public key of the next head.
    pub(crate) key: [u8; 32],
    /// Time of the last head, 0 when none.
    pub(crate) head_time_ns: u64,
}

impl Tip {
    /// Signs a head that stands here, with the key that is due; the head, and its note.
    pub(crate) fn sign(
        &self,
        identity: &Identity,
        epoch: Epoch,
        key: &HeadKey,
        (now_ns, seen): (u64, (u64, NodeHash)),
    ) -> Result<(SignedHead, String), SpoolError> {
        let least = self.head_time_ns.checked_add(1).ok_or(SpoolError::Overflow("the time of heads"))?;
        let head = SignedHead {
            origin: identity.origin.clone(),
            source: identity.source,
            epoch,
            next: self.next,
            batch_hash: self.hash,
            time_ns: now_ns.max(least),
            seen,
            next_key: key.clone().ratchet().public(),
        };
        let note = head.sign(key)?;
        Ok((head, note))
    }

    /// Goes on behind a head.
    pub(crate) fn pass(&mut self, head: &SignedHead) {
        (self.key, self.head_time_ns) = (head.next_key, head.time_ns);
    }
}

/// What stands at the beginning of a segment: all that is needed to go on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u64,
    /// The segment of another epoch up to which everything was carried over into this one; 0 when none was.
    pub(crate) made_from: u64,
    pub(crate) identity: Identity,
    pub(crate) epoch: Epoch,
    pub(crate) tip: Tip,
    pub(crate) marks: Table,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(MAGIC);
        bytes.extend([0; 4]);
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.made_from.to_be_bytes());
        let origin = self.identity.origin.as_str();
        // An origin has at most 255 bytes.
        bytes.push(u8::try_from(origin.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(origin.as_bytes());
        bytes.extend_from_slice(self.identity.source.as_bytes());
        bytes.extend(self.epoch.get().to_be_bytes());
        bytes.extend(self.tip.next.get().to_be_bytes());
        bytes.extend_from_slice(self.tip.hash.as_bytes());
        bytes.extend_from_slice(&self.tip.key);
        bytes.extend(self.tip.head_time_ns.to_be_bytes());
        marks::encode(&mut bytes, self.marks.marks().iter());
        let length = u32::try_from(bytes.len() - PREFIX_BYTES).unwrap_or(u32::MAX).to_be_bytes();
        bytes.iter_mut().skip(MAGIC.len()).zip(length).for_each(|(to, from)| *to = from);
        bytes.extend(checksum(&bytes));
        bytes
    }

    /// Reads the header of the file of segment `number`, and its length. `None` if it is not what it should be.
    pub(crate) fn read(file: &File, number: u64) -> std::io::Result<Option<(Self, u64)>> {
        let there = file.metadata()?.len();
        let mut prefix = [0; PREFIX_BYTES];
        if there < PREFIX_BYTES as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut prefix, 0)?;
        let Some((MAGIC, mut length)) = prefix.split_first_chunk() else { return Ok(None) };
        let body = length.try_get_u32().unwrap_or(u32::MAX) as usize;
        let whole = PREFIX_BYTES + body + CHECKSUM_BYTES;
        if body > BODY_MAX_BYTES || whole as u64 > there {
            return Ok(None);
        }
        let mut bytes = vec![0; whole];
        file.read_exact_at(&mut bytes, 0)?;
        let header = Self::decode(&bytes).filter(|header| header.number == number);
        Ok(header.map(|header| (header, whole as u64)))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (summed, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        if checksum(summed) != *sum {
            return None;
        }
        let mut rest = summed.get(PREFIX_BYTES..)?;
        let number = rest.try_get_u64().ok()?;
        let made_from = rest.try_get_u64().ok()?;
        let length = usize::from(rest.try_get_u8().ok()?);
        let (origin, mut rest) = rest.split_at_checked(length)?;
        let origin = Origin::new(std::str::from_utf8(origin).ok()?).ok()?;
        let source = SourceId::new(array(&mut rest)?);
        let epoch = Epoch::new(rest.try_get_u64().ok()?);
        let next = SourceSeq::new(rest.try_get_u64().ok()?);
        let hash = BatchHash::new(array(&mut rest)?);
        let key = array(&mut rest)?;
        let head_time_ns = rest.try_get_u64().ok()?;
        let marks = Table::new(marks::decode(rest)?.into_iter().collect()).ok()?;
        let identity = Identity { origin, source };
        let tip = Tip { next, hash, key, head_time_ns };
        let header = Self { number, made_from, identity, epoch, tip, marks };
        // One form only: marks stand in order, none is empty.
        (header.encode() == bytes).then_some(header)
    }
}

/// Takes an array from the beginning of what is left.
pub(crate) fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*array)
}
