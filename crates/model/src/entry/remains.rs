//! What remains of the records of an entry of which something was erased or purged.
//!
//! ```text
//! count x u8 shape       bits 0 to 2: this part is kept; bits 3 to 5: part j (bit 3 + j) is gone, its p_j stays;
//!                        no part has both. 0: the record was erased whole; 64: it was purged
//! count x [32] hashes    shape 0 or 64: c; else for each part, ascending: its salt if kept, its p_j if gone
//! ```
//!
//! At least one part of one record is gone. The entry's frame holds the lengths and bytes of what is kept, laid out as in a
//! block; nothing kept, no frame.

use std::{borrow::Cow, fmt, slice};

use crate::{
    block::{self, Block, Records},
    commitment::Committer,
    cursor::Cursor,
    entry::{Entry, EntryError, Salts},
    ids::{BatchSecret, Commitment, PartHash, Salt},
    record::{PART_BITS, Part, RecordRef},
};

const HASH_BYTES: usize = 32;
/// Shape of a record that was erased whole, and of one that was purged.
const ERASED: u8 = 0;
const PURGED: u8 = 1 << 6;
/// zstd's level for what is kept.
const COMPRESSION: i32 = 3;

/// Parts of a record that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Gone(u8);

impl Gone {
    /// All that the record had is there.
    pub const NOTHING: Self = Self(0);
    /// The whole record is gone.
    pub const RECORD: Self = Self(PART_BITS);
    /// The whole record is gone, for its time was over.
    pub const PURGED: Self = Self(PART_BITS | 1 << 3);

    /// From a bitmap of parts, bit `j`: [`Part`] `j` is gone; with bit 3 if the record was purged.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !PART_BITS == 0 || bits == Self::PURGED.0 { Some(Self(bits)) } else { None }
    }

    /// One part.
    pub const fn part(part: Part) -> Self {
        Self(1 << part.number())
    }

    /// The bitmap.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// What is gone in either.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is gone here and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True if this part is gone.
    pub const fn has(self, part: Part) -> bool {
        self.0 >> part.number() & 1 == 1
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::RECORD => return f.write_str("record"),
            Self::PURGED => return f.write_str("purged"),
            _ => (),
        }
        let names = Part::ALL.into_iter().filter(|part| self.has(*part)).map(Part::name);
        f.write_str(&names.collect::<Vec<_>>().join(","))
    }
}

/// What an entry holds of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held<'a> {
    /// Its parts, or what stands for them. Index: [`Part`].
    Parts([HeldPart<'a>; 3]),
    /// It was erased whole; its commitment stays.
    Erased(Commitment),
    /// It was purged; its commitment stays.
    Purged(Commitment),
}

/// What an entry holds of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldPart<'a> {
    /// The record never had it.
    Absent,
    /// It is here.
    Kept {
        /// Its salt.
        salt: Salt,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// It is gone; its hash stays.
    Gone(PartHash),
}

impl<'a> Held<'a> {
    /// The bytes of a part that is kept.
    pub fn part(&self, part: Part) -> Option<&'a [u8]> {
        match self.held(part) {
            HeldPart::Kept { bytes, .. } => Some(bytes),
            HeldPart::Absent | HeldPart::Gone(_) => None,
        }
    }

    /// What stands for a part; absent where only the commitment stays.
    pub fn held(&self, part: Part) -> HeldPart<'a> {
        let Self::Parts([core, personal, content]) = self else { return HeldPart::Absent };
        match part {
            Part::Core => *core,
            Part::Personal => *personal,
            Part::Content => *content,
        }
    }

    /// What is gone.
    pub fn gone(&self) -> Gone {
        match self {
            Self::Erased(_) => Gone::RECORD,
            Self::Purged(_) => Gone::PURGED,
            Self::Parts(_) => Part::ALL
                .into_iter()
                .filter(|part| matches!(self.held(*part), HeldPart::Gone(_)))
                .fold(Gone::NOTHING, |gone, part| gone.with(Gone::part(part))),
        }
    }
}

/// What stays of the records of a reduced entry besides the bytes that are kept. Never shown: it holds salts.
#[derive(Clone, PartialEq, Eq)]
pub struct Remains<'a> {
    shapes: Cow<'a, [u8]>,
    hashes: Cow<'a, [u8]>,
}

impl fmt::Debug for Remains<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remains").field("shapes", &self.shapes).finish_non_exhaustive()
    }
}

