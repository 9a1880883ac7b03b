//! What is remembered of a file: which one it is, and how far it was read.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    content::FileId,
    print::{Head, tail},
};
use crate::state::FilePlace;

const VERSION: u32 = 1;
/// What keys of files begin with.
pub(super) const KEY: &str = "file ";
/// Bytes that say by themselves that they are no other file's.
pub(super) const CERTAIN_BYTES: u64 = 256;

/// A place in a file, and all by which the file is found again, wherever it was moved, copied or compressed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) id: FileId,
    /// Bytes read.
    pub(super) offset: u64,
    /// Pieces of the line at `offset` that were read already.
    #[serde(default)]
    pub(super) pieces: u32,
    pub(super) head: Head,
    /// Of what stands before `offset`; empty where that was not noted.
    #[serde(default)]
    pub(super) tail: String,
    /// The greatest time, in nanoseconds, of what was called like a rotated generation of it when its reading began: that was written
    /// before. `None`: not noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) began: Option<u64>,
    /// The greatest length that was seen; 0: none beyond `offset`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) seen: u64,
    /// Where it is, if its path is a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) real: Option<PathBuf>,
    /// Renamed files that were read before this one, and may be written to still.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) late: Vec<Mark>,
}

impl Mark {
    pub(super) fn new(id: FileId) -> Self {
        Self {
            version: VERSION,
            id,
            offset: 0,
            pieces: 0,
            head: Head::default(),
            tail: tail(b""),
            began: None,
            seen: 0,
            real: None,
            late: Vec::new(),
        }
    }

    /// Of a name that nothing has: what comes later is new.
    pub(super) fn absent(began: u64) -> Self {
        Self { began: Some(began), ..Self::new(FileId::default()) }
    }

    /// Whether so much was read that another file with the same bytes is a copy.
    pub(super) fn is_certain(&self) -> bool {
        self.offset >= CERTAIN_BYTES
    }

    /// A mark of another version, or a damaged one, is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|mark: &Self| mark.version == VERSION)
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        // Numbers and texts only, or a path that is no text: then it is left out.
        let written = serde_json::to_vec(self).or_else(|_| serde_json::to_vec(&Self { real: None, ..self.clone() }));
        written.unwrap_or_default().into()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The key of a file. Names that are no texts are told apart by their sum.
pub(super) fn key(path: &Path) -> String {
    let text = path.to_string_lossy();
    if path.to_str().is_some() {
        return format!("{KEY}{text}");
    }
    let sum = sigillo_model::entry::checksum(path.as_os_str().as_encoded_bytes());
    format!("{KEY}{text} {}", hex::encode(sum))
}

/// Key and mark of what an older version remembered of a file.
pub(crate) fn import(path: &str, place: &FilePlace) -> (String, Bytes) {
    let beginning = hex::decode(&place.beginning).unwrap_or_default();
    let mark = Mark {
        offset: place.offset,
        pieces: place.pieces,
        head: Head::of(&beginning),
        tail: String::new(),
        ..Mark::new(FileId::new(place.dev, place.inode))
    };
    (key(Path::new(path)), mark.to_bytes())
}
