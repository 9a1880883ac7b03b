//! The file `sources.json` in the data folder: the register over restarts. It is derived and no evidence: without it, or with one that
//! can't be read, the register begins anew.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sigillo_model::ids::SourceId;

use super::register::Entry;
use crate::log::replace;

/// Version of the file. Another one is not read.
const VERSION: u32 = 1;
/// Most bytes that are read: far more than as many sources take as can be connected.
const MAX_BYTES: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Stored<E> {
    version: u32,
    /// Time listened so far.
    listened: Duration,
    sources: Vec<Named<E>>,
}

#[derive(Serialize, Deserialize)]
struct Named<E> {
    name: String,
    #[serde(flatten)]
    entry: E,
}

/// Where the file is.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("sources.json")
}

/// Reads the file: what is known of the sources that are still configured, and the time listened.
pub(super) fn read(path: &Path, configured: &HashSet<SourceId>) -> (HashMap<SourceId, Entry>, Duration) {
    let stored = match load(path) {
        Ok(Some(stored)) => stored,
        Ok(None) => return Default::default(),
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "the register of sources can't be read: it begins anew");
            return Default::default();
        }
    };
    let entries = stored.sources.into_iter().map(|Named { name, entry }| (SourceId::from_name(&name), entry));
    (entries.filter(|(source, _)| configured.contains(source)).collect(), stored.listened)
}

fn load(path: &Path) -> io::Result<Option<Stored<Entry>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text)?;
    let stored: Stored<Entry> = serde_json::from_slice(&text)?;
    if stored.version != VERSION {
        return Err(io::Error::other(format!("version {} is not known, this server writes {VERSION}", stored.version)));
    }
    Ok(Some(stored))
}

/// What is to be written, of entries with their names.
pub(super) fn text<'a>(entries: impl Iterator<Item = (&'a str, &'a Entry)>, listened: Duration) -> Vec<u8> {
    let sources = entries.map(|(name, entry)| Named { name: name.to_owned(), entry }).collect();
    // Writing to memory can't fail, and there is no map whose keys are not texts.
    serde_json::to_vec(&Stored { version: VERSION, listened, sources }).unwrap_or_default()
}

/// Replaces the file in one step. Blocks. A failure is told and no more: the next one may succeed.
pub(super) fn write(path: &Path, text: &[u8]) {
    if let Err(error) = replace(path, text) {
        tracing::warn!(file = %path.display(), %error, "the register of sources could not be written");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        let configured: HashSet<_> = ["a", "b"].map(SourceId::from_name).into();
        assert_eq!(read(&path, &configured).1, Duration::ZERO);
        let mut entry = Entry::default();
        (entry.agent, entry.sessions, entry.resident) = ("test 1".into(), 3, true);
        let listened = Duration::new(7, 8);
        let stored = text([("a", &entry), ("gone", &entry)].into_iter(), listened);
        write(&path, &stored);
        let (entries, since) = read(&path, &configured);
        assert_eq!((entries.len(), since), (1, listened));
        assert_eq!(format!("{:?}", entries[&SourceId::from_name("a")]), format!("{entry:?}"));

        let newer = String::from_utf8(stored.clone()).unwrap().replace("\"version\":1", "\"version\":2");
        for damaged in [&stored[..stored.len() - 1], b"", newer.as_bytes()] {
            fs::write(&path, damaged).unwrap();
            let (entries, since) = read(&path, &configured);
            assert_eq!((entries.len(), since), (0, Duration::ZERO));
        }
    }
}
