//! Writes what a verified file makes readable: records as JSON lines, and each record's own proof.
//!
//! ```text
//! DIR/records.jsonl        one object for each record of the file
//! DIR/checkpoint           the note to which all is proved
//! DIR/proofs/N.tlog-proof  the proof of record N alone
//! DIR/tokens/NAME          time-stamp tokens
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};
use sigillo_model::{
    class::Class,
    evidence::{Kind, Nodes, PartBody, RecordBody, RecordView, Watch},
    ids::NodeHash,
    note::{Note, NoteError},
    policy::Policy,
    record::Part,
    record_proof::RecordLink,
    statement::counters::CounterKey,
    tlog_proof::TlogProof,
};
use sigillo_proto::v1;

use crate::{
    read::ReadError,
    show::{escape::safe_json, fields::Shown},
    verdict::{self, Verdict},
};

/// Name of the records until all of them are verified.
const UNFINISHED: &str = "records.jsonl.unfinished";

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The folder holds something.
    #[error("{0} is not empty: name a new folder")]
    NotEmpty(PathBuf),
    /// Not written.
    #[error("{path} can't be written: {error}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file is another one than a moment ago.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The checkpoint's note.
    #[error("the checkpoint: {0}")]
    Note(#[from] NoteError),
}

/// The nodes of the tree that a file shows, about 80 bytes for each of its records.
#[derive(Debug, Default)]
pub struct Tree {
    /// Full subtrees by the logarithm of their width, each list by ascending first leaf.
    full: Vec<Vec<(u64, NodeHash)>>,
    /// Those at the tree's right edge, by first leaf; all end at the tree's size.
    edge: BTreeMap<u64, NodeHash>,
}

impl Nodes for Tree {
    fn node(&mut self, from: u64, to: u64, hash: &NodeHash) {
        let width = to.saturating_sub(from);
        if !width.is_power_of_two() {
            self.edge.insert(from, *hash);
            return;
        }
        let height = width.trailing_zeros() as usize;
        if self.full.len() <= height {
            self.full.resize(height + 1, Vec::new());
        }
        if let Some(row) = self.full.get_mut(height) {
            row.push((from, *hash));
        }
    }
}

impl Watch for Tree {
    fn record(&mut self, _: &RecordView<'_>, _: &RecordLink) {}
}

impl Tree {
    fn get(&self, from: u64, to: u64) -> Option<NodeHash> {
        let width = to.checked_sub(from)?;
        if !width.is_power_of_two() {
            return self.edge.get(&from).copied();
        }
        let row = self.full.get(width.trailing_zeros() as usize)?;
        let at = row.binary_search_by_key(&from, |(from, _)| *from).ok()?;
        row.get(at).map(|(_, hash)| *hash)
    }

    /// The inclusion proof of a record that the file shows: siblings, from the leaf up.
    pub fn inclusion(&self, seq: u64, size: u64) -> Option<Vec<NodeHash>> {
        let mut hashes = Vec::new();
        let (mut from, mut to) = (0, size);
        while to.checked_sub(from)? > 1 {
            let middle = from + (1 << (to - from - 1).ilog2());
            let left = seq < middle;
            hashes.push(if left { self.get(middle, to) } else { self.get(from, middle) }?);
            (from, to) = if left { (from, middle) } else { (middle, to) };
        }
        hashes.reverse();
        Some(hashes)
    }
}

/// Verifies the file once more while it writes what it holds into `folder`, which must be new or empty. Nothing stays there
/// under its name unless all of it was verified.
pub fn export<R: Read + Seek>(
    input: R,
    policy: &Policy,
    verdict: &Verdict,
    tree: &Tree,
    folder: &Path,
) -> Result<(), ExportError> {
    fs::create_dir_all(folder).map_err(unwritten(folder))?;
    if fs::read_dir(folder).map_err(unwritten(folder))?.next().is_some() {
        return Err(ExportError::NotEmpty(folder.to_owned()));
    }
    fill(input, policy, verdict, tree, folder).inspect_err(|_| {
        // What was written is not verified. It was empty, so all there is, is ours.
        for name in ["proofs", "tokens"] {
            let _ = fs::remove_dir_all(folder.join(name));
        }
        let _ = fs::remove_file(folder.join(UNFINISHED));
    })
}

/// For what could not be written at `path`.
fn unwritten(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |error| ExportError::Write { path, error }
}

/// Fills an empty folder.
fn fill<R: Read + Seek>(
    mut input: R,
    policy: &Policy,
    verdict: &Verdict,
    tree: &Tree,
    folder: &Path,
) -> Result<(), ExportError> {
    let proofs = folder.join("proofs");
    fs::create_dir(&proofs).map_err(unwritten(&proofs))?;
    let unfinished = folder.join(UNFINISHED);
    let records = BufWriter::new(File::create_new(&unfinished).map_err(unwritten(&unfinished))?);
    let note = Note::parse(&verdict.report.checkpoint.note)?;
    let mut exporter = Exporter { verdict, tree, note, proofs, records, error: None };
    input.rewind().map_err(ReadError::from)?;
    let again = verdict::verify(input, policy, &mut exporter)?;
    if let Some(error) = exporter.error {
        return Err(error);
    }
    exporter.records.flush().map_err(unwritten(&unfinished))?;
    if again != *verdict {
        return Err(ReadError::from(io::Error::other("it was changed while it was read")).into());
    }
    let checkpoint = folder.join("checkpoint");
    fs::write(&checkpoint, &verdict.report.checkpoint.note).map_err(unwritten(&checkpoint))?;
    let tokens = folder.join("tokens");
    for token in verdict.report.attachments.iter().filter(|attachment| attachment.kind == Kind::Token) {
        fs::create_dir_all(&tokens).map_err(unwritten(&tokens))?;
        // The name was checked when the file was read: it has no path.
        let path = tokens.join(&token.name);
        fs::write(&path, &token.bytes).map_err(unwritten(&path))?;
    }
    let path = folder.join("records.jsonl");
    fs::rename(&unfinished, &path).map_err(unwritten(&path))
}

struct Exporter<'a> {
    verdict: &'a Verdict,
    tree: &'a Tree,
    note: Note,
    proofs: PathBuf,
    records: BufWriter<File>,
    error: Option<ExportError>,
}

