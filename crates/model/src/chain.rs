//! The journal's chain of BLAKE3.
//!
//! ```text
//! h_-1 = D(genesis, u16 length || origin || predecessor's last cosigned note hash, or 32 zeros)
//! h_i  = D(chain, h_(i-1) || envelope_i[88] || c_i[32])
//! ```

use crate::{
    envelope::{ENVELOPE_BYTES, Envelope},
    hash,
    ids::{ChainHash, Commitment, Origin},
};

/// The value before the first record of a journal.
pub fn genesis(origin: &Origin) -> ChainHash {
    let predecessor = origin.predecessor().map_or([0; 32], |note| *note.as_bytes());
    let origin = origin.as_str().as_bytes();
    // An origin has at most 255 bytes.
    let length = u16::try_from(origin.len()).unwrap_or(u16::MAX);
    let mut hasher = hash::GENESIS.hasher();
    hasher.update(&length.to_be_bytes()).update(origin).update(&predecessor);
    ChainHash::new(*hasher.finalize().as_bytes())
}

/// The value after the records of these envelopes and commitments, in order.
pub fn link_all<'a>(
    start: ChainHash,
    envelopes: impl IntoIterator<Item = Envelope>,
    commitments: impl IntoIterator<Item = &'a Commitment>,
) -> ChainHash {
    link_each(start, envelopes, commitments, |_| ())
}

/// As [`link_all`]; `linked` gets the value after each record.
pub fn link_each<'a>(
    start: ChainHash,
    envelopes: impl IntoIterator<Item = Envelope>,
    commitments: impl IntoIterator<Item = &'a Commitment>,
    mut linked: impl FnMut(&ChainHash),
) -> ChainHash {
    let mut hasher = hash::CHAIN.hasher();
    envelopes.into_iter().zip(commitments).fold(start, |previous, (envelope, commitment)| {
        let value = link(&mut hasher, &previous, &envelope, commitment);
        linked(&value);
        value
    })
}

/// The value after one record; `hasher` is that of the chain's context.
pub(crate) fn link(
    hasher: &mut blake3::Hasher,
    previous: &ChainHash,
    envelope: &Envelope,
    commitment: &Commitment,
) -> ChainHash {
    let mut input = [0_u8; 32 + ENVELOPE_BYTES + 32];
    let (first, rest) = input.split_at_mut(32);
    let (second, third) = rest.split_at_mut(ENVELOPE_BYTES);
    first.copy_from_slice(previous.as_bytes());
    second.copy_from_slice(&envelope.to_bytes());
    third.copy_from_slice(commitment.as_bytes());
    ChainHash::new(*hasher.reset().update(&input).finalize().as_bytes())
}
