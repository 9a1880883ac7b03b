//! What the owner of the database and of the log's key does. Each attack works out by itself what a verifier must come to.

mod checkpoints;
mod counters;
mod history;
mod removals;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha12Rng;
use sigillo_model::note::Note;

use super::{
    disk,
    hands::{Expected, Hands},
    image::Image,
    pieces::{Piece, Replay},
};

/// Makes one attack.
pub(super) type Attack = fn(&mut Scene<'_>) -> Result<Made>;

/// Every attack, with its name.
pub(super) const ATTACKS: [(&str, Attack); 20] = [
    ("a record's content changed, all after it chained anew", history::content),
    ("an envelope changed, all after it chained anew", history::envelope),
    ("records given to another tenant, all after them chained anew", history::tenant),
    ("a record or batch deleted, all after it chained anew", history::deleted),
    ("a record or batch inserted, all after it chained anew", history::inserted),
    ("two records or batches swapped, all after them chained anew", history::swapped),
    ("the end cut off, signed anew", history::cut),
    ("the end replaced by others", history::replaced),
    ("erased by an order that two officers did not sign", removals::too_few_officers),
    ("erased by an order that strangers signed", removals::strangers),
    ("erased beyond what a lawful order names", removals::not_named),
    ("purged before the time", removals::not_due),
    ("purged with records of another class", removals::another_class),
    ("purged without a lawful retention statement", removals::no_policy),
    ("a counters record that lies", counters::lie),
    ("counters used twice or skipped", counters::misnumbered),
    ("all kept checkpoints dropped, the journal written and signed anew", checkpoints::dropped),
    ("a kept checkpoint replaced", checkpoints::replaced),
    ("a whole state of an earlier day", checkpoints::earlier),
    ("a second root signed for a size", checkpoints::two_roots),
];

/// A copy of the image that is about to be attacked.
pub(super) struct Scene<'a> {
    pub(super) image: &'a Image,
    pub(super) dir: &'a Path,
    pub(super) random: &'a mut ChaCha12Rng,
    /// What the verifier will have. The owner knows it, which makes the attack stronger.
    pub(super) hands: Hands,
}

/// What was done.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) expected: Expected,
    /// The first record that is not what it was.
    pub(super) first: Option<u64>,
    /// Whether kept checkpoints are not what they were though the records are.
    pub(super) notes_only: bool,
}

impl Made {
    fn at(first: u64, expected: Expected) -> Self {
        Self { expected, first: Some(first), notes_only: false }
    }
}

/// What becomes of the kept checkpoints that a rewritten journal no longer meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// They go; some of other sizes are signed.
    Others,
    /// The log signs the same sizes again.
    SameSizes,
    /// All go, also those that are still met.
    Dropped,
}

impl Scene<'_> {
    /// A batch that somebody sent, below the greatest size that the verifier knows, of which this is true.
    fn pick(&mut self, suits: impl Fn(usize, &Piece) -> bool) -> Result<usize> {
        let known = self.hands.greatest();
        let (pieces, starts) = (&self.image.pieces, &self.image.starts);
        let is_fit = |at: &usize| starts[*at] < known && !pieces[*at].is_own() && suits(*at, &pieces[*at]);
        let fit: Vec<usize> = (0..pieces.len()).filter(is_fit).collect();
        fit.choose(self.random).copied().context("no batch suits")
    }

    /// First sequence of a batch.
    fn start(&self, at: usize) -> u64 {
        self.image.starts[at]
    }

    /// Writes these batches, which are the image's up to the one at `at`, and signs anew.
    fn rewrite(&mut self, pieces: &[Piece], at: usize, first: u64, kept: Kept) -> Result<(Replay, Vouched)> {
        let replay = disk::write(self.dir, &self.image.keys.origin, pieces, at)?;
        let mut notes = match kept {
            Kept::Dropped => BTreeMap::new(),
            _ => self.image.notes.range(..=first).map(|(size, note)| (*size, note.clone())).collect(),
        };
        let vouched: BTreeSet<u64> = notes.keys().copied().collect();
        let own = self.sign_anew(&replay, first, kept, &mut notes)?;
        disk::keep(self.dir, &notes)?;
        Ok((replay, Vouched { kept: vouched, own }))
    }

    /// Signs the end, and some sizes before. The sizes that were signed.
    fn sign_anew(
        &mut self,
        replay: &Replay,
        first: u64,
        kept: Kept,
        notes: &mut BTreeMap<u64, Note>,
    ) -> Result<BTreeSet<u64>> {
        let keys = &self.image.keys;
        let known = &self.image.notes;
        let ends: Vec<u64> = replay.roots.range(first + 1..).map(|(size, _)| *size).collect();
        let chosen: Vec<u64> = match kept {
            Kept::SameSizes => ends.iter().copied().filter(|size| known.contains_key(size)).collect(),
            Kept::Others | Kept::Dropped => {
                let others: Vec<u64> = ends.into_iter().filter(|size| !known.contains_key(size)).collect();
                let count = self.random.random_range(0..4);
                others.choose_multiple(self.random, count).copied().collect()
            }
        };
        let mut own = BTreeSet::new();
        for size in chosen.into_iter().chain([replay.state.size]) {
            let root = replay.roots.get(&size).context("there is no root of this size")?;
            notes.insert(size, keys.signed(size, *root, self.hands.now)?);
            own.insert(size);
        }
        let (size, root) = (replay.state.size, replay.state.tree.root());
        disk::publish(self.dir, &keys.origin, size, &root, &keys.signed(size, root, self.hands.now)?)?;
        Ok(own)
    }

    /// Appends statements of the product itself to the image's batches, and signs the end. The first one's sequence.
    fn append(&mut self, texts: Vec<Vec<u8>>) -> Result<u64> {
        let mut pieces = self.image.pieces.clone();
        let at = pieces.len();
        for text in texts {
            pieces.push(Piece::stating(text, self.image.next_time(), self.random.random())?);
        }
        let first = self.image.size();
        self.rewrite(&pieces, at, first, Kept::Others)?;
        Ok(first)
    }

    /// What a verifier must find in a journal that fits itself and in which records from `first` on are not what they were: the
    /// first root that it knows beyond is missed, and the greatest before is met. If the journal does not reach so far, fewer
    /// records than were known.
    fn rewritten(&self, first: u64, size: u64, vouched: &Vouched) -> Expected {
        let known = self.hands.sizes();
        let below = known.range(..=first).chain(vouched.kept.range(..=first)).max().copied().unwrap_or(0);
        match known.range(first + 1..=size.max(first + 1)).find(|known| **known <= size) {
            Some(missed) => {
                let misconduct = Some(vouched.own.contains(missed));
                Expected::Altered { from: below, to: Some(*missed), misconduct }
            }
            None => Expected::Stale { size, known: self.hands.greatest(), aged: false },
        }
    }

    /// [`Scene::rewrite`], and what must come of it.
    fn rewrite_and_expect(&mut self, pieces: &[Piece], at: usize, first: u64, kept: Kept) -> Result<Made> {
        let (replay, vouched) = self.rewrite(pieces, at, first, kept)?;
        Ok(Made::at(first, self.rewritten(first, replay.state.size, &vouched)))
    }
}

/// Kept checkpoints after a rewrite.
#[derive(Debug)]
struct Vouched {
    /// Those that witnesses have cosigned.
    kept: BTreeSet<u64>,
    /// Those that only the log has signed, of all that the trust file names.
    own: BTreeSet<u64>,
}
