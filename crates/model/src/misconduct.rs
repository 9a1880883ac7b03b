//! Misconduct of a journal's owner, written down as data that anybody can check who has the journal's keys.
//!
//! ```text
//! sigillo misconduct v1
//! <kind>
//! <when it was noticed, seconds since 1970 UTC>
//! <empty line>
//! part <name> <bytes>
//! <so many bytes>
//! … further parts
//! ```

use std::fmt::{self, Write};

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    ids::{ChainHash, NodeHash},
    note::{Note, NoteError, VerifierKey},
    proof::{ProofError, verify_consistency},
    receipt::{Held, ReceiptError, SignedReceipt},
    text::{base64, decimal, hash},
};

const HEADER: &str = "sigillo misconduct v1";
/// Bytes of a file of this kind at most: two notes, or a note and a receipt, and a proof.
pub const MISCONDUCT_MAX_BYTES: usize = 512 << 10;
/// Hashes of a proof beyond which it can't be one.
const PROOF_MAX: usize = 128;

/// What a journal's owner did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misconduct {
    /// It signed a receipt, and later a checkpoint of a tree with something else at the receipt's last record.
    ReceiptContradicted {
        /// The receipt.
        receipt: Box<SignedReceipt>,
        /// The checkpoint's note.
        checkpoint: String,
        /// What the tree has at the receipt's last record.
        entry: ChainHash,
        /// Inclusion proof of that.
        proof: Vec<NodeHash>,
    },
    /// It signed two checkpoints of one size with different roots.
    TwoRoots {
        /// The note that was remembered.
        remembered: String,
        /// The note that was shown later.
        shown: String,
    },
    /// It showed a checkpoint without a valid proof that it continues the one remembered.
    NotContinued {
        /// The note that was remembered.
        remembered: String,
        /// The note that was shown later, of another size.
        shown: String,
        /// The proof that came with it, from the smaller size to the greater one.
        proof: Vec<NodeHash>,
    },
    /// It showed an older checkpoint than the one remembered, or none, and did not catch up.
    RolledBack {
        /// The note that was remembered.
        remembered: String,
        /// The note that was shown, if any was.
        shown: Option<String>,
    },
}

/// What a file of misconduct is worth to somebody who trusts its holder in nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// It proves the misconduct by itself: both statements are signed, and both can't be true.
    Proof,
    /// The signatures are right, but that the journal did not show better is the holder's word. The owner can refute it with a valid
    /// proof between the two sizes.
    Question,
}

