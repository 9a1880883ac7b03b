//! Reading the tree: hashes of any full subtree, chain values, what links a record to its leaf, and tiles as they are published.
//!
//! Stored are the anchors and the levels from 1 on. The lowest tile is derived: its records are committed to again, from the
//! anchor before them on.

use std::{
    cell::RefCell,
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use sigillo_model::{
    audit::{Fault, Finding},
    block::{Block, Inflater},
    chain,
    commitment::Committer,
    entry::{Entry, HeldPart},
    envelope::Envelope,
    ids::{ChainHash, Commitment, NodeHash, Origin},
    proof::{self, MakeError, Subtrees},
    record::{Part, Record},
    tile::{TILE_HEIGHT, TileKind, TilePath},
    tree::{ANCHOR_INTERVAL, Frontier, RootBuilder, TreeRow, record_leaf},
};

use crate::{
    error::ReadError,
    layout::{self, TREE_ROW_BYTES, Table},
    read::{Reader, containing, derived},
    store::{Direction, Store},
};

/// Most chain values that are given at once.
const LEAVES_MAX: u64 = 65_536;
/// Hashes of a full tile.
const TILE_WIDTH: u64 = ANCHOR_INTERVAL;
/// How many right edges are remembered, 8 KiB each at most.
const EDGES_MAX: usize = 16;
/// Levels of tiles in a tree of 64-bit sizes.
const LEVELS: usize = 8;

impl Reader {
    /// The tree of the first `size` records. Blocks, as all that it gives.
    pub fn tree(&self, size: u64) -> Result<TreeReader, ReadError> {
        self.check_durable(size, || format!("the tree of {size} records was asked for"))?;
        let tree = TreeReader::new(self.store.clone(), self.origin().clone(), size);
        Ok(TreeReader { edges: self.edges.clone(), ..tree })
    }

    /// Root of the tree of the first `size` records.
    pub fn root_at(&self, size: u64) -> Result<NodeHash, ReadError> {
        self.tree(size)?.root()
    }

    /// Proof that the leaf of record `seq` is in the tree of the first `size` records.
    pub fn inclusion(&self, seq: u64, size: u64) -> Result<Vec<NodeHash>, ReadError> {
        self.tree(size)?.inclusion(seq)
    }

    /// Proof that the tree of the first `new` records continues that of the first `old`.
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<NodeHash>, ReadError> {
        self.tree(new)?.consistency(old)
    }

    /// The chain values of the records of `range`, at most 65,536: the entries of the tree.
    pub fn leaves(&self, range: Range<u64>) -> Result<Vec<ChainHash>, ReadError> {
        let wanted = || format!("the chain values of records {} to {} were asked for", range.start, range.end);
        self.check_durable(range.end, wanted)?;
        if range.end.saturating_sub(range.start) > LEAVES_MAX {
            return Err(ReadError::Beyond { wanted: wanted() + ", more than at once", durable: self.head().size });
        }
        chain_values(&self.store, self.origin(), range)
    }

    /// What links the record `seq` to its chain value.
    pub fn link(&self, seq: u64) -> Result<Link, ReadError> {
        self.check_durable(seq.saturating_add(1), || format!("record {seq} was asked for"))?;
        link(&self.store, self.origin(), seq)
    }

    fn check_durable(&self, end: u64, wanted: impl FnOnce() -> String) -> Result<(), ReadError> {
        let durable = self.head().size;
        if end <= durable { Ok(()) } else { Err(ReadError::Beyond { wanted: wanted(), durable }) }
    }
}

/// The tree of a fixed number of records. Remembers the tile that it used last on each level, so that a proof reads each once.
pub struct TreeReader {
    store: Arc<dyn Store>,
    origin: Origin,
    size: u64,
    tiles: RefCell<[Option<Tile>; LEVELS]>,
    edges: Arc<Edges>,
}

impl std::fmt::Debug for TreeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeReader").field("size", &self.size).finish_non_exhaustive()
    }
}

struct Tile {
    index: u64,
    hashes: Vec<NodeHash>,
}

