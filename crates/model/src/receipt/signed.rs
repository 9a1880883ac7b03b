//! The sender's side: a receipt with what proves it, and what it is held against.

use std::fmt::Write;

use super::{Receipt, ReceiptError, frame::FrameText};
use crate::{
    checkpoint::Checkpoint,
    ids::{ChainHash, NodeHash, Origin},
    note::{Note, VerifierKey},
    proof::verify_inclusion,
    text::{base64, decimal, hash},
    tree,
};

/// Hashes of a proof beyond which it can't be one: a tree has at most 2^64 leaves.
const PATH_MAX: usize = 64;

/// A receipt with the proof that it is one of those that its frame's note speaks of. What it says holds only once it is
/// [verified](Self::verify).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    /// The journal.
    pub origin: Origin,
    /// What it says.
    pub receipt: Receipt,
    /// Its place in the frame.
    pub index: u32,
    /// Inclusion proof of its text in the frame's tree, leaf to root.
    pub path: Vec<NodeHash>,
    /// The frame's signed note.
    pub note: String,
}

/// How a receipt stands to a checkpoint that covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The journal holds at the receipt's last record what the receipt says.
    Kept,
    /// The journal holds something else there: who signed both has altered it.
    Contradicted,
}

impl SignedReceipt {
    /// Checks that one of the `keys`, those for receipts, has signed it.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<(), ReceiptError> {
        let note = Note::parse(self.note.as_bytes())?;
        note.verify(keys)?;
        let frame = FrameText::parse(note.text(), &self.origin)?;
        let leaf = tree::leaf(self.receipt.text(&self.origin).as_bytes());
        verify_inclusion(&leaf, self.index.into(), frame.count.into(), &self.path, &frame.root)?;
        Ok(())
    }

    /// Holds the receipt against a checkpoint of its journal: `entry` is what the journal says to hold at the receipt's last
    /// record, `proof` shows that the checkpoint's tree has it there. Both signatures must have been verified.
    pub fn against(
        &self,
        checkpoint: &Checkpoint,
        entry: &ChainHash,
        proof: &[NodeHash],
    ) -> Result<Held, ReceiptError> {
        if checkpoint.origin != self.origin.as_str() {
            return Err(ReceiptError::Origin(checkpoint.origin.clone()));
        }
        let last = self.receipt.last().ok_or(ReceiptError::Layout("it is of no records"))?.get();
        if last >= checkpoint.size {
            return Err(ReceiptError::NotCovered { size: checkpoint.size, last });
        }
        verify_inclusion(&tree::leaf(entry.as_bytes()), last, checkpoint.size, proof, &checkpoint.root)?;
        Ok(if *entry == self.receipt.chain { Held::Kept } else { Held::Contradicted })
    }

    /// The form in which it is kept: four blocks, each ended by an empty line. The receipt's text; its place in the frame and
    /// the hashes of its proof, one a line in base64; the frame's text; its signatures.
    pub fn to_text(&self) -> String {
        let mut text = self.receipt.text(&self.origin);
        // Writing into a string does not fail.
        let _ = write!(text, "\n{}\n", self.index);
        for hash in &self.path {
            let _ = writeln!(text, "{}", base64(hash.as_bytes()));
        }
        let _ = write!(text, "\n{}\n", self.note);
        text
    }

    /// Reads the first of the receipts that `text` begins with, and gives what follows it.
    pub fn read(text: &str) -> Result<(Self, &str), ReceiptError> {
        let wrong = |what| ReceiptError::Layout(what);
        let (receipt_text, rest) = block(text).ok_or(wrong("its text has no end"))?;
        let (origin, receipt) = Receipt::parse(receipt_text)?;
        let (place, rest) = block(rest).ok_or(wrong("its place has no end"))?;
        let mut lines = place.lines();
        let index = lines
            .next()
            .and_then(decimal)
            .and_then(|index| u32::try_from(index).ok())
            .ok_or(wrong("its place is no number"))?;
        let path: Option<Vec<NodeHash>> = lines.take(PATH_MAX + 1).map(hash).collect();
        let path = path.filter(|path| path.len() <= PATH_MAX).ok_or(wrong("its proof is no list of hashes"))?;
        let (frame, after) = block(rest).ok_or(wrong("its frame has no end"))?;
        let (signatures, after) = block(after).ok_or(wrong("its signatures have no end"))?;
        let note = format!("{frame}\n{signatures}");
        let read = Self { origin, receipt, index, path, note };
        // One form only.
        let length = text.len() - after.len();
        if text.get(..length) == Some(read.to_text().as_str()) {
            Ok((read, after))
        } else {
            Err(wrong("it is not written as this format wants it"))
        }
    }

    /// Reads a text that is one receipt.
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        match Self::read(text)? {
            (read, "") => Ok(read),
            _ => Err(ReceiptError::Layout("something follows it")),
        }
    }
}

/// The lines before the first empty one, and what follows that.
fn block(text: &str) -> Option<(&str, &str)> {
    let end = text.find("\n\n")?;
    Some((text.get(..=end)?, text.get(end + 2..)?))
}
