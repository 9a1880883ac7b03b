//! Checkpoints: those that the journal keeps, those that the log's key can make, and those of earlier days.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use rand::{Rng, seq::IteratorRandom};
use sigillo_model::{checkpoint::Checkpoint, ids::NodeHash, note::Note, rotation::Rotation};

use super::{
    super::{
        super::image::copy_linked,
        disk,
        hands::{Expected, View},
        keys::{at_another_time, signed_by},
    },
    Kept, Made, Scene, history,
};

/// Long after the newest quorum. Seconds.
const LATER_S: u64 = 7_200;

pub(super) fn dropped(scene: &mut Scene<'_>) -> Result<Made> {
    history::rewrite_content(scene, Kept::Dropped)
}

pub(super) fn two_roots(scene: &mut Scene<'_>) -> Result<Made> {
    history::rewrite_content(scene, Kept::SameSizes)
}

/// By one of a wrong root, or with a cosignature whose time was changed, or of a key that is not the log's, named by a forged change of the log's key or by nothing.
pub(super) fn replaced(scene: &mut Scene<'_>) -> Result<Made> {
    let keys = &scene.image.keys;
    let mut notes = scene.image.notes.clone();
    let size = *notes.keys().choose(scene.random).context("there are no checkpoints")?;
    let below = |scene: &Scene<'_>, size: u64| {
        let hands = scene.hands.sizes();
        let kept = scene.image.notes.range(..size).next_back().map(|(size, _)| *size);
        hands.range(..size).next_back().copied().max(kept).unwrap_or(0)
    };
    let root = scene.image.notes.get(&size).context("there is one")?;
    let root = Checkpoint::parse(root.text())?.root;
    match scene.random.random_range(0..4) {
        0 => {
            notes.insert(size, keys.signed(size, NodeHash::new(scene.random.random()), scene.hands.now)?);
            disk::keep(scene.dir, &notes)?;
            // The newest one lies beside the database too, as it was published.
            let is_published = scene.image.notes.keys().next_back() == Some(&size);
            let misconduct = Some(is_published || scene.hands.sizes().contains(&size));
            let expected = Expected::Altered { from: below(scene, size), to: Some(size), misconduct };
            Ok(Made { expected, first: None, notes_only: true })
        }
        1 => {
            // A witness's own signature, said to be newer than it is.
            let genuine = notes.get(&size).context("there is one")?;
            notes.insert(size, at_another_time(genuine, scene.hands.now)?);
            disk::keep(scene.dir, &notes)?;
            Ok(Made { expected: Expected::at(below(scene, size), Some(size)), first: None, notes_only: true })
        }
        2 => {
            notes.insert(size, signed_by(&keys.strange_log, &keys.checkpoint(size, root))?);
            disk::keep(scene.dir, &notes)?;
            Ok(Made { expected: Expected::at(below(scene, size), Some(size)), first: None, notes_only: true })
        }
        _ => {
            let key = keys.strange_log.verifier().clone();
            let rotation = Rotation { origin: keys.origin.clone(), size: scene.image.size(), key };
            // Signed by the log's own key, which names no successor.
            let by = if scene.random.random() { &keys.log } else { &keys.strange_log };
            let text = signed_by(by, &rotation.text())?.to_bytes();
            let first = scene.append(vec![text])?;
            let end = first + 1;
            let root = scene.end_root()?;
            let note = signed_by(&keys.strange_log, &keys.checkpoint(end, root))?;
            notes.insert(end, note.clone());
            disk::keep(scene.dir, &notes)?;
            disk::publish(scene.dir, &keys.origin, end, &root, &note)?;
            Ok(Made::at(first, Expected::at(below(scene, end), Some(end))))
        }
    }
}

impl Scene<'_> {
    /// The root that the stored head says.
    fn end_root(&self) -> Result<NodeHash> {
        let head = crate::database::Database::open_read_only(self.dir)?.get("meta", b"head")?;
        NodeHash::from_slice(head.get(49..81).context("the head is too short")?).context("the head has no root")
    }
}

/// With all that was valid then. The verifier knows a later one, or only that much time has passed.
pub(super) fn earlier(scene: &mut Scene<'_>) -> Result<Made> {
    let image = scene.image;
    let aged = scene.random.random::<bool>();
    let known = scene.hands.greatest();
    let fit = image.earlier.keys().copied().filter(|size| aged || *size < known);
    let Some(size) = fit.choose(scene.random) else {
        // The verifier knows the very first only: then one more.
        scene.hands.view = Some(View::Live(*image.sizes().last().context("there are no checkpoints")?));
        return earlier(scene);
    };
    fs::remove_dir_all(scene.dir)?;
    copy_linked(image.earlier.get(&size).context("there is such a day")?, scene.dir, None)?;
    let expected = if aged {
        scene.hands.view = None;
        scene.hands.remembered =
            image.notes.range(..=size).map(|(size, _)| *size).choose(scene.random).into_iter().collect();
        scene.hands.now += LATER_S;
        // A fresh cosignature that only has a witness's name makes it no newer.
        let mut notes: BTreeMap<u64, Note> =
            image.notes.range(..=size).map(|(size, note)| (*size, note.clone())).collect();
        let note = notes.get_mut(&size).context("there is one")?;
        image.keys.cosign_falsely(note, scene.hands.now)?;
        let root = Checkpoint::parse(note.text())?.root;
        disk::publish(scene.dir, &image.keys.origin, size, &root, note)?;
        disk::keep(scene.dir, &notes)?;
        Expected::Stale { size, known: size, aged: true }
    } else {
        Expected::Stale { size, known, aged: false }
    };
    Ok(Made::at(size, expected))
}
