//! The frame's side: one tree and one signature for all receipts that were committed together.

use bytes::Bytes;

use super::{Receipt, ReceiptError};
use crate::{
    ids::{NodeHash, Origin},
    note::{Note, NoteError, SigningKey},
    text, tree,
};

const HEADER: &str = "sigillo receipts v1";

/// Name of the key that signs the receipts of a journal.
pub fn key_name(origin: &Origin) -> String {
    format!("{origin}/receipts")
}

/// Text of the note over a frame of so many receipts, whose texts have this RFC 6962 root.
pub(super) fn note_text(origin: &Origin, count: u32, root: &NodeHash) -> String {
    format!("{HEADER}\n{origin}\n{count}\n{}\n", text::base64(root.as_bytes()))
}

/// What a frame's note says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameText {
    pub(super) count: u32,
    pub(super) root: NodeHash,
}

impl FrameText {
    /// Reads the text of the note of a frame of this journal.
    pub(super) fn parse(note: &str, origin: &Origin) -> Result<Self, ReceiptError> {
        let wrong = ReceiptError::Layout("the note is none of a frame of this journal");
        let fields = || {
            let mut lines = note.lines().skip(2);
            let count = lines.next()?.parse().ok().filter(|count| *count > 0)?;
            let root = text::hash(lines.next()?)?;
            Some(Self { count, root })
        };
        fields().filter(|frame| note_text(origin, frame.count, &frame.root) == note).ok_or(wrong)
    }
}

/// Collects the receipts of a frame. Keeps its room from frame to frame.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    leaves: Vec<NodeHash>,
    text: String,
}

impl FrameBuilder {
    /// Adds a receipt and gives its place in the frame.
    pub fn push(&mut self, origin: &Origin, receipt: &Receipt) -> u32 {
        self.text.clear();
        receipt.write_text(origin, &mut self.text);
        self.leaves.push(tree::leaf(self.text.as_bytes()));
        u32::try_from(self.leaves.len() - 1).unwrap_or(u32::MAX)
    }

    /// Signs what was added with a key of kind log; the builder is empty afterwards. `None` if nothing was added.
    pub fn sign(&mut self, origin: &Origin, key: &SigningKey) -> Result<Option<SignedFrame>, NoteError> {
        let mut levels = vec![std::mem::take(&mut self.leaves)];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            // The last of an odd number goes up as it is: that is RFC 6962's split at the largest power of two.
            let parents = level.chunks(2).filter_map(|pair| match pair {
                [left, right] => Some(tree::node(left, right)),
                [alone] => Some(*alone),
                _ => None,
            });
            let parents = parents.collect();
            levels.push(parents);
        }
        let Some(root) = levels.last().and_then(|top| top.first()) else { return Ok(None) };
        let count = levels.first().map_or(0, Vec::len);
        let text = note_text(origin, u32::try_from(count).unwrap_or(u32::MAX), root);
        let signature = key.sign(&text)?;
        let note = Note::new(text, vec![signature])?.to_bytes().into();
        Ok(Some(SignedFrame { levels, note }))
    }
}

/// A frame whose receipts are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedFrame {
    /// From the leaves up to the root.
    levels: Vec<Vec<NodeHash>>,
    note: Bytes,
}

impl SignedFrame {
    /// The signed note.
    pub fn note(&self) -> &Bytes {
        &self.note
    }

    /// Inclusion proof of the receipt at this place, leaf to root.
    pub fn path(&self, index: u32) -> impl Iterator<Item = &NodeHash> {
        self.levels.iter().enumerate().filter_map(move |(height, level)| {
            // Alone at the end of its level, it has no sibling and goes up as it is.
            level.get((index as usize >> height) ^ 1)
        })
    }
}
