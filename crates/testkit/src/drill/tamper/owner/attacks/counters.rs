//! Numbers: counters records that lie, and counts that are used twice or skipped.

use std::collections::HashMap;

use anyhow::{Context, Result};
use rand::{Rng, seq::IndexedRandom};
use sigillo_model::{
    ids::Count,
    statement::counters::{CounterEntry, Counters},
};

use super::{
    super::{
        hands::Expected,
        pieces::{Off, Piece, Replay, counters_text, standing},
    },
    Kept, Made, Scene,
};

/// A counters record, in the place of a true one or at the end.
pub(super) fn lie(scene: &mut Scene<'_>) -> Result<Made> {
    let mut pieces = scene.image.pieces.clone();
    let true_ones: Vec<usize> = (0..pieces.len()).filter(|at| pieces[*at].counts).collect();
    let within = scene.random.random::<bool>();
    let at = if within { *true_ones.choose(scene.random).context("there are none")? } else { pieces.len() };
    let mut replay = Replay::new(&scene.image.keys.origin);
    for piece in &pieces[..at] {
        replay.append(piece)?;
    }
    let seq = replay.state.size;
    let salt = scene.random.random();
    let text = lying(scene, standing(&replay.state, 1), salt)?;
    let received = pieces.get(at).map_or(scene.image.next_time(), |piece| piece.received);
    let piece = Piece::stating(text, received, salt)?;
    if within {
        pieces[at] = piece;
    } else {
        pieces.push(piece);
    }
    let (replay, vouched) = scene.rewrite(&pieces, at, seq, Kept::Others)?;
    // The record itself is named, unless a known root right after it tells before.
    let is_known = scene.hands.sizes().contains(&(seq + 1));
    let expected =
        if is_known { scene.rewritten(seq, replay.state.size, &vouched) } else { Expected::at(seq, Some(seq + 1)) };
    Ok(Made::at(seq, expected))
}

/// Any untrue statement that is well formed.
fn lying(scene: &mut Scene<'_>, entries: Vec<CounterEntry>, salt: [u8; 32]) -> Result<String> {
    let origin = &scene.image.keys.origin;
    let mut wrong = entries.clone();
    let place = scene.random.random_range(0..wrong.len());
    let of_truth = Counters::parse(&counters_text(origin, salt, entries, &HashMap::new()), origin)?;
    let text = match scene.random.random_range(0..4) {
        0 => {
            let more = Count::new(wrong[place].next.get() + scene.random.random_range(1..9));
            wrong[place].next = more;
            counters_text(origin, salt, wrong, &HashMap::new())
        }
        1 => {
            wrong.remove(place);
            counters_text(origin, salt, wrong, &HashMap::new())
        }
        // The changes are true, the root is that of others.
        2 => {
            wrong[place].next = Count::new(wrong[place].next.get() + 1);
            let other = Counters::parse(&counters_text(origin, salt, wrong, &HashMap::new()), origin)?;
            Counters { changes: Vec::new(), ..other }.text()
        }
        _ => Counters { count: of_truth.count + 1, changes: Vec::new(), ..of_truth }.text(),
    };
    Ok(text)
}

/// The numbers of a source or of a tenant, from a batch on.
pub(super) fn misnumbered(scene: &mut Scene<'_>) -> Result<Made> {
    let image = scene.image;
    let sent_before = |at: usize| image.pieces[..at].iter().any(|piece| piece.source == image.pieces[at].source);
    let told_before = |at: usize| {
        let first = image.pieces[at].runs.first().map(|run| run.tenant);
        image.pieces[..at].iter().flat_map(|piece| &piece.runs).any(|run| Some(run.tenant) == first)
    };
    let at = scene.pick(|at, _| sent_before(at) && told_before(at))?;
    let by = if scene.random.random() { -1 } else { scene.random.random_range(1..50) };
    let off = match scene.random.random_range(0..3) {
        0 => Off { source_seq: by, ..Off::default() },
        1 => Off { source_count: by, ..Off::default() },
        _ => Off { tenant_count: by, ..Off::default() },
    };
    let mut pieces = image.pieces.clone();
    pieces[at].off = off;
    let first = scene.start(at);
    scene.rewrite(&pieces, at, first, Kept::Others)?;
    Ok(Made::at(first, Expected::at(first, Some(first + image.pieces[at].len()))))
}
