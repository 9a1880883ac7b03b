//! Another history: records, envelopes and their order. Everything after the change is computed anew.

use anyhow::{Context, Result};
use rand::{Rng, seq::IndexedRandom};
use sigillo_model::{
    envelope::Flags,
    ids::{ClassId, ReceiptTime, RetentionId, TenantId},
    record::Record,
};

use super::{super::pieces::Piece, Kept, Made, Scene};

/// A record that the owner has made up.
fn invented(like: &Record, number: u64) -> Record {
    Record { content: Some(format!("nothing happened, {number:016x}").into_bytes().into()), ..like.clone() }
}

pub(super) fn content(scene: &mut Scene<'_>) -> Result<Made> {
    rewrite_content(scene, Kept::Others)
}

/// One byte of a record, or all of its content.
pub(super) fn rewrite_content(scene: &mut Scene<'_>, kept: Kept) -> Result<Made> {
    let at = scene.pick(|_, _| true)?;
    let mut pieces = scene.image.pieces.clone();
    let piece = &mut pieces[at];
    let index = scene.random.random_range(0..piece.records().len());
    let record = &mut piece.change()[index];
    let mut bytes = record.content.as_deref().context("a record without content")?.to_vec();
    if scene.random.random() {
        let place = scene.random.random_range(0..bytes.len());
        bytes[place] ^= scene.random.random_range(1..=u8::MAX);
        record.content = Some(bytes.into());
    } else {
        *record = invented(record, scene.random.random());
    }
    let first = scene.start(at) + index as u64;
    scene.rewrite_and_expect(&pieces, at, first, kept)
}

/// Class, retention class, flags or time.
pub(super) fn envelope(scene: &mut Scene<'_>) -> Result<Made> {
    let at = scene.pick(|at, _| at > 0)?;
    let mut pieces = scene.image.pieces.clone();
    let before = pieces[at - 1].received;
    let piece = &mut pieces[at];
    let run = scene.random.random_range(0..piece.runs.len());
    let of_run = scene.start(at) + piece.run_starts()[run];
    let first = match scene.random.random_range(0..4) {
        0 => {
            piece.class = ClassId::new(piece.class.get() % 5 + 1);
            scene.start(at)
        }
        1 => {
            let retention = &mut piece.runs[run].retention;
            *retention = RetentionId::new(retention.get() + scene.random.random_range(1..9));
            of_run
        }
        2 => {
            let bits = piece.runs[run].flags.bits() ^ Flags::AT_MOST_ONCE.bits();
            piece.runs[run].flags = Flags::from_bits(bits).context("flags")?;
            of_run
        }
        _ => {
            // Batches are a second apart at least, so that time does not go back.
            let earlier = scene.random.random_range(1..=piece.received.get() - before.get());
            piece.received = ReceiptTime::new(piece.received.get() - earlier);
            scene.start(at)
        }
    };
    scene.rewrite_and_expect(&pieces, at, first, Kept::Others)
}

pub(super) fn tenant(scene: &mut Scene<'_>) -> Result<Made> {
    let at = scene.pick(|_, _| true)?;
    let mut pieces = scene.image.pieces.clone();
    let piece = &mut pieces[at];
    let run = scene.random.random_range(0..piece.runs.len());
    let first = scene.start(at) + piece.run_starts()[run];
    let from = piece.runs[run].tenant;
    let others = scene.image.pieces.iter().flat_map(|piece| &piece.runs).map(|run| run.tenant);
    let others: Vec<TenantId> = others.filter(|tenant| *tenant != from).collect();
    let stranger = scene.random.random_ratio(1, 4);
    piece.runs[run].tenant = if stranger {
        TenantId::new(scene.random.random())
    } else {
        *others.choose(scene.random).context("there is one tenant only")?
    };
    scene.rewrite_and_expect(&pieces, at, first, Kept::Others)
}

