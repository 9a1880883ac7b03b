//! What links a record to its entry in the tree: the `extra` of a record's own proof, and one record of an evidence file.
//!
//! ```text
//! u8  version (1)
//! [32] chain value before the record
//! [88] envelope
//! u8  present: one bit for each part of the record, bit j for part j; 0 = only the commitment is given
//! u8  shown: those of them whose bytes the reader has
//! present = 0: [32] commitment
//! else for each present part, ascending: shown: [32] salt; not shown: [32] p_j
//! ```

use std::fmt;

use crate::{
    chain,
    commitment::Committer,
    cursor::{Cursor, Short},
    envelope::{ENVELOPE_BYTES, Envelope, NotAnEnvelope},
    hash,
    ids::{ChainHash, Commitment},
    record::{PART_BITS, Part},
};

/// Version of this layout.
pub const RECORD_LINK_VERSION: u8 = 1;
/// Most bytes of this layout.
pub const RECORD_LINK_MAX_BYTES: usize = 1 + 32 + ENVELOPE_BYTES + 2 + 3 * 32;

/// What a proof says about one part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PartLink {
    /// The record has no such part.
    Absent,
    /// The part is shown, under this salt.
    Shown([u8; 32]),
    /// The part is not shown; this is its hash `p_j`.
    Hidden([u8; 32]),
}

impl fmt::Debug for PartLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Salts are not for logs.
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Shown(_) => "Shown(..)",
            Self::Hidden(_) => "Hidden(..)",
        })
    }
}

/// What a proof says about a record's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartLinks {
    /// Each part. Index: [`Part`].
    Parts([PartLink; 3]),
    /// Only the commitment is given.
    Commitment(Commitment),
}

/// Links a record to its entry in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLink {
    /// Chain value before the record.
    pub previous: ChainHash,
    /// What the server added.
    pub envelope: Envelope,
    /// The record's parts.
    pub parts: PartLinks,
}

/// Bytes that link no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordLinkError {
    /// The bytes end early or go on too long.
    #[error("the record's link has another length than it says")]
    Layout,
    /// The layout's version is not known.
    #[error("the record's link has version {0}, this program knows version {RECORD_LINK_VERSION}")]
    Version(u8),
    /// The envelope is none.
    #[error(transparent)]
    Envelope(#[from] NotAnEnvelope),
    /// A bit stands for no part, or a part is shown that is not present.
    #[error("the record's link names parts that no record has")]
    Parts,
    /// The bytes of the parts are not those that the link says are shown.
    #[error("the link says that {} are shown, these are not the parts given", names(*.0))]
    NotGiven(u8),
}

impl From<Short> for RecordLinkError {
    fn from(_: Short) -> Self {
        Self::Layout
    }
}

fn names(bits: u8) -> String {
    let names = Part::ALL.iter().filter(|part| bits >> part.number() & 1 == 1).map(|part| part.name());
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "no parts".to_owned() } else { names.join(", ") }
}

impl PartLinks {
    /// One bit for each part that is shown.
    pub fn shown(&self) -> u8 {
        self.bits(|part| matches!(part, PartLink::Shown(_)))
    }

    /// One bit for each part that the record has; 0 where only the commitment is given.
    pub fn present(&self) -> u8 {
        self.bits(|part| !matches!(part, PartLink::Absent))
    }

    fn bits(&self, test: impl Fn(&PartLink) -> bool) -> u8 {
        let Self::Parts(parts) = self else { return 0 };
        (0..).zip(parts).fold(0, |bits, (j, part)| bits | u8::from(test(part)) << j)
    }
}

