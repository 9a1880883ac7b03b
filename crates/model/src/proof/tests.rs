use std::{cell::Cell, convert::Infallible};

use proptest::prelude::*;

use super::*;

fn leaf(index: u64) -> NodeHash {
    tree::leaf(&index.to_be_bytes())
}

fn leaves(count: u64) -> Vec<NodeHash> {
    (0..count).map(leaf).collect()
}

/// MTH of RFC 6962, word for word.
fn by_definition(leaves: &[NodeHash]) -> NodeHash {
    match leaves {
        [] => tree::empty(),
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(1 << (leaves.len() - 1).ilog2());
            node(&by_definition(left), &by_definition(right))
        }
    }
}

/// PATH of RFC 6962, word for word.
fn path(index: usize, leaves: &[NodeHash]) -> Vec<NodeHash> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let at = 1 << (leaves.len() - 1).ilog2();
    let (left, right) = leaves.split_at(at);
    let (mut proof, sibling) = if index < at { (path(index, left), right) } else { (path(index - at, right), left) };
    proof.push(by_definition(sibling));
    proof
}

/// SUBPROOF of RFC 6962, word for word.
fn subproof(old: usize, leaves: &[NodeHash], known: bool) -> Vec<NodeHash> {
    if old == leaves.len() {
        return if known { Vec::new() } else { vec![by_definition(leaves)] };
    }
    let at = 1 << (leaves.len() - 1).ilog2();
    let (left, right) = leaves.split_at(at);
    let (mut proof, sibling) =
        if old <= at { (subproof(old, left, known), right) } else { (subproof(old - at, right, false), left) };
    proof.push(by_definition(sibling));
    proof
}

/// Full subtrees over a list of leaves, each computed from the definition; refuses what lies outside.
struct Naive(Vec<NodeHash>);

impl Subtrees for Naive {
    type Error = String;

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, String> {
        let start = usize::try_from(index << height).unwrap();
        let leaves = self.0.get(start..start + (1 << height)).ok_or("asked for a subtree outside of the tree")?;
        Ok(by_definition(leaves))
    }
}

/// All leaves alike, so that a tree of any size costs nothing. Counts what is asked for.
struct Uniform(Cell<u32>);

impl Subtrees for Uniform {
    type Error = Infallible;

    fn subtree(&self, height: u32, _: u64) -> Result<NodeHash, Infallible> {
        self.0.set(self.0.get() + 1);
        Ok((0..height).fold(leaf(0), |hash, _| node(&hash, &hash)))
    }
}

fn spoiled(hash: NodeHash) -> NodeHash {
    let mut bytes = *hash.as_bytes();
    bytes[13] ^= 32;
    NodeHash::new(bytes)
}

/// Calls `accept` with each way to spoil a proof; none may be taken.
fn assert_all_refused(proof: &[NodeHash], accept: impl Fn(&[NodeHash]) -> bool) {
    for place in 0..proof.len() {
        let mut changed = proof.to_vec();
        changed[place] = spoiled(changed[place]);
        assert!(!accept(&changed), "hash {place} changed");
        let mut shorter = proof.to_vec();
        shorter.remove(place);
        assert!(!accept(&shorter), "hash {place} removed");
    }
    for place in 0..=proof.len() {
        let mut longer = proof.to_vec();
        longer.insert(place, leaf(7));
        assert!(!accept(&longer), "hash {place} added");
    }
}

#[test]
fn inclusion_is_that_of_the_definition_for_all_small_sizes() {
    let all = Naive(leaves(300));
    for size in 1..=300_u64 {
        let now = &all.0[..usize::try_from(size).unwrap()];
        let root_now = by_definition(now);
        assert_eq!(root(size, &all), Ok(root_now), "size {size}");
        for index in 0..size {
            let proof = inclusion(index, size, &all).unwrap();
            assert_eq!(proof, path(usize::try_from(index).unwrap(), now), "{index} of {size}");
            assert_eq!(verify_inclusion(&leaf(index), index, size, &proof, &root_now), Ok(()));
            assert!(verify_inclusion(&leaf(index + 1), index, size, &proof, &root_now).is_err());
            if index % 37 == 0 {
                let accept = |proof: &[NodeHash]| verify_inclusion(&leaf(index), index, size, proof, &root_now).is_ok();
                assert_all_refused(&proof, accept);
                for other in (0..size + 2).filter(|other| *other != index) {
                    assert!(
                        verify_inclusion(&leaf(index), other, size, &proof, &root_now).is_err(),
                        "{index} as {other}"
                    );
                }
            }
        }
    }
    assert_eq!(root(0, &all), Ok(tree::empty()));
}

