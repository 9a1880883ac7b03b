//! The file `signed`: the last checkpoint whose signature left the server, kept apart from the database, so that a database
//! that was set back can't be made to sign another one of the same size.
//!
//! ```text
//! sigillo signed v1
//! <origin>
//! <size, decimal>
//! <root, base64>
//! <checksum of all before, hexadecimal>
//! ```

use std::{fs, io, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use sigillo_model::{
    entry::checksum,
    ids::{NodeHash, Origin},
};

const TITLE: &str = "sigillo signed v1";

/// The last checkpoint that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) origin: Origin,
    pub(crate) size: u64,
    pub(crate) root: NodeHash,
}

impl Signed {
    /// Reads the file; `None` if it is not there, an error of kind `InvalidData` if it is not what was written.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "this is not a whole file of a signed checkpoint");
        Self::from_text(&text).map(Some).ok_or_else(invalid)
    }

    fn to_text(&self) -> String {
        let body = format!("{TITLE}\n{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()));
        let sum = u64::from_be_bytes(checksum(body.as_bytes()));
        format!("{body}{sum:016x}\n")
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let signed = Self {
            origin: Origin::new(lines.next()?).ok()?,
            size: lines.next()?.parse().ok()?,
            root: NodeHash::from_slice(&STANDARD.decode(lines.next()?).ok()?)?,
        };
        // Only the one way of writing it is read: this also checks the sum.
        (signed.to_text() == text).then_some(signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flip_is_found() {
        let signed =
            Signed { origin: Origin::new("journal.example.net").unwrap(), size: 42, root: NodeHash::new([0xab; 32]) };
        let text = signed.to_text();
        assert_eq!(Signed::from_text(&text), Some(signed));
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert_eq!(Signed::from_text(&String::from_utf8(bytes).unwrap()), None, "byte {at} bit {bit}");
            }
        }
    }
}
