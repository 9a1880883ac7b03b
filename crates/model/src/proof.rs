//! Proofs over the tree of RFC 6962: that a leaf is in it (2.1.1), that it only grew (2.1.2), and one proof for many leaves at
//! once. All loops end after as many steps as a size has bits, whatever a proof or a size claims.

use std::{iter::Peekable, ops::Range};

use crate::{
    ids::NodeHash,
    tree::{self, node},
};

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index is not below the size.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    Index {
        /// The leaf's index.
        index: u64,
        /// Number of leaves.
        size: u64,
    },
    /// The old size is beyond the new one.
    #[error("a tree of {new} leaves can't continue one of {old}")]
    Sizes {
        /// The old size.
        old: u64,
        /// The new size.
        new: u64,
    },
    /// Leaves that are not in ascending order.
    #[error("leaf {0} does not come after the one before it")]
    Order(u64),
    /// Too few or too many hashes.
    #[error("the proof has {actual} hashes where {expected} are needed")]
    Length {
        /// How many it has.
        actual: usize,
        /// How many it needs.
        expected: usize,
    },
    /// A shared proof with too few hashes.
    #[error("the proof ends too early")]
    TooShort,
    /// A shared proof with hashes that nothing asked for.
    #[error("the proof has {0} hashes too many")]
    TooLong(usize),
    /// The hashes give another root: the leaf, the proof or the root was changed.
    #[error("the proof leads to another root than that of size {0}")]
    Root(u64),
}

/// Why a proof could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MakeError<E> {
    /// What was asked for does not fit the size.
    #[error(transparent)]
    Range(ProofError),
    /// A hash of the tree could not be had.
    #[error(transparent)]
    Subtrees(E),
}

/// Roots of full subtrees, from wherever they are kept.
pub trait Subtrees {
    /// Why one can't be had.
    type Error;

    /// The root of the full subtree of `2^height` leaves that starts at leaf `index * 2^height`. Only asked for those that lie
    /// within the size of the tree.
    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, Self::Error>;
}

/// Checks that the leaf of this hash stands at `index` in the tree of this size and root.
pub fn verify_inclusion(
    leaf: &NodeHash,
    index: u64,
    size: u64,
    proof: &[NodeHash],
    root: &NodeHash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let path = Path::of(index, size);
    if proof.len() != path.length() {
        return Err(ProofError::Length { actual: proof.len(), expected: path.length() });
    }
    let (inner, border) = proof.split_at(path.inner);
    let hash = chain_inner(*leaf, index, inner);
    let hash = border.iter().fold(hash, |hash, left| node(left, &hash));
    if hash == *root { Ok(()) } else { Err(ProofError::Root(size)) }
}

/// Checks that the tree of the new size and root continues the tree of the old size and root. The empty tree is continued by
/// any, with an empty proof.
pub fn verify_consistency(
    old_size: u64,
    old_root: &NodeHash,
    new_size: u64,
    new_root: &NodeHash,
    proof: &[NodeHash],
) -> Result<(), ProofError> {
    if old_size > new_size {
        return Err(ProofError::Sizes { old: old_size, new: new_size });
    }
    if old_size == 0 || old_size == new_size {
        if !proof.is_empty() {
            return Err(ProofError::Length { actual: proof.len(), expected: 0 });
        }
        if old_size == 0 && *old_root != tree::empty() {
            return Err(ProofError::Root(0));
        }
        return if old_size == new_size && old_root != new_root { Err(ProofError::Root(new_size)) } else { Ok(()) };
    }
    // The path of the old tree's last leaf, from the largest full subtree that ends there. Below it nothing differs.
    let path = Path::of(old_size - 1, new_size);
    let shift = old_size.trailing_zeros();
    let skipped = usize::try_from(shift).unwrap_or(usize::MAX);
    let inner = path.inner.saturating_sub(skipped);
    // When the old tree is itself one full subtree, its root is where the path begins, and not in the proof.
    let (start, rest) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(ProofError::Length { actual: 0, expected: inner + path.border + 1 })?
    };
    if rest.len() != inner + path.border {
        let expected = inner + path.border + proof.len().abs_diff(rest.len());
        return Err(ProofError::Length { actual: proof.len(), expected });
    }
    let (inner, border) = rest.split_at(inner);
    let position = (old_size - 1).checked_shr(shift).unwrap_or(0);
    let old = chain_left(*start, position, inner);
    let old = border.iter().fold(old, |hash, left| node(left, &hash));
    if old != *old_root {
        return Err(ProofError::Root(old_size));
    }
    let new = chain_inner(*start, position, inner);
    let new = border.iter().fold(new, |hash, left| node(left, &hash));
    if new == *new_root { Ok(()) } else { Err(ProofError::Root(new_size)) }
}

