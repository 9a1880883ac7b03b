//! The shared proof of many leaves of one tree, as a stream: the root out of the leaves that are shown and of the hashes that
//! stand for everything between them, each once, from left to right.
//!
//! A gap between shown leaves is cut into the largest subtrees of the tree that lie in it; one hash stands for each.

use crate::{ids::NodeHash, proof::Subtrees, tree};

/// Most hashes that one gap can need: up one side of the tree and down the other.
pub const GAP_MAX_HASHES: usize = 2 * 64;

/// Subtrees that became known, for whoever wants to prove a leaf alone afterwards.
pub trait Nodes {
    /// `hash` is the node over the leaves `from` to `to` (exclusive). Called once for each node that is computed or given.
    fn node(&mut self, from: u64, to: u64, hash: &NodeHash);
}

impl Nodes for () {
    fn node(&mut self, _: u64, _: u64, _: &NodeHash) {}
}

/// Hashes that don't fit the gap for which they are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hashes given for the leaves {from} to {to} are not as many as the tree has subtrees there")]
pub struct GapError {
    /// First leaf of the gap.
    pub from: u64,
    /// The leaf after the gap.
    pub to: u64,
}

/// Computes the root. Keeps one hash for each level.
#[derive(Debug, Clone)]
pub struct SharedRoot {
    size: u64,
    at: u64,
    /// Subtrees that wait for what stands at their right, the largest first, each with its first leaf.
    stack: Vec<(u64, NodeHash)>,
}

/// The subtrees into which the gap from `from` to `to` of a tree of `size` leaves is cut: first leaf and the leaf after.
pub fn subtrees(from: u64, to: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = from;
    std::iter::from_fn(move || {
        let left = to.checked_sub(at).filter(|left| *left > 0)?;
        let start = at;
        // A tree's right edge is ragged: there, one node may stand for fewer leaves than its place has room for.
        let edge = to == size && left.checked_next_power_of_two().map_or(at == 0, |room| at.is_multiple_of(room));
        let width = if edge { left } else { 1 << at.trailing_zeros().min(left.ilog2()) };
        at = start.checked_add(width)?;
        Some((start, at))
    })
}

/// The hashes that stand for the leaves `from` to `to` of a tree of `size` leaves.
pub fn gap_hashes<S: Subtrees>(from: u64, to: u64, size: u64, tree: &S) -> Result<Vec<NodeHash>, S::Error> {
    subtrees(from, to, size).map(|(from, to)| node_hash(from, to, tree)).collect()
}

/// The node over the leaves `from` to `to`, one of those that [`subtrees`] gives.
fn node_hash<S: Subtrees>(from: u64, to: u64, tree: &S) -> Result<NodeHash, S::Error> {
    let (mut end, mut rest, mut hash) = (to, to - from, None);
    // Full subtrees from the right, the smallest first.
    while rest > 0 {
        let height = rest.trailing_zeros();
        end -= 1 << height;
        rest -= 1 << height;
        let left = tree.subtree(height, end >> height)?;
        hash = Some(hash.map_or(left, |right| tree::node(&left, &right)));
    }
    Ok(hash.unwrap_or_else(tree::empty))
}

impl SharedRoot {
    /// Of a tree of `size` leaves.
    pub fn new(size: u64) -> Self {
        Self { size, at: 0, stack: Vec::new() }
    }

    /// Leaves of the tree.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The leaf that comes next.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Adds the leaf at this place. Beyond the tree's size it is not looked at: see [`SharedRoot::finish`].
    pub fn leaf(&mut self, hash: NodeHash, nodes: &mut impl Nodes) {
        self.add(1, hash, nodes);
    }

    /// Steps over the leaves up to `to`, for which `hashes` stand.
    pub fn gap(
        &mut self,
        to: u64,
        hashes: impl IntoIterator<Item = NodeHash>,
        nodes: &mut impl Nodes,
    ) -> Result<(), GapError> {
        let wrong = GapError { from: self.at, to };
        if to < self.at || to > self.size {
            return Err(wrong);
        }
        let mut hashes = hashes.into_iter();
        for (from, end) in subtrees(self.at, to, self.size) {
            let hash = hashes.next().ok_or(wrong)?;
            self.add(end - from, hash, nodes);
        }
        if hashes.next().is_some() { Err(wrong) } else { Ok(()) }
    }

    /// The root, once every leaf is accounted for.
    pub fn finish(mut self, nodes: &mut impl Nodes) -> Result<NodeHash, GapError> {
        if self.at != self.size {
            return Err(GapError { from: self.at, to: self.size });
        }
        let Some((_, last)) = self.stack.pop() else { return Ok(tree::empty()) };
        Ok(self.stack.iter().rev().fold(last, |right, (from, left)| {
            let hash = tree::node(left, &right);
            nodes.node(*from, self.size, &hash);
            hash
        }))
    }