/// The lowest, incomplete tiles at the right edges of the sizes that were asked for last: nearly every proof against a checkpoint
/// needs that of its size, which is derived and never changes.
#[derive(Default)]
pub(crate) struct Edges(Mutex<VecDeque<(u64, Vec<NodeHash>)>>);

impl Edges {
    fn find(&self, size: u64) -> Option<Vec<NodeHash>> {
        let edges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        edges.iter().find(|(of, _)| *of == size).map(|(_, hashes)| hashes.clone())
    }

    fn keep(&self, size: u64, hashes: &[NodeHash]) {
        let mut edges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        edges.truncate(EDGES_MAX - 1);
        edges.push_front((size, hashes.to_vec()));
    }
}

impl TreeReader {
    pub(crate) fn new(store: Arc<dyn Store>, origin: Origin, size: u64) -> Self {
        Self { store, origin, size, tiles: RefCell::default(), edges: Arc::default() }
    }

    /// Number of records.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root of the whole tree.
    pub fn root(&self) -> Result<NodeHash, ReadError> {
        Ok(self.frontier()?.root())
    }

    /// Proof that the leaf of record `seq` is in the tree.
    pub fn inclusion(&self, seq: u64) -> Result<Vec<NodeHash>, ReadError> {
        proof::inclusion(seq, self.size, self).map_err(|error| self.not_made(error))
    }

    /// Proof that the tree continues that of the first `old` records.
    pub fn consistency(&self, old: u64) -> Result<Vec<NodeHash>, ReadError> {
        proof::consistency(old, self.size, self).map_err(|error| self.not_made(error))
    }

    fn not_made(&self, error: MakeError<ReadError>) -> ReadError {
        match error {
            MakeError::Subtrees(error) => error,
            MakeError::Range(error) => ReadError::Beyond { wanted: error.to_string(), durable: self.size },
        }
    }

    /// The bytes of a tile as it is published: hashes, or entries with their lengths. A tile may be narrower than the size allows.
    pub fn tile(&self, path: &TilePath) -> Result<Vec<u8>, ReadError> {
        let first = path.index.saturating_mul(TILE_WIDTH);
        let end = first.saturating_add(u64::from(path.width));
        if path.width == 0 || u64::from(path.width) > TILE_WIDTH || end > path.kind.count(self.size) {
            return Err(ReadError::Beyond { wanted: format!("{path} was asked for"), durable: self.size });
        }
        match path.kind {
            TileKind::Hashes(level) => self.in_tile(u32::from(level), path.index, |hashes| {
                hashes.iter().take(usize::from(path.width)).flat_map(|hash| *hash.as_bytes()).collect()
            }),
            TileKind::Entries => {
                let entries = chain_values(&self.store, &self.origin, first..end)?;
                Ok(entries.iter().flat_map(|entry| [0, 32].into_iter().chain(*entry.as_bytes())).collect())
            }
        }
    }

    /// The tree's right edge.
    pub(crate) fn frontier(&self) -> Result<Frontier, ReadError> {
        Frontier::rebuild(self.size, |height, index| self.subtree(height, index))
    }

    /// Root of the full subtree of `2^height` leaves that starts at leaf `index * 2^height`; it must lie within the size.
    pub fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, ReadError> {
        let covered = index.checked_add(1).is_some_and(|end| height < u64::BITS && end <= self.size >> height);
        if !covered {
            let wanted = format!("subtree {index} of height {height} was asked for");
            return Err(ReadError::Beyond { wanted, durable: self.size });
        }
        let first = index << (height % TILE_HEIGHT);
        let width = 1_usize << (height % TILE_HEIGHT);
        // Below TILE_WIDTH.
        let place = usize::try_from(first % TILE_WIDTH).unwrap_or_default();
        self.in_tile(height / TILE_HEIGHT, first / TILE_WIDTH, |hashes| {
            let mut root = RootBuilder::default();
            hashes.iter().skip(place).take(width).for_each(|hash| root.push(*hash));
            root.root()
        })
    }

