//! The head file: the durable size and chain value, kept apart from the database and synced each second, so that a
//! database that lost records can't be mistaken for a whole one.
//!
//! ```text
//! sigillo head v1
//! <origin>
//! <size, decimal>
//! <chain value, hexadecimal>
//! open | clean
//! <checksum of all before, hexadecimal>
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use sigillo_model::{
    entry::checksum,
    ids::{ChainHash, Origin},
};

const TITLE: &str = "sigillo head v1";

/// What the head file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeadFile {
    pub(crate) origin: Origin,
    pub(crate) size: u64,
    pub(crate) chain: ChainHash,
    /// The journal was closed in good order after this head.
    pub(crate) clean: bool,
}

impl HeadFile {
    /// Replaces the file in one step and syncs it and its folder.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let next = path.with_extension("next");
        let mut file = File::create(&next)?;
        file.write_all(self.to_text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        let folder = path.parent().ok_or_else(|| io::Error::other("the head file has no folder"))?;
        File::open(folder)?.sync_all()
    }

    /// Reads the file; `None` if it is not there, an error of kind `InvalidData` if it is not what was written.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "this is not a whole head file");
        Self::from_text(&text).map(Some).ok_or_else(invalid)
    }

    fn to_text(&self) -> String {
        let stop = if self.clean { "clean" } else { "open" };
        let body = format!("{TITLE}\n{}\n{}\n{}\n{stop}\n", self.origin, self.size, self.chain);
        let sum = u64::from_be_bytes(checksum(body.as_bytes()));
        format!("{body}{sum:016x}\n")
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let head = Self {
            origin: Origin::new(lines.next()?).ok()?,
            size: lines.next()?.parse().ok()?,
            chain: ChainHash::from_hex(lines.next()?).ok()?,
            clean: lines.next()? == "clean",
        };
        // Only the one way of writing it is read: this also checks the sum.
        (head.to_text() == text).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flip_is_found() {
        let head = HeadFile {
            origin: Origin::new("journal.example.net").unwrap(),
            size: 42,
            chain: ChainHash::new([0xab; 32]),
            clean: true,
        };
        let text = head.to_text();
        assert_eq!(HeadFile::from_text(&text), Some(head));
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert_eq!(HeadFile::from_text(&String::from_utf8(bytes).unwrap()), None, "byte {at} bit {bit}");
            }
        }
        assert_eq!(HeadFile::from_text(&text[..text.len() - 1]), None);
    }

    #[test]
    fn is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("head");
        assert_eq!(HeadFile::read(&path).unwrap(), None);
        let mut head =
            HeadFile { origin: Origin::new("o").unwrap(), size: 1, chain: ChainHash::new([1; 32]), clean: false };
        head.write(&path).unwrap();
        head.size = 2;
        head.write(&path).unwrap();
        assert_eq!(HeadFile::read(&path).unwrap(), Some(head));
    }
}
