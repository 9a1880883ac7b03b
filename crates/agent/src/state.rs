//! The state directory, and what agents without a spool remembered in it: how far each source was read *and acknowledged*.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sigillo_client::{ClientError, files::replace};
use tracing::{info, warn};

use crate::{
    AgentError,
    source::{Mark, Marks, file},
};

const FILE: &str = "state.json";
const VERSION: u32 = 1;
/// What the key of a reading of the systemd journal begins with; its units follow.
const JOURNALD: &str = "journald ";
/// While this file stands nothing is shipped.
const MISCONDUCT: &str = "misconduct";

/// How far a file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilePlace {
    pub(crate) dev: u64,
    pub(crate) inode: u64,
    /// Bytes read.
    pub(crate) offset: u64,
    /// Pieces of the line at `offset` that were read already.
    #[serde(default)]
    pub(crate) pieces: u32,
    /// The first bytes of the file, hexadecimal: another file may get the same inode.
    #[serde(default)]
    pub(crate) beginning: String,
}

/// The state file of agents without a spool. It is read once, into a spool that is made anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    /// The newest epoch. Later ones are greater.
    #[serde(default)]
    pub(crate) epoch: u64,
    /// By path.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, FilePlace>,
    /// By units.
    #[serde(default)]
    pub(crate) journald: BTreeMap<String, String>,
}

impl State {
    /// Whether there is a file.
    pub(crate) fn is_there(&self) -> bool {
        self.version > 0
    }

    /// How far each source was acknowledged, by its key.
    pub(crate) fn marks(&self) -> Marks {
        let bytes = |mark: &Mark| mark.to_bytes();
        let files = self.files.iter().map(|(path, place)| file::import(path, place));
        let files = files.map(|(key, mark)| (Arc::from(key), mark));
        let cursor = |(units, cursor): (&String, &String)| {
            (Arc::from(format!("{JOURNALD}{units}")), bytes(&Mark::Cursor(cursor.clone())))
        };
        Arc::new(files.chain(self.journald.iter().map(cursor)).collect())
    }
}

/// The state directory, held by this process alone.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Creates the directory if need be, and takes it for this process.
    pub(crate) fn open(path: &Path) -> Result<Self, AgentError> {
        let failed = |error: io::Error| AgentError::State {
            path: path.to_owned(),
            what: format!("can't be used as state directory ({error}): correct `state_dir` or the directory's rights"),
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let lock = open_private(&path.join("lock")).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(AgentError::InUse(path.to_owned())),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// What was saved last, or nothing at the first start.
    pub(crate) fn load(&self) -> Result<State, AgentError> {
        let path = self.path.join(FILE);
        let wrong = |what: String| AgentError::State {
            path: path.clone(),
            what: format!("{what}; mend it, or move it away to read every source from its beginning again"),
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(State::default());
            }
            Err(error) => return Err(wrong(format!("can't be read: {error}"))),
        };
        let state: State = serde_json::from_slice(&bytes).map_err(|error| wrong(format!("is damaged: {error}")))?;
        if state.version == VERSION {
            Ok(state)
        } else {
            Err(wrong(format!("has version {}, this program knows version {VERSION}", state.version)))
        }
    }

    /// The spool remembers now what the state file did: it counts no more.
    pub(crate) fn imported(&self) {
        let (from, to) = (self.path.join(FILE), self.path.join("state.json.imported"));
        match fs::rename(&from, &to) {
            Ok(()) => info!(file = %to.display(), "what an earlier agent remembered is in the spool now"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(file = %from.display(), %error, "an earlier agent's state file can't be renamed"),
        }
    }

    /// Refuses to go on while misconduct of the journal stands that nobody has acted on.
    pub(crate) fn check_not_paused(&self) -> Result<(), AgentError> {
        let path = self.path.join(MISCONDUCT);
        match fs::exists(&path) {
            Ok(false) => Ok(()),
            Ok(true) => Err(AgentError::Paused(path)),
            Err(error) => Err(self.unwritable(&error)),
        }
    }

    /// Remembers misconduct of the journal, so that nothing is shipped until a person has acted.
    pub(crate) fn pause(&self, why: &ClientError) -> Result<(), AgentError> {
        let text = format!(
            "{why}.\n\nNothing is shipped while this file stands. What was not shipped waits in the spool and in its files.\n\
             When the matter is settled, remove this file and start the agent again.\n"
        );
        self.write(MISCONDUCT, text.as_bytes()).map_err(|error| self.unwritable(&error))
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        replace(&self.path.join(name), bytes)
    }

    fn unwritable(&self, error: &io::Error) -> AgentError {
        AgentError::State {
            path: self.path.clone(),
            what: format!("can't be written ({error}): free space, or correct the directory's rights"),
        }
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_state_is_read_once_and_belongs_to_one_agent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/state");
        let state_dir = StateDir::open(&path).unwrap();
        assert!(!state_dir.load().unwrap().is_there());
        let place = r#"{"dev":1,"inode":2,"offset":3,"pieces":0,"beginning":"ff"}"#;
        let old =
            format!(r#"{{"version":1,"epoch":7,"next":9,"head":"00","files":{{"/x":{place}}},"journald":{{"":"c"}}}}"#);
        fs::write(path.join("state.json"), old).unwrap();
        assert!(matches!(StateDir::open(&path), Err(AgentError::InUse(_))));
        let state = state_dir.load().unwrap();
        assert_eq!((state.is_there(), state.epoch, state.marks().len()), (true, 7, 2));
        state_dir.imported();
        assert!(!state_dir.load().unwrap().is_there() && path.join("state.json.imported").exists());
    }

    #[test]
    fn damaged_state_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(dir.path()).unwrap();
        for damaged in ["", "{", "{\"version\": 2}"] {
            fs::write(dir.path().join("state.json"), damaged).unwrap();
            let error = state_dir.load().unwrap_err().to_string();
            assert!(error.contains("state.json") && error.contains("move it away"), "{error}");
        }
    }
}
