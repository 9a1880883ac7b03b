//! The Merkle tree of RFC 6962, section 2.1, over SHA-256.

use sha2::{Digest, Sha256};

use crate::{
    ids::{ChainHash, NodeHash},
    tile::TILE_HEIGHT,
};

/// Leaves between one anchor and the next: those of a full tile.
pub const ANCHOR_INTERVAL: u64 = 1 << TILE_HEIGHT;

/// Hash of a leaf: `H(00 || entry)`.
pub fn leaf(entry: &[u8]) -> NodeHash {
    NodeHash::new(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

/// Hash of the leaf of a record: its entry in the tree is its chain value.
pub fn record_leaf(value: &ChainHash) -> NodeHash {
    // In one piece, as below.
    let mut input = [0_u8; 33];
    let (_, entry) = input.split_at_mut(1);
    entry.copy_from_slice(value.as_bytes());
    NodeHash::new(Sha256::digest(input).into())
}

/// Hash of an inner node: `H(01 || left || right)`.
pub fn node(left: &NodeHash, right: &NodeHash) -> NodeHash {
    // In one piece: feeding a hasher three times costs a third more.
    let mut input = [1_u8; 65];
    let (_, hashes) = input.split_at_mut(1);
    let (first, second) = hashes.split_at_mut(32);
    first.copy_from_slice(left.as_bytes());
    second.copy_from_slice(right.as_bytes());
    NodeHash::new(Sha256::digest(input).into())
}

/// Hash of the tree without leaves: `H("")`.
pub fn empty() -> NodeHash {
    NodeHash::new(Sha256::new().finalize().into())
}

/// A tree that grows at its right edge: the roots of its full subtrees, one a level at most. From it the root of each size
/// follows, and the hash of each tile once it is full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    /// Roots of full subtrees, the largest first; their sizes are the set bits of `size`.
    stack: Vec<NodeHash>,
    size: u64,
}

impl Frontier {
    /// The frontier of a tree of `size` leaves, out of the roots of its full subtrees: `subtree` gets a height and an index
    /// and gives the root of the `2^height` leaves from `index * 2^height` on.
    pub fn rebuild<E>(size: u64, mut subtree: impl FnMut(u32, u64) -> Result<NodeHash, E>) -> Result<Self, E> {
        let heights = (0..u64::BITS).rev().filter(|height| size >> height & 1 == 1);
        // Below this subtree lie the larger ones: its index is the bits of the size above it, less itself.
        let stack = heights.map(|height| subtree(height, (size >> height) - 1)).collect::<Result<_, E>>()?;
        Ok(Self { stack, size })
    }

    /// Adds the hash of the next leaf. `full` gets the level, from 1, the index and the hash of each tile that it completes:
    /// the root of `256^level` leaves, which is hash number `index` of that level.
    pub fn push(&mut self, leaf: NodeHash, mut full: impl FnMut(u8, u64, NodeHash)) {
        let mut hash = leaf;
        let mut level = 0;
        for height in 1..=self.size.trailing_ones() {
            if let Some(left) = self.stack.pop() {
                hash = node(&left, &hash);
            }
            if height.is_multiple_of(TILE_HEIGHT) {
                level += 1;
                full(level, self.size >> height, hash);
            }
        }
        self.stack.push(hash);
        self.size += 1;
    }

    /// Roots of the full subtrees, the largest first: what [`Frontier::rebuild`] asks for, in its order.
    pub fn subtrees(&self) -> &[NodeHash] {
        &self.stack
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over all leaves.
    pub fn root(&self) -> NodeHash {
        let mut right_to_left = self.stack.iter().rev();
        let Some(last) = right_to_left.next() else { return empty() };
        right_to_left.fold(*last, |right, left| node(left, &right))
    }
}

/// Computes a root while leaves are added, keeping one hash per level.
#[derive(Debug, Clone, Default)]
pub struct RootBuilder(Frontier);

impl RootBuilder {
    /// Adds the hash of the next leaf.
    pub fn push(&mut self, leaf: NodeHash) {
        self.0.push(leaf, |_, _, _| ());
    }

    /// The root over all leaves added so far.
    pub fn root(&self) -> NodeHash {
        self.0.root()
    }
}

/// A row of the tree as a journal stores it, completed by a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeRow {
    /// 0: an anchor, the chain value before record `256 index`. From 1 on: the root of `256^level` leaves.
    pub level: u8,
    /// Place in its level.
    pub index: u64,
    /// The value.
    pub hash: [u8; 32],
}

impl TreeRow {
    /// The first record that this row covers, or that follows this anchor. Saturates.
    pub fn first_record(&self) -> u64 {
        let levels = u32::from(self.level.max(1));
        ANCHOR_INTERVAL.saturating_pow(levels).saturating_mul(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of RFC 6962, word for word.
    fn by_definition(entries: &[Vec<u8>]) -> NodeHash {
        match entries {
            [] => empty(),
            [entry] => leaf(entry),
            _ => {
                let split = 1 << (entries.len() - 1).ilog2();
                let (left, right) = entries.split_at(split);
                node(&by_definition(left), &by_definition(right))
            }
        }
    }

    #[test]
    fn agrees_with_the_definition() {
        let entries: Vec<Vec<u8>> = (0_u16..300).map(|i| i.to_be_bytes().to_vec()).collect();
        let mut builder = RootBuilder::default();
        for size in 0..entries.len() {
            assert_eq!(builder.root(), by_definition(&entries[..size]), "size {size}");
            builder.push(leaf(&entries[size]));
        }
    }

    #[test]
    fn full_tiles_are_given_out_once_and_a_frontier_is_built_again_from_subtrees() {
        let leaves: Vec<NodeHash> = (0_u32..66_000).map(|i| leaf(&i.to_be_bytes())).collect();
        let root = |range: std::ops::Range<usize>| {
            let mut builder = RootBuilder::default();
            leaves[range].iter().for_each(|leaf| builder.push(*leaf));
            builder.root()
        };
        let mut frontier = Frontier::default();
        let mut tiles = Vec::new();
        for (size, leaf) in (0_u64..).zip(&leaves) {
            if [0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_999].contains(&size) {
                let rebuilt = Frontier::rebuild(size, |height, index| {
                    let first = usize::try_from(index << height).unwrap();
                    Ok::<_, ()>(root(first..first + (1 << height)))
                });
                assert_eq!(rebuilt.as_ref(), Ok(&frontier), "size {size}");
            }
            frontier.push(*leaf, |level, index, hash| tiles.push((level, index, hash)));
        }
        let level_1 = (0..257_usize).map(|index| (1, index as u64, root(index * 256..(index + 1) * 256)));
        let mut expected: Vec<_> = level_1.collect();
        expected.insert(256, (2, 0, root(0..65_536)));
        assert_eq!(tiles, expected);
    }

    #[test]
    fn the_leaf_of_a_record_is_that_of_its_chain_value() {
        assert_eq!(record_leaf(&ChainHash::new([7; 32])), leaf(&[7; 32]));
    }

    #[test]
    fn known_values() {
        // SHA-256 of nothing, and RFC 6962's hash of the empty leaf.
        assert_eq!(empty().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(leaf(b"").to_string(), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    }
}