    /// Adds a node over the next `width` leaves: a full subtree in its place, or the ragged one at the edge.
    fn add(&mut self, width: u64, hash: NodeHash, nodes: &mut impl Nodes) {
        let (mut hash, mut from) = (hash, self.at);
        self.at = self.at.saturating_add(width);
        nodes.node(from, self.at, &hash);
        // A full subtree joins each equally large one at its left. A ragged one has none.
        let mut joined = width;
        while width.is_power_of_two() && from & joined != 0 {
            let Some((start, left)) = self.stack.pop() else { break };
            hash = tree::node(&left, &hash);
            from = start;
            joined <<= 1;
            nodes.node(from, self.at, &hash);
        }
        self.stack.push((from, hash));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Seen(HashMap<(u64, u64), NodeHash>);

    impl Nodes for Seen {
        fn node(&mut self, from: u64, to: u64, hash: &NodeHash) {
            assert_eq!(self.0.insert((from, to), *hash), None);
        }
    }

    /// The definition of RFC 6962 over the leaves `from` to `to`.
    fn root(leaves: &[NodeHash], from: u64, to: u64) -> NodeHash {
        match to - from {
            0 => tree::empty(),
            1 => leaves[usize::try_from(from).unwrap()],
            length => {
                let middle = from + (1 << (length - 1).ilog2());
                tree::node(&root(leaves, from, middle), &root(leaves, middle, to))
            }
        }
    }

    /// The hashes of the shared proof by its recursive definition: no shown leaf in a node, one hash.
    fn by_definition(leaves: &[NodeHash], shown: &[bool], from: usize, to: usize, proof: &mut Vec<NodeHash>) {
        if !shown[from..to].contains(&true) {
            proof.push(root(leaves, from as u64, to as u64));
        } else if to - from > 1 {
            let middle = from + (1 << (to - from - 1).ilog2());
            by_definition(leaves, shown, from, middle, proof);
            by_definition(leaves, shown, middle, to, proof);
        }
    }

    fn leaves(count: usize) -> Vec<NodeHash> {
        (0..count).map(|i| tree::leaf(&i.to_be_bytes())).collect()
    }

    proptest! {
        #[test]
        fn the_stream_is_the_recursive_proof(shown in proptest::collection::vec(any::<bool>(), 1..150)) {
            let leaves = leaves(shown.len());
            let size = shown.len() as u64;
            let mut proof = Vec::new();
            by_definition(&leaves, &shown, 0, shown.len(), &mut proof);
            let mut streamed: Vec<NodeHash> = Vec::new();
            let mut seen = Seen::default();
            let mut shared = SharedRoot::new(size);
            for (at, leaf) in (0..).zip(&leaves).filter(|(at, _)| shown[*at]) {
                let gap: Vec<NodeHash> =
                    subtrees(shared.at(), at as u64, size).map(|(from, to)| root(&leaves, from, to)).collect();
                streamed.extend(&gap);
                shared.gap(at as u64, gap, &mut seen).unwrap();
                shared.leaf(*leaf, &mut seen);
            }
            let gap: Vec<NodeHash> = subtrees(shared.at(), size, size).map(|(from, to)| root(&leaves, from, to)).collect();
            streamed.extend(&gap);
            shared.gap(size, gap, &mut seen).unwrap();
            prop_assert_eq!(streamed, proof);
            prop_assert_eq!(shared.finish(&mut seen), Ok(root(&leaves, 0, size)));
            for ((from, to), hash) in seen.0 {
                prop_assert_eq!(hash, root(&leaves, from, to));
            }
        }
    }

    #[test]
    fn other_numbers_of_hashes_are_refused() {
        let hash = tree::empty();
        let gap = |size, to, hashes: usize| SharedRoot::new(size).gap(to, vec![hash; hashes], &mut ());
        assert_eq!(gap(100, 5, 2), Ok(()));
        for (size, to, hashes) in [(100, 5, 1), (100, 5, 3), (100, 101, 1), (100, 100, 0), (100, 100, 2)] {
            assert_eq!(gap(size, to, hashes), Err(GapError { from: 0, to }), "{size} {to} {hashes}");
        }
        assert_eq!(gap(u64::MAX, u64::MAX, 1), Ok(()));
        assert!(SharedRoot::new(1).finish(&mut ()).is_err());
        let mut beyond = SharedRoot::new(1);
        beyond.leaf(hash, &mut ());
        beyond.leaf(hash, &mut ());
        assert!(beyond.finish(&mut ()).is_err());
        assert_eq!(SharedRoot::new(0).finish(&mut ()), Ok(tree::empty()));
        assert!(subtrees(1, u64::MAX, u64::MAX).count() <= GAP_MAX_HASHES);
        // The rest of a tree that is larger than any power of two is one subtree from its first leaf only.
        assert_eq!(subtrees(256, u64::MAX, u64::MAX).next(), Some((256, 512)));
    }
}