/// The shape of the path from a leaf to the root.
struct Path {
    /// Steps within the part of the tree where the path and the path of the last leaf differ: siblings on either side.
    inner: usize,
    /// Steps along the right border of the tree: siblings on the left only.
    border: usize,
}

impl Path {
    /// Of a leaf in a tree of `size > index` leaves.
    fn of(index: u64, size: u64) -> Self {
        let inner = u64::BITS - (index ^ (size - 1)).leading_zeros();
        let border = index.checked_shr(inner).map_or(0, u64::count_ones);
        let steps = |bits: u32| usize::try_from(bits).unwrap_or(usize::MAX);
        Self { inner: steps(inner), border: steps(border) }
    }

    fn length(&self) -> usize {
        self.inner + self.border
    }
}

/// Goes up from a node by siblings on the side that the bits of its index say.
fn chain_inner(start: NodeHash, index: u64, siblings: &[NodeHash]) -> NodeHash {
    (0_u32..).zip(siblings).fold(start, |hash, (level, sibling)| {
        if is_right(index, level) { node(sibling, &hash) } else { node(&hash, sibling) }
    })
}

/// The same by left siblings alone: the root of all leaves up to and with this node.
fn chain_left(start: NodeHash, index: u64, siblings: &[NodeHash]) -> NodeHash {
    (0_u32..).zip(siblings).fold(
        start,
        |hash, (level, sibling)| {
            if is_right(index, level) { node(sibling, &hash) } else { hash }
        },
    )
}

fn is_right(index: u64, level: u32) -> bool {
    index.checked_shr(level).unwrap_or(0) & 1 == 1
}

/// The root of the tree of this size.
pub fn root<S: Subtrees>(size: u64, subtrees: &S) -> Result<NodeHash, S::Error> {
    if size == 0 { Ok(tree::empty()) } else { range_root(0, size, subtrees) }
}

