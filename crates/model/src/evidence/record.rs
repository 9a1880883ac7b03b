//! One record in an evidence file.
//!
//! ```text
//! [88] envelope
//! u8  present: one bit for each part of the record; 0 = only the commitment is given
//! u8  shown: those of them whose bytes follow
//! u8  gone: those of them that the journal no longer holds; with present 0: 8, if it holds nothing of the record
//! present = 0: [32] commitment
//! else for each present part, ascending: shown: [32] salt, u32 bytes, then these bytes; not shown: [32] p_j
//! ```

use std::fmt;

use super::report::Finding;
use crate::{
    commitment::Committer,
    cursor::Cursor,
    envelope::{ENVELOPE_BYTES, Envelope},
    ids::Commitment,
    limits::RECORD_MAX_BYTES,
    record::{PART_BITS, Part},
    record_proof::{PartLink, PartLinks},
};

/// Bit of `gone` for a record of which nothing but the commitment is left.
const WHOLE: u8 = 1 << 3;

/// One part of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PartBody<'a> {
    /// The record has no such part.
    Absent,
    /// The part as it was hashed.
    Shown {
        /// Under which it was hashed.
        salt: [u8; 32],
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// Only its hash `p_j`.
    Hidden {
        /// `p_j`.
        hash: [u8; 32],
        /// The journal does not hold it either, by the exporter's word.
        gone: bool,
    },
}

impl fmt::Debug for PartBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither salts nor contents are for logs.
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::Shown { bytes, .. } => write!(f, "Shown({} bytes)", bytes.len()),
            Self::Hidden { gone, .. } => write!(f, "Hidden(gone: {gone})"),
        }
    }
}

/// What a file holds of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordBody<'a> {
    /// Its parts. Index: [`Part`].
    Parts([PartBody<'a>; 3]),
    /// Only the commitment.
    Commitment {
        /// `c`.
        commitment: Commitment,
        /// The journal holds no more either, by the exporter's word.
        gone: bool,
    },
}

/// A record of an evidence file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// What the server added.
    pub envelope: Envelope,
    /// The rest.
    pub body: RecordBody<'a>,
}

impl<'a> RecordView<'a> {
    /// Adds the layout's bytes. The parts together are at most [`RECORD_MAX_BYTES`], as in every record.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.envelope.to_bytes());
        match &self.body {
            RecordBody::Commitment { commitment, gone } => {
                out.extend([0, 0, if *gone { WHOLE } else { 0 }]);
                out.extend(commitment.as_bytes());
            }
            RecordBody::Parts(parts) => {
                let bits = |test: fn(&PartBody<'_>) -> bool| {
                    (0..).zip(parts).fold(0_u8, |bits, (j, part)| bits | u8::from(test(part)) << j)
                };
                out.push(bits(|part| !matches!(part, PartBody::Absent)));
                out.push(bits(|part| matches!(part, PartBody::Shown { .. })));
                out.push(bits(|part| matches!(part, PartBody::Hidden { gone: true, .. })));
                for part in parts {
                    match part {
                        PartBody::Absent => (),
                        PartBody::Hidden { hash, .. } => out.extend(hash),
                        PartBody::Shown { salt, bytes } => {
                            out.extend(salt);
                            out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
                            out.extend(*bytes);
                        }
                    }
                }
            }
        }
    }

    /// Bytes of the layout at most, for a record of this many bytes.
    pub(super) fn max_bytes(length: usize) -> usize {
        ENVELOPE_BYTES + 3 + 3 * 36 + length
    }

    /// Bytes of the shown parts together.
    pub fn shown_bytes(&self) -> usize {
        Part::ALL.iter().filter_map(|part| self.shown(*part)).map(<[u8]>::len).sum()
    }

    /// The bytes of a part, if it is shown.
    pub fn shown(&self, part: Part) -> Option<&'a [u8]> {
        let RecordBody::Parts(parts) = &self.body else { return None };
        match parts.get(usize::from(part.number())) {
            Some(PartBody::Shown { bytes, .. }) => Some(bytes),
            _ => None,
        }
    }

    /// One bit for each part that is said to be gone from the journal; all of them for a record of which only the commitment
    /// is left.
    pub fn gone(&self) -> u8 {
        match &self.body {
            RecordBody::Commitment { gone, .. } => u8::from(*gone) * PART_BITS,
            RecordBody::Parts(parts) => (0..)
                .zip(parts)
                .fold(0, |bits, (j, part)| bits | u8::from(matches!(part, PartBody::Hidden { gone: true, .. })) << j),
        }
    }

    /// True if something of it is not shown, though the journal holds it.
    pub fn is_withheld(&self) -> bool {
        match &self.body {
            RecordBody::Commitment { gone, .. } => !gone,
            RecordBody::Parts(parts) => parts.iter().any(|part| matches!(part, PartBody::Hidden { gone: false, .. })),
        }
    }

    /// The record's commitment.
    pub(super) fn commitment(&self, committer: &mut Committer) -> Commitment {
        let parts = match &self.body {
            RecordBody::Commitment { commitment, .. } => return *commitment,
            RecordBody::Parts(parts) => parts,
        };
        let mut hashes = [None; 3];
        for ((hash, body), part) in hashes.iter_mut().zip(parts).zip(Part::ALL) {
            *hash = match body {
                PartBody::Absent => None,
                PartBody::Hidden { hash, .. } => Some(*hash),
                PartBody::Shown { salt, bytes } => Some(committer.part_hash(salt, part, bytes)),
            };
        }
        committer.combine(&hashes)
    }

    /// What the record's own proof says about its parts.
    pub fn links(&self) -> PartLinks {
        match &self.body {
            RecordBody::Commitment { commitment, .. } => PartLinks::Commitment(*commitment),
            RecordBody::Parts(parts) => PartLinks::Parts(parts.map(|part| match part {
                PartBody::Absent => PartLink::Absent,
                PartBody::Shown { salt, .. } => PartLink::Shown(salt),
                PartBody::Hidden { hash, .. } => PartLink::Hidden(hash),
            })),
        }
    }

    pub(super) fn parse(cursor: &mut Cursor<'a>) -> Result<Self, Finding> {
        let envelope = Envelope::from_bytes(cursor.take(ENVELOPE_BYTES)?).map_err(|_| Finding::Envelope)?;
        let (present, shown, gone) = (cursor.u8()?, cursor.u8()?, cursor.u8()?);
        let canonical = if present == 0 {
            shown == 0 && gone & !WHOLE == 0
        } else {
            present & !PART_BITS == 0 && shown & !present == 0 && gone & !(present & !shown) == 0
        };
        let wrong = Finding::Record { seq: envelope.seq };
        if !canonical {
            return Err(wrong);
        }
        if present == 0 {
            let commitment = Commitment::new(cursor.array()?);
            return Ok(Self { envelope, body: RecordBody::Commitment { commitment, gone: gone != 0 } });
        }
        let mut parts = [PartBody::Absent; 3];
        let mut left = RECORD_MAX_BYTES;
        for (j, part) in parts.iter_mut().enumerate().filter(|(j, _)| present >> j & 1 == 1) {
            *part = if shown >> j & 1 == 1 {
                let salt = cursor.array()?;
                let length = cursor.u32()? as usize;
                left = left.checked_sub(length).ok_or(wrong.clone())?;
                PartBody::Shown { salt, bytes: cursor.take(length)? }
            } else {
                PartBody::Hidden { hash: cursor.array()?, gone: gone >> j & 1 == 1 }
            };
        }
        Ok(Self { envelope, body: RecordBody::Parts(parts) })
    }
}
