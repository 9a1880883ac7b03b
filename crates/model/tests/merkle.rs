//! The published test vectors of another implementation of RFC 6962 proofs: 98 for inclusion, 98 for consistency.

use std::fs;

use sigillo_model::{
    ids::NodeHash,
    proof::{verify_consistency, verify_inclusion},
};

/// One line of a vector file.
struct Vector {
    accept: bool,
    numbers: [u64; 2],
    hashes: [Option<NodeHash>; 2],
    /// `None`: some of it is no hash, which our types can't even carry.
    proof: Option<Vec<NodeHash>>,
    name: String,
}

fn vectors(file: &str) -> Vec<Vector> {
    // Relative to the package, in which cargo runs its tests.
    let text = fs::read_to_string(format!("../../tests/golden/merkle/{file}.txt")).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(vector).collect()
}

fn vector(line: &str) -> Vector {
    let words: Vec<&str> = line.splitn(7, ' ').collect();
    let accept = match words[0] {
        "ok" => true,
        "bad" => false,
        other => panic!("{other}"),
    };
    let hash = |word: &str| NodeHash::from_hex(word).ok();
    let proof = match words[5] {
        "none" => Some(Vec::new()),
        hashes => hashes.split(',').map(hash).collect(),
    };
    Vector {
        accept,
        numbers: [words[1].parse().unwrap(), words[2].parse().unwrap()],
        hashes: [hash(words[3]), hash(words[4])],
        proof,
        name: words[6].to_owned(),
    }
}

#[test]
fn inclusion() {
    let vectors = vectors("inclusion");
    assert_eq!(vectors.len(), 98);
    for Vector { accept, numbers: [index, size], hashes: [root, leaf], proof, name } in vectors {
        let verdict = match (root, leaf, proof) {
            (Some(root), Some(leaf), Some(proof)) => verify_inclusion(&leaf, index, size, &proof, &root).is_ok(),
            _ => false,
        };
        assert_eq!(verdict, accept, "{name}");
    }
}

#[test]
fn consistency() {
    let vectors = vectors("consistency");
    assert_eq!(vectors.len(), 98);
    let mut without_hashes = 0;
    for Vector { accept, numbers: [old, new], hashes: [before, after], proof, name } in vectors {
        let verdict = match (before, after, proof) {
            (Some(before), Some(after), Some(proof)) => verify_consistency(old, &before, new, &after, &proof).is_ok(),
            _ => false,
        };
        // It has two texts for roots, which are equal, so it is accepted where roots are any bytes.
        if name == "additional/sizes are equal (one) and proof is empty" {
            without_hashes += 1;
        } else {
            assert_eq!(verdict, accept, "{name}");
        }
    }
    assert_eq!(without_hashes, 1);
}
