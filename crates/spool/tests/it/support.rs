//! Spools of small records, and what they should hold.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use sigillo_model::{
    batch::{batch_hash, commitments, epoch_opening},
    block::{BlockBuilder, Inflater},
    head::SignedHead,
    ids::{BatchHash, Epoch, NodeHash, Origin, SourceId, SourceSeq},
    record::{Record, RecordRef},
    tree,
};
use sigillo_spool::{Frame, Identity, Marks, Opened, Options, Reader, Spool, open};
use tempfile::TempDir;

pub(crate) const EPOCH: Epoch = Epoch::new(5);

pub(crate) fn identity() -> Identity {
    Identity { origin: Origin::new("journal.example.net/2026").unwrap(), source: SourceId::from_name("web-1") }
}

pub(crate) fn seen() -> (u64, NodeHash) {
    (0, tree::empty())
}

pub(crate) fn seq(number: u64) -> SourceSeq {
    SourceSeq::new(number)
}

pub(crate) fn key(name: &str) -> Arc<str> {
    Arc::from(name)
}

pub(crate) fn mark(name: &str, value: &str) -> (Arc<str>, Bytes) {
    (key(name), Bytes::copy_from_slice(value.as_bytes()))
}

/// A block of records with these contents.
pub(crate) fn block<T: AsRef<[u8]>>(lines: impl IntoIterator<Item = T>) -> BlockBuilder {
    let mut builder = BlockBuilder::default();
    for line in lines {
        builder.push(RecordRef { content: Some(line.as_ref()), ..RecordRef::default() }).unwrap();
    }
    builder
}

/// Bytes that don't compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        // In memory, where that can be had: a crash is played by copying, and syncing takes time.
        let memory = Path::new("/dev/shm");
        Self(if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap())
    }

    pub(crate) fn options(&self) -> Options {
        Options { segment_bytes: 64 << 10, max_bytes: 16 << 20, ..Options::new(self.path()) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("spool")
    }

    pub(crate) fn create(&self) -> Spool {
        Spool::create(&self.options(), identity(), EPOCH, None, Marks::new()).unwrap()
    }

    pub(crate) fn open(&self) -> Opened {
        open(&self.options()).unwrap()
    }

    /// Opens what must be whole.
    pub(crate) fn reopen(&self) -> Spool {
        let opened = self.open();
        assert_eq!(opened.damage, None);
        opened.spool.unwrap()
    }

    /// A copy of what is there now.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        copy_dir(&self.path(), &copy.path());
        copy
    }

    /// The segments, ascending.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|end| end == "spool")).collect();
        paths.sort();
        paths
    }
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// What is read from a spool: contents of records, and heads by their time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    Batch(u64, Vec<Vec<u8>>),
    Head(u64),
}

/// Everything from a place on, with hashes and signatures checked as a server does.
pub(crate) fn read_from(spool: &Spool, from: u64, head_time_ns: u64) -> Vec<Read> {
    let state = spool.state();
    let mut reader = spool.reader();
    reader.seek(state.epoch, seq(from), head_time_ns).unwrap();
    let known = (from == 0).then(|| epoch_opening(&state.identity.origin, state.identity.source, state.epoch, None));
    let mut key = spool.key_after(head_time_ns).unwrap();
    drain(&mut reader, &state.identity, state.epoch, known, &mut key)
}

/// Reads to the end.
pub(crate) fn drain(
    reader: &mut Reader,
    identity: &Identity,
    epoch: Epoch,
    mut hash: Option<BatchHash>,
    key: &mut [u8; 32],
) -> Vec<Read> {
    let mut all = Vec::new();
    let mut inflater = Inflater::default();
    while let Some(frame) = reader.next().unwrap() {
        match frame {
            Frame::Batch(batch) => {
                assert_eq!(batch.epoch, epoch);
                let block = batch.open(&mut inflater).unwrap();
                let commitments = commitments(&batch.secret, &block);
                let previous = hash.unwrap_or(batch.previous);
                let expected = batch_hash(&previous, identity.source, epoch, batch.first, &commitments);
                assert_eq!(batch.hash, expected);
                hash = Some(batch.hash);
                let contents = block.records().map(|record| Record::from(record).content.unwrap().to_vec());
                all.push(Read::Batch(batch.first.get(), contents.collect()));
            }
            Frame::Head { note, time_ns } => {
                let (head, note) = SignedHead::parse(&note).unwrap();
                head.verify(&note, key).unwrap();
                assert_eq!((head.time_ns, head.epoch), (time_ns, epoch));
                // It may be older than the first batch that is wanted.
                let here = all.iter().any(|read| matches!(read, Read::Batch(..)));
                assert!(!here || hash == Some(head.batch_hash));
                *key = head.next_key;
                all.push(Read::Head(time_ns));
            }
        }
    }
    all
}

/// A batch as it is read.
pub(crate) fn batch(first: u64, lines: &[&str]) -> Read {
    Read::Batch(first, lines.iter().map(|line| line.as_bytes().to_vec()).collect())
}
