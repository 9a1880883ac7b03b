//! The file `signed`: the last checkpoint that was signed, synced *before* its signature leaves, and kept apart from the
//! database, so that a database of an earlier day can't make the log sign a second history.
//!
//! ```text
//! sigillo signed v1
//! <origin>
//! <size, decimal>
//! <root, base64>
//! <checksum of all before, hexadecimal>
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use sigillo_model::{
    entry::checksum,
    ids::{NodeHash, Origin},
};

const TITLE: &str = "sigillo signed v1";
/// Most bytes of the file: an origin has 255 at most.
const MAX_BYTES: u64 = 1_024;

/// A size and the root there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TreeHead {
    /// Number of leaves.
    pub(crate) size: u64,
    /// Root over them.
    pub(crate) root: NodeHash,
}

/// Why a checkpoint is not signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignedError {
    /// It would contradict the one before.
    #[error("size {size} with root {root} contradicts size {last_size} with root {last_root}, which was signed before")]
    Contradiction {
        /// Size that was to be signed.
        size: u64,
        /// Its root.
        root: NodeHash,
        /// Size signed last.
        last_size: u64,
        /// Its root.
        last_root: NodeHash,
    },
    /// The file can't be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The file, and what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    path: PathBuf,
    origin: Origin,
    last: Option<TreeHead>,
}

impl Signed {
    /// Reads the file; one that is not there is no error, one that is damaged is.
    pub(crate) fn open(data_dir: &Path, origin: Origin) -> Result<Self, SignedError> {
        let path = data_dir.join("signed");
        let fault = |error| SignedError::File { path: path.clone(), error };
        let last = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(fault(error)),
            Ok(file) => {
                let text = io::read_to_string(io::Read::take(file, MAX_BYTES)).map_err(fault)?;
                let damaged = "it is not what was written there for this origin: bring back the file as it was; it is what \
                               keeps the log from signing two histories";
                Some(parse(&text, &origin).ok_or_else(|| fault(io::Error::new(io::ErrorKind::InvalidData, damaged)))?)
            }
        };
        Ok(Self { path, origin, last })
    }

    /// What was signed last.
    pub(crate) fn last(&self) -> Option<TreeHead> {
        self.last
    }

    /// Makes `next` the last one, durably; the signature may be made and sent after this. Refuses what contradicts the one
    /// before. Blocks.
    pub(crate) fn advance(&mut self, next: TreeHead) -> Result<(), SignedError> {
        if let Some(last) = self.last {
            if last == next {
                return Ok(());
            }
            if next.size <= last.size {
                let (size, root, last_size, last_root) = (next.size, next.root, last.size, last.root);
                return Err(SignedError::Contradiction { size, root, last_size, last_root });
            }
        }
        write(&self.path, text(&self.origin, next).as_bytes())
            .map_err(|error| SignedError::File { path: self.path.clone(), error })?;
        self.last = Some(next);
        Ok(())
    }
}

/// Replaces a file in one step, and syncs it and its folder.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    let folder = path.parent().ok_or_else(|| io::Error::other("the file has no folder"))?;
    File::open(folder)?.sync_all()
}

fn text(origin: &Origin, head: TreeHead) -> String {
    let root = BASE64_STANDARD.encode(head.root.as_bytes());
    let body = format!("{TITLE}\n{origin}\n{}\n{root}\n", head.size);
    let sum = hex::encode(checksum(body.as_bytes()));
    format!("{body}{sum}\n")
}

fn parse(text_read: &str, origin: &Origin) -> Option<TreeHead> {
    let mut lines = text_read.lines().skip(2);
    let size = lines.next()?.parse().ok()?;
    let root = NodeHash::from_slice(&BASE64_STANDARD.decode(lines.next()?).ok()?)?;
    let head = TreeHead { size, root };
    // Only the one way of writing it is read: this also checks title, origin and sum.
    (text(origin, head) == text_read).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin::new("journal.example.net").unwrap()
    }

    fn head(size: u64, root: u8) -> TreeHead {
        TreeHead { size, root: NodeHash::new([root; 32]) }
    }

    #[test]
    fn a_second_history_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut signed = Signed::open(dir.path(), origin()).unwrap();
        assert_eq!(signed.last(), None);
        signed.advance(head(5, 1)).unwrap();
        signed.advance(head(5, 1)).unwrap();
        signed.advance(head(7, 2)).unwrap();
        let mut signed = Signed::open(dir.path(), origin()).unwrap();
        assert_eq!(signed.last(), Some(head(7, 2)));
        for contradiction in [head(7, 3), head(6, 2), head(0, 2)] {
            assert!(matches!(signed.advance(contradiction), Err(SignedError::Contradiction { .. })));
        }
        assert_eq!(Signed::open(dir.path(), origin()).unwrap().last(), Some(head(7, 2)));
    }

    #[test]
    fn any_flip_and_another_origin_are_found() {
        let text = text(&origin(), head(42, 0xab));
        assert_eq!(parse(&text, &origin()), Some(head(42, 0xab)));
        assert_eq!(parse(&text, &Origin::new("other.example.net").unwrap()), None);
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert_eq!(parse(&String::from_utf8(bytes).unwrap(), &origin()), None, "byte {at} bit {bit}");
            }
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("signed"), &text[1..]).unwrap();
        assert!(matches!(Signed::open(dir.path(), origin()), Err(SignedError::File { .. })));
    }
}
