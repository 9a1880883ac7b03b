//! Checkpoints that the journal keeps: signed notes, by the size that they state. What they say is not this module's business.

use std::ops::Range;

use crate::{
    error::ReadError,
    layout::{self, Table},
    read::{Pairs, Reader, derived},
    store::{Direction, Pair},
};

/// Bytes of a note that is kept, at most.
pub(crate) const NOTE_MAX_BYTES: usize = 64 << 10;

/// A checkpoint that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCheckpoint {
    /// Number of records that it covers.
    pub size: u64,
    /// The signed note, byte for byte.
    pub note: Vec<u8>,
}

impl KeptCheckpoint {
    /// Reads a row.
    pub(crate) fn read((key, value): Pair) -> Result<Self, ReadError> {
        let size = layout::read_u64(&key).ok_or_else(|| derived(0, "a kept checkpoint has no size"))?;
        let note = layout::decode_note(&value).ok_or_else(|| derived(size, "a kept checkpoint can't be read"))?;
        Ok(Self { size, note: note.to_vec() })
    }
}

impl Reader {
    /// The checkpoints with sizes of `range`, ascending.
    pub fn checkpoints(&self, range: Range<u64>) -> impl Iterator<Item = Result<KeptCheckpoint, ReadError>> + use<> {
        let from = layout::tail_key(range.start).to_vec();
        Pairs::new(self.store.clone(), Table::Checkpoints, from, Direction::Forward)
            .map(|pair| KeptCheckpoint::read(pair?))
            .take_while(move |kept| kept.as_ref().map_or(true, |kept| kept.size < range.end))
    }

    /// The earliest checkpoint that covers `size` records.
    pub fn checkpoint_at_or_after(&self, size: u64) -> Result<Option<KeptCheckpoint>, ReadError> {
        let found = self.store.scan(Table::Checkpoints, &layout::tail_key(size), Direction::Forward, 1)?;
        found.into_iter().next().map(KeptCheckpoint::read).transpose()
    }

    /// The newest checkpoint.
    pub fn newest_checkpoint(&self) -> Result<Option<KeptCheckpoint>, ReadError> {
        let found = self.store.scan(Table::Checkpoints, &layout::tail_key(u64::MAX), Direction::Backward, 1)?;
        found.into_iter().next().map(KeptCheckpoint::read).transpose()
    }
}