/// A file of misconduct that shows none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MisconductError {
    /// Not such a file.
    #[error("it is not laid out as a file of misconduct: {0}")]
    Layout(&'static str),
    /// Its receipt is none.
    #[error("its receipt: {0}")]
    Receipt(#[from] ReceiptError),
    /// A checkpoint's signature.
    #[error("a checkpoint in it: {0}")]
    Note(#[from] NoteError),
    /// A checkpoint's text.
    #[error("a checkpoint in it: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// What is in it is in order.
    #[error("it shows no misconduct: {0}")]
    None(&'static str),
}

impl Misconduct {
    fn kind(&self) -> &'static str {
        match self {
            Self::ReceiptContradicted { .. } => "receipt contradicted",
            Self::TwoRoots { .. } => "two roots",
            Self::NotContinued { .. } => "not continued",
            Self::RolledBack { .. } => "rolled back",
        }
    }

    /// The file's text.
    pub fn to_text(&self, seen_unix_seconds: u64) -> String {
        let mut text = format!("{HEADER}\n{}\n{seen_unix_seconds}\n", self.kind());
        let mut part = |name: &str, content: &str| {
            // Writing into a string does not fail.
            let _ = write!(text, "\npart {name} {}\n{content}", content.len());
        };
        match self {
            Self::ReceiptContradicted { receipt, checkpoint, entry, proof } => {
                part("receipt", &receipt.to_text());
                part("checkpoint", checkpoint);
                part("entry", &format!("{entry}\n"));
                part("proof", &lines(proof));
            }
            Self::TwoRoots { remembered, shown } => {
                part("remembered", remembered);
                part("shown", shown);
            }
            Self::NotContinued { remembered, shown, proof } => {
                part("remembered", remembered);
                part("shown", shown);
                part("proof", &lines(proof));
            }
            Self::RolledBack { remembered, shown } => {
                part("remembered", remembered);
                if let Some(shown) = shown {
                    part("shown", shown);
                }
            }
        }
        text
    }

    /// Reads a file; gives also when the misconduct was noticed, seconds since 1970.
    pub fn parse(text: &str) -> Result<(Self, u64), MisconductError> {
        let wrong = |what| MisconductError::Layout(what);
        if text.len() > MISCONDUCT_MAX_BYTES {
            return Err(wrong("it is too long"));
        }
        let mut head = text.splitn(4, '\n');
        if head.next() != Some(HEADER) {
            return Err(wrong("its header is another one"));
        }
        let kind = head.next().ok_or(wrong("its kind is missing"))?;
        let seen = head.next().and_then(decimal).ok_or(wrong("its time is none"))?;
        let mut rest = head.next().unwrap_or_default();
        let mut next = |name: &str| {
            let (content, after) = take_part(rest, name)?;
            rest = after;
            Some(content)
        };
        let misconduct = match kind {
            "receipt contradicted" => {
                let receipt = next("receipt").ok_or(wrong("its receipt is missing"))?;
                let checkpoint = next("checkpoint").ok_or(wrong("its checkpoint is missing"))?.to_owned();
                let entry = next("entry").and_then(|text| ChainHash::from_hex(text.strip_suffix('\n')?).ok());
                let entry = entry.ok_or(wrong("its entry is missing"))?;
                let proof = next("proof").and_then(hashes).ok_or(wrong("its proof is missing"))?;
                let receipt = Box::new(SignedReceipt::parse(receipt)?);
                Self::ReceiptContradicted { receipt, checkpoint, entry, proof }
            }
            "two roots" | "not continued" | "rolled back" => {
                let remembered = next("remembered").ok_or(wrong("the remembered checkpoint is missing"))?.to_owned();
                let shown = next("shown").map(ToOwned::to_owned);
                match (kind, shown) {
                    ("rolled back", shown) => Self::RolledBack { remembered, shown },
                    ("two roots", Some(shown)) => Self::TwoRoots { remembered, shown },
                    ("not continued", Some(shown)) => {
                        let proof = next("proof").and_then(hashes).ok_or(wrong("its proof is missing"))?;
                        Self::NotContinued { remembered, shown, proof }
                    }
                    _ => return Err(wrong("the checkpoint that was shown is missing")),
                }
            }
            _ => return Err(wrong("its kind is not known")),
        };
        // One form only; this also refuses what follows the last part.
        if misconduct.to_text(seen) == text {
            Ok((misconduct, seen))
        } else {
            Err(wrong("it is not written as this format wants it"))
        }
    }

    /// Checks what is claimed with the keys that sign checkpoints and those that sign receipts.
    pub fn check(&self, logs: &[VerifierKey], receipts: &[VerifierKey]) -> Result<Worth, MisconductError> {
        match self {
            Self::ReceiptContradicted { receipt, checkpoint, entry, proof } => {
                receipt.verify(receipts)?;
                match receipt.against(&signed(checkpoint, logs)?, entry, proof)? {
                    Held::Contradicted => Ok(Worth::Proof),
                    Held::Kept => Err(MisconductError::None("the tree holds what the receipt says")),
                }
            }
            Self::TwoRoots { remembered, shown } => {
                let (remembered, shown) = pair(remembered, shown, logs)?;
                if remembered.size == shown.size && remembered.root != shown.root {
                    Ok(Worth::Proof)
                } else {
                    Err(MisconductError::None("the checkpoints have different sizes, or the same root"))
                }
            }
            Self::NotContinued { remembered, shown, proof } => {
                let (a, b) = pair(remembered, shown, logs)?;
                let (old, new) = if a.size <= b.size { (a, b) } else { (b, a) };
                match continues(&old, &new, proof) {
                    Err(_) => Ok(Worth::Question),
                    Ok(()) => Err(MisconductError::None("the proof holds")),
                }
            }
            Self::RolledBack { remembered, shown } => {
                let remembered = signed(remembered, logs)?;
                let Some(shown) = shown else { return Ok(Worth::Question) };
                let shown = signed(shown, logs)?;
                if shown.origin == remembered.origin && shown.size < remembered.size {
                    Ok(Worth::Question)
                } else {
                    Err(MisconductError::None("the checkpoint that was shown is not older"))
                }
            }
        }
    }
}

/// What it is, in words.
impl fmt::Display for Misconduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReceiptContradicted { .. } => "the journal holds something else than its receipt says",
            Self::TwoRoots { .. } => "the journal's owner has signed two different checkpoints of one size",
            Self::NotContinued { .. } => "the journal does not continue the checkpoint that is remembered",
            Self::RolledBack { .. } => "the journal shows an older checkpoint than the one remembered, or none",
        })
    }
}

/// Whether `new` continues `old`, by its proof. A proof between equal sizes is empty.
pub fn continues(old: &Checkpoint, new: &Checkpoint, proof: &[NodeHash]) -> Result<(), ProofError> {
    verify_consistency(old.size, &old.root, new.size, &new.root, proof)
}

fn signed(note: &str, logs: &[VerifierKey]) -> Result<Checkpoint, MisconductError> {
    let note = Note::parse(note.as_bytes())?;
    note.verify(logs)?;
    Ok(Checkpoint::parse_own(note.text())?)
}

/// Two signed checkpoints of one journal.
fn pair(first: &str, second: &str, logs: &[VerifierKey]) -> Result<(Checkpoint, Checkpoint), MisconductError> {
    let (first, second) = (signed(first, logs)?, signed(second, logs)?);
    if first.origin == second.origin {
        Ok((first, second))
    } else {
        Err(MisconductError::None("the checkpoints are of two journals"))
    }
}

fn lines(hashes: &[NodeHash]) -> String {
    hashes.iter().fold(String::new(), |mut text, hash| {
        // Writing into a string does not fail.
        let _ = writeln!(text, "{}", base64(hash.as_bytes()));
        text
    })
}

fn hashes(text: &str) -> Option<Vec<NodeHash>> {
    let hashes: Option<Vec<NodeHash>> = text.lines().take(PROOF_MAX + 1).map(hash).collect();
    hashes.filter(|hashes| hashes.len() <= PROOF_MAX)
}

/// The part of this name at the beginning of `text`, and what follows it.
fn take_part<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let (header, rest) = text.strip_prefix("\npart ")?.split_once('\n')?;
    let length = header.strip_prefix(name)?.strip_prefix(' ').and_then(decimal)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}
