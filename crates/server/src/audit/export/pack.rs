//! Writes the chosen records with their proofs.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use sha2::{Digest, Sha256};
use sigillo_journal::{Direction, ReadError, StoredEntry, TreeReader};
use sigillo_model::{
    audit::{Fault, Finding},
    block::Inflater,
    chain,
    commitment::Committer,
    entry::{Entry, Held, HeldPart},
    evidence::{HeadProof, PartBody, RecordBody, RecordView, Run, Writer, gap_hashes},
    ids::ChainHash,
    note::Note,
    record::{Part, Record},
    rotation::{self, Rotation},
    statement,
};
use tonic::Status;

use super::{Export, Stop, altered, choose::Chosen, counters::own_texts};

/// Written bytes are handed on when there are so many.
const PIECE_BYTES: usize = 64 << 10;
/// Earlier checkpoints of a file at most: a file has room for 1,024.
const EARLIER_MAX: usize = 1_000;

/// Writes the file up to the proof of its run's end. Returns the number of records.
pub(super) fn pack(export: &mut Export, chosen: &[Chosen], heads: &[HeadProof]) -> Result<u64, Stop> {
    let tree = export.journal.tree(export.end.size)?;
    let mut writer = Writer::new(&export.about, &export.trust.to_bytes())?;
    for note in rotations(export)? {
        writer.rotation(&note)?;
    }
    writer.checkpoint(&export.end.note)?;
    earlier(export, chosen, &tree, &mut writer)?;
    if let (Some((key, name)), Some((entry, _))) = (&export.wish.run, &export.end.proof) {
        let run = Run { key: *key, from: 0, to: entry.next.get(), reaches_end: true, name: Some(name.clone()) };
        writer.run(&run)?;
    }
    for head in heads {
        writer.head(head)?;
    }
    let mut records = Records { tree, next: 0, before: None };
    let mut rest = chosen;
    while let [first, ..] = rest {
        let stored = read_entry(export, first.seq)?;
        let entry = stored.entry()?;
        let (here, after) = rest.split_at(rest.partition_point(|one| one.seq < entry.end()));
        records.write(export, &entry, here, &mut writer)?;
        rest = after;
    }
    let Records { tree, next, .. } = records;
    writer.edge(&gap_hashes(next, export.end.size, export.end.size, &tree)?)?;
    if let Some((_, proof)) = &export.end.proof {
        writer.counters(proof)?;
    }
    export.give(writer.take())?;
    Ok(chosen.len() as u64)
}

/// The notes by which the recovery key has changed the log's key, by size: for readers whose trust file knows an older key.
fn rotations(export: &Export) -> Result<Vec<Vec<u8>>, Stop> {
    let recovery = export.trust.recovery();
    let mut found = BTreeMap::new();
    // The trust file names every key that a rotation has named: with one key there was none.
    if recovery.is_empty() || export.trust.logs().len() < 2 {
        return Ok(Vec::new());
    }
    for stored in export.journal.source_entries_newest_first(statement::journal_source()) {
        own_texts(&stored?, |_, text| {
            let note = text.starts_with(rotation::HEADER.as_bytes()).then(|| Note::parse(text).ok()).flatten();
            let verified = note.and_then(|note| Rotation::verify(&note, &export.origin, recovery).ok());
            if let Some(rotation) = verified {
                found.insert(rotation.size, text.to_vec());
            }
        })?;
    }
    Ok(found.into_values().collect())
}

/// The earliest kept checkpoints that cover the chosen records, and those that were asked for, each with its consistency.
fn earlier(export: &Export, chosen: &[Chosen], tree: &TreeReader, writer: &mut Writer) -> Result<(), Stop> {
    let size = export.end.size;
    let mut asked: BTreeSet<[u8; 32]> = export.wish.notes.iter().copied().collect();
    asked.remove(&<[u8; 32]>::from(Sha256::digest(&export.end.note)));
    let (mut wanted, mut covering) = (BTreeSet::new(), Vec::new());
    let mut rest = chosen;
    for kept in export.journal.checkpoints(1..size) {
        let kept = kept?;
        if !asked.is_empty() && asked.remove(&<[u8; 32]>::from(Sha256::digest(&kept.note))) {
            wanted.insert(kept.size);
        }
        let (covered, after) = rest.split_at(rest.partition_point(|one| one.seq < kept.size));
        if !covered.is_empty() {
            covering.push(kept.size);
        }
        rest = after;
        if rest.is_empty() && asked.is_empty() {
            break;
        }
    }
    if !asked.is_empty() {
        return Err(Stop::Refused(Status::not_found(
            "a time-stamp token is over a note that is none of the kept checkpoints up to this export",
        )));
    }
    // Of too many, some at even distances: a record then existed by a later time.
    let step = covering.len().div_ceil(EARLIER_MAX - wanted.len()).max(1);
    wanted.extend(covering.into_iter().step_by(step));
    for at in wanted {
        let Some(kept) = export.journal.checkpoint_at_or_after(at)? else { continue };
        // One that was signed with a key of which the trust file knows nothing any more would spoil the file.
        let judged = Note::parse(&kept.note).is_ok_and(|note| export.trust.check(&note).is_ok());
        if judged {
            writer.earlier(&kept.note, &tree.consistency(kept.size)?)?;
        }
    }
    Ok(())
}

