//! Where lines come from.

pub(crate) mod file;
pub(crate) mod journald;
pub(crate) mod stdin;

use std::sync::Arc;

use sigillo_model::record::Record;
use tokio::sync::mpsc;

use crate::source::file::FileId;

/// A record, and how far its source was read with it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) record: Record,
    pub(crate) mark: Mark,
}

/// Records of one source that were read together.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Key of the source in the state: a path, or units.
    pub(crate) key: Arc<str>,
    pub(crate) items: Vec<Item>,
}

/// How far a source was read.
#[derive(Debug, Clone)]
pub(crate) enum Mark {
    File {
        file: Arc<FileId>,
        offset: u64,
        pieces: u32,
    },
    Cursor(Arc<str>),
    /// It can't be read again.
    Nowhere,
}

/// Hands records over; waits while the agent has enough. `false` when nobody takes them any more.
pub(crate) async fn hand_over(chunks: &mpsc::Sender<Chunk>, key: &Arc<str>, items: Vec<Item>) -> bool {
    items.is_empty() || chunks.send(Chunk { key: Arc::clone(key), items }).await.is_ok()
}
