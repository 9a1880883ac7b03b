//! Signed notes: a text and signatures under it, as the C2SP specifications signed-note and tlog-cosignature lay them out.
//!
//! ```text
//! <text, ends in a newline>
//! <empty line>
//! — <key name> <base64 of key id[4] || signature>
//! ```
//!
//! A signature of a key that is not known is ignored, even if its name or its id alone is known. One that claims a known key
//! and does not verify spoils the note.

mod key;

use std::fmt;

pub use key::{KeyError, KeyId, KeyKind, SigningKey, VerifierKey};

use crate::text;

/// Bytes of a note at most.
pub const NOTE_MAX_BYTES: usize = 64 << 10;
/// Signatures of a note at most.
pub const SIGNATURES_MAX: usize = 64;
/// The greatest time that a cosignature may carry, seconds since 1970.
const TIME_MAX: u64 = i64::MAX.unsigned_abs();
const LINE_START: &str = "\u{2014} ";

/// Why a note is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Larger than [`NOTE_MAX_BYTES`].
    #[error("the note has {0} bytes; {NOTE_MAX_BYTES} are taken at most")]
    TooLong(usize),
    /// Not UTF-8, or with control characters other than newlines.
    #[error("the note is not plain text: it has bytes that are not UTF-8, or control characters")]
    NotText,
    /// No empty line with signatures after it, or a text that does not end in a newline.
    #[error("the note lacks its form: a text that ends in a newline, an empty line, signature lines")]
    NoSignatures,
    /// More than [`SIGNATURES_MAX`].
    #[error("the note has more than {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// A line after the text that is no signature line. Counted from 1.
    #[error("line {0} after the text is not a signature line")]
    SignatureLine(usize),
    /// A known key's signature that does not verify.
    #[error("the signature of `{0}` does not verify: the text or the signature was changed")]
    WrongSignature(String),
    /// Signed by strangers only.
    #[error("no known key has signed the note")]
    NoKnownKey,
    /// Two of the known keys can't be told apart.
    #[error("two known keys are both named `{0}` and have the same id: give one of them another name")]
    Ambiguous(String),
    /// The key is not of a kind that signs this way.
    #[error("the key `{name}` is a {kind} key, which does not sign this way")]
    WrongKind {
        /// Name of the key.
        name: String,
        /// What it is.
        kind: KeyKind,
    },
    /// A time past the year 292 billion.
    #[error("the time {0} is beyond what a cosignature can carry")]
    Time(u64),
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    name: String,
    id: KeyId,
    /// What follows the key id, as the kind of key defines it.
    bytes: Vec<u8>,
}

impl Signature {
    /// Name of the key that claims to have signed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Id of the key that claims to have signed.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Reads a line without its newline.
    pub fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(LINE_START)?.split_once(' ')?;
        let decoded = text::from_base64(encoded)?;
        let (id, bytes) = decoded.split_first_chunk::<4>()?;
        let valid = key::valid_name(name) && !bytes.is_empty();
        valid.then(|| Self { name: name.to_owned(), id: KeyId::new(*id), bytes: bytes.to_vec() })
    }
}

/// The line, with its newline.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.id.as_bytes().as_slice(), &self.bytes].concat();
        writeln!(f, "{LINE_START}{} {}", self.name, text::base64(&bytes))
    }
}

/// A signature that a known key made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Index of the key among those that were given.
    pub key: usize,
    /// When it was made by the signer's clock, seconds since 1970; for kinds that carry a time.
    pub time: Option<u64>,
}

/// A text with its signatures. Nothing in it is to be believed before [`Note::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// Puts a note together.
    pub fn new(text: impl Into<String>, signatures: Vec<Signature>) -> Result<Self, NoteError> {
        let text = text.into();
        check_text(&text)?;
        if signatures.is_empty() {
            return Err(NoteError::NoSignatures);
        }
        let note = Self { text, signatures };
        note.check_size()?;
        Ok(note)
    }

    /// Reads a note; the text ends before the last empty line.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_MAX_BYTES {
            return Err(NoteError::TooLong(bytes.len()));
        }
        let all = std::str::from_utf8(bytes).map_err(|_| NoteError::NotText)?;
        check_characters(all)?;
        let (text, lines) = all.rsplit_once("\n\n").ok_or(NoteError::NoSignatures)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::NoSignatures)?;
        let signatures = lines
            .split('\n')
            .take(SIGNATURES_MAX + 1)
            .enumerate()
            .map(|(index, line)| Signature::parse(line).ok_or(NoteError::SignatureLine(index + 1)))
            .collect::<Result<Vec<_>, _>>()?;
        let note = Self { text: format!("{text}\n"), signatures };
        note.check_size()?;
        Ok(note)
    }

    /// The text, with its last newline: what was signed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, known and unknown, in order.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature at the end.
    pub fn add(&mut self, signature: Signature) -> Result<(), NoteError> {
        self.signatures.push(signature);
        self.check_size().inspect_err(|_| {
            self.signatures.pop();
        })
    }

    /// The note as it is stored and sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Checks each signature that claims one of the `known` keys. The result is in the note's order and never empty; a key that
    /// signed twice is in it twice.
    pub fn verify(&self, known: &[VerifierKey]) -> Result<Vec<Verified>, NoteError> {
        let mut verified = Vec::new();
        for signature in &self.signatures {
            let is_named = |key: &VerifierKey| key.name() == signature.name && key.id() == signature.id;
            let Some(index) = known.iter().position(is_named) else { continue };
            let Some(key) = known.get(index) else { continue };
            if known.iter().any(|other| is_named(other) && other != key) {
                return Err(NoteError::Ambiguous(signature.name.clone()));
            }
            let time = key.verify(&self.text, &signature.bytes)?;
            verified.push(Verified { key: index, time });
        }
        if verified.is_empty() { Err(NoteError::NoKnownKey) } else { Ok(verified) }
    }

    fn check_size(&self) -> Result<(), NoteError> {
        if self.signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        let length = self.to_string().len();
        if length > NOTE_MAX_BYTES { Err(NoteError::TooLong(length)) } else { Ok(()) }
    }
}

/// The note as it is stored and sent.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

/// Whether this can be the text of a note.
fn check_text(text: &str) -> Result<(), NoteError> {
    if text.len() > NOTE_MAX_BYTES {
        return Err(NoteError::TooLong(text.len()));
    }
    check_characters(text)?;
    if text.ends_with('\n') { Ok(()) } else { Err(NoteError::NoSignatures) }
}

fn check_characters(text: &str) -> Result<(), NoteError> {
    let plain = text.bytes().all(|byte| byte >= b' ' || byte == b'\n');
    if plain { Ok(()) } else { Err(NoteError::NotText) }
}

#[cfg(test)]
mod tests;
