//! How far an audit has come, in a folder of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sigillo_client::files;
use sigillo_model::audit::Saved;

use super::disk;
use crate::failure::Failure;

/// Bytes of a state at most: some millions of sources and tenants.
const MAX_BYTES: usize = 1 << 30;

/// The file.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The state in this folder, which is made if it is not there.
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(dir)
            .map_err(|error| Failure::Usage(format!("folder {} can't be made: {error}", dir.display())))?;
        Ok(Self { path: dir.join("audit") })
    }

    /// What is kept; nothing at the first time. A state that can't be read is not taken for none.
    pub(super) fn load(&self) -> Result<Option<Saved>, Failure> {
        let wrong = |what: String| {
            let path = self.path.display();
            Failure::Unreadable(format!("the audit's state {path}: {what}. Remove it to walk from the first record"))
        };
        match disk::read(&self.path, MAX_BYTES) {
            Ok(bytes) => Saved::decode(&bytes).map(Some).map_err(|error| wrong(error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Keeps it durably, in one step.
    pub(super) fn keep(&self, saved: &Saved) -> Result<(), Failure> {
        Ok(files::replace(&self.path, &saved.encode())?)
    }
}
