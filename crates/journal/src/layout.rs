//! Keys and values of the database's column families. Numbers are big-endian, so that keys sort by them.
//!
//! ```text
//! meta     "format" -> text    "origin" -> text
//!          "head" -> u8 version, u64 size, [32] chain, u64 receipt time, [32] root, checksum      version 1 has no root
//! tail     u64 first sequence -> entry (sigillo_model::entry)
//! batches  [16] source, u64 epoch, u64 first source sequence -> u64 first sequence
//! sources  [16] source -> u8 version, u64 epoch, u64 next sequence, [32] head a_b, u64 count, checksum
//! tenants  [16] tenant -> u8 version, u64 count, checksum
//! tree     u8 level, u64 index -> [32] hash, checksum      level 0: chain value before record 256 index, from index 1
//! checkpoints  u64 size -> signed note, checksum
//! pending  u64 sequence of an order or a purge -> u8 version, u8 stage, u64 next, u64 records, u64 parts, u64 bytes, checksum
//!          "c" u16 retention class -> u8 version, u64 sequence of its newest retention statement, u64 seconds to keep,
//!          u64 purged up to, checksum
//! ```
//!
//! Everything but `tail`, `checkpoints`, the removals under way in `pending`, and the format and origin in `meta` follows from the entries; the local verifier derives
//! it again and compares.

use sigillo_model::{
    entry::checksum,
    ids::{BatchHash, ChainHash, Count, Epoch, NodeHash, ReceiptTime, RetentionId, SourceId, SourceSeq},
    state::SourceState,
    tree::TreeRow,
};

use crate::frame::Head;

/// What `meta/format` says in a journal of this version.
pub(crate) const FORMAT: &str = "sigillo journal 2";
/// What it says in a journal without a tree, which is upgraded when it is opened.
pub(crate) const FORMAT_1: &str = "sigillo journal 1";
/// Keys of `meta`.
pub(crate) const FORMAT_KEY: &[u8] = b"format";
pub(crate) const ORIGIN_KEY: &[u8] = b"origin";
pub(crate) const PREDECESSOR_KEY: &[u8] = b"predecessor";
pub(crate) const HEAD_KEY: &[u8] = b"head";

const VALUE_VERSION: u8 = 1;
const HEAD_VERSION: u8 = 2;
const HEAD_BYTES: usize = 1 + 8 + 32 + 8 + 32 + 8;
const HEAD_1_BYTES: usize = 1 + 8 + 32 + 8 + 8;
const SOURCE_BYTES: usize = 1 + 8 + 8 + 32 + 8 + 8;
const TENANT_BYTES: usize = 1 + 8 + 8;
const PENDING_BYTES: usize = 1 + 1 + 4 * 8 + 8;
const CLASS_BYTES: usize = 1 + 3 * 8 + 8;
/// First byte of the key of a class in `pending`; its length tells it from a sequence.
const CLASS_KEY: u8 = b'c';
/// Bytes of a row of `tree`: key and value.
pub(crate) const TREE_ROW_BYTES: usize = 9 + 32 + 8;

/// A column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Meta,
    Tail,
    Batches,
    Sources,
    Tenants,
    Tree,
    Checkpoints,
    Pending,
}

impl Table {
    pub(crate) const ALL: [Self; 8] = [
        Self::Meta,
        Self::Tail,
        Self::Batches,
        Self::Sources,
        Self::Tenants,
        Self::Tree,
        Self::Checkpoints,
        Self::Pending,
    ];
    /// Those of a journal of the first format.
    pub(crate) const FORMAT_1: [Self; 5] = [Self::Meta, Self::Tail, Self::Batches, Self::Sources, Self::Tenants];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Tail => "tail",
            Self::Batches => "batches",
            Self::Sources => "sources",
            Self::Tenants => "tenants",
            Self::Tree => "tree",
            Self::Checkpoints => "checkpoints",
            Self::Pending => "pending",
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
    out.push(HEAD_VERSION);
    out.extend(head.size.to_be_bytes());
    out.extend(head.chain.as_bytes());
    out.extend(head.receipt_time.get().to_be_bytes());
    out.extend(head.root.as_bytes());
    sealed(out)
}

/// Value of `meta/head` in a journal of the first format.
#[cfg(test)]
pub(crate) fn encode_head_1(head: &StoredHead) -> Vec<u8> {
    let mut out = vec![VALUE_VERSION];
    out.extend(head.size.to_be_bytes());
    out.extend(head.chain.as_bytes());
    out.extend(head.receipt_time.get().to_be_bytes());
    sealed(out)
}

/// What `meta/head` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredHead {
    pub(crate) size: u64,
    pub(crate) chain: ChainHash,
    pub(crate) receipt_time: ReceiptTime,
    /// Root of the tree; none in a journal of the first format.
    pub(crate) root: Option<NodeHash>,
}

/// Reads the value of `meta/head`, of either format.
pub(crate) fn decode_head(bytes: &[u8]) -> Option<StoredHead> {
    if let Some(fields) = unsealed(bytes, HEAD_VERSION, HEAD_BYTES) {
        let mut fields = Fields(fields);
        let head = fields.head()?;
        return Some(StoredHead { root: Some(NodeHash::new(fields.array()?)), ..head });
    }
    Fields(unsealed(bytes, VALUE_VERSION, HEAD_1_BYTES)?).head()
}

/// Key in `tree`.
pub(crate) fn tree_key(level: u8, index: u64) -> [u8; 9] {
    let mut key = [level; 9];
    let (_, number) = key.split_at_mut(1);
    number.copy_from_slice(&index.to_be_bytes());
    key
}

