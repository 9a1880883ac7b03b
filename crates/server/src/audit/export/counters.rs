//! The checkpoint that shows where a run ends, and the entry that proves it.

use std::collections::BTreeMap;

use sigillo_journal::{Reader, StoredEntry};
use sigillo_model::{
    audit::Fault,
    block::Inflater,
    evidence::CounterProof,
    ids::Origin,
    record::Part,
    statement::{
        self,
        counters::{CounterEntry, CounterKey, CounterTree, Counters},
    },
};
use tonic::Status;

use super::{Stop, altered};
use crate::reads::Ended;

/// The checkpoint of an export.
#[derive(Debug)]
pub(super) struct End {
    /// Records below it.
    pub(super) size: u64,
    /// Its note.
    pub(super) note: Vec<u8>,
    /// Where the run ends, and the proof.
    pub(super) proof: Option<(CounterEntry, CounterProof)>,
}

/// The newest kept checkpoint whose last record is a counters record, or the `given` one, of which the same must hold; with the entry of
/// `key`.
pub(super) fn at(reader: &Reader, origin: &Origin, key: &CounterKey, given: Option<&End>) -> Result<End, Stop> {
    let mut end: Option<(u64, Vec<u8>, Counters)> = None;
    let mut entries: BTreeMap<CounterKey, CounterEntry> = BTreeMap::new();
    // A counters record names what changed since the one before; the first after a start names all. So going back, the first entry
    // that is met of each is the one in force.
    for stored in reader.source_entries_newest_first(statement::journal_source()) {
        for (seq, counters) in counters_of(&stored?, origin)?.into_iter().rev() {
            if let (None, Some(given)) = (&end, given) {
                if seq >= given.size {
                    continue;
                }
                if seq + 1 < given.size {
                    return Err(not_whole());
                }
                end = Some((given.size, given.note.clone(), counters.clone()));
            } else if end.is_none() {
                let kept = reader.checkpoint_at_or_after(seq + 1)?.filter(|kept| kept.size == seq + 1);
                let Some(kept) = kept else { continue };
                end = Some((kept.size, kept.note, counters.clone()));
            }
            for change in counters.changes {
                entries.entry(change.key).or_insert(change);
            }
        }
        if let Some((.., counters)) = &end
            && entries.len() as u64 >= counters.count
        {
            break;
        }
    }
    let Some((size, note, counters)) = end else {
        if given.is_some() {
            return Err(not_whole());
        }
        return Err(Stop::Refused(Status::failed_precondition(
            "no checkpoint ends with a counters record yet, so no run can be shown to be whole: try in a minute",
        )));
    };
    let tree = CounterTree::build(counters.salt, entries.into_values().collect());
    if tree.root() != counters.root {
        tracing::error!(size, "the counters records do not add up to the root of the newest");
        return Err(Stop::Ended(Ended::Failed));
    }
    let (index, entry) = tree.find(key).ok_or_else(|| {
        Stop::Refused(Status::not_found("nobody of this name has any record up to the newest counters record"))
    })?;
    let hashes = tree.proof(index).unwrap_or_default();
    let proof = CounterProof { run: 0, epoch: entry.epoch.get(), index, hashes };
    Ok(End { size, note, proof: Some((*entry, proof)) })
}

fn not_whole() -> Stop {
    Stop::Refused(Status::failed_precondition(
        "the given checkpoint does not end with a counters record, so it shows of no run that it is whole: cosign one that does, as \
         `sigillo verify --cosign` chooses it",
    ))
}

/// The counters records of an entry, in order.
fn counters_of(stored: &StoredEntry, origin: &Origin) -> Result<Vec<(u64, Counters)>, Stop> {
    let mut found = Vec::new();
    own_texts(stored, |seq, text| {
        let text = std::str::from_utf8(text).ok();
        found.extend(text.and_then(|text| Counters::parse(text, origin).ok()).map(|counters| (seq, counters)));
    })?;
    Ok(found)
}

/// Hands `see` what the records of an entry of the journal's own source state, with their sequences.
pub(super) fn own_texts(stored: &StoredEntry, mut see: impl FnMut(u64, &[u8])) -> Result<(), Stop> {
    let entry = stored.entry()?;
    let mut inflater = Inflater::default();
    let block = entry.block(&mut inflater).map_err(|error| altered(&entry, Fault::Block(error)))?;
    for (seq, record) in (entry.seq.get()..).zip(block.records()) {
        if let Some(text) = record.part(Part::Content).and_then(statement::original) {
            see(seq, text);
        }
    }
    Ok(())
}