pub(super) fn deleted(scene: &mut Scene<'_>) -> Result<Made> {
    let whole = scene.random.random();
    let at = scene.pick(|_, piece| whole || piece.len() > 1)?;
    let mut pieces = scene.image.pieces.clone();
    let mut first = scene.start(at);
    if whole {
        pieces.remove(at);
    } else {
        let index = scene.random.random_range(0..pieces[at].records().len());
        pieces[at].remove(index)?;
        first += index as u64;
    }
    scene.rewrite_and_expect(&pieces, at, first, Kept::Others)
}

pub(super) fn inserted(scene: &mut Scene<'_>) -> Result<Made> {
    let at = scene.pick(|_, _| true)?;
    let mut pieces = scene.image.pieces.clone();
    let mut first = scene.start(at);
    if scene.random.random() {
        let mut piece = pieces[at].clone();
        let number = scene.random.random();
        piece.change().iter_mut().for_each(|record| *record = invented(record, number));
        pieces.insert(at, piece);
    } else {
        let index = scene.random.random_range(0..pieces[at].records().len());
        let record = invented(&pieces[at].records()[index], scene.random.random());
        pieces[at].insert(index, record)?;
        first += index as u64;
    }
    scene.rewrite_and_expect(&pieces, at, first, Kept::Others)
}

pub(super) fn swapped(scene: &mut Scene<'_>) -> Result<Made> {
    let mut pieces = scene.image.pieces.clone();
    let distinct = |piece: &Piece| piece.records().first() != piece.records().last();
    if scene.random.random() {
        // Two records of a batch.
        let at = scene.pick(|_, piece| distinct(piece))?;
        let records = pieces[at].change();
        loop {
            let (one, other) =
                (scene.random.random_range(0..records.len()), scene.random.random_range(0..records.len()));
            if records[one] != records[other] {
                records.swap(one, other);
                let first = scene.start(at) + one.min(other) as u64;
                return scene.rewrite_and_expect(&pieces, at, first, Kept::Others);
            }
        }
    }
    // Two batches; each gets the time of its new place.
    let one = scene.pick(|_, _| true)?;
    let other = scene.pick(|at, _| at != one)?;
    let (one, other) = (one.min(other), one.max(other));
    let times = (pieces[one].received, pieces[other].received);
    pieces.swap(one, other);
    (pieces[one].received, pieces[other].received) = times;
    // The first record of each is another's, so that nothing is the same by chance.
    scene.rewrite_and_expect(&pieces, one, scene.start(one), Kept::Others)
}

pub(super) fn cut(scene: &mut Scene<'_>) -> Result<Made> {
    let at = scene.pick(|at, _| at > 2)?;
    let first = scene.start(at);
    let pieces = scene.image.pieces.get(..at).context("so few batches")?.to_vec();
    scene.rewrite_and_expect(&pieces, at, first, Kept::Others)
}

pub(super) fn replaced(scene: &mut Scene<'_>) -> Result<Made> {
    let at = scene.pick(|at, _| at > 2)?;
    let first = scene.start(at);
    let mut pieces = scene.image.pieces.get(..at).context("so few batches")?.to_vec();
    let others: Vec<&Piece> = scene.image.pieces.iter().filter(|piece| !piece.is_own()).collect();
    let (mut size, mut time) = (first, pieces.last().context("there is a batch")?.received.get());
    // As many as there were, and sometimes more.
    let until = scene.image.size() + scene.random.random_range(0..500);
    while size < until {
        let mut piece = (**others.choose(scene.random).context("there are no batches")?).clone();
        let number = scene.random.random::<u64>();
        piece.change().iter_mut().for_each(|record| *record = invented(record, number));
        time += 1_000_000_000;
        piece.received = ReceiptTime::new(time);
        size += piece.len();
        pieces.push(piece);
    }
    scene.rewrite_and_expect(&pieces, at, first, Kept::Others)
}