/// Reads a key of `tree`: level and index.
pub(crate) fn decode_tree_key(key: &[u8]) -> Option<(u8, u64)> {
    let (level, index) = key.split_first()?;
    Some((*level, read_u64(index)?))
}

/// A row of `tree`: its table, key and value.
pub(crate) fn tree_row(row: &TreeRow) -> (Table, Vec<u8>, Vec<u8>) {
    let mut value = Vec::with_capacity(32 + 8);
    value.extend(row.hash);
    (Table::Tree, tree_key(row.level, row.index).to_vec(), sealed(value))
}

/// Reads a value of `tree`.
pub(crate) fn decode_hash(bytes: &[u8]) -> Option<[u8; 32]> {
    decode_note(bytes)?.try_into().ok()
}

/// Value of `checkpoints`.
pub(crate) fn encode_note(note: &[u8]) -> Vec<u8> {
    sealed(note.to_vec())
}

/// Reads a value of `checkpoints`.
pub(crate) fn decode_note(bytes: &[u8]) -> Option<&[u8]> {
    let (note, sum) = bytes.split_last_chunk::<8>()?;
    (checksum(note) == *sum).then_some(note)
}

/// How far a removal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Entries are being replaced by reduced ones.
    Rewriting,
    /// All are replaced; what stood before is being removed from the database's files.
    Removing,
}

/// A removal under way: a value of `pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingRow {
    pub(crate) stage: Stage,
    /// Records before this sequence are done.
    pub(crate) next: u64,
    /// Records, parts and bytes taken so far.
    pub(crate) records: u64,
    pub(crate) parts: u64,
    pub(crate) bytes: u64,
}

impl PendingRow {
    pub(crate) const NEW: Self = Self { stage: Stage::Rewriting, next: 0, records: 0, parts: 0, bytes: 0 };

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VALUE_VERSION, u8::from(self.stage == Stage::Removing)];
        out.extend([self.next, self.records, self.parts, self.bytes].map(u64::to_be_bytes).as_flattened());
        sealed(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(unsealed(bytes, VALUE_VERSION, PENDING_BYTES)?);
        let stage = match fields.array()? {
            [0] => Stage::Rewriting,
            [1] => Stage::Removing,
            _ => return None,
        };
        let (next, records) = (fields.u64()?, fields.u64()?);
        Some(Self { stage, next, records, parts: fields.u64()?, bytes: fields.u64()? })
    }
}

/// What is in force for a retention class: a value of `pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClassRow {
    /// Sequence of the newest retention statement.
    pub(crate) retention: u64,
    pub(crate) keep_s: u64,
    /// End of the newest purge.
    pub(crate) purged_to: u64,
}

impl ClassRow {
    pub(crate) fn key(class: RetentionId) -> [u8; 3] {
        let [high, low] = class.get().to_be_bytes();
        [CLASS_KEY, high, low]
    }

    /// The class whose key this is.
    pub(crate) fn class(key: &[u8]) -> Option<RetentionId> {
        match key {
            [CLASS_KEY, high, low] => Some(RetentionId::new(u16::from_be_bytes([*high, *low]))),
            _ => None,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VALUE_VERSION];
        out.extend([self.retention, self.keep_s, self.purged_to].map(u64::to_be_bytes).as_flattened());
        sealed(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(unsealed(bytes, VALUE_VERSION, CLASS_BYTES)?);
        Some(Self { retention: fields.u64()?, keep_s: fields.u64()?, purged_to: fields.u64()? })
    }
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
    let mut fields = Fields(unsealed(bytes, VALUE_VERSION, SOURCE_BYTES)?);
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
    Fields(unsealed(bytes, VALUE_VERSION, TENANT_BYTES)?).u64().map(Count::new)
}

fn sealed(mut value: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&value);
    value.extend(sum);
    value
}

/// The fields of a value of the right length, version and checksum.
fn unsealed(bytes: &[u8], version: u8, length: usize) -> Option<&[u8]> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    let (found, fields) = body.split_first()?;
    (bytes.len() == length && checksum(body) == *sum && *found == version).then_some(fields)
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

    fn head(&mut self) -> Option<StoredHead> {
        Some(StoredHead {
            size: self.u64()?,
            chain: ChainHash::new(self.array()?),
            receipt_time: ReceiptTime::new(self.u64()?),
            root: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_and_flips_are_found() {
        let (chain, root) = (ChainHash::new([3; 32]), NodeHash::new([6; 32]));
        let head = Head { size: 7, chain, root, receipt_time: ReceiptTime::new(9) };
        let source = SourceState {
            epoch: Epoch::new(1),
            next: SourceSeq::new(2),
            head: BatchHash::new([4; 32]),
            count: Count::new(5),
        };
        let stored = StoredHead { size: 7, chain, receipt_time: ReceiptTime::new(9), root: Some(root) };
        assert_eq!(decode_head(&encode_head(&head)), Some(stored));
        assert_eq!(decode_source(&encode_source(&source)), Some(source));
        assert_eq!(decode_tenant(&encode_tenant(Count::new(8))), Some(Count::new(8)));
        let (_, key, value) = tree_row(&TreeRow { level: 3, index: 70_000, hash: [5; 32] });
        assert_eq!((key.as_slice(), decode_hash(&value)), (tree_key(3, 70_000).as_slice(), Some([5; 32])));
        assert_eq!(decode_hash(&encode_note(&[5; 31])), None);
        assert_eq!(decode_note(&encode_note(b"note")), Some(b"note".as_slice()));
        assert_eq!(decode_tree_key(&tree_key(3, 70_000)), Some((3, 70_000)));
        let bytes = encode_source(&source);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(decode_source(&flipped), None, "byte {at}");
        }
    }
}