impl Nodes for Exporter<'_> {
    fn node(&mut self, _: u64, _: u64, _: &NodeHash) {}
}

impl Watch for Exporter<'_> {
    fn record(&mut self, record: &RecordView<'_>, link: &RecordLink) {
        if self.error.is_none() {
            self.error = self.write(record, link).err();
        }
    }
}

impl Exporter<'_> {
    fn write(&mut self, record: &RecordView<'_>, link: &RecordLink) -> Result<(), ExportError> {
        let object = safe_json(&self.object(record));
        let file = self.proofs.with_file_name(UNFINISHED);
        writeln!(self.records, "{object}").map_err(unwritten(&file))?;
        let seq = record.envelope.seq.get();
        let hashes = self.tree.inclusion(seq, self.verdict.report.checkpoint.size);
        let hashes = hashes.ok_or_else(|| ReadError::from(io::Error::other("it was changed while it was read")))?;
        let proof = TlogProof { extra: link.encode(), index: seq, hashes, checkpoint: self.note.clone() };
        let path = self.proofs.join(format!("{seq}.tlog-proof"));
        fs::write(&path, proof.to_string()).map_err(unwritten(&path))
    }

    /// All fields of a record, and what the file proves about it.
    fn object(&self, record: &RecordView<'_>) -> Value {
        let envelope = &record.envelope;
        let bytes = |part| record.shown(part).map(<[u8]>::to_vec).map(Into::into);
        let result = v1::ResultRecord {
            envelope: envelope.to_bytes().to_vec().into(),
            core: bytes(Part::Core),
            personal: bytes(Part::Personal),
            content: bytes(Part::Content),
            class: Class::from_id(envelope.class).map_or_else(String::new, |class| class.name().to_owned()),
            source: self.name(CounterKey::Source(envelope.source)),
            tenant: self.name(CounterKey::Tenant(envelope.tenant)),
            gone: record.gone().into(),
        };
        let mut object = match Shown::read(&result).map(|shown| shown.to_json()) {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        };
        if let Some(time) = self.verdict.existed_by(envelope.seq.get()) {
            object.insert("existed_by".into(), super::verdict::time(time).into());
        }
        let (mut parts, mut hidden) = (Map::new(), Vec::new());
        match &record.body {
            RecordBody::Commitment { gone, .. } => hidden.push(state("record", *gone)),
            RecordBody::Parts(bodies) => {
                for (part, body) in Part::ALL.into_iter().zip(bodies) {
                    match body {
                        PartBody::Absent => (),
                        PartBody::Hidden { gone, .. } => hidden.push(state(part.name(), *gone)),
                        PartBody::Shown { bytes, .. } => {
                            parts.insert(part.name().to_owned(), BASE64_STANDARD.encode(bytes).into());
                        }
                    }
                }
            }
        }
        if !hidden.is_empty() {
            object.insert("not_shown".into(), hidden.into());
        }
        // The bytes that were hashed, for whoever checks the record's own proof.
        object.insert("parts".into(), parts.into());
        Value::Object(object)
    }

    fn name(&self, key: CounterKey) -> String {
        let run = self.verdict.report.runs.iter().find(|verdict| verdict.run.key == key);
        run.and_then(|verdict| verdict.run.name.clone()).unwrap_or_default()
    }
}

fn state(what: &str, gone: bool) -> Value {
    if gone { format!("{what} (gone from the journal)").into() } else { what.into() }
}