    /// Hands `use_` the hashes of a tile, as many as there are within the size.
    fn in_tile<T>(&self, level: u32, index: u64, use_: impl FnOnce(&[NodeHash]) -> T) -> Result<T, ReadError> {
        let mut tiles = self.tiles.borrow_mut();
        let missing = || derived(self.size, "the tree has no such level");
        let slot = usize::try_from(level).ok().and_then(|level| tiles.get_mut(level)).ok_or_else(missing)?;
        let tile = match slot.take() {
            Some(tile) if tile.index == index => tile,
            _ => Tile { index, hashes: self.read_tile(level, index)? },
        };
        Ok(use_(&slot.insert(tile).hashes))
    }

    fn read_tile(&self, level: u32, index: u64) -> Result<Vec<NodeHash>, ReadError> {
        let there = self.size >> (level * TILE_HEIGHT);
        let first = index.saturating_mul(TILE_WIDTH);
        let range = first..first.saturating_add(TILE_WIDTH).min(there);
        match u8::try_from(level) {
            Ok(0) => {
                let partial = range.end - first < TILE_WIDTH;
                if let Some(hashes) = self.edges.find(self.size).filter(|_| partial) {
                    return Ok(hashes);
                }
                let values = chain_values(&self.store, &self.origin, range)?;
                let hashes: Vec<_> = values.iter().map(record_leaf).collect();
                if partial {
                    self.edges.keep(self.size, &hashes);
                }
                Ok(hashes)
            }
            Ok(level) => rows(&self.store, level, range),
            Err(_) => Err(derived(self.size, "the tree has no such level")),
        }
    }
}

impl Subtrees for TreeReader {
    type Error = ReadError;

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, ReadError> {
        Self::subtree(self, height, index)
    }
}

/// Stored rows of one level.
fn rows(store: &Arc<dyn Store>, level: u8, range: Range<u64>) -> Result<Vec<NodeHash>, ReadError> {
    let wanted = range.clone().count();
    let from = layout::tree_key(level, range.start);
    let mut found = store.scan(Table::Tree, &from, Direction::Forward, wanted * TREE_ROW_BYTES)?.into_iter();
    range
        .map(|index| {
            let row = found.next().filter(|(key, _)| **key == layout::tree_key(level, index));
            row_hash(row.as_ref().map(|(_, value)| &**value), level, index).map(NodeHash::new)
        })
        .collect()
}

fn row_hash(value: Option<&[u8]>, level: u8, index: u64) -> Result<[u8; 32], ReadError> {
    let first = TreeRow { level, index, hash: [0; 32] }.first_record();
    value.and_then(layout::decode_hash).ok_or_else(|| derived(first, "a row of the tree is missing or damaged"))
}

/// The chain values of the records of `range`, which must be in the store.
fn chain_values(store: &Arc<dyn Store>, origin: &Origin, range: Range<u64>) -> Result<Vec<ChainHash>, ReadError> {
    let mut values = Vec::new();
    let mut inflater = Inflater::default();
    let mut position = None;
    let mut next = range.start;
    while next < range.end {
        let missing = || derived(next, "the entry that holds this record is missing");
        let stored = containing(store.as_ref(), next)?.ok_or_else(missing)?;
        let entry = stored.entry()?;
        let (mut at, before) = match position {
            Some(position) => position,
            None => anchor(store, origin, &entry, next)?,
        };
        let block = open(&entry, &mut inflater)?;
        let end = entry.end().min(range.end);
        let commitments = entry.commitments_within(&block, place(&entry, at)..place(&entry, end));
        let envelopes = entry.envelopes().skip(place(&entry, at) as usize);
        let after = chain::link_each(before, envelopes, &commitments, |value| {
            if at >= range.start {
                values.push(*value);
            }
            at += 1;
        });
        if at != end || (end == entry.end() && after != entry.chain_hash) {
            return Err(altered(&entry, Fault::ChainHash));
        }
        position = Some((end, after));
        next = end;
    }
    Ok(values)
}

