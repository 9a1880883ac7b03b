//! What the witness remembers: for each log one file with the newest checkpoint that it has cosigned.
//!
//! ```text
//! sigillo witness v1 <SHA-256 of all that follows, hexadecimal>
//! <the checkpoint: a note with the signatures of the log and of this witness>
//! ```
//!
//! Its name is the hexadecimal SHA-256 of the log's origin. It is replaced in one step and synced, with its folder, before the
//! cosignature leaves. A file that does not hold is never overwritten: what was cosigned would be forgotten.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use sigillo_model::{
    checkpoint::Checkpoint,
    note::{NOTE_MAX_BYTES, Note},
};

const TITLE: &str = "sigillo witness v1 ";

/// Why the witness does not know what it has cosigned.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process works with the folder.
    #[error("another witness works with {0}: two would cosign against each other")]
    InUse(PathBuf),
    /// A file is not as it was written.
    #[error(
        "{path} is damaged: nothing of `{origin}` is cosigned. Find the newest checkpoint that this witness has cosigned (the \
         log and its monitors have it) and restore the file; remove it only if no cosignature of it was ever relied upon"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The log.
        origin: String,
    },
}

/// The folder, held for this process alone.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl StateDir {
    /// Opens the folder, or makes it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let failed = |source| StateError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let lock = File::create(path.join("lock")).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse(path.to_owned())),
            Err(error) => Err(failed(error.into())),
        }
    }

    pub(crate) fn log(&self, origin: &str) -> StateFile {
        StateFile { path: self.path.join(origin_hash(origin)), origin: origin.to_owned() }
    }
}

/// Under what name a log is kept and asked for.
pub(crate) fn origin_hash(origin: &str) -> String {
    hex::encode(Sha256::digest(origin))
}

/// The newest cosigned checkpoint of a log.
#[derive(Debug)]
pub(crate) struct Newest {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) note: Note,
}

/// The file of one log.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    origin: String,
}

impl StateFile {
    /// Reads the file; `None` if nothing was cosigned yet.
    pub(crate) fn load(&self) -> Result<Option<Newest>, StateError> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| self.failed(source))?,
        };
        let damaged = || StateError::Damaged { path: self.path.clone(), origin: self.origin.clone() };
        self.parse(&bytes).map(Some).ok_or_else(damaged)
    }

    fn parse(&self, bytes: &[u8]) -> Option<Newest> {
        let (sum, note) = bytes.strip_prefix(TITLE.as_bytes())?.split_at_checked(64)?;
        let note = note.strip_prefix(b"\n")?;
        if sum != hex::encode(Sha256::digest(note)).as_bytes() {
            return None;
        }
        let note = Note::parse(note).ok()?;
        let checkpoint = Checkpoint::parse(note.text()).ok()?;
        (checkpoint.origin == self.origin).then_some(Newest { checkpoint, note })
    }

    /// Replaces the file. When it returns, a power cut does not undo it; when it fails, either file may be there, and the caller
    /// lets nothing out that only the new one covers.
    pub(crate) fn store(&self, note: &Note) -> Result<(), StateError> {
        self.replace(&note.to_bytes()).map_err(|source| self.failed(source))
    }

    fn replace(&self, note: &[u8]) -> io::Result<()> {
        debug_assert!(note.len() <= NOTE_MAX_BYTES);
        let next = self.path.with_extension("next");
        let mut file = File::create(&next)?;
        file.write_all(format!("{TITLE}{}\n", hex::encode(Sha256::digest(note))).as_bytes())?;
        file.write_all(note)?;
        file.sync_all()?;
        fs::rename(&next, &self.path)?;
        let folder = self.path.parent().ok_or_else(|| io::Error::other("the file has no folder"))?;
        File::open(folder)?.sync_all()
    }

    fn failed(&self, source: io::Error) -> StateError {
        StateError::Io { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use sigillo_model::{
        note::{KeyKind, SigningKey},
        tree,
    };

    use super::*;

    fn note(origin: &str) -> Note {
        let key = SigningKey::from_seed("w", KeyKind::Cosigner, &[1; 32]).unwrap();
        let text = Checkpoint { origin: origin.into(), size: 3, root: tree::leaf(b"x") }.text();
        Note::new(text.clone(), vec![key.cosign(&text, 7).unwrap()]).unwrap()
    }

    #[test]
    fn any_flip_is_damage_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateDir::open(dir.path()).unwrap().log("o");
        assert!(file.load().unwrap().is_none());
        file.store(&note("o")).unwrap();
        assert_eq!(file.load().unwrap().unwrap().note, note("o"));
        let good = fs::read(&file.path).unwrap();
        for at in 0..=good.len() {
            let mut bytes = good.clone();
            match bytes.get_mut(at) {
                Some(byte) => *byte ^= 1,
                None => bytes.truncate(at - 1),
            }
            fs::write(&file.path, &bytes).unwrap();
            assert!(matches!(file.load(), Err(StateError::Damaged { .. })), "byte {at}");
        }
        fs::write(&file.path, "").unwrap();
        assert!(matches!(file.load(), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn the_file_of_another_log_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.log("a").store(&note("a")).unwrap();
        fs::rename(state.log("a").path, state.log("b").path).unwrap();
        assert!(matches!(state.log("b").load(), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path()).unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::InUse(_))));
        drop(first);
        StateDir::open(dir.path()).unwrap();
    }
}
