//! A journal's folder, written behind the journal's back with valid checksums everywhere, and read as an outsider reads it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use sigillo_model::{
    block::Inflater,
    entry::{Entry, Gone, checksum},
    envelope::ENVELOPE_BYTES,
    ids::{NodeHash, Origin, RetentionId},
    note::Note,
    record::Record,
};

use super::{
    super::edits::beside::{put_state, put_tenants, sealed},
    pieces::{Piece, Replay},
};
use crate::database::Database;

/// Puts batches in place of all from the one at `at` on; the others must be those that are there. Everything that follows from
/// the batches is made to fit, the head file too.
pub(super) fn write(dir: &Path, origin: &Origin, pieces: &[Piece], at: usize) -> Result<Replay> {
    let db = Database::open(dir)?;
    let mut replay = Replay::new(origin);
    let mut entries = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let seq = replay.state.size;
        let bytes = replay.append(piece)?;
        if number >= at {
            entries.push((seq, bytes));
        }
    }
    let first = pieces.iter().take(at).map(Piece::len).sum::<u64>();
    for (key, _) in db.pairs("tail")?.iter().filter(|(key, _)| key.as_ref() >= first.to_be_bytes().as_slice()) {
        db.delete("tail", key)?;
    }
    for (seq, bytes) in entries {
        db.put("tail", &seq.to_be_bytes(), &bytes)?;
    }
    for family in ["batches", "sources", "tenants"] {
        for (key, _) in db.pairs(family)? {
            db.delete(family, &key)?;
        }
    }
    for (key, seq) in &replay.memory {
        db.put("batches", key, &seq.to_be_bytes())?;
    }
    put_state(&db, &replay.state, &replay.rows)?;
    put_tenants(&db, &replay.state)?;
    db.close()?;
    let state = &replay.state;
    put_text(&dir.join("head"), &format!("sigillo head v1\n{origin}\n{}\n{}\nclean\n", state.size, state.chain))?;
    Ok(replay)
}

/// Writes a text file that ends in its checksum.
fn put_text(path: &Path, body: &str) -> Result<()> {
    // Replaced, not written into: it may be shared with the image.
    let next = path.with_extension("next");
    fs::write(&next, format!("{body}{}\n", hex::encode(checksum(body.as_bytes()))))?;
    fs::rename(next, path).with_context(|| path.display().to_string())
}

/// Says in the file `signed` and in the published checkpoint that this was signed last.
pub(super) fn publish(dir: &Path, origin: &Origin, size: u64, root: &NodeHash, note: &Note) -> Result<()> {
    let root = BASE64_STANDARD.encode(root.as_bytes());
    put_text(&dir.join("signed"), &format!("sigillo signed v1\n{origin}\n{size}\n{root}\n"))?;
    let next = dir.join("checkpoint.next");
    fs::write(&next, note.to_bytes())?;
    Ok(fs::rename(next, dir.join("checkpoint"))?)
}

/// Makes these the only checkpoints that the journal keeps.
pub(super) fn keep(dir: &Path, notes: &BTreeMap<u64, Note>) -> Result<()> {
    let db = Database::open(dir)?;
    for (key, _) in db.pairs("checkpoints")? {
        db.delete("checkpoints", &key)?;
    }
    for (size, note) in notes {
        db.put("checkpoints", &size.to_be_bytes(), &sealed(note.to_bytes()))?;
    }
    db.close()
}

/// Takes parts out of records for good, as a purge or an erasure does. `what` names them by the records' sequences.
pub(super) fn take_out(dir: &Path, what: &BTreeMap<u64, Gone>) -> Result<()> {
    let db = Database::open(dir)?;
    for (key, value) in db.pairs("tail")? {
        let entry = Entry::decode(&value)?;
        if what.range(entry.seq.get()..entry.end()).next().is_none() {
            continue;
        }
        let mut inflater = Inflater::default();
        let block = entry.block(&mut inflater)?;
        let gone = |index: usize| what.get(&(entry.seq.get() + index as u64)).copied().unwrap_or(Gone::NOTHING);
        let reduced = entry.reduce(&block, |index, _| gone(index)).context("nothing was taken out")?;
        db.put("tail", &key, &reduced.bytes)?;
    }
    // What stood before is not to be found in any file either.
    db.compact()?;
    db.close()
}

/// Says that a class was purged up to a record, by a retention statement.
pub(super) fn put_class(dir: &Path, class: RetentionId, retention: u64, keep_s: u64, purged_to: u64) -> Result<()> {
    let db = Database::open(dir)?;
    let [high, low] = class.get().to_be_bytes();
    let mut value = vec![1];
    value.extend([retention, keep_s, purged_to].iter().flat_map(|field| field.to_be_bytes()));
    db.put("pending", &[b'c', high, low], &sealed(value))?;
    db.close()
}

/// What a reader finds in a journal, whatever its files look like.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Logical {
    records: Vec<Seen>,
    /// Kept checkpoints by size.
    pub(super) notes: BTreeMap<u64, Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    envelope: [u8; ENVELOPE_BYTES],
    record: Record,
    gone: u8,
}

impl Logical {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let db = Database::open_read_only(dir)?;
        let mut records = Vec::new();
        for (_, value) in db.pairs("tail")? {
            let entry = Entry::decode(&value)?;
            let mut inflater = Inflater::default();
            let block = entry.block(&mut inflater)?;
            let seen = entry.envelopes().zip(block.records()).enumerate().map(|(index, (envelope, record))| Seen {
                envelope: envelope.to_bytes(),
                record: record.into(),
                gone: entry.gone(index).bits(),
            });
            records.extend(seen);
        }
        let note = |(key, value): crate::database::Pair| {
            let size = u64::from_be_bytes(key.as_ref().try_into()?);
            let (note, _) = value.split_last_chunk::<8>().context("a kept checkpoint without its checksum")?;
            Ok((size, note.to_vec()))
        };
        Ok(Self { records, notes: db.pairs("checkpoints")?.into_iter().map(note).collect::<Result<_>>()? })
    }

    /// Number of records.
    pub(super) fn size(&self) -> u64 {
        self.records.len() as u64
    }

    /// The first record that is not in both alike.
    pub(super) fn first_difference(&self, other: &Self) -> Option<u64> {
        let alike = self.records.iter().zip(&other.records).take_while(|(one, other)| one == other).count() as u64;
        (self.size() != other.size() || alike < self.size()).then_some(alike)
    }
}
