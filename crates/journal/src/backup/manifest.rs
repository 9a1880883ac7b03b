//! The manifest of a backup, its file `backup`: which journal, up to where, and the hash of each file.
//!
//! ```text
//! sigillo backup v1
//! <origin>
//! <size, decimal>
//! <chain value, hexadecimal>
//! <root of the tree, base64>
//! <when, nanoseconds since 1970 UTC, decimal>
//! <SHA-256, hexadecimal> <bytes, decimal> <path>      for each file but this one, by path
//! <checksum of all before, hexadecimal>
//! ```

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sigillo_model::{
    entry::checksum,
    ids::{ChainHash, NodeHash, Origin},
};

const TITLE: &str = "sigillo backup v1";
/// Most bytes of a manifest: some 500,000 files, of 64 MB each as a rule.
const MAX_BYTES: u64 = 64 << 20;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Name of the journal.
    pub origin: Origin,
    /// Its records.
    pub size: u64,
    /// Chain value after the last of them.
    pub chain: ChainHash,
    /// Root of the tree over the chain values of its records.
    pub root: NodeHash,
    /// When the backup was made, by the server's clock, nanoseconds since 1970 UTC.
    pub time_ns: u64,
    /// Its files but the manifest, by path.
    pub files: Vec<BackupFile>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFile {
    /// Its path within the backup: a name, or a folder's and a name with `/` between them.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
}

impl Manifest {
    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
    }

    pub(crate) fn to_text(&self) -> String {
        let Self { origin, size, chain, root, time_ns, .. } = self;
        let root = STANDARD.encode(root.as_bytes());
        let mut body = format!("{TITLE}\n{origin}\n{size}\n{chain}\n{root}\n{time_ns}\n");
        for BackupFile { path, bytes, sha256 } in &self.files {
            body.extend([hex::encode(sha256).as_str(), " ", &bytes.to_string(), " ", path, "\n"]);
        }
        let sum = u64::from_be_bytes(checksum(body.as_bytes()));
        format!("{body}{sum:016x}\n")
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let mut manifest = Self {
            origin: Origin::new(lines.next()?).ok()?,
            size: lines.next()?.parse().ok()?,
            chain: ChainHash::from_hex(lines.next()?).ok()?,
            root: NodeHash::from_slice(&STANDARD.decode(lines.next()?).ok()?)?,
            time_ns: lines.next()?.parse().ok()?,
            files: Vec::new(),
        };
        // The last line is the checksum.
        lines.next_back()?;
        manifest.files = lines.map(BackupFile::from_line).collect::<Option<_>>()?;
        let ordered = manifest.files.is_sorted_by(|one, next| one.path < next.path);
        // Only the one way of writing it is read: this also checks the sum.
        (ordered && manifest.to_text() == text).then_some(manifest)
    }

    /// Reads the manifest of a backup. Errors: `NotFound` if there is none, `InvalidData` if it is not what was written.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "this is not a whole manifest of a backup");
        let mut text = String::new();
        if fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)? as u64 > MAX_BYTES {
            return Err(invalid());
        }
        Self::from_text(&text).ok_or_else(invalid)
    }
}

impl BackupFile {
    fn from_line(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, ' ');
        let mut sha256 = [0; 32];
        hex::decode_to_slice(fields.next()?, &mut sha256).ok()?;
        let bytes = fields.next()?.parse().ok()?;
        let path = fields.next()?;
        // Nothing that leaves the folder, and nothing that a terminal would take for more than a name.
        let plain = |name: &str| {
            !name.is_empty()
                && name != "."
                && name != ".."
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let named = path.split('/').count() <= 2 && path.split('/').all(plain);
        named.then(|| Self { path: path.to_owned(), bytes, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let file = |path: &str, bytes| BackupFile { path: path.to_owned(), bytes, sha256: [7; 32] };
        Manifest {
            origin: Origin::new("journal.example.net").unwrap(),
            size: 42,
            chain: ChainHash::new([0xab; 32]),
            root: NodeHash::new([0xcd; 32]),
            time_ns: 1_700_000_000_000_000_000,
            files: vec![file("head", 90), file("journal/000012.sst", 4_096), file("journal/CURRENT", 16)],
        }
    }

    #[test]
    fn any_flip_is_found() {
        let text = manifest().to_text();
        assert_eq!(Manifest::from_text(&text), Some(manifest()));
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert_eq!(Manifest::from_text(&String::from_utf8(bytes).unwrap()), None, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn paths_stay_in_the_folder() {
        for path in ["../head", "/etc/passwd", "journal/../../x", "journal/", "a/b/c", "", ".", "he\u{1b}ad", "a b"] {
            let mut bad = manifest();
            bad.files[0].path = path.to_owned();
            bad.files.sort_by(|one, next| one.path.cmp(&next.path));
            assert_eq!(Manifest::from_text(&bad.to_text()), None, "{path:?}");
        }
        let mut twice = manifest();
        twice.files[1].path = "head".to_owned();
        assert_eq!(Manifest::from_text(&twice.to_text()), None);
    }
}