#[test]
fn consistency_is_that_of_the_definition_for_all_small_sizes() {
    let all = Naive(leaves(300));
    let roots: Vec<NodeHash> = (0..=300).map(|size| by_definition(&all.0[..size])).collect();
    for new in 1..=300_u64 {
        let at = |size: u64| &roots[usize::try_from(size).unwrap()];
        for old in 0..=new {
            let proof = consistency(old, new, &all).unwrap();
            let now = &all.0[..usize::try_from(new).unwrap()];
            let expected = if old == 0 { Vec::new() } else { subproof(usize::try_from(old).unwrap(), now, true) };
            assert_eq!(proof, expected, "{old} to {new}");
            assert_eq!(verify_consistency(old, at(old), new, at(new), &proof), Ok(()), "{old} to {new}");
            assert!(verify_consistency(old, &leaf(9), new, at(new), &proof).is_err(), "{old} to {new}");
            if old > 0 {
                assert!(verify_consistency(old, at(old), new, &leaf(9), &proof).is_err(), "{old} to {new}");
            }
            if (old + new) % 31 == 0 {
                assert_all_refused(&proof, |proof| verify_consistency(old, at(old), new, at(new), proof).is_ok());
            }
        }
    }
    assert!(matches!(consistency(2, 1, &all), Err(MakeError::Range(_))));
    assert!(matches!(inclusion(1, 1, &all), Err(MakeError::Range(_))));
    assert_eq!(verify_consistency(2, &roots[2], 1, &roots[1], &[]), Err(ProofError::Sizes { old: 2, new: 1 }));
}

#[test]
fn the_greatest_sizes_cost_as_many_steps_as_they_have_bits() {
    let tree = Uniform(Cell::new(0));
    let steps = || tree.0.replace(0);
    for size in [1 << 62, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, u64::MAX] {
        let now = root(size, &tree).unwrap();
        assert!(steps() <= 64);
        for index in [0, 1, 1 << 61, size / 2, size / 3, size - 1] {
            let proof = inclusion(index, size, &tree).unwrap();
            assert!(proof.len() <= 64 && steps() <= 64 * 64);
            assert_eq!(verify_inclusion(&leaf(0), index, size, &proof, &now), Ok(()), "{index} of {size}");
            let old = index + 1;
            let proof = consistency(old, size, &tree).unwrap();
            let before = root(old, &tree).unwrap();
            assert!(proof.len() <= 65 && steps() <= 64 * 64);
            assert_eq!(verify_consistency(old, &before, size, &now, &proof), Ok(()), "{old} to {size}");
            // Single leaves here and there in an enormous tree.
            let shown = [index.saturating_sub(9)..index.saturating_sub(8).max(1), index.max(1)..index.max(1) + 1];
            if shown[0].end <= shown[1].start && shown[1].end <= size {
                let proof = shared_proof(&shown, size, &tree).unwrap();
                assert!(proof.len() <= 128 && steps() <= 64 * 128);
                assert_eq!(
                    shared_root(shown.into_iter().flatten().map(|index| (index, leaf(0))), size, &proof),
                    Ok(now)
                );
            }
        }
        assert!(verify_inclusion(&leaf(0), 5, size, &[], &now).is_err());
        assert!(verify_consistency(5, &now, size, &now, &[]).is_err());
        assert!(shared_root([(u64::MAX, leaf(0))], size, &[now]).is_err());
    }
}

#[test]
fn a_shared_proof_for_all_leaves_is_empty() {
    for size in 0..70 {
        let all = Naive(leaves(size));
        let whole = 0..size;
        let shown = if size == 0 { &[][..] } else { std::slice::from_ref(&whole) };
        assert_eq!(shared_proof(shown, size, &all), Ok(Vec::new()));
        assert_eq!(shared_root((0..size).map(|index| (index, leaf(index))), size, &[]), Ok(by_definition(&all.0)));
    }
}

