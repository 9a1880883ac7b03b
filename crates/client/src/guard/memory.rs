//! The checkpoint that is remembered of a journal, in a file that survives crashes and is not believed when it is damaged.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use sigillo_model::{entry::checksum, note::NOTE_MAX_BYTES};

use crate::{ClientError, files::replace};

const HEADER: &str = "sigillo remembered v1";
/// Bytes of the lines before the note, at most.
const HEADER_MAX_BYTES: usize = 64;

/// The file for one journal.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    path: PathBuf,
}

impl Memory {
    /// The file of the journal of this name in `dir`.
    pub(super) fn new(dir: &Path, origin: &str) -> Self {
        let name: String = hex::encode(Sha256::digest(origin)).chars().take(32).collect();
        Self { path: dir.join(format!("checkpoint-{name}")) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The note that was kept last; `None` at the first time.
    pub(super) fn load(&self) -> Result<Option<String>, ClientError> {
        let wrong = |what: &str| ClientError::Remembered { path: self.path.clone(), what: what.to_owned() };
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(&format!("can't be read: {error}"))),
        };
        if bytes.len() > NOTE_MAX_BYTES + HEADER_MAX_BYTES {
            return Err(wrong("is too long"));
        }
        let text = String::from_utf8(bytes).map_err(|_| wrong("is damaged: it is not text"))?;
        let note = text.split_once("\n\n").map(|(_, note)| note.to_owned()).unwrap_or_default();
        if note.is_empty() || text != content(&note) {
            return Err(wrong("is damaged: its checksum does not fit"));
        }
        Ok(Some(note))
    }

    /// Replaces the note so that after any crash either the old or the new one is there.
    pub(super) fn keep(&self, note: &str) -> io::Result<()> {
        replace(&self.path, content(note).as_bytes())
    }
}

fn content(note: &str) -> String {
    format!("{HEADER}\n{}\n\n{note}", hex::encode(checksum(note.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_memory_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path(), "journal.example/1");
        assert_eq!(memory.load().unwrap(), None);
        memory.keep("a note\n").unwrap();
        memory.keep("another note\n\nwith more\n").unwrap();
        assert_eq!(memory.load().unwrap().unwrap(), "another note\n\nwith more\n");
        assert_ne!(memory.path(), Memory::new(dir.path(), "journal.example/2").path());
        let whole = fs::read(memory.path()).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(memory.path(), &damaged).unwrap();
            assert!(memory.load().is_err(), "byte {at}");
            fs::write(memory.path(), &whole[..at]).unwrap();
            assert!(memory.load().is_err(), "cut at {at}");
        }
    }
}
