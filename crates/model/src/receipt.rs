//! Receipts: what the journal made of a batch, signed, so that a sender can hold the journal to it.
//!
//! One signature covers all receipts of a frame: their texts are the leaves of a small tree whose root is in a signed note.
//!
//! ```text
//! sigillo receipt v1
//! <origin>
//! <source, hexadecimal>
//! <epoch>
//! <the sender's number of the first record> <of the last>
//! <sequence of the first record> <of the last>
//! <chain value after the last record, hexadecimal>
//! <batch hash, hexadecimal>
//! <receipt time, nanoseconds since 1970 UTC>
//! ```

mod frame;
mod signed;

use std::fmt::Write;

pub use frame::{FrameBuilder, SignedFrame, key_name};
pub use signed::{Held, SignedReceipt};

use crate::{
    ids::{BatchHash, ChainHash, Epoch, Origin, ReceiptTime, Seq, SourceId, SourceSeq},
    note::NoteError,
    proof::ProofError,
    text::decimal,
};

const HEADER: &str = "sigillo receipt v1";

/// What the journal made of one batch of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The sender.
    pub source: SourceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its number of the first record.
    pub first: SourceSeq,
    /// How many records, at least one.
    pub count: u32,
    /// Sequence of the first record in the journal; the others follow without a gap.
    pub seq: Seq,
    /// Chain value after the last record: the entry of the journal's tree at [`Receipt::last`].
    pub chain: ChainHash,
    /// `a_b`.
    pub batch: BatchHash,
    /// When the server took it.
    pub time: ReceiptTime,
}

/// A receipt that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not the text of a receipt, a frame's note or a signed receipt.
    #[error("it is not laid out as a receipt: {0}")]
    Layout(&'static str),
    /// It speaks of another journal.
    #[error("it is of another journal, {0}")]
    Origin(String),
    /// Nobody whom the trust file names has signed it, or the signature fails.
    #[error("its signature: {0}")]
    Note(#[from] NoteError),
    /// It is not among those that were signed, or the journal's proof fails.
    #[error("the proof: {0}")]
    Proof(#[from] ProofError),
    /// The checkpoint does not reach to the receipt's last record.
    #[error("the checkpoint of size {size} does not cover record {last}")]
    NotCovered {
        /// Of the checkpoint.
        size: u64,
        /// Sequence of the receipt's last record.
        last: u64,
    },
}

impl Receipt {
    /// Sequence of the last record; `None` for a receipt of no records, or past the end of numbers.
    pub fn last(&self) -> Option<Seq> {
        self.seq.checked_add(u64::from(self.count.checked_sub(1)?))
    }

    /// The text that is hashed.
    pub fn text(&self, origin: &Origin) -> String {
        let mut text = String::with_capacity(512);
        self.write_text(origin, &mut text);
        text
    }

    fn write_text(&self, origin: &Origin, out: &mut String) {
        let more = u64::from(self.count.saturating_sub(1));
        let Self { source, epoch, first, seq, chain, batch, time, .. } = self;
        let (last, last_seq) = (first.get().saturating_add(more), seq.get().saturating_add(more));
        // Writing into a string does not fail.
        let _ = write!(
            out,
            "{HEADER}\n{origin}\n{source}\n{epoch}\n{first} {last}\n{seq} {last_seq}\n{chain}\n{batch}\n{time}\n"
        );
    }

    /// Reads the text; any other form of the same values is refused.
    pub fn parse(text: &str) -> Result<(Origin, Self), ReceiptError> {
        let wrong = |what| ReceiptError::Layout(what);
        let mut lines = text.lines();
        let mut line = |what| lines.next().ok_or(wrong(what));
        if line("its header is missing")? != HEADER {
            return Err(wrong("its header is another one"));
        }
        let origin = Origin::new(line("the origin is missing")?).map_err(|_| wrong("the origin is none"))?;
        let source = SourceId::from_hex(line("the source is missing")?).map_err(|_| wrong("the source is none"))?;
        let epoch = number(line("the epoch is missing")?)?;
        let (first, last) = range(line("the sender's numbers are missing")?)?;
        let (seq, last_seq) = range(line("the sequences are missing")?)?;
        let chain = ChainHash::from_hex(line("the chain value is missing")?).map_err(|_| wrong("no chain value"))?;
        let batch = BatchHash::from_hex(line("the batch hash is missing")?).map_err(|_| wrong("no batch hash"))?;
        let time = number(line("the time is missing")?)?;
        let count = last.checked_sub(first).and_then(|more| u32::try_from(more.checked_add(1)?).ok());
        let receipt = Self {
            source,
            epoch: Epoch::new(epoch),
            first: SourceSeq::new(first),
            count: count.ok_or(wrong("the sender's numbers are no range"))?,
            seq: Seq::new(seq),
            chain,
            batch,
            time: ReceiptTime::new(time),
        };
        // Covers what the parts alone don't show: lengths of ranges, leading zeros, upper case, more lines.
        if receipt.last() == Some(Seq::new(last_seq)) && receipt.text(&origin) == text {
            Ok((origin, receipt))
        } else {
            Err(wrong("it is not written as this format wants it"))
        }
    }
}

fn number(text: &str) -> Result<u64, ReceiptError> {
    decimal(text).ok_or(ReceiptError::Layout("a number is none"))
}

fn range(line: &str) -> Result<(u64, u64), ReceiptError> {
    let (first, last) = line.split_once(' ').ok_or(ReceiptError::Layout("a range has one end only"))?;
    Ok((number(first)?, number(last)?))
}