pub(super) fn read_entry(export: &Export, seq: u64) -> Result<StoredEntry, Stop> {
    let missing =
        || ReadError::Altered(Finding { from: seq, to: seq, fault: Fault::Sequence { expected: seq, found: seq } });
    Ok(export.journal.entries(seq..seq + 1, Direction::Forward).next().ok_or_else(missing)??)
}

struct Records {
    tree: TreeReader,
    /// The sequence after the last record that was written.
    next: u64,
    /// Where the last entry ended, and the chain value there.
    before: Option<(u64, ChainHash)>,
}

impl Records {
    /// Writes the chosen records of one entry.
    fn write(
        &mut self,
        export: &mut Export,
        entry: &Entry<'_>,
        chosen: &[Chosen],
        writer: &mut Writer,
    ) -> Result<(), Stop> {
        let Range { start, end } = entry.seq.get()..entry.end();
        let before = match self.before {
            Some((at, value)) if at == start => value,
            _ if start == 0 => chain::genesis(&export.origin),
            _ => read_entry(export, start - 1)?.entry()?.chain_hash,
        };
        let mut inflater = Inflater::default();
        let block = entry.block(&mut inflater).map_err(|error| altered(entry, Fault::Block(error)))?;
        let commitments = entry.commitments(&block);
        let mut values = Vec::with_capacity(commitments.len() + 1);
        values.push(before);
        let last = chain::link_each(before, entry.envelopes(), &commitments, |value| values.push(*value));
        if last != entry.chain_hash {
            return Err(altered(entry, Fault::ChainHash).into());
        }
        self.before = Some((end, last));
        let mut committer = Committer::default();
        let records = entry.held(&block).zip(entry.envelopes()).zip(&commitments).zip(&values);
        let mut chosen = chosen.iter().peekable();
        for (((held, envelope), commitment), previous) in records {
            let seq = envelope.seq.get();
            let Some(one) = chosen.next_if(|one| one.seq == seq) else { continue };
            if self.next != seq || seq == 0 {
                let gap = gap_hashes(self.next, seq, export.end.size, &self.tree)?;
                writer.stretch(seq, previous, &gap)?;
            }
            let body = body(&held, one.shown, *commitment, &mut committer);
            let view = RecordView { envelope, body };
            writer.record(&view, previous)?;
            export.read.sends(&envelope, &shown(&view));
            self.next = seq + 1;
            if writer.pending() >= PIECE_BYTES {
                let piece = writer.take();
                export.give(piece)?;
            }
        }
        Ok(())
    }
}

/// What the file holds of a record.
fn body<'a>(
    held: &Held<'a>,
    shown: u8,
    commitment: sigillo_model::ids::Commitment,
    committer: &mut Committer,
) -> RecordBody<'a> {
    let parts = match held {
        Held::Erased(commitment) | Held::Purged(commitment) => {
            return RecordBody::Commitment { commitment: *commitment, gone: true };
        }
        Held::Parts(_) if shown == 0 => return RecordBody::Commitment { commitment, gone: false },
        Held::Parts(parts) => parts,
    };
    let mut bodies = [PartBody::Absent; 3];
    for ((body, part), held) in bodies.iter_mut().zip(Part::ALL).zip(parts) {
        *body = match held {
            HeldPart::Absent => PartBody::Absent,
            HeldPart::Gone(hash) => PartBody::Hidden { hash: *hash.as_bytes(), gone: true },
            HeldPart::Kept { salt, bytes } if shown >> part.number() & 1 == 1 => {
                PartBody::Shown { salt: *salt.expose(), bytes }
            }
            HeldPart::Kept { salt, bytes } => {
                PartBody::Hidden { hash: committer.part_hash(salt.expose(), part, bytes), gone: false }
            }
        };
    }
    RecordBody::Parts(bodies)
}

/// What the reader gets to see of it, for the account of the read.
fn shown(view: &RecordView<'_>) -> Record {
    let bytes = |part| view.shown(part).map(<[u8]>::to_vec).map(Into::into);
    Record { core: bytes(Part::Core), personal: bytes(Part::Personal), content: bytes(Part::Content) }
}