impl<'a> Remains<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>, count: u32) -> Result<Self, EntryError> {
        let shapes = cursor.take(count as usize)?;
        let parts = |shape: u8| shape >> 6 == 0 && kept(shape) & lost(shape) == 0;
        if shapes.iter().any(|shape| *shape != PURGED && !parts(*shape)) {
            return Err(EntryError::NotCanonical("shape of a record"));
        }
        if shapes.iter().all(|shape| *shape & !PART_BITS == 0 && *shape != ERASED) {
            return Err(EntryError::NotCanonical("version: nothing is gone"));
        }
        let hashes: usize = shapes.iter().map(|shape| hashes_of(*shape)).sum();
        Ok(Self { shapes: Cow::Borrowed(shapes), hashes: Cow::Borrowed(cursor.take(hashes * HASH_BYTES)?) })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.shapes);
        out.extend_from_slice(&self.hashes);
    }

    /// True if any part of any record is kept.
    pub(super) fn keeps_any(&self) -> bool {
        self.shapes.iter().any(|shape| kept(*shape) != 0)
    }

    pub(super) fn shapes(&self) -> &[u8] {
        &self.shapes
    }

    pub(super) fn gone(&self, index: usize) -> Gone {
        match self.shapes.get(index) {
            Some(&ERASED) => Gone::RECORD,
            Some(&PURGED) => Gone::PURGED,
            Some(shape) => Gone(lost(*shape)),
            None => Gone::NOTHING,
        }
    }
}

const fn kept(shape: u8) -> u8 {
    shape & PART_BITS
}

const fn lost(shape: u8) -> u8 {
    shape >> 3 & PART_BITS
}

const fn hashes_of(shape: u8) -> usize {
    match shape {
        ERASED | PURGED => 1,
        _ => shape.count_ones() as usize,
    }
}

/// What an entry holds of each record, in order.
pub struct HeldRecords<'a> {
    records: Records<'a>,
    salts: SaltSource<'a>,
}

enum SaltSource<'a> {
    Secret { secret: &'a BatchSecret, index: u32, committer: Box<Committer> },
    Remains { shapes: slice::Iter<'a, u8>, hashes: &'a [u8] },
}

impl<'a> Iterator for HeldRecords<'a> {
    type Item = Held<'a>;

    fn next(&mut self) -> Option<Held<'a>> {
        let record = self.records.next()?;
        match &mut self.salts {
            SaltSource::Secret { secret, index, committer } => {
                let parts = Part::ALL.map(|part| match record.part(part) {
                    Some(bytes) => HeldPart::Kept { salt: Salt::new(committer.salt(secret, *index, part)), bytes },
                    None => HeldPart::Absent,
                });
                *index = index.wrapping_add(1);
                Some(Held::Parts(parts))
            }
            SaltSource::Remains { shapes, hashes } => held(*shapes.next()?, record, hashes),
        }
    }
}

/// What remains of one record, taking its hashes from the front of `hashes`.
fn held<'a>(shape: u8, record: RecordRef<'a>, hashes: &mut &[u8]) -> Option<Held<'a>> {
    let mut next = || {
        let (hash, rest) = hashes.split_first_chunk::<HASH_BYTES>()?;
        *hashes = rest;
        Some(*hash)
    };
    match shape {
        ERASED => return next().map(Commitment::new).map(Held::Erased),
        PURGED => return next().map(Commitment::new).map(Held::Purged),
        _ => (),
    }
    let mut parts = [HeldPart::Absent; 3];
    for (part, slot) in Part::ALL.into_iter().zip(&mut parts) {
        if let Some(bytes) = record.part(part) {
            *slot = HeldPart::Kept { salt: Salt::new(next()?), bytes };
        } else if Gone(lost(shape)).has(part) {
            *slot = HeldPart::Gone(PartHash::new(next()?));
        }
    }
    Some(Held::Parts(parts))
}

/// An entry after something was taken out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduction {
    /// The reduced entry, as stored.
    pub bytes: Vec<u8>,
    /// Records of which something was taken now.
    pub records: u32,
    /// Parts that were taken now.
    pub parts: u32,
    /// Their bytes.
    pub payload_bytes: u64,
}

