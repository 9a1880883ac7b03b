//! Salted commitments to records.
//!
//! ```text
//! salt_j = D(salt, batch_secret[32] || u32 index in the batch || u8 j)
//! p_j    = D(part, salt_j || u8 j || u64 length || bytes)
//! c      = D(commit, u8 bitmap of present parts || p of each present part, ascending)
//! ```

use crate::{
    hash,
    ids::{BatchSecret, Commitment},
    record::{Part, RecordRef},
};

/// Commits to the record at `index` of the batch that has this secret.
pub fn commit(secret: &BatchSecret, index: u32, record: RecordRef<'_>) -> Commitment {
    let mut input = [0_u8; 1 + 3 * 32];
    let [bitmap, hashes @ ..] = &mut input;
    *bitmap = record.bitmap();
    let mut length = 1;
    let present = Part::ALL.into_iter().filter_map(|part| Some((part, record.part(part)?)));
    for ((part, bytes), slot) in present.zip(hashes.chunks_exact_mut(32)) {
        slot.copy_from_slice(&part_hash(&salt(secret, index, part), part, bytes));
        length += 32;
    }
    Commitment::new(hash::COMMIT.hash(input.get(..length).unwrap_or(&input)))
}

/// The salt of one part of the record at `index`.
pub fn salt(secret: &BatchSecret, index: u32, part: Part) -> [u8; 32] {
    let mut input = [0_u8; 37];
    let fields = secret.expose().iter().copied().chain(index.to_be_bytes()).chain([part.number()]);
    input.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    hash::SALT.hash(&input)
}

/// The hash of one part under its salt.
pub fn part_hash(salt: &[u8; 32], part: Part, bytes: &[u8]) -> [u8; 32] {
    let mut head = [0_u8; 41];
    let fields = salt.iter().copied().chain([part.number()]).chain((bytes.len() as u64).to_be_bytes());
    head.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    *hash::PART.hasher().update(&head).update(bytes).finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_matters() {
        let secret = BatchSecret::new([7; 32]);
        let record = RecordRef { core: Some(b"core"), personal: None, content: Some(b"content") };
        let c = commit(&secret, 3, record);
        assert_eq!(c, commit(&secret, 3, record));
        assert_ne!(c, commit(&BatchSecret::new([8; 32]), 3, record));
        assert_ne!(c, commit(&secret, 4, record));
        assert_ne!(c, commit(&secret, 3, RecordRef { personal: Some(b""), ..record }));
        assert_ne!(c, commit(&secret, 3, RecordRef { core: None, personal: Some(b"core"), ..record }));
        assert_ne!(c, commit(&secret, 3, RecordRef { core: Some(b"corf"), ..record }));
    }
}
