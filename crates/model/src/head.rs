//! Signed heads: what a sender says, under a key that moves forward, about how far its chain of batches has come.
//!
//! A head is a signed note of exactly one signature, of an Ed25519 key (type 01) named `head-` and the source's id:
//!
//! ```text
//! sigillo head v1
//! <origin>
//! <source id, hexadecimal>
//! <epoch> <sequence of the next record>
//! <batch hash at that place, or the epoch's opening, hexadecimal>
//! <time, nanoseconds since 1970 UTC; greater than that of the head before>
//! <size> <root, base64>          the newest checkpoint that the sender has seen; 0 and the root of no record when none
//! <public key of the next head, base64>
//! ```
//!
//! The next head is signed by the key that this one names, and by no other. A sender that has destroyed its key can't sign
//! again what it signed before, nor can whoever takes its machine.

mod key;
pub mod statement;

use std::fmt::Write;

pub use key::HeadKey;

use crate::{
    ids::{BatchHash, Epoch, NodeHash, Origin, SourceId, SourceSeq},
    note::{KeyError, KeyKind, Note, NoteError, SigningKey, VerifierKey},
    text,
};

/// First line of a head's text.
pub const HEADER: &str = "sigillo head v1";
/// Bytes of a head's note at most; one with the longest origin has fewer.
pub const HEAD_MAX_BYTES: usize = 1_024;

/// Why a note is no head, or says something wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Larger than [`HEAD_MAX_BYTES`].
    #[error("the head has {0} bytes; {HEAD_MAX_BYTES} are taken at most")]
    TooLong(usize),
    /// Not a note, or its signature does not hold.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A line that is not what it should be. Counted from 1.
    #[error("line {0} is not what it should be")]
    Line(usize),
    /// More signatures than one, or one of another name than that of the source's key.
    #[error("a head has one signature, of the key `{0}`")]
    Signatures(String),
    /// The public key by which it should be checked is none.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// The journal, by its name alone: of a head that was read, [`Origin::predecessor`] is always `None`.
    pub origin: Origin,
    /// The sender.
    pub source: SourceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its number of the record that comes next.
    pub next: SourceSeq,
    /// Hash of the last batch below `next`, or the epoch's opening if there is none.
    pub batch_hash: BatchHash,
    /// When it was signed, by the sender's clock; strictly greater than that of its head before. Nanoseconds since 1970 UTC.
    pub time_ns: u64,
    /// Size and root of the newest checkpoint that the sender has seen; 0 and the root of no record when it has seen none.
    pub seen: (u64, NodeHash),
    /// Ed25519 public key that signs the next head.
    pub next_key: [u8; 32],
}

/// Name of a source's head keys.
pub fn key_name(source: SourceId) -> String {
    format!("head-{source}")
}

impl SignedHead {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let Self { origin, source, epoch, next, batch_hash, time_ns, seen: (size, root), next_key } = self;
        let (root, next_key) = (text::base64(root.as_bytes()), text::base64(next_key));
        let mut text = String::with_capacity(HEAD_MAX_BYTES);
        // Writing into a string does not fail.
        let _ = write!(
            text,
            "{HEADER}\n{origin}\n{source}\n{epoch} {next}\n{batch_hash}\n{time_ns}\n{size} {root}\n{next_key}\n"
        );
        text
    }

    /// The note. `key` is the one that the head before announced; `next_key` should be [`HeadKey::ratchet`]'s.
    pub fn sign(&self, key: &HeadKey) -> Result<String, HeadError> {
        let key = SigningKey::from_seed(&key_name(self.source), KeyKind::Log, key.expose())?;
        let text = self.text();
        let signature = key.sign(&text)?;
        Ok(Note::new(text, vec![signature])?.to_string())
    }

    /// Reads a head, in the one form that [`SignedHead::sign`] writes. Nothing in it is to be believed before
    /// [`SignedHead::verify`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, Note), HeadError> {
        if bytes.len() > HEAD_MAX_BYTES {
            return Err(HeadError::TooLong(bytes.len()));
        }
        let note = Note::parse(bytes)?;
        let mut lines = Lines::new(note.text());
        lines.header(HEADER)?;
        let (origin, source) = (lines.origin()?, lines.source()?);
        let (epoch, next) = lines.pair()?;
        let (epoch, next) = (lines.number(epoch)?, lines.number(next)?);
        let batch_hash = lines.next()?;
        let batch_hash = BatchHash::from_hex(batch_hash).map_err(|_| lines.wrong())?;
        let time = lines.next()?;
        let time_ns = lines.number(time)?;
        let (size, root) = lines.pair()?;
        let seen = (lines.number(size)?, text::hash(root).ok_or_else(|| lines.wrong())?);
        let key = lines.next()?;
        let next_key = lines.key(key)?;
        lines.end()?;
        let (epoch, next) = (Epoch::new(epoch), SourceSeq::new(next));
        let head = Self { origin, source, epoch, next, batch_hash, time_ns, seen, next_key };
        if head.text() != note.text() {
            // Hexadecimal digits in upper case are another spelling.
            return Err(HeadError::Line(3));
        }
        let name = key_name(source);
        // A note is written in one way, but for its signature lines.
        let one = matches!(note.signatures(), [one] if one.name() == name) && note.to_bytes() == bytes;
        if one { Ok((head, note)) } else { Err(HeadError::Signatures(name)) }
    }

    /// Checks that `note` is this head, signed by the Ed25519 key `public`.
    pub fn verify(&self, note: &Note, public: &[u8; 32]) -> Result<(), HeadError> {
        if note.text() != self.text() {
            return Err(HeadError::Line(1));
        }
        let name = key_name(self.source);
        if note.signatures().len() != 1 {
            return Err(HeadError::Signatures(name));
        }
        note.verify(&[VerifierKey::new(&name, KeyKind::Log, public)?])?;
        Ok(())
    }
}

/// The lines of a statement, each of which ends in a newline.
struct Lines<'a>(text::Lines<'a>);

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self(text::Lines::new(text.as_bytes()))
    }

    /// The line that was asked for last is not what it should be.
    fn wrong(&self) -> HeadError {
        HeadError::Line(self.0.number())
    }

    fn next(&mut self) -> Result<&'a str, HeadError> {
        let line = self.0.next();
        line.ok_or_else(|| self.wrong())
    }

    fn header(&mut self, header: &str) -> Result<(), HeadError> {
        if self.next()? == header { Ok(()) } else { Err(self.wrong()) }
    }

    fn origin(&mut self) -> Result<Origin, HeadError> {
        let line = self.next()?;
        Origin::new(line).map_err(|_| self.wrong())
    }

    fn source(&mut self) -> Result<SourceId, HeadError> {
        let line = self.next()?;
        SourceId::from_hex(line).map_err(|_| self.wrong())
    }

    /// The two words of a line.
    fn pair(&mut self) -> Result<(&'a str, &'a str), HeadError> {
        self.next()?.split_once(' ').ok_or_else(|| self.wrong())
    }

    fn number(&self, word: &str) -> Result<u64, HeadError> {
        text::decimal(word).ok_or_else(|| self.wrong())
    }

    fn key(&self, word: &str) -> Result<[u8; 32], HeadError> {
        text::hash(word).map(|bytes| *bytes.as_bytes()).ok_or_else(|| self.wrong())
    }

    fn has_more(&self) -> bool {
        !self.0.rest().is_empty()
    }

    fn end(&self) -> Result<(), HeadError> {
        if self.has_more() { Err(HeadError::Line(self.0.number() + 1)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
