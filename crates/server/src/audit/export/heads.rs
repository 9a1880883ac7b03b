//! What the sources themselves have signed over the chosen records: the next head behind each, and what leads there.

use std::{collections::BTreeMap, ops::Range};

use sigillo_journal::{Direction, StoredEntry};
use sigillo_model::{
    audit::Fault,
    batch::epoch_opening,
    block::Inflater,
    entry::Entry,
    evidence::{BatchProof, HeadProof, Stated, subtrees},
    head::{self, SignedHead, statement::SourceKey},
    ids::{BatchHash, Epoch, NodeHash, Origin, SourceId, SourceSeq},
    record::PART_BITS,
    statement,
    tree::{self, RootBuilder},
};

use super::{Export, Stop, altered, choose::Chosen, counters::own_texts, pack::read_entry};

/// Heads of one file at most; what is beyond goes without.
const HEADS_MAX: usize = 4_096;
/// Batches up to one head at most. Senders sign after fewer.
const BATCHES_MAX: usize = 1_024;
/// Records that are hashed again for one file at most.
const AGAIN_MAX: u64 = 4_000_000;
/// Entries behind the last chosen record among which its head is looked for, and before the first among which its key is.
const LOOK_MAX: usize = 20_000;

/// Chosen records of one source's epoch up to a head.
#[derive(Debug)]
struct Plan {
    source: SourceId,
    epoch: Epoch,
    head: Stated,
    next: SourceSeq,
    /// `None`: it stands before the first chosen record.
    announcement: Option<Stated>,
    batches: Vec<Batch>,
}

/// A batch between a chosen record and the head behind it.
#[derive(Debug, Clone, Copy)]
struct Batch {
    /// Of its first record, in the journal.
    seq: u64,
    /// The source's number of its first record.
    first: SourceSeq,
    records: u32,
}

/// What is known of a source at some place of the journal.
#[derive(Debug, Default)]
struct Sender {
    named: Option<Stated>,
    epoch: Epoch,
    /// From the first chosen record without a head on.
    batches: Vec<Batch>,
}

/// Adds the records that hold heads and name their keys to the chosen ones, which are sorted before and after.
pub(super) fn heads(export: &Export, chosen: &mut Vec<Chosen>) -> Result<Vec<HeadProof>, Stop> {
    let Some(first) = chosen.first().map(|one| one.seq) else { return Ok(Vec::new()) };
    let mut plans = plan(export, chosen)?;
    find_keys(export, first, &mut plans)?;
    let (mut proofs, mut again) = (Vec::new(), 0);
    for plan in plans {
        again += plan.batches.iter().map(|batch| u64::from(batch.records)).sum::<u64>();
        if again > AGAIN_MAX {
            tracing::warn!(
                "more records lead to signed heads than are hashed again for one export: the rest goes without"
            );
            break;
        }
        proofs.extend(prove(export, chosen, plan)?);
    }
    for proof in &proofs {
        chosen.extend([&proof.head, &proof.announcement].map(|stated| Chosen { seq: stated.seq, shown: PART_BITS }));
    }
    Ok(proofs)
}

/// Goes through the journal from the first chosen record until every one has the head behind it.
fn plan(export: &Export, chosen: &[Chosen]) -> Result<Vec<Plan>, Stop> {
    let (Some(first), Some(last)) = (chosen.first(), chosen.last()) else { return Ok(Vec::new()) };
    let mut senders: BTreeMap<SourceId, Sender> = BTreeMap::new();
    let (mut plans, mut beyond) = (Vec::new(), 0);
    for stored in export.journal.entries(first.seq..export.end.size, Direction::Forward) {
        let stored = stored?;
        let entry = stored.entry()?;
        if entry.source == statement::journal_source() {
            own_texts(&stored, |seq, text| {
                if seq < export.end.size && plans.len() < HEADS_MAX {
                    plans.extend(stated(&mut senders, &export.origin, Stated { seq, text: text.to_vec() }));
                }
            })?;
        } else {
            passed(&mut senders, &entry, within(chosen, &entry).is_empty());
        }
        if entry.seq.get() > last.seq {
            beyond += 1;
            if beyond > LOOK_MAX || senders.values().all(|sender| sender.batches.is_empty()) {
                break;
            }
        }
    }
    Ok(plans)
}

/// Takes a batch of a source.
fn passed(senders: &mut BTreeMap<SourceId, Sender>, entry: &Entry<'_>, none_is_chosen: bool) {
    let sender = senders.entry(entry.source).or_default();
    if sender.epoch != entry.epoch || sender.batches.len() == BATCHES_MAX {
        // No head of that epoch comes any more, or none came for too long.
        sender.batches.clear();
    }
    sender.epoch = entry.epoch;
    if !none_is_chosen || !sender.batches.is_empty() {
        sender.batches.push(Batch { seq: entry.seq.get(), first: entry.source_seq, records: entry.count });
    }
}

