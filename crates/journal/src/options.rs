//! Where a journal lives and what it may use.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sigillo_model::{ids::Origin, note::SigningKey};

/// Where a journal lives and what it may use.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder that holds the database (`journal/`), the head file (`head`) and the lock (`lock`). Made when missing.
    pub dir: PathBuf,
    /// Name of the journal, fixed when it is created; opening it under another one is refused.
    pub origin: Origin,
    /// Free bytes of the disk below which only the product's own records are taken. Default 1 GiB.
    pub reserve_bytes: u64,
    /// Bytes of batches that may wait for the writer before a sender has to. Default 64 MiB.
    pub queue_bytes: usize,
    /// Signs receipts, one signature a frame. By default they are not signed.
    pub receipt_key: Option<Arc<SigningKey>>,
}

impl Options {
    /// The defaults, for a journal in `dir`.
    pub fn new(dir: impl Into<PathBuf>, origin: Origin) -> Self {
        Self { dir: dir.into(), origin, reserve_bytes: 1 << 30, queue_bytes: 64 << 20, receipt_key: None }
    }
}

/// Folder of the database.
pub(crate) fn database_dir(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// File that holds the durable size and chain value apart from the database.
pub(crate) fn head_path(dir: &Path) -> PathBuf {
    dir.join("head")
}

/// File whose lock says that the journal is in use.
pub(crate) fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// File that holds the last checkpoint that was signed, apart from the database; absent before the first.
pub(crate) fn signed_path(dir: &Path) -> PathBuf {
    dir.join("signed")
}

/// Folder in which the database is copied, by links, while a backup is written. What a crash left there is of no use.
pub(crate) fn copying_dir(dir: &Path) -> PathBuf {
    dir.join("copying")
}