/// Where to begin to derive the chain value of record `seq` of `entry`: a sequence, and the chain value before it.
fn anchor(store: &Arc<dyn Store>, origin: &Origin, entry: &Entry<'_>, seq: u64) -> Result<(u64, ChainHash), ReadError> {
    let anchor = seq - seq % TILE_WIDTH;
    if anchor == 0 && entry.seq.get() == 0 {
        return Ok((0, chain::genesis(origin)));
    }
    if anchor >= entry.seq.get() {
        let index = anchor / TILE_WIDTH;
        let row = store.get(Table::Tree, &layout::tree_key(0, index))?;
        return Ok((anchor, ChainHash::new(row_hash(row.as_deref(), 0, index)?)));
    }
    let last = entry.seq.get() - 1;
    let missing = || derived(last, "the entry that holds this record is missing");
    let before = containing(store.as_ref(), last)?.ok_or_else(missing)?;
    Ok((entry.seq.get(), before.entry()?.chain_hash))
}

/// What links a record to its entry in the tree: with the previous chain value and its commitment, the envelope gives the record's
/// own chain value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Chain value before the record.
    pub previous: ChainHash,
    /// What the server added.
    pub envelope: Envelope,
    /// To the record.
    pub commitment: Commitment,
    /// The parts that the record had: core, personal, content. All `None` if the whole record was erased or purged.
    pub parts: [Option<LinkedPart>; 3],
    /// The record, as far as it is kept.
    pub record: Record,
}

/// A part of a record, as its commitment covers it.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkedPart {
    /// `salt_j`: only for those who may see the part. `None` if the part was erased.
    pub salt: Option<[u8; 32]>,
    /// `p_j`.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for LinkedPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkedPart").field("hash", &hex::encode(self.hash)).finish_non_exhaustive()
    }
}

fn link(store: &Arc<dyn Store>, origin: &Origin, seq: u64) -> Result<Link, ReadError> {
    let missing = || derived(seq, "the entry that holds this record is missing");
    let stored = containing(store.as_ref(), seq)?.ok_or_else(missing)?;
    let entry = stored.entry()?;
    let (from, before) = anchor(store, origin, &entry, seq)?;
    let mut inflater = Inflater::default();
    let block = open(&entry, &mut inflater)?;
    let places = place(&entry, from)..place(&entry, seq);
    let commitments = entry.commitments_within(&block, places.clone());
    let previous = chain::link_all(before, entry.envelopes().skip(places.start as usize), &commitments);
    let envelope = entry.envelopes().nth(places.end as usize).ok_or_else(missing)?;
    let record = block.records().nth(places.end as usize).ok_or_else(missing)?;
    let held = entry.held(&block).nth(places.end as usize).ok_or_else(missing)?;
    let mut committer = Committer::default();
    let parts = Part::ALL.map(|part| match held.held(part) {
        HeldPart::Absent => None,
        HeldPart::Kept { salt, bytes } => {
            let salt = *salt.expose();
            Some(LinkedPart { salt: Some(salt), hash: committer.part_hash(&salt, part, bytes) })
        }
        HeldPart::Gone(hash) => Some(LinkedPart { salt: None, hash: *hash.as_bytes() }),
    });
    let commitment = committer.commit_held(&held);
    Ok(Link { previous, envelope, commitment, parts, record: record.into() })
}

/// The place of a record in its entry.
fn place(entry: &Entry<'_>, seq: u64) -> u32 {
    // An entry holds at most BATCH_MAX_RECORDS.
    u32::try_from(seq.saturating_sub(entry.seq.get())).unwrap_or(u32::MAX)
}

fn open<'a>(entry: &'a Entry<'_>, inflater: &'a mut Inflater) -> Result<Block<'a>, ReadError> {
    let block = entry.block(inflater).map_err(|error| altered(entry, Fault::Block(error)))?;
    if block.count() != entry.count {
        return Err(altered(entry, Fault::Count { stated: entry.count, found: block.count() }));
    }
    Ok(block)
}

fn altered(entry: &Entry<'_>, fault: Fault) -> ReadError {
    ReadError::Altered(Finding { from: entry.seq.get(), to: entry.end(), fault })
}
