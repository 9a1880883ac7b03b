//! What a log sends to a witness: the body of `add-checkpoint` of the C2SP specification tlog-witness.
//!
//! ```text
//! old <size of the checkpoint that the witness has cosigned last>
//! <hash of the consistency proof, base64>      63 lines at most
//! <empty line>
//! <the new checkpoint, a signed note>
//! ```

use std::fmt;

use crate::{
    ids::NodeHash,
    note::{NOTE_MAX_BYTES, Note, NoteError},
    text::{self, Lines},
};

/// Hashes of the consistency proof at most.
pub const PROOF_MAX_HASHES: usize = 63;
/// Bytes of the body at most.
pub const BODY_MAX_BYTES: usize = NOTE_MAX_BYTES + PROOF_MAX_HASHES * 45 + 32;
/// Type of the answer 409, whose body is the size that the witness has.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// Why a body is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddCheckpointError {
    /// More than [`BODY_MAX_BYTES`].
    #[error("the body is larger than {BODY_MAX_BYTES} bytes")]
    TooLong,
    /// A line that is missing or misspelt. Counted from 1.
    #[error("line {0}: `old <size>` is expected, then at most {PROOF_MAX_HASHES} hashes in base64, then an empty line")]
    Line(usize),
    /// What follows is no note.
    #[error("the checkpoint: {0}")]
    Note(#[from] NoteError),
}

/// A checkpoint for a witness, with the proof that it continues the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the checkpoint that the witness is believed to have cosigned last; 0 for none.
    pub old_size: u64,
    /// Consistency proof from there. Empty from 0.
    pub proof: Vec<NodeHash>,
    /// The new checkpoint.
    pub checkpoint: Note,
}

impl AddCheckpoint {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, AddCheckpointError> {
        if body.len() > BODY_MAX_BYTES {
            return Err(AddCheckpointError::TooLong);
        }
        let mut lines = Lines::new(body);
        let wrong = |lines: &Lines<'_>| AddCheckpointError::Line(lines.number());
        let old_size =
            lines.next().and_then(|line| text::decimal(line.strip_prefix("old ")?)).ok_or_else(|| wrong(&lines))?;
        let mut proof = Vec::new();
        loop {
            let line = lines.next().ok_or_else(|| wrong(&lines))?;
            if line.is_empty() {
                break;
            }
            let hash = text::hash(line).filter(|_| proof.len() < PROOF_MAX_HASHES).ok_or_else(|| wrong(&lines))?;
            proof.push(hash);
        }
        Ok(Self { old_size, proof, checkpoint: Note::parse(lines.rest())? })
    }
}

/// The body.
impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        for hash in &self.proof {
            writeln!(f, "{}", text::base64(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        note::{KeyKind, SigningKey},
        tree,
    };

    fn example(hashes: usize) -> AddCheckpoint {
        let key = SigningKey::from_seed("example.com/log", KeyKind::Log, &[7; 32]).unwrap();
        let text = "example.com/log\n1\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\n";
        let checkpoint = Note::new(text, vec![key.sign(text).unwrap()]).unwrap();
        AddCheckpoint { old_size: 20_852_014, proof: vec![tree::leaf(b"x"); hashes], checkpoint }
    }

    #[test]
    fn read_as_written() {
        for hashes in [0, 1, 63] {
            let body = example(hashes);
            assert_eq!(AddCheckpoint::parse(body.to_string().as_bytes()), Ok(body));
        }
        assert!(example(1).to_string().starts_with("old 20852014\n"), "{}", example(1));
    }

    #[test]
    fn other_forms_are_refused() {
        assert_eq!(AddCheckpoint::parse(example(64).to_string().as_bytes()), Err(AddCheckpointError::Line(65)));
        assert_eq!(AddCheckpoint::parse(&vec![b'\n'; BODY_MAX_BYTES + 1]), Err(AddCheckpointError::TooLong));
        let text = example(2).to_string();
        for (from, to) in [
            ("old ", "old  "),
            ("old ", "Old "),
            ("old 2", "old 02"),
            ("old 2", "old -2"),
            ("\n\n", "\n"),
            ("=\n", "\n"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert!(AddCheckpoint::parse(changed.as_bytes()).is_err(), "{from:?} -> {to:?}");
        }
        for end in 0..text.len() {
            assert!(AddCheckpoint::parse(&text.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn only_one_spelling_is_read(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = example(2).to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let start = cut.index(bytes.len()) % 8;
            if let Ok(read) = AddCheckpoint::parse(&bytes[start..]) {
                prop_assert_eq!(read.to_string().into_bytes(), &bytes[start..]);
            }
        }
    }
}