impl RecordLink {
    /// The bytes of the layout.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_LINK_MAX_BYTES);
        out.push(RECORD_LINK_VERSION);
        out.extend(self.previous.as_bytes());
        out.extend(self.envelope.to_bytes());
        out.extend([self.parts.present(), self.parts.shown()]);
        match &self.parts {
            PartLinks::Commitment(commitment) => out.extend(commitment.as_bytes()),
            PartLinks::Parts(parts) => {
                for part in parts {
                    match part {
                        PartLink::Absent => (),
                        PartLink::Shown(bytes) | PartLink::Hidden(bytes) => out.extend(bytes),
                    }
                }
            }
        }
        out
    }

    /// Reads the layout, whole.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordLinkError> {
        let mut cursor = Cursor::new(bytes);
        let version = cursor.u8()?;
        if version != RECORD_LINK_VERSION {
            return Err(RecordLinkError::Version(version));
        }
        let previous = ChainHash::new(cursor.array()?);
        let envelope = Envelope::from_bytes(cursor.take(ENVELOPE_BYTES)?)?;
        let (present, shown) = (cursor.u8()?, cursor.u8()?);
        if present & !PART_BITS != 0 || shown & !present != 0 {
            return Err(RecordLinkError::Parts);
        }
        let parts = if present == 0 {
            PartLinks::Commitment(Commitment::new(cursor.array()?))
        } else {
            let mut parts = [PartLink::Absent; 3];
            for (j, part) in parts.iter_mut().enumerate().filter(|(j, _)| present >> j & 1 == 1) {
                let value = cursor.array()?;
                *part = if shown >> j & 1 == 1 { PartLink::Shown(value) } else { PartLink::Hidden(value) };
            }
            PartLinks::Parts(parts)
        };
        if cursor.remaining() != 0 {
            return Err(RecordLinkError::Layout);
        }
        Ok(Self { previous, envelope, parts })
    }

    /// The record's commitment, out of the bytes of its shown parts: exactly those that the link says are shown.
    pub fn commitment(
        &self,
        bytes: [Option<&[u8]>; 3],
        committer: &mut Committer,
    ) -> Result<Commitment, RecordLinkError> {
        let parts = match &self.parts {
            PartLinks::Commitment(commitment) if bytes.iter().all(Option::is_none) => return Ok(*commitment),
            PartLinks::Commitment(_) => return Err(RecordLinkError::NotGiven(0)),
            PartLinks::Parts(parts) => parts,
        };
        let mut hashes = [None; 3];
        for (((hash, link), bytes), part) in hashes.iter_mut().zip(parts).zip(bytes).zip(Part::ALL) {
            *hash = match (link, bytes) {
                (PartLink::Absent, None) => None,
                (PartLink::Hidden(hash), None) => Some(*hash),
                (PartLink::Shown(salt), Some(bytes)) => Some(committer.part_hash(salt, part, bytes)),
                _ => return Err(RecordLinkError::NotGiven(self.parts.shown())),
            };
        }
        Ok(committer.combine(&hashes))
    }

    /// The record's chain value, which is its entry in the tree. See [`RecordLink::commitment`].
    pub fn chain_value(
        &self,
        bytes: [Option<&[u8]>; 3],
        committer: &mut Committer,
    ) -> Result<ChainHash, RecordLinkError> {
        let commitment = self.commitment(bytes, committer)?;
        Ok(chain::link(&mut hash::CHAIN.hasher(), &self.previous, &self.envelope, &commitment))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        envelope::Flags,
        ids::{BatchSecret, ClassId, Count, Epoch, ReceiptTime, RetentionId, Seq, SourceId, SourceSeq, TenantId},
        record::RecordRef,
    };

    fn envelope() -> Envelope {
        Envelope {
            flags: Flags::default(),
            class: ClassId::new(3),
            retention: RetentionId::new(3),
            seq: Seq::new(7),
            receipt_time: ReceiptTime::new(8),
            source: SourceId::new([9; 16]),
            epoch: Epoch::new(10),
            source_seq: SourceSeq::new(11),
            source_count: Count::new(12),
            tenant: TenantId::new([13; 16]),
            tenant_count: Count::new(14),
        }
    }

    fn any_parts() -> impl Strategy<Value = PartLinks> {
        let part = prop_oneof![
            Just(PartLink::Absent),
            any::<[u8; 32]>().prop_map(PartLink::Shown),
            any::<[u8; 32]>().prop_map(PartLink::Hidden)
        ];
        let parts = proptest::array::uniform3(part).prop_map(PartLinks::Parts);
        let parts = parts.prop_filter("a record has a part", |parts| parts.present() != 0);
        prop_oneof![any::<[u8; 32]>().prop_map(|c| PartLinks::Commitment(Commitment::new(c))), parts]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(previous: [u8; 32], parts in any_parts()) {
            let link = RecordLink { previous: ChainHash::new(previous), envelope: envelope(), parts };
            let bytes = link.encode();
            prop_assert!(bytes.len() <= RECORD_LINK_MAX_BYTES);
            prop_assert_eq!(RecordLink::parse(&bytes), Ok(link));
            prop_assert!(RecordLink::parse(&bytes[..bytes.len() - 1]).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = RecordLink::parse(&bytes);
        }
    }

    #[test]
    fn a_hidden_part_leaves_the_same_chain_value() {
        let secret = BatchSecret::new([7; 32]);
        let record = RecordRef { core: Some(b"core"), personal: Some(b"personal"), content: None };
        let mut committer = Committer::default();
        let c = committer.commit(&secret, 5, record);
        let previous = ChainHash::new([1; 32]);
        let expected = chain::link_all(previous, [envelope()], [&c]);
        let salt = |committer: &mut Committer, part| committer.salt(&secret, 5, part);
        let core = PartLink::Shown(salt(&mut committer, Part::Core));
        let personal_salt = salt(&mut committer, Part::Personal);
        let personal = committer.part_hash(&personal_salt, Part::Personal, b"personal");
        let shown = [core, PartLink::Shown(personal_salt), PartLink::Absent];
        let hidden = [core, PartLink::Hidden(personal), PartLink::Absent];
        let link = |parts| RecordLink { previous, envelope: envelope(), parts };
        let mut value = |parts, bytes| link(parts).chain_value(bytes, &mut committer);
        assert_eq!(value(PartLinks::Parts(shown), [record.core, record.personal, None]), Ok(expected));
        assert_eq!(value(PartLinks::Parts(hidden), [record.core, None, None]), Ok(expected));
        assert_eq!(value(PartLinks::Commitment(c), [None; 3]), Ok(expected));
        assert_ne!(value(PartLinks::Parts(shown), [record.core, Some(b"other"), None]), Ok(expected));
        assert!(value(PartLinks::Parts(hidden), [record.core, record.personal, None]).is_err());
        assert!(value(PartLinks::Parts(shown), [record.core, None, None]).is_err());
        assert!(value(PartLinks::Commitment(c), [record.core, None, None]).is_err());
    }

    #[test]
    fn salts_are_not_shown() {
        assert!(!format!("{:?}", PartLink::Shown([171; 32])).contains("171"));
    }
}