impl Entry<'_> {
    /// What it holds of each record, in order. `block` is [`Entry::block`].
    pub fn held<'b>(&'b self, block: &Block<'b>) -> HeldRecords<'b> {
        let salts = match &self.salts {
            Salts::Secret(secret) => SaltSource::Secret { secret, index: 0, committer: Box::default() },
            Salts::Remains(remains) => SaltSource::Remains { shapes: remains.shapes.iter(), hashes: &remains.hashes },
        };
        HeldRecords { records: block.records(), salts }
    }

    /// Takes out what `what` names, given each record's place and what is held of it. `None` if nothing of that is there. A
    /// record taken out whole leaves its commitment, a single part its hash. `block` is [`Entry::block`].
    pub fn reduce(&self, block: &Block<'_>, mut what: impl FnMut(usize, &Held<'_>) -> Gone) -> Option<Reduction> {
        let mut committer = Committer::default();
        let mut builder = Builder::default();
        let (mut records, mut parts, mut payload_bytes) = (0, 0, 0);
        for (index, before) in self.held(block).enumerate() {
            let after = without(&mut committer, &before, what(index, &before));
            if after != before {
                records += 1;
                let taken = Part::ALL.into_iter().filter(|part| after.part(*part).is_none());
                for bytes in taken.filter_map(|part| before.part(part)) {
                    parts += 1;
                    payload_bytes += bytes.len() as u64;
                }
            }
            builder.push(&after);
        }
        if records == 0 {
            return None;
        }
        let content = builder.content();
        let compressed = if content.is_empty() { Vec::new() } else { block::compress(&content, COMPRESSION) };
        let remains = Remains { shapes: Cow::Owned(builder.shapes), hashes: Cow::Owned(builder.hashes) };
        let reduced = Entry {
            salts: Salts::Remains(remains),
            // Less than the block that it comes from, which is at most BLOCK_MAX_BYTES.
            block_bytes: u32::try_from(content.len()).unwrap_or(u32::MAX),
            compressed: &compressed,
            tenants: self.tenants.clone(),
            runs: self.runs.clone(),
            ..*self
        };
        Some(Reduction { bytes: reduced.encode(), records, parts, payload_bytes })
    }
}

/// What stays of a record when these parts are taken.
fn without<'a>(committer: &mut Committer, before: &Held<'a>, take: Gone) -> Held<'a> {
    if let Held::Erased(_) | Held::Purged(_) = before {
        return before.clone();
    }
    match take {
        Gone::RECORD => return Held::Erased(committer.commit_held(before)),
        Gone::PURGED => return Held::Purged(committer.commit_held(before)),
        _ => (),
    }
    Held::Parts(Part::ALL.map(|part| match before.held(part) {
        HeldPart::Kept { salt, bytes } if take.has(part) => {
            HeldPart::Gone(PartHash::new(committer.part_hash(salt.expose(), part, bytes)))
        }
        other => other,
    }))
}

/// Collects what remains, record by record.
#[derive(Default)]
struct Builder {
    shapes: Vec<u8>,
    hashes: Vec<u8>,
    lengths: [Vec<u8>; 3],
    parts: [Vec<u8>; 3],
}

impl Builder {
    fn push(&mut self, held: &Held<'_>) {
        if let Held::Erased(commitment) | Held::Purged(commitment) = held {
            self.shapes.push(if matches!(held, Held::Purged(_)) { PURGED } else { ERASED });
            self.hashes.extend(commitment.as_bytes());
            return;
        }
        let mut shape = 0;
        for ((part, lengths), bytes) in Part::ALL.into_iter().zip(&mut self.lengths).zip(&mut self.parts) {
            match held.held(part) {
                HeldPart::Absent => (),
                HeldPart::Kept { salt, bytes: kept } => {
                    shape |= 1 << part.number();
                    self.hashes.extend(salt.expose());
                    // At most RECORD_MAX_BYTES.
                    lengths.extend(u32::try_from(kept.len()).unwrap_or(u32::MAX).to_be_bytes());
                    bytes.extend_from_slice(kept);
                }
                HeldPart::Gone(hash) => {
                    shape |= 1 << (3 + part.number());
                    self.hashes.extend(hash.as_bytes());
                }
            }
        }
        self.shapes.push(shape);
    }

    /// The lengths and bytes of what is kept.
    fn content(&mut self) -> Vec<u8> {
        let mut content = Vec::new();
        self.lengths.iter_mut().chain(&mut self.parts).for_each(|column| content.append(column));
        content
    }
}

#[cfg(test)]
mod tests;
