//! Where lines come from.

pub(crate) mod audit;
pub(crate) mod file;
pub(crate) mod journald;
mod renames;
pub(crate) mod socket;
pub(crate) mod stdin;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sigillo_model::record::Record;
use tokio::sync::{mpsc, oneshot};

use crate::state::FilePlace;

/// Records of one chunk at most.
pub(crate) const CHUNK_RECORDS: usize = 4_096;
/// Bytes of the records of one chunk at most, unless it is a single record.
pub(crate) const CHUNK_BYTES: usize = 512 << 10;

/// What was remembered of all sources when the agent started, by their keys.
pub(crate) type Marks = Arc<BTreeMap<Arc<str>, Bytes>>;

/// Records of one source that were read together. A chunk is never cut: it is remembered whole or not at all.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Under which the source's mark is remembered.
    pub(crate) key: Arc<str>,
    pub(crate) records: Vec<Record>,
    /// How far the source was read with these records: the source's own bytes, at most 4 KiB. Empty: the key is forgotten. `None`: the
    /// source can't be read again.
    pub(crate) mark: Option<Bytes>,
    /// Whether somebody waits for it to be kept: nothing else is waited for then.
    pub(crate) urgent: bool,
    /// Told once the chunk would survive a loss of power; dropped if that won't be.
    pub(crate) synced: Option<oneshot::Sender<()>>,
}

impl Chunk {
    /// A chunk for which nobody waits.
    pub(crate) fn new(key: &Arc<str>, records: Vec<Record>, mark: Option<Bytes>) -> Self {
        Self { key: Arc::clone(key), records, mark, urgent: false, synced: None }
    }
}

/// How far a file or the systemd journal was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mark {
    File(FilePlace),
    Cursor(String),
}

impl Mark {
    pub(crate) fn to_bytes(&self) -> Bytes {
        // Numbers and texts only: this can't fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// Where sources hand over what they have read.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    chunks: mpsc::Sender<Chunk>,
}

impl Feed {
    /// A feed into a queue.
    pub(crate) fn new(chunks: mpsc::Sender<Chunk>) -> Self {
        Self { chunks }
    }

    /// Waits while the agent has enough. `false` when nobody takes chunks any more.
    pub(crate) async fn hand_over(&self, chunk: Chunk) -> bool {
        self.chunks.send(chunk).await.is_ok()
    }

    /// The same, from a thread of its own.
    pub(crate) fn hand_over_blocking(&self, chunk: Chunk) -> bool {
        self.chunks.blocking_send(chunk).is_ok()
    }
}

/// Records of one source on the way to a chunk.
#[derive(Debug)]
pub(crate) struct Gathered {
    key: Arc<str>,
    records: Vec<Record>,
    bytes: usize,
}

impl Gathered {
    /// Nothing yet.
    pub(crate) fn new(key: Arc<str>) -> Self {
        Self { key, records: Vec::new(), bytes: 0 }
    }

    /// Whether records of that many bytes still fit, beside what was gathered.
    pub(crate) fn has_room(&self, records: usize, bytes: usize) -> bool {
        self.records.is_empty()
            || self.records.len() + records <= CHUNK_RECORDS && self.bytes.saturating_add(bytes) <= CHUNK_BYTES
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, record: Record) {
        self.bytes += record.as_ref().length();
        self.records.push(record);
    }

    /// What was gathered, if there is anything. `mark`: how far the source was read with the last record.
    pub(crate) fn take(&mut self, mark: Option<Bytes>) -> Option<Chunk> {
        self.bytes = 0;
        let records = std::mem::take(&mut self.records);
        (!records.is_empty()).then(|| Chunk::new(&self.key, records, mark))
    }
}

/// Nobody knows.
const UNKNOWN: u64 = u64::MAX;

/// What a source has done, for people who ask.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Lines, entries or messages that were read.
    pub(crate) lines: AtomicU64,
    /// Bytes of them.
    pub(crate) bytes: AtomicU64,
    /// When something was read last, nanoseconds since 1970; 0: not yet.
    pub(crate) last_read_ns: AtomicU64,
    /// Bytes that are there and were not read, when that was looked at last.
    pub(crate) lag_bytes: AtomicU64,
    /// Time of the entry that was read last, while more may be there, nanoseconds since 1970; 0: everything was read.
    read_up_to_ns: AtomicU64,
    /// Times at which something was seen to be missing.
    pub(crate) gaps: AtomicU64,
    /// How much was missing, as far as it could be counted.
    pub(crate) lost_lines: AtomicU64,
    /// What stands in the way now.
    error: Mutex<Option<String>>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            lines: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last_read_ns: AtomicU64::new(0),
            lag_bytes: AtomicU64::new(UNKNOWN),
            read_up_to_ns: AtomicU64::new(UNKNOWN),
            gaps: AtomicU64::new(0),
            lost_lines: AtomicU64::new(0),
            error: Mutex::default(),
        }
    }
}

impl Meter {
    /// Bytes that are there and were not read, if that is known.
    pub(crate) fn lag_bytes(&self) -> Option<u64> {
        Some(self.lag_bytes.load(Relaxed)).filter(|bytes| *bytes != UNKNOWN)
    }

    /// How long ago that was written which was read last, if more may be there, nanoseconds; 0: everything was read. `None`: not known.
    pub(crate) fn lag_ns(&self, now_ns: u64) -> Option<u64> {
        match self.read_up_to_ns.load(Relaxed) {
            UNKNOWN => None,
            0 => Some(0),
            time_ns => Some(now_ns.saturating_sub(time_ns)),
        }
    }

    /// Remembers that entries up to this time were read; 0: all that are there.
    pub(crate) fn read_up_to(&self, time_ns: u64) {
        self.read_up_to_ns.store(time_ns, Relaxed);
    }

    /// Whether all entries that are there were read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.read_up_to_ns.load(Relaxed) == 0
    }

    /// Counts what was read.
    pub(crate) fn read(&self, lines: u64, bytes: u64, now_ns: u64) {
        self.lines.fetch_add(lines, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.last_read_ns.store(now_ns, Relaxed);
    }

    /// Counts something missing.
    pub(crate) fn missing(&self, lines: u64) {
        self.gaps.fetch_add(1, Relaxed);
        self.lost_lines.fetch_add(lines, Relaxed);
    }

    /// What stands in the way now.
    pub(crate) fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers what stands in the way, or that nothing does any more.
    pub(crate) fn set_error(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}
