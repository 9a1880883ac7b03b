//! The newest published checkpoint, as a file beside the database, for the next start and for whoever copies files. Derived: what
//! is kept for ever is in the journal.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use sigillo_model::note::NOTE_MAX_BYTES;

/// The file `checkpoint`.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    path: PathBuf,
}

impl Shelf {
    /// The file in a data directory.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("checkpoint") }
    }

    /// What lies there; nothing, if it can't be read. Not to be believed. Blocks.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(&self.path).ok()?;
        file.take(NOTE_MAX_BYTES as u64).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Puts a note there in one step. Not synced: what a loss of power takes is signed again. Blocks.
    pub(crate) fn write(&self, note: &Arc<[u8]>) -> io::Result<()> {
        let next = self.path.with_extension("next");
        fs::write(&next, note)?;
        fs::rename(&next, &self.path)
    }
}
