//! Two crates of others, older than the present specifications (no cosignatures, other paths for entries), must agree with us on
//! notes, checkpoints, proofs and tiles.

use std::convert::Infallible;

use proptest::prelude::*;
use sigillo_model::{
    checkpoint::Checkpoint,
    ids::NodeHash,
    note::{KeyKind, Note, SigningKey},
    proof::{self, Subtrees},
    tile::{TileKind, TilePath},
    tree,
};
use signed_note::{StandardSigner, StandardVerifier, VerifierList};
use tlog_tiles::{Hash, Tile};

const ORIGIN: &str = "example.com/log";

struct Log;

impl Subtrees for Log {
    type Error = Infallible;

    fn subtree(&self, height: u32, index: u64) -> Result<NodeHash, Infallible> {
        if height == 0 {
            return Ok(tree::leaf(&index.to_be_bytes()));
        }
        Ok(tree::node(&self.subtree(height - 1, index * 2)?, &self.subtree(height - 1, index * 2 + 1)?))
    }
}

fn theirs(hash: &NodeHash) -> Hash {
    Hash(*hash.as_bytes())
}

fn all_theirs(hashes: &[NodeHash]) -> Vec<Hash> {
    hashes.iter().map(theirs).collect()
}

#[test]
fn foreign_crate_verifies_our_notes_and_we_verify_its() {
    let key = SigningKey::from_seed(ORIGIN, KeyKind::Log, &[5; 32]).unwrap();
    let text = Checkpoint { origin: ORIGIN.into(), size: 7, root: proof::root(7, &Log).unwrap() }.text();
    let ours = Note::new(text.clone(), vec![key.sign(&text).unwrap()]).unwrap();

    let verifier = StandardVerifier::new(&key.verifier().to_string()).unwrap();
    let known = VerifierList::new(vec![Box::new(verifier)]);
    let read = signed_note::Note::from_bytes(&ours.to_bytes()).unwrap();
    assert_eq!(read.verify(&known).unwrap().0.len(), 1);
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(read.text()).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size()), (ORIGIN, 7));

    let signer = StandardSigner::new(&key.encode()).unwrap();
    let mut note = signed_note::Note::new(text.as_bytes(), &[]).unwrap();
    note.add_sigs(&[&signer]).unwrap();
    assert_eq!(note.to_bytes(), ours.to_bytes());

    let changed = ours.to_string().replace("\n7\n", "\n8\n");
    assert!(signed_note::Note::from_bytes(changed.as_bytes()).unwrap().verify(&known).is_err());
}

proptest! {
    #[test]
    fn foreign_crate_accepts_our_proofs(size in 1_u64..3_000, at: prop::sample::Index, to: prop::sample::Index) {
        let limit = usize::try_from(size).unwrap();
        let (index, old) = (at.index(limit) as u64, to.index(limit) as u64 + 1);
        let (now, before) = (proof::root(size, &Log).unwrap(), proof::root(old, &Log).unwrap());
        let leaf = Log.subtree(0, index).unwrap();
        let included = all_theirs(&proof::inclusion(index, size, &Log).unwrap());
        prop_assert!(tlog_tiles::check_record(&included, size, theirs(&now), index, theirs(&leaf)).is_ok());
        prop_assert!(tlog_tiles::check_record(&included, size, theirs(&leaf), index, theirs(&leaf)).is_err() || size == 1);
        let grown = all_theirs(&proof::consistency(old, size, &Log).unwrap());
        prop_assert!(tlog_tiles::check_tree(&grown, size, theirs(&now), old, theirs(&before)).is_ok());
    }

    #[test]
    fn foreign_crate_names_tiles_alike(level in 0_u8..7, index in 0_u64..1 << 40, width in 1_u16..=256) {
        let path = TilePath { kind: TileKind::Hashes(level), index, width }.to_string();
        // It names the height too.
        let tile = Tile::from_path(&path.replacen("tile/", "tile/8/", 1)).unwrap();
        prop_assert_eq!((tile.level(), tile.level_index(), tile.width()), (level, index, u32::from(width)));
    }
}