#[test]
fn shared_proofs_are_asked_for_in_order() {
    let all = Naive(leaves(10));
    let refused = |shown: &[(u64, u64)]| {
        let shown: Vec<Range<u64>> = shown.iter().map(|(start, end)| *start..*end).collect();
        shared_proof(&shown, 10, &all).is_err()
    };
    for shown in
        [[(3, 4), (2, 3)], [(3, 5), (4, 6)], [(3, 4), (4, 4)], [(1, 2), (9, 11)], [(1, 2), (10, 11)], [(5, 4), (6, 7)]]
    {
        assert!(refused(&shown), "{shown:?}");
    }
    // Neighbouring ranges are as good as one.
    let whole = 2..5;
    assert_eq!(shared_proof(&[2..3, 3..5], 10, &all), shared_proof(std::slice::from_ref(&whole), 10, &all));
    assert_eq!(shared_root([(10, leaf(10))], 10, &[leaf(1)]), Err(ProofError::Index { index: 10, size: 10 }));
    assert_eq!(shared_root([], 10, &[]), Err(ProofError::TooShort));
    assert_eq!(shared_root([], 0, &[leaf(1)]), Err(ProofError::TooLong(1)));
}

fn ranges(bits: &[bool]) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for (index, _) in (0_u64..).zip(bits).filter(|(_, shown)| **shown) {
        match out.last_mut() {
            Some(last) if last.end == index => last.end += 1,
            _ => out.push(index..index + 1),
        }
    }
    out
}

proptest! {
    #[test]
    fn proofs_hold_at_larger_sizes(size in 1_u64..5_000, at: prop::sample::Index, to: prop::sample::Index) {
        let all = Naive(leaves(size));
        let now = by_definition(&all.0);
        let index = u64::try_from(at.index(all.0.len())).unwrap();
        let proof = inclusion(index, size, &all).unwrap();
        prop_assert_eq!(verify_inclusion(&leaf(index), index, size, &proof, &now), Ok(()));
        let old = u64::try_from(to.index(all.0.len())).unwrap() + 1;
        let before = by_definition(&all.0[..usize::try_from(old).unwrap()]);
        let proof = consistency(old, size, &all).unwrap();
        prop_assert_eq!(&proof, &subproof(usize::try_from(old).unwrap(), &all.0, true));
        prop_assert_eq!(verify_consistency(old, &before, size, &now, &proof), Ok(()));
    }

    #[test]
    fn shared_proofs_hold_and_nothing_near_them(
        bits in proptest::collection::vec(proptest::bool::weighted(0.2), 1..200),
        spoil: prop::sample::Index,
    ) {
        let size = u64::try_from(bits.len()).unwrap();
        let all = Naive(leaves(size));
        let now = by_definition(&all.0);
        let shown = ranges(&bits);
        let proof = shared_proof(&shown, size, &all).unwrap();
        let indexes: Vec<u64> = shown.into_iter().flatten().collect();
        let with = |indexes: &[u64], proof: &[NodeHash]| {
            shared_root(indexes.iter().map(|index| (*index, leaf(*index))), size, proof)
        };
        prop_assert_eq!(with(&indexes, &proof), Ok(now));
        assert_all_refused(&proof, |proof| with(&indexes, proof) == Ok(now));
        if indexes.is_empty() {
            return Ok(());
        }
        let place = spoil.index(indexes.len());
        // A leaf that is not shown after all, one that stands elsewhere, one changed, one twice, two swapped.
        let mut fewer = indexes.clone();
        let gone = fewer.remove(place);
        prop_assert_ne!(with(&fewer, &proof), Ok(now));
        if let Some(free) = (0..size).find(|index| !indexes.contains(index)) {
            let moved = indexes.iter().map(|index| (if *index == gone { free } else { *index }, leaf(*index)));
            prop_assert_ne!(shared_root(moved, size, &proof), Ok(now));
        }
        let changed = indexes.iter().map(|index| (*index, leaf(if *index == gone { size } else { *index })));
        prop_assert_ne!(shared_root(changed, size, &proof), Ok(now));
        let mut twice = indexes.clone();
        twice.insert(place, gone);
        prop_assert_ne!(with(&twice, &proof), Ok(now));
        let mut reversed = indexes.clone();
        reversed.reverse();
        prop_assert!(indexes.len() == 1 || with(&reversed, &proof) != Ok(now));
        // The tree that ends before the last of them.
        let last = *indexes.last().unwrap();
        let cut = shared_root(indexes.iter().map(|index| (*index, leaf(*index))), last, &proof);
        prop_assert!(cut.is_err());
    }
}
