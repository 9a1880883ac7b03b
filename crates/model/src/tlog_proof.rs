//! A leaf's proof as a file of its own, in the text form of the C2SP specification tlog-proof.

use std::fmt;

use crate::{
    ids::NodeHash,
    note::{NOTE_MAX_BYTES, Note, NoteError},
    text::{self, Lines},
};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// Hashes of an inclusion proof at most: one for each bit of a size.
const HASHES_MAX: usize = 64;
/// Bytes of the extra data at most.
pub const EXTRA_MAX_BYTES: usize = 2 << 20;
/// Bytes of the file at most.
const FILE_MAX_BYTES: usize = EXTRA_MAX_BYTES / 3 * 4 + NOTE_MAX_BYTES + (16 << 10);

/// Why a file is not a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// Larger than any proof is.
    #[error("the proof is larger than {FILE_MAX_BYTES} bytes")]
    TooLong,
    /// Lines that are missing, misspelt or in another order.
    #[error("the file is not a tlog-proof: line {0} is not as expected")]
    Line(usize),
    /// The checkpoint under the proof is no note.
    #[error("the checkpoint under the proof: {0}")]
    Note(#[from] NoteError),
}

/// The proof that a leaf is in a log. Nothing in it is to be believed before the note and the hashes are verified, and the extra
/// data not even then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// Whatever else the application needs; empty for nothing. At most [`EXTRA_MAX_BYTES`].
    pub extra: Vec<u8>,
    /// Index of the leaf.
    pub index: u64,
    /// The inclusion proof, from the leaf's sibling upwards.
    pub hashes: Vec<NodeHash>,
    /// The checkpoint with its signatures.
    pub checkpoint: Note,
}

impl TlogProof {
    /// Reads the text form.
    pub fn parse(bytes: &[u8]) -> Result<Self, TlogProofError> {
        if bytes.len() > FILE_MAX_BYTES {
            return Err(TlogProofError::TooLong);
        }
        let mut lines = Lines::new(bytes);
        let wrong = |lines: &Lines<'_>| TlogProofError::Line(lines.number());
        if lines.next() != Some(FIRST_LINE) {
            return Err(wrong(&lines));
        }
        let mut line = lines.next().ok_or_else(|| wrong(&lines))?;
        let mut extra = Vec::new();
        if let Some(encoded) = line.strip_prefix("extra ") {
            extra = text::from_base64(encoded)
                .filter(|extra| (1..=EXTRA_MAX_BYTES).contains(&extra.len()))
                .ok_or_else(|| wrong(&lines))?;
            line = lines.next().ok_or_else(|| wrong(&lines))?;
        }
        let index = line.strip_prefix("index ").and_then(text::decimal).ok_or_else(|| wrong(&lines))?;
        let mut hashes = Vec::new();
        loop {
            let line = lines.next().ok_or_else(|| wrong(&lines))?;
            if line.is_empty() {
                break;
            }
            let hash = text::hash(line).filter(|_| hashes.len() < HASHES_MAX).ok_or_else(|| wrong(&lines))?;
            hashes.push(hash);
        }
        Ok(Self { extra, index, hashes, checkpoint: Note::parse(lines.rest())? })
    }
}

/// The text form.
impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if !self.extra.is_empty() {
            writeln!(f, "extra {}", text::base64(&self.extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
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
        checkpoint::Checkpoint,
        note::{KeyKind, SigningKey},
        tree,
    };

    fn example(extra: &[u8]) -> TlogProof {
        let key = SigningKey::from_seed("example.com/log", KeyKind::Log, &[7; 32]).unwrap();
        let checkpoint = Checkpoint { origin: "example.com/log".into(), size: 3, root: tree::leaf(b"root") };
        let signature = key.sign(&checkpoint.text()).unwrap();
        let checkpoint = Note::new(checkpoint.text(), vec![signature]).unwrap();
        TlogProof { extra: extra.to_vec(), index: 2, hashes: vec![tree::leaf(b"a"), tree::leaf(b"b")], checkpoint }
    }

    #[test]
    fn read_as_written() {
        for extra in [Vec::new(), b"more".to_vec(), vec![0; EXTRA_MAX_BYTES]] {
            let proof = example(&extra);
            assert_eq!(TlogProof::parse(proof.to_string().as_bytes()), Ok(proof));
        }
        let none = TlogProof { index: 0, hashes: Vec::new(), ..example(b"") };
        assert_eq!(TlogProof::parse(none.to_string().as_bytes()), Ok(none));
    }

    #[test]
    fn the_layout_is_that_of_the_specification() {
        let text = example(b"more").to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["c2sp.org/tlog-proof@v1", "extra bW9yZQ==", "index 2"]);
        assert_eq!((lines[5], lines[6], lines[7], lines[9]), ("", "example.com/log", "3", ""));
    }

    #[test]
    fn other_forms_are_refused() {
        let text = example(b"more").to_string();
        let hash = text.lines().nth(3).unwrap();
        let many = format!("{hash}\n").repeat(65);
        for (from, to) in [
            ("tlog-proof@v1", "tlog-proof@v2"),
            ("extra bW9yZQ==", "extra bW9yZQ"),
            ("extra bW9yZQ==", "extra "),
            ("extra bW9yZQ==\n", "extra bW9yZQ==\nextra bW9yZQ==\n"),
            ("index 2", "index 02"),
            ("index 2", "index -2"),
            ("index 2", "Index 2"),
            ("index 2\n", ""),
            (&format!("{hash}\n"), &many),
            (hash, "AAAA"),
            ("\n\n", "\n \n"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from:?}");
            assert!(TlogProof::parse(changed.as_bytes()).is_err(), "{from:?} -> {to:?}");
        }
        assert_eq!(TlogProof::parse(&vec![b'\n'; FILE_MAX_BYTES + 1]), Err(TlogProofError::TooLong));
        for end in 0..text.len() {
            assert!(TlogProof::parse(&text.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn only_one_spelling_is_read(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = example(b"more").to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let start = cut.index(bytes.len()) % 8;
            if let Ok(read) = TlogProof::parse(&bytes[start..]) {
                prop_assert_eq!(read.to_string().into_bytes(), &bytes[start..]);
            }
        }
    }
}
