//! The envelope: what the server adds to a record. 88 bytes, hashed as they stand here.
//!
//! ```text
//!  0 u8  version (1)          24 [16] source
//!  1 u8  flags                40 u64  epoch
//!  2 u16 class                48 u64  source sequence (the sender's, restarts with an epoch)
//!  4 u16 retention class      56 u64  source count (the server's, never restarts)
//!  6 u16 zero                 64 [16] tenant
//!  8 u64 sequence             80 u64  tenant count
//! 16 u64 receipt time (ns)    88
//! ```

use crate::{
    cursor::{Cursor, Short},
    ids::{ClassId, Count, Epoch, ReceiptTime, RetentionId, Seq, SourceId, SourceSeq, TenantId},
};

/// Bytes of an envelope.
pub const ENVELOPE_BYTES: usize = 88;
/// Version of this layout.
pub const ENVELOPE_VERSION: u8 = 1;

/// Flags of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// The commitment was made by a listener of the server; unset: by the agent that read the line.
    pub const COMMITTED_BY_LISTENER: Self = Self(1);
    /// The transport has no acknowledgement: at most once. Unset: exactly once in effect.
    pub const AT_MOST_ONCE: Self = Self(1 << 1);
    /// The source claimed a tenant outside its grant; the record is journaled under its home tenant.
    pub const TENANT_REFUSED: Self = Self(1 << 2);

    const KNOWN: u8 = 0b111;

    /// From the byte of an envelope, if no unknown bit is set.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !Self::KNOWN == 0 { Some(Self(bits)) } else { None }
    }

    /// The byte of an envelope.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What the server adds to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Who committed, how it was delivered, whether the tenant claim was refused.
    pub flags: Flags,
    /// Class of the source.
    pub class: ClassId,
    /// How long it is kept.
    pub retention: RetentionId,
    /// Place in the journal.
    pub seq: Seq,
    /// When the server took it.
    pub receipt_time: ReceiptTime,
    /// Who sent it.
    pub source: SourceId,
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// The sender's number within the epoch.
    pub source_seq: SourceSeq,
    /// The server's number within the source.
    pub source_count: Count,
    /// Whom it concerns.
    pub tenant: TenantId,
    /// The server's number within the tenant.
    pub tenant_count: Count,
}

/// Bytes that are not an envelope of a known version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an envelope of version {ENVELOPE_VERSION}")]
pub struct NotAnEnvelope;

impl From<Short> for NotAnEnvelope {
    fn from(_: Short) -> Self {
        Self
    }
}

impl Envelope {
    /// The 88 bytes that the chain covers.
    pub fn to_bytes(&self) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        let mut rest: &mut [u8] = &mut bytes;
        let mut put = |field: &[u8]| {
            if let Some((slot, tail)) = std::mem::take(&mut rest).split_at_mut_checked(field.len()) {
                slot.copy_from_slice(field);
                rest = tail;
            }
        };
        put(&[ENVELOPE_VERSION, self.flags.bits()]);
        put(&self.class.get().to_be_bytes());
        put(&self.retention.get().to_be_bytes());
        put(&[0, 0]);
        put(&self.seq.get().to_be_bytes());
        put(&self.receipt_time.get().to_be_bytes());
        put(self.source.as_bytes());
        put(&self.epoch.get().to_be_bytes());
        put(&self.source_seq.get().to_be_bytes());
        put(&self.source_count.get().to_be_bytes());
        put(self.tenant.as_bytes());
        put(&self.tenant_count.get().to_be_bytes());
        bytes
    }

    /// Reads an envelope.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotAnEnvelope> {
        let mut cursor = Cursor::new(bytes);
        if bytes.len() != ENVELOPE_BYTES || cursor.u8()? != ENVELOPE_VERSION {
            return Err(NotAnEnvelope);
        }
        let flags = Flags::from_bits(cursor.u8()?).ok_or(NotAnEnvelope)?;
        let class = ClassId::new(cursor.u16()?);
        let retention = RetentionId::new(cursor.u16()?);
        if cursor.u16()? != 0 {
            return Err(NotAnEnvelope);
        }
        Ok(Self {
            flags,
            class,
            retention,
            seq: Seq::new(cursor.u64()?),
            receipt_time: ReceiptTime::new(cursor.u64()?),
            source: SourceId::new(cursor.array()?),
            epoch: Epoch::new(cursor.u64()?),
            source_seq: SourceSeq::new(cursor.u64()?),
            source_count: Count::new(cursor.u64()?),
            tenant: TenantId::new(cursor.array()?),
            tenant_count: Count::new(cursor.u64()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(numbers: [u64; 6], ids: [[u8; 16]; 2], small: [u16; 2], flags in 0_u8..8) {
            let envelope = Envelope {
                flags: Flags::from_bits(flags).unwrap(),
                class: ClassId::new(small[0]),
                retention: RetentionId::new(small[1]),
                seq: Seq::new(numbers[0]),
                receipt_time: ReceiptTime::new(numbers[1]),
                source: SourceId::new(ids[0]),
                epoch: Epoch::new(numbers[2]),
                source_seq: SourceSeq::new(numbers[3]),
                source_count: Count::new(numbers[4]),
                tenant: TenantId::new(ids[1]),
                tenant_count: Count::new(numbers[5]),
            };
            prop_assert_eq!(Envelope::from_bytes(&envelope.to_bytes()), Ok(envelope));
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = Envelope::from_bytes(&bytes);
        }
    }
}
