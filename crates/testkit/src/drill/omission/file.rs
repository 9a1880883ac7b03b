//! Evidence files as the journal's owner makes them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use sigillo_model::{
    commitment::Committer,
    entry::Gone,
    envelope::Envelope,
    evidence::{About, CounterProof, PartBody, RecordBody, RecordView, Run, Seal, Tools, Writer, gap_hashes},
    ids::NodeHash,
    note::Note,
    record::{PART_BITS, Part},
    statement::counters::{CounterKey, CounterTree},
};

use super::journal::{Journal, Row};

/// How much of a record is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Whole,
    /// Only core and what else is not content.
    NoContent,
    /// Only the commitment.
    Commitment,
    /// Only the commitment, and the journal is said to hold no more.
    SaidGone,
}

/// What goes into a file.
#[derive(Debug, Clone)]
pub(super) struct Export {
    pub(super) size: u64,
    pub(super) note: Note,
    /// Earlier checkpoints, each with its consistency.
    pub(super) earlier: Vec<(Note, Vec<NodeHash>)>,
    pub(super) runs: Vec<Run>,
    pub(super) proofs: Vec<CounterProof>,
    pub(super) shown: BTreeMap<u64, Show>,
    /// Envelopes that are changed in the file alone.
    pub(super) changed: BTreeMap<u64, Envelope>,
}

/// What of its records the verifier should count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) records: u64,
    pub(super) hidden_records: u64,
    pub(super) hidden_content: u64,
    pub(super) explained: u64,
    pub(super) unexplained: u64,
}

/// The entry of somebody in a counters tree.
pub(super) fn proof(tree: &CounterTree, key: &CounterKey, run: u8) -> Result<CounterProof> {
    let (index, entry) = tree.find(key).context("nobody of this id")?;
    let hashes = tree.proof(index).context("no proof")?;
    Ok(CounterProof { run, epoch: entry.epoch.get(), index, hashes })
}

impl Export {
    /// All records of a source or tenant below `size`, with the counters record that ends there and the statements before.
    pub(super) fn lawful(journal: &Journal, key: &CounterKey, name: &str, size: u64, note: Note) -> Result<Self> {
        let last = size.checked_sub(1).context("no record")?;
        let tree = journal.counters.get(&last).context("no counters record at the end")?;
        let (_, entry) = tree.find(key).context("nobody of this id")?;
        let to = entry.next.get();
        let run = Run { key: *key, from: 0, to, reaches_end: true, name: Some(name.to_owned()) };
        let mut shown: BTreeMap<u64, Show> = journal.of(key, size).into_iter().map(|seq| (seq, Show::Whole)).collect();
        shown.insert(last, Show::Whole);
        Ok(Self {
            size,
            note,
            earlier: Vec::new(),
            runs: vec![run],
            proofs: vec![proof(tree, key, 0)?],
            shown,
            changed: BTreeMap::new(),
        })
    }

    /// Adds a smaller checkpoint.
    pub(super) fn add_earlier(&mut self, journal: &Journal, note: Note, size: u64) -> Result<()> {
        let hashes = sigillo_model::proof::consistency(size, self.size, journal)?;
        self.earlier.push((note, hashes));
        Ok(())
    }

    /// What the verifier should count, if what the journal has erased is explained.
    pub(super) fn counted(&self, journal: &Journal) -> Counted {
        let mut counted = Counted::default();
        for (seq, show) in &self.shown {
            counted.records += 1;
            if journal.gone.contains_key(seq) {
                counted.explained += 1;
                continue;
            }
            let content = journal.rows.get(usize::try_from(*seq).unwrap_or(usize::MAX));
            let content = content.is_some_and(|row| body_of(row).is_some());
            match show {
                Show::Whole => {}
                Show::NoContent => counted.hidden_content += u64::from(content),
                Show::Commitment => counted.hidden_records += 1,
                Show::SaidGone => counted.unexplained += 1,
            }
        }
        counted
    }

    /// The file.
    pub(super) fn file(&self, journal: &Journal, trust: &str) -> Result<Vec<u8>> {
        let about = About {
            origin: journal.origin.clone(),
            time: 0,
            who: "owner".into(),
            why: "drill".into(),
            query: "everything".into(),
            from: 0,
            to: self.size,
        };
        let mut writer = Writer::new(&about, trust.as_bytes())?;
        writer.checkpoint(&self.note.to_bytes())?;
        for (note, hashes) in &self.earlier {
            writer.earlier(&note.to_bytes(), hashes)?;
        }
        for run in &self.runs {
            writer.run(run)?;
        }
        let mut committer = Committer::default();
        let mut next = None;
        for (seq, show) in &self.shown {
            let at = usize::try_from(*seq)?;
            let (row, previous) =
                (journal.rows.get(at).context("no record")?, journal.values.get(at).context("no value")?);
            if next != Some(*seq) {
                let Ok(gap) = gap_hashes(next.unwrap_or(0), *seq, self.size, journal);
                writer.stretch(*seq, previous, &gap)?;
            }
            let gone = journal.gone.get(seq).copied();
            let envelope = self.changed.get(seq).copied().unwrap_or(row.envelope);
            let body = body(row, *show, gone, &mut committer);
            writer.record(&RecordView { envelope, body }, previous)?;
            next = Some(seq + 1);
        }
        let Ok(gap) = gap_hashes(next.unwrap_or(0), self.size, self.size, journal);
        writer.edge(&gap)?;
        for proof in &self.proofs {
            writer.counters(proof)?;
        }
        writer.tools(&Tools::default())?;
        let mut file = writer.take();
        let mut seal = Seal::default();
        seal.update(&file);
        writer.end(seal.text(&journal.origin).as_bytes())?;
        file.extend(writer.take());
        Ok(file)
    }
}

fn body_of(row: &Row) -> Option<&[u8]> {
    row.batch.records.get(row.index as usize)?.content.as_deref()
}

fn body<'a>(row: &'a Row, show: Show, gone: Option<Gone>, committer: &mut Committer) -> RecordBody<'a> {
    let Some(record) = row.batch.records.get(row.index as usize) else {
        return RecordBody::Commitment { commitment: sigillo_model::ids::Commitment::new([0; 32]), gone: false };
    };
    let gone = gone.map_or(0, Gone::bits);
    if gone & PART_BITS == PART_BITS || matches!(show, Show::Commitment | Show::SaidGone) {
        let commitment = committer.commit(&row.batch.secret, row.index, record.as_ref());
        return RecordBody::Commitment { commitment, gone: gone != 0 || show == Show::SaidGone };
    }
    RecordBody::Parts(Part::ALL.map(|part| {
        let Some(bytes) = record.as_ref().part(part) else { return PartBody::Absent };
        let salt = committer.salt(&row.batch.secret, row.index, part);
        let gone = gone >> part.number() & 1 == 1;
        if gone || (show == Show::NoContent && part == Part::Content) {
            PartBody::Hidden { hash: committer.part_hash(&salt, part, bytes), gone }
        } else {
            PartBody::Shown { salt, bytes }
        }
    }))
}
