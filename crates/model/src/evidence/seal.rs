//! The end of a file: a digest over all before, signed by whoever exported it.
//!
//! ```text
//! sigillo evidence v1
//! <origin>
//! <bytes before the end section, decimal>
//! <SHA-256 of these bytes, 64 hexadecimal digits>
//! ```
//!
//! The end section holds this text alone, or a note of it, signed with a key of kind Log.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::{
    ids::Origin,
    note::{Note, NoteError, VerifierKey},
};

/// First line of the text.
const HEADER: &str = "sigillo evidence v1";

/// Takes the bytes of a file as they are written or read, the magic line first, the end section not at all.
#[derive(Clone, Default)]
pub struct Seal {
    digest: Sha256,
    bytes: u64,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal({} bytes)", self.bytes)
    }
}

/// Why the end section does not fit the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Digest, length or origin are not those of the file.
    #[error("the digest at its end is not that of the file: it was changed, or put together from pieces")]
    Digest,
    /// The signature does not hold.
    #[error("the exporter's signature: {0}")]
    Note(#[from] NoteError),
}

impl Seal {
    /// Adds the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
    }

    /// The text for the end section, to be signed or used as it is.
    pub fn text(&self, origin: &Origin) -> String {
        let digest: [u8; 32] = self.digest.clone().finalize().into();
        format!("{HEADER}\n{origin}\n{}\n{}\n", self.bytes, hex::encode(digest))
    }

    /// Checks an end section. Gives the known keys that have signed it, and the names of the unknown ones.
    pub(super) fn check(
        &self,
        payload: &[u8],
        origin: &Origin,
        exporters: &[VerifierKey],
    ) -> Result<(Vec<String>, Vec<String>), SealError> {
        let expected = self.text(origin);
        if payload == expected.as_bytes() {
            return Ok((Vec::new(), Vec::new()));
        }
        if !payload.starts_with(expected.as_bytes()) {
            return Err(SealError::Digest);
        }
        let note = Note::parse(payload)?;
        if note.text() != expected {
            return Err(SealError::Digest);
        }
        let is_known = |signature: &crate::note::Signature| {
            exporters.iter().any(|key| key.name() == signature.name() && key.id() == signature.id())
        };
        let unknown = note.signatures().iter().filter(|signature| !is_known(signature));
        let unknown = unknown.map(|signature| signature.name().to_owned()).collect();
        let verified = match note.verify(exporters) {
            Ok(verified) => verified,
            Err(NoteError::NoKnownKey) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut known: Vec<String> =
            verified.iter().filter_map(|one| exporters.get(one.key)).map(|key| key.name().to_owned()).collect();
        known.dedup();
        Ok((known, unknown))
    }
}
