//! Where lines come from.

pub(crate) mod file;
pub(crate) mod journald;
pub(crate) mod stdin;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sigillo_model::record::Record;
use tokio::sync::mpsc;

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
}

impl Chunk {
    /// Chunks of records that were read one after the other, each with how far the source was read with it.
    pub(crate) fn cut(key: &Arc<str>, items: Vec<(Record, Option<Mark>)>) -> Vec<Self> {
        let mut chunks: Vec<Self> = Vec::new();
        let mut bytes = 0;
        for (record, mark) in items {
            let length = record.as_ref().length();
            let mark = mark.map(|mark| mark.to_bytes());
            match chunks.last_mut() {
                Some(chunk) if chunk.records.len() < CHUNK_RECORDS && bytes + length <= CHUNK_BYTES => {
                    bytes += length;
                    chunk.records.push(record);
                    chunk.mark = mark;
                }
                _ => {
                    bytes = length;
                    chunks.push(Self { key: Arc::clone(key), records: vec![record], mark });
                }
            }
        }
        chunks
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
}
