//! Keys and values of the database's column families. Numbers are big-endian, so that keys sort by them.
//!
//! ```text
//! meta     "format" -> text    "origin" -> text    "head" -> u8 version, u64 size, [32] chain, u64 receipt time, checksum
//! tail     u64 first sequence -> entry (sigillo_model::entry)
//! batches  [16] source, u64 epoch, u64 first source sequence -> u64 first sequence
//! sources  [16] source -> u8 version, u64 epoch, u64 next sequence, [32] head a_b, u64 count, checksum
//! tenants  [16] tenant -> u8 version, u64 count, checksum
//! ```
//!
//! Everything but `tail`, and the format and origin in `meta`, follows from the entries; the local verifier derives it
//! again and compares.

use sigillo_model::{
    entry::checksum,
    ids::{BatchHash, ChainHash, Count, Epoch, ReceiptTime, SourceId, SourceSeq},
    state::SourceState,
};

use crate::frame::Head;

/// What `meta/format` says in a journal of this version.
pub(crate) const FORMAT: &str = "sigillo journal 1";
/// Keys of `meta`.
pub(crate) const FORMAT_KEY: &[u8] = b"format";
pub(crate) const ORIGIN_KEY: &[u8] = b"origin";
pub(crate) const HEAD_KEY: &[u8] = b"head";

const VALUE_VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 32 + 8 + 8;
const SOURCE_BYTES: usize = 1 + 8 + 8 + 32 + 8 + 8;
const TENANT_BYTES: usize = 1 + 8 + 8;

/// A column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Meta,
    Tail,
    Batches,
    Sources,
    Tenants,
}

impl Table {
    pub(crate) const ALL: [Self; 5] = [Self::Meta, Self::Tail, Self::Batches, Self::Sources, Self::Tenants];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Tail => "tail",
            Self::Batches => "batches",
            Self::Sources => "sources",
            Self::Tenants => "tenants",
        }
    }
}

/// Key in `tail`.
pub(crate) fn tail_key(seq: u64) -> [u8; 8] {
    seq.to_be_bytes()
}

/// Reads a number that fills its bytes: a key of `tail`, a value of `batches`.
pub(crate) fn read_u64(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// Key in `batches`.
pub(crate) fn batch_key(source: SourceId, epoch: Epoch, first: SourceSeq) -> [u8; 32] {
    let mut key = [0; 32];
    let (id, numbers) = key.split_at_mut(16);
    let (high, low) = numbers.split_at_mut(8);
    id.copy_from_slice(source.as_bytes());
    high.copy_from_slice(&epoch.get().to_be_bytes());
    low.copy_from_slice(&first.get().to_be_bytes());
    key
}

/// Value of `meta/head`.
pub(crate) fn encode_head(head: &Head) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES);
    out.push(VALUE_VERSION);
    out.extend(head.size.to_be_bytes());
    out.extend(head.chain.as_bytes());
    out.extend(head.receipt_time.get().to_be_bytes());
    sealed(out)
}

/// Reads the value of `meta/head`.
pub(crate) fn decode_head(bytes: &[u8]) -> Option<Head> {
    let mut fields = Fields(unsealed(bytes, HEAD_BYTES)?);
    Some(Head {
        size: fields.u64()?,
        chain: ChainHash::new(fields.array()?),
        receipt_time: ReceiptTime::new(fields.u64()?),
    })
}

/// Value of `sources`.
pub(crate) fn encode_source(state: &SourceState) -> Vec<u8> {
    let mut out = Vec::with_capacity(SOURCE_BYTES);
    out.push(VALUE_VERSION);
    out.extend(state.epoch.get().to_be_bytes());
    out.extend(state.next.get().to_be_bytes());
    out.extend(state.head.as_bytes());
    out.extend(state.count.get().to_be_bytes());
    sealed(out)
}

/// Reads a value of `sources`.
pub(crate) fn decode_source(bytes: &[u8]) -> Option<SourceState> {
    let mut fields = Fields(unsealed(bytes, SOURCE_BYTES)?);
    Some(SourceState {
        epoch: Epoch::new(fields.u64()?),
        next: SourceSeq::new(fields.u64()?),
        head: BatchHash::new(fields.array()?),
        count: Count::new(fields.u64()?),
    })
}

/// Value of `tenants`.
pub(crate) fn encode_tenant(count: Count) -> Vec<u8> {
    let mut out = Vec::with_capacity(TENANT_BYTES);
    out.push(VALUE_VERSION);
    out.extend(count.get().to_be_bytes());
    sealed(out)
}

/// Reads a value of `tenants`.
pub(crate) fn decode_tenant(bytes: &[u8]) -> Option<Count> {
    Fields(unsealed(bytes, TENANT_BYTES)?).u64().map(Count::new)
}

fn sealed(mut value: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&value);
    value.extend(sum);
    value
}

/// The fields of a value of the right length, version and checksum.
fn unsealed(bytes: &[u8], length: usize) -> Option<&[u8]> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    let (version, fields) = body.split_first()?;
    (bytes.len() == length && checksum(body) == *sum && *version == VALUE_VERSION).then_some(fields)
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_and_flips_are_found() {
        let head = Head { size: 7, chain: ChainHash::new([3; 32]), receipt_time: ReceiptTime::new(9) };
        let source = SourceState {
            epoch: Epoch::new(1),
            next: SourceSeq::new(2),
            head: BatchHash::new([4; 32]),
            count: Count::new(5),
        };
        assert_eq!(decode_head(&encode_head(&head)), Some(head));
        assert_eq!(decode_source(&encode_source(&source)), Some(source));
        assert_eq!(decode_tenant(&encode_tenant(Count::new(8))), Some(Count::new(8)));
        let bytes = encode_source(&source);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(decode_source(&flipped), None, "byte {at}");
        }
    }
}
