//! The Merkle tree of RFC 6962, section 2.1, over SHA-256.

use sha2::{Digest, Sha256};

use crate::ids::NodeHash;

/// Hash of a leaf: `H(00 || entry)`.
pub fn leaf(entry: &[u8]) -> NodeHash {
    NodeHash::new(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
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

/// Computes a root while leaves are added, keeping one hash per level.
#[derive(Debug, Clone, Default)]
pub struct RootBuilder {
    /// Roots of full subtrees, the largest first; their sizes are the set bits of `size`.
    stack: Vec<NodeHash>,
    size: u64,
}

impl RootBuilder {
    /// Adds the hash of the next leaf.
    pub fn push(&mut self, leaf: NodeHash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.stack.pop() {
                hash = node(&left, &hash);
            }
        }
        self.stack.push(hash);
        self.size += 1;
    }

    /// The root over all leaves added so far.
    pub fn root(&self) -> NodeHash {
        let mut right_to_left = self.stack.iter().rev();
        let Some(last) = right_to_left.next() else { return empty() };
        right_to_left.fold(*last, |right, left| node(left, &right))
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
    fn known_values() {
        // SHA-256 of nothing, and RFC 6962's hash of the empty leaf.
        assert_eq!(empty().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(leaf(b"").to_string(), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    }
}