/// The proof that the leaf at `index` is in the tree of this size: siblings, from the leaf's upwards.
pub fn inclusion<S: Subtrees>(index: u64, size: u64, subtrees: &S) -> Result<Vec<NodeHash>, MakeError<S::Error>> {
    if index >= size {
        return Err(MakeError::Range(ProofError::Index { index, size }));
    }
    let mut proof = Vec::new();
    let (mut start, mut count) = (0, size);
    while count > 1 {
        let left = split(count);
        if index - start < left {
            proof.push(range_root(start + left, count - left, subtrees).map_err(MakeError::Subtrees)?);
            count = left;
        } else {
            proof.push(range_root(start, left, subtrees).map_err(MakeError::Subtrees)?);
            start += left;
            count -= left;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of the new size continues that of the old size.
pub fn consistency<S: Subtrees>(old: u64, new: u64, subtrees: &S) -> Result<Vec<NodeHash>, MakeError<S::Error>> {
    if old > new {
        return Err(MakeError::Range(ProofError::Sizes { old, new }));
    }
    let mut proof = Vec::new();
    if old == 0 {
        return Ok(proof);
    }
    let (mut start, mut count) = (0, new);
    // Ends where the old tree's last full subtree begins and ends.
    while old - start != count {
        let left = split(count);
        if old - start <= left {
            proof.push(range_root(start + left, count - left, subtrees).map_err(MakeError::Subtrees)?);
            count = left;
        } else {
            proof.push(range_root(start, left, subtrees).map_err(MakeError::Subtrees)?);
            start += left;
            count -= left;
        }
    }
    if start > 0 || count != old {
        proof.push(range_root(start, count, subtrees).map_err(MakeError::Subtrees)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that all leaves of `shown` (ascending, disjoint, none empty) are in the tree of this size: the hashes that
/// [`shared_root`] asks for, in its order.
pub fn shared_proof<S: Subtrees>(
    shown: &[Range<u64>],
    size: u64,
    subtrees: &S,
) -> Result<Vec<NodeHash>, MakeError<S::Error>> {
    let mut end = 0;
    for range in shown {
        if range.start < end || range.is_empty() {
            return Err(MakeError::Range(ProofError::Order(range.start)));
        }
        end = range.end;
    }
    if end > size {
        return Err(MakeError::Range(ProofError::Index { index: end - 1, size }));
    }
    let mut proof = Vec::new();
    if size > 0 {
        shared_part(shown, 0, size, subtrees, &mut proof).map_err(MakeError::Subtrees)?;
    }
    Ok(proof)
}

/// Collects the hashes of `count` leaves from `start` on. Goes as deep as a size has bits.
fn shared_part<S: Subtrees>(
    shown: &[Range<u64>],
    start: u64,
    count: u64,
    subtrees: &S,
    proof: &mut Vec<NodeHash>,
) -> Result<(), S::Error> {
    // Those that reach into this part.
    let from = shown.partition_point(|range| range.end <= start);
    let to = shown.partition_point(|range| range.start < start + count);
    match shown.get(from..to) {
        None | Some([]) => proof.push(range_root(start, count, subtrees)?),
        Some([one]) if one.start <= start && one.end >= start + count => {}
        Some(within) => {
            let left = split(count);
            shared_part(within, start, left, subtrees, proof)?;
            shared_part(within, start + left, count - left, subtrees, proof)?;
        }
    }
    Ok(())
}

/// The root of the tree of this size that has these leaves (index and leaf hash, ascending) and, for the rest, the hashes of
/// `proof`. Defined by descent from the whole tree: a part without any of the leaves is the next hash of the proof; a part of
/// one leaf is that leaf's hash; another part is the node over its two halves, split at the largest power of two below its
/// size. All hashes must be used.
pub fn shared_root(
    shown: impl IntoIterator<Item = (u64, NodeHash)>,
    size: u64,
    proof: &[NodeHash],
) -> Result<NodeHash, ProofError> {
    let mut shared = Shared { shown: shown.into_iter().peekable(), proof };
    let root = if size == 0 { tree::empty() } else { shared.part(0, size)? };
    match (shared.shown.next(), shared.proof) {
        (Some((index, _)), _) if index >= size => Err(ProofError::Index { index, size }),
        (Some((index, _)), _) => Err(ProofError::Order(index)),
        (None, []) => Ok(root),
        (None, rest) => Err(ProofError::TooLong(rest.len())),
    }
}

struct Shared<'a, I: Iterator<Item = (u64, NodeHash)>> {
    shown: Peekable<I>,
    proof: &'a [NodeHash],
}

impl<I: Iterator<Item = (u64, NodeHash)>> Shared<'_, I> {
    /// The root of `count` leaves from `start` on. Goes as deep as a size has bits.
    fn part(&mut self, start: u64, count: u64) -> Result<NodeHash, ProofError> {
        match self.shown.peek() {
            Some((index, _)) if *index < start => Err(ProofError::Order(*index)),
            Some((index, leaf)) if index - start < count => {
                if count == 1 {
                    let leaf = *leaf;
                    self.shown.next();
                    return Ok(leaf);
                }
                let left = split(count);
                let (left, right) = (self.part(start, left)?, self.part(start + left, count - left)?);
                Ok(node(&left, &right))
            }
            _ => {
                let (hash, rest) = self.proof.split_first().ok_or(ProofError::TooShort)?;
                self.proof = rest;
                Ok(*hash)
            }
        }
    }
}

/// The root of `count > 0` leaves from `start` on, where `start` is a multiple of the least power of two that is at least
/// `count`: a part of a tree by the rule of RFC 6962.
fn range_root<S: Subtrees>(start: u64, count: u64, subtrees: &S) -> Result<NodeHash, S::Error> {
    let mut end = start + count;
    let mut rest = count;
    let mut hash = None;
    // Full subtrees from the right, the smallest first.
    while rest > 0 {
        let height = rest.trailing_zeros();
        let width = 1 << height;
        end -= width;
        rest -= width;
        let left = subtrees.subtree(height, end >> height)?;
        hash = Some(hash.map_or(left, |right| node(&left, &right)));
    }
    Ok(hash.unwrap_or_else(tree::empty))
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

#[cfg(test)]
mod tests;