/// Takes what the journal states about a source's heads.
fn stated(senders: &mut BTreeMap<SourceId, Sender>, origin: &Origin, stated: Stated) -> Option<Plan> {
    if !stated.text.starts_with(head::HEADER.as_bytes()) {
        let text = std::str::from_utf8(&stated.text).ok()?;
        let key = SourceKey::parse(text, origin).ok()?;
        senders.entry(key.source).or_default().named = Some(stated);
        return None;
    }
    let (head, _) = SignedHead::parse(&stated.text).ok()?;
    let sender = senders.entry(head.source).or_default();
    let announcement = sender.named.replace(stated.clone());
    let covered = sender.batches.partition_point(|batch| batch.first < head.next);
    if sender.epoch != head.epoch || covered == 0 {
        return None;
    }
    let batches: Vec<Batch> = sender.batches.drain(..covered).collect();
    let (source, epoch, next) = (head.source, head.epoch, head.next);
    Some(Plan { source, epoch, head: stated, next, announcement, batches })
}

/// Looks before the first chosen record for what names the keys of the first heads.
fn find_keys(export: &Export, first: u64, plans: &mut [Plan]) -> Result<(), Stop> {
    let mut missing: BTreeMap<SourceId, usize> = BTreeMap::new();
    for (index, plan) in plans.iter().enumerate().filter(|(_, plan)| plan.announcement.is_none()) {
        missing.insert(plan.source, index);
    }
    for stored in export.journal.entries(0..first, Direction::Backward).take(LOOK_MAX) {
        if missing.is_empty() {
            break;
        }
        let stored = stored?;
        if stored.entry()?.source != statement::journal_source() {
            continue;
        }
        let mut texts = Vec::new();
        own_texts(&stored, |seq, text| {
            if text.starts_with(b"sigillo ") && text.len() <= head::HEAD_MAX_BYTES {
                texts.push(Stated { seq, text: text.to_vec() });
            }
        })?;
        for found in texts.into_iter().rev().filter(|found| found.seq < first) {
            let text = std::str::from_utf8(&found.text).unwrap_or_default();
            let source = match SignedHead::parse(&found.text) {
                Ok((head, _)) => Some(head.source),
                Err(_) => SourceKey::parse(text, &export.origin).ok().map(|key| key.source),
            };
            if let Some(plan) = source.and_then(|source| missing.remove(&source)).and_then(|index| plans.get_mut(index))
            {
                plan.announcement = Some(found);
            }
        }
    }
    Ok(())
}

/// The proof of a plan. `None` if nothing names the head's key, or the head does not end where a batch does.
fn prove(export: &Export, chosen: &[Chosen], plan: Plan) -> Result<Option<HeadProof>, Stop> {
    let Plan { source, epoch, head, next, announcement, batches } = plan;
    let (Some(announcement), Some(first)) = (announcement, batches.first()) else { return Ok(None) };
    let ends = batches.last().and_then(|last| last.first.checked_add(u64::from(last.records)));
    if ends != Some(next) {
        return Ok(None);
    }
    let before = export.journal.source_entries_before(source, epoch, first.first).next().transpose()?;
    let before = before.as_ref().map(StoredEntry::entry).transpose()?;
    let previous: BatchHash = match before.map(|entry| (entry.epoch == epoch, entry.batch_hash)) {
        Some((true, hash)) => hash,
        other => epoch_opening(&export.origin, source, epoch, other.map(|(_, hash)| hash)),
    };
    let mut proof = HeadProof { head, announcement, first: first.first, previous, batches: Vec::new() };
    for batch in &batches {
        let stored = read_entry(export, batch.seq)?;
        let entry = stored.entry()?;
        let leaves = leaves(&entry)?;
        let places = within(chosen, &entry).iter().map(|one| one.seq - entry.seq.get());
        proof.batches.push((batch.records, batch_proof(&leaves, places.collect())));
    }
    Ok(Some(proof))
}

/// The chosen records of an entry.
fn within<'a>(chosen: &'a [Chosen], entry: &Entry<'_>) -> &'a [Chosen] {
    let Range { start, end } = entry.seq.get()..entry.end();
    let from = chosen.partition_point(|one| one.seq < start);
    let to = chosen.partition_point(|one| one.seq < end);
    chosen.get(from..to).unwrap_or_default()
}

fn leaves(entry: &Entry<'_>) -> Result<Vec<NodeHash>, Stop> {
    let mut inflater = Inflater::default();
    let block = entry.block(&mut inflater).map_err(|error| altered(entry, Fault::Block(error)))?;
    Ok(entry.commitments(&block).iter().map(|commitment| tree::leaf(commitment.as_bytes())).collect())
}

fn batch_proof(leaves: &[NodeHash], places: Vec<u64>) -> BatchProof {
    let root = |from: u64, to: u64| {
        let mut root = RootBuilder::default();
        let (from, to) = (usize::try_from(from).unwrap_or(usize::MAX), usize::try_from(to).unwrap_or(usize::MAX));
        leaves.get(from..to).unwrap_or_default().iter().for_each(|leaf| root.push(*leaf));
        root.root()
    };
    let size = leaves.len() as u64;
    if places.is_empty() {
        return BatchProof::Root(root(0, size));
    }
    let mut hashes = Vec::new();
    let mut at = 0;
    for (place, after) in places.into_iter().map(|place| (place, place + 1)).chain([(size, size)]) {
        hashes.extend(subtrees(at, place, size).map(|(from, to)| root(from, to)));
        at = after;
    }
    BatchProof::Shared(hashes)
}
