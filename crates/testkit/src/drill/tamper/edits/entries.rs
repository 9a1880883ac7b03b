//! Edits of whole entries, up to those of somebody who makes everything in the database fit again.

use anyhow::{Context, Result, ensure};
use rand::{Rng, seq::IndexedRandom};
use sigillo_model::{
    audit::Walker,
    batch::batch_hash,
    block::{Block, BlockBuilder},
    entry::Entry,
    ids::{Count, Seq, SourceSeq},
    state::{JournalState, SourceState},
};

use super::{
    super::{image::Indexed, verdict::Place},
    Inflated, Scene, beside,
};

pub(super) fn deleted(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.any_entry()?;
    delete(scene, entry)
}

pub(super) fn first_deleted(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = *scene.images.entries.first().context("there are no entries")?;
    delete(scene, entry)
}

pub(super) fn newest_deleted(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = *scene.images.entries.last().context("there are no entries")?;
    delete(scene, entry)
}

fn delete(scene: &Scene<'_>, entry: Indexed) -> Result<Place> {
    scene.db.delete("tail", &entry.from.to_be_bytes())?;
    Ok(entry.place())
}

/// The database is then what it was before the newest entry; only the head file knows better.
pub(super) fn rolled_back(scene: &mut Scene<'_>) -> Result<Place> {
    let (newest, others) = scene.images.entries.split_last().context("there are no entries")?;
    let mut walker = Walker::whole(JournalState::genesis(scene.images.origin.clone()));
    let mut rows = Vec::new();
    for entry in others {
        walker.step(&scene.entry_bytes(entry)?)?;
        rows.extend_from_slice(walker.tree_rows());
    }
    let bytes = scene.entry_bytes(newest)?;
    let removed = Entry::decode(&bytes)?;
    let memory = beside::batch_key(removed.source, removed.epoch, removed.source_seq);
    scene.db.delete("batches", &memory)?;
    delete(scene, *newest)?;
    beside::put_state(scene.db, walker.state(), &rows)?;
    beside::put_tenants(scene.db, walker.state())?;
    for (tenant, _) in removed.tenants.iter().filter(|(tenant, _)| !walker.state().tenants.contains_key(tenant)) {
        scene.db.delete("tenants", tenant.as_bytes())?;
    }
    if !walker.state().sources.contains_key(&removed.source) {
        scene.db.delete("sources", removed.source.as_bytes())?;
    }
    Ok(newest.place())
}

pub(super) fn repeated(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.any_entry()?;
    let end = scene.images.size();
    place_copy(scene, &entry, end)?;
    Ok(Place::Records { from: end, to: end + (entry.to - entry.from) })
}

pub(super) fn inserted(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.any_entry()?;
    let other = scene.pick(|inflated| inflated.records.len() > 1)?;
    // Between two entries' keys is room in the middle of an entry's sequences.
    let from = scene.random.random_range(other.from + 1..other.to);
    place_copy(scene, &entry, from)?;
    Ok(Place::Records { from: other.to, to: other.to + 1 })
}

pub(super) fn replaced(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.any_entry()?;
    let others: Vec<&Indexed> = scene.images.entries.iter().filter(|other| other.from != entry.from).collect();
    let other = **others.choose(scene.random).context("there is one entry only")?;
    place_copy(scene, &other, entry.from)?;
    Ok(entry.place())
}

/// Stores a copy of an entry under another sequence, which it then states itself.
fn place_copy(scene: &Scene<'_>, entry: &Indexed, from: u64) -> Result<()> {
    let bytes = scene.entry_bytes(entry)?;
    let copy = Entry { seq: Seq::new(from), ..Entry::decode(&bytes)? };
    scene.db.put("tail", &from.to_be_bytes(), &copy.encode())
}

/// Each under the other's key, with the other's sequence.
pub(super) fn swapped(scene: &mut Scene<'_>) -> Result<Place> {
    let entries = &scene.images.entries;
    ensure!(entries.len() > 1, "there is one entry only");
    let number = scene.random.random_range(0..entries.len() - 1);
    let (one, other) = (entries[number], entries[scene.random.random_range(number + 1..entries.len())]);
    let bytes = scene.entry_bytes(&one)?;
    place_copy(scene, &other, one.from)?;
    let moved = Entry { seq: Seq::new(other.from), ..Entry::decode(&bytes)? };
    scene.db.put("tail", &other.from.to_be_bytes(), &moved.encode())?;
    Ok(one.place())
}

/// Changes a record and computes every hash after it anew, heads and all. Within the database nothing tells; the head file
/// does. (Who changes that as well is found only by those who remember a head elsewhere.)
pub(super) fn rechained(scene: &mut Scene<'_>) -> Result<Place> {
    let entries = &scene.images.entries;
    let number = scene.random.random_range(0..entries.len());
    let mut state = JournalState::genesis(scene.images.origin.clone());
    let mut walker = Walker::whole(state.clone());
    let mut rows = Vec::new();
    for entry in &entries[..number] {
        walker.step(&scene.entry_bytes(entry)?)?;
        rows.extend_from_slice(walker.tree_rows());
    }
    state.clone_from(walker.state());
    for (index, indexed) in entries.iter().enumerate().skip(number) {
        let bytes = scene.entry_bytes(indexed)?;
        let mut inflated = Inflated::read(&bytes)?;
        if index == number {
            let record = inflated.records.first_mut().context("there is a record")?;
            record.content = Some(b"nothing happened".as_slice().to_owned().into());
        }
        let mut builder = BlockBuilder::default();
        inflated.records.iter().try_for_each(|record| builder.push(record.as_ref()))?;
        let block = builder.take();
        let commitments = inflated.entry.commitments(&Block::parse(&block)?);
        let entry = &mut inflated.entry;
        let previous = match state.sources.get(&entry.source) {
            Some(source) if source.epoch == entry.epoch => source.head,
            _ => state.epoch_opening(entry.source, entry.epoch),
        };
        entry.batch_hash = batch_hash(&previous, entry.source, entry.epoch, entry.source_seq, &commitments);
        state.link(entry.envelopes(), &commitments, &mut rows);
        entry.chain_hash = state.chain;
        let count = u64::from(entry.count);
        let source = SourceState {
            epoch: entry.epoch,
            next: SourceSeq::new(entry.source_seq.get() + count),
            head: entry.batch_hash,
            count: Count::new(entry.source_count.get() + count),
        };
        state.sources.insert(entry.source, source);
        state.receipt_time = entry.receipt_time;
        scene.db.put("tail", &indexed.from.to_be_bytes(), &inflated.encode()?)?;
    }
    beside::put_state(scene.db, &state, &rows)?;
    // The head file knows that the end is another, not where the change began.
    Ok(Place::Anywhere)
}
