//! Reading what is durable: entries, streamed in either direction.

use std::{ops::Range, sync::Arc};

use sigillo_model::{
    audit::{Fault, Finding},
    batch::epoch_opening,
    chain,
    entry::Entry,
    ids::{BatchHash, ChainHash, Epoch, Origin, ReceiptTime, RetentionId, SourceId, SourceSeq},
    statement::{Erasure, Purge},
};
use tokio::sync::watch;

use crate::{
    error::ReadError,
    frame::Head,
    layout::{self, StoredHead, Table},
    orders,
    store::{Direction, Pair, Store, StoreError, StoreErrorKind},
    tree::Edges,
};

/// Bytes of entries that are read at once.
const CHUNK_BYTES: usize = 4 << 20;

/// Reads what is durable. Its methods block. Clones read the same journal.
#[derive(Clone)]
pub struct Reader {
    origin: Origin,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) edges: Arc<Edges>,
    head: watch::Receiver<Head>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn new(origin: Origin, store: Arc<dyn Store>, head: watch::Receiver<Head>) -> Self {
        Self { origin, store, edges: Arc::default(), head }
    }

    /// The journal's name.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Where the journal stands, durably.
    pub fn head(&self) -> Head {
        *self.head.borrow()
    }

    /// The entries that hold sequences of `range`: whole entries, even where the range cuts one, and none past the durable
    /// head of now.
    pub fn entries(&self, range: Range<u64>, direction: Direction) -> Entries {
        let end = range.end.min(self.head().size);
        Entries::new(&self.store, range.start..end, direction)
    }

    /// The first sequence with a receipt time at or after `time`; the head's size if there is none.
    pub fn first_received_since(&self, time: ReceiptTime) -> Result<u64, ReadError> {
        let mut range = 0..self.head().size;
        while range.start < range.end {
            let middle = range.start + (range.end - range.start) / 2;
            let Some(stored) = containing(self.store.as_ref(), middle)? else { break };
            let entry = stored.entry()?;
            // One receipt time holds for all records of an entry.
            if entry.receipt_time < time {
                range.start = entry.end();
            } else {
                range.end = entry.seq.get();
            }
        }
        Ok(range.start)
    }

    /// What a purge of a retention class would take at `now`, as the server would state it; `None` if no retention statement is
    /// in force for it or nothing is due.
    pub fn plan_purge(&self, class: RetentionId, now: ReceiptTime) -> Result<Option<Purge>, ReadError> {
        orders::plan_purge(&self.store, class, now, |due| self.first_received_since(due))
    }

    /// Why an erasure would not take what it names: a record that is not there yet, or one that holds a statement, which is never
    /// erased. `None` if nothing stands in its way.
    pub fn refuses(&self, erasure: &Erasure) -> Result<Option<String>, ReadError> {
        orders::refuses(&self.store, self.head().size, erasure)
    }

    /// The value of a source's own chain right before its record of this number: the hash of the batch that ends there, or the opening
    /// of an epoch that has none. `None` if the durable batches have no such place.
    pub fn source_hash(&self, source: SourceId, epoch: Epoch, next: SourceSeq) -> Result<Option<BatchHash>, ReadError> {
        let place = (u128::from(epoch.get()) << 64) | u128::from(next.get());
        // Epochs are numbered from 1.
        let Some(below) = place.checked_sub(1).filter(|_| epoch.get() > 0) else { return Ok(None) };
        let last = [source.as_bytes().as_slice(), &below.to_be_bytes()].concat();
        let before = self.store.scan(Table::Batches, &last, Direction::Backward, 0)?.into_iter().next();
        let before = before.filter(|(key, _)| key.starts_with(source.as_bytes()));
        let opens = next.get() == 0;
        let Some((_, value)) = before else {
            return Ok(opens.then(|| epoch_opening(&self.origin, source, epoch, None)));
        };
        let seq = named_sequence(&value)?;
        if seq >= self.head().size {
            return Ok(None);
        }
        let stored = named_entry(self.store.as_ref(), seq)?;
        let entry = stored.entry()?;
        let end = entry.source_seq.checked_add(u64::from(entry.count));
        Ok(if entry.epoch == epoch {
            (end == Some(next)).then_some(entry.batch_hash)
        } else {
            opens.then(|| epoch_opening(&self.origin, source, epoch, Some(entry.batch_hash)))
        })
    }

    /// The entries of one source, newest first.
    pub fn source_entries_newest_first(
        &self,
        source: SourceId,
    ) -> impl Iterator<Item = Result<StoredEntry, ReadError>> + use<> {
        self.source_entries_before(source, Epoch::new(u64::MAX), SourceSeq::new(u64::MAX))
    }

    /// The entries of one source whose first record has a smaller number in this epoch, or any in an earlier one; newest first.
    pub fn source_entries_before(
        &self,
        source: SourceId,
        epoch: Epoch,
        first: SourceSeq,
    ) -> impl Iterator<Item = Result<StoredEntry, ReadError>> + use<> {
        let from = layout::batch_key(source, epoch, first).to_vec();
        let store = self.store.clone();
        let size = self.head().size;
        Pairs::new(self.store.clone(), Table::Batches, from.clone(), Direction::Backward)
            .skip_while(move |pair| pair.as_ref().is_ok_and(|(key, _)| **key == *from))
            .take_while(move |pair| pair.as_ref().map_or(true, |(key, _)| key.starts_with(source.as_bytes())))
            .filter_map(move |pair| {
                let entry = pair.map_err(ReadError::from).and_then(|(_, value)| {
                    let seq = named_sequence(&value)?;
                    if seq >= size {
                        return Ok(None);
                    }
                    named_entry(store.as_ref(), seq).map(Some)
                });
                entry.transpose()
            })
    }
}

/// The sequence that the memory of a batch names.
fn named_sequence(value: &[u8]) -> Result<u64, ReadError> {
    layout::read_u64(value).ok_or_else(|| derived(0, "the memory of a batch is no sequence"))
}

/// The entry that the memory of a batch names.
fn named_entry(store: &dyn Store, seq: u64) -> Result<StoredEntry, ReadError> {
    let key = layout::tail_key(seq);
    let missing = || derived(seq, "an entry is missing that the memory of batches names");
    let bytes = store.get(Table::Tail, &key)?.ok_or_else(missing)?;
    StoredEntry::read(&key, bytes.into())
}

/// A stored entry, with the bytes as they were written.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    bytes: Box<[u8]>,
    seq: u64,
    end: u64,
}

impl StoredEntry {
    /// Checks a row of `tail`: its checksum, its form, and that it stands where it says.
    pub(crate) fn read(key: &[u8], bytes: Box<[u8]>) -> Result<Self, ReadError> {
        let at = layout::read_u64(key).ok_or_else(|| derived(0, "a key of the tail is not a sequence"))?;
        let altered = |fault| ReadError::Altered(Finding { from: at, to: at, fault });
        let entry = Entry::decode(&bytes).map_err(|error| altered(Fault::Entry(error)))?;
        let (seq, end) = (entry.seq.get(), entry.end());
        if seq != at {
            return Err(altered(Fault::Sequence { expected: at, found: seq }));
        }
        Ok(Self { bytes, seq, end })
    }

    /// Sequence of its first record.
    pub(crate) fn first(&self) -> u64 {
        self.seq
    }

    /// As stored; what a verifier is fed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its fields.
    pub fn entry(&self) -> Result<Entry<'_>, ReadError> {
        let altered = |error| ReadError::Altered(Finding { from: self.seq, to: self.end, fault: Fault::Entry(error) });
        Entry::decode_checked(&self.bytes).map_err(altered)
    }
}

/// Entries of a range, in order. Each must adjoin the one before, and the range must be covered: one that is missing or
/// damaged is an error, never a shorter answer.
pub struct Entries {
    pairs: Pairs,
    /// What is still to come.
    range: Range<u64>,
    direction: Direction,
    /// The entry that holds the start could not be read.
    failed: Option<ReadError>,
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entries")
            .field("range", &self.range)
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}

impl Entries {
    pub(crate) fn new(store: &Arc<dyn Store>, range: Range<u64>, direction: Direction) -> Self {
        let mut failed = None;
        let from = match direction {
            // The entry that holds the start may begin before it.
            Direction::Forward if !range.is_empty() => match containing(store.as_ref(), range.start) {
                Ok(Some(stored)) => stored.seq,
                Ok(None) => range.start,
                Err(error) => {
                    failed = Some(error);
                    range.start
                }
            },
            Direction::Forward => range.start,
            Direction::Backward => range.end.saturating_sub(1),
        };
        let pairs = Pairs::new(store.clone(), Table::Tail, layout::tail_key(from).to_vec(), direction);
        Self { pairs, range, direction, failed }
    }

    fn step(&mut self) -> Result<StoredEntry, ReadError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let next = match self.direction {
            Direction::Forward => self.range.start,
            Direction::Backward => self.range.end.saturating_sub(1),
        };
        let missing = || derived(next, "the entry that holds this record is missing");
        let (key, value) = self.pairs.next().ok_or_else(missing)??;
        let stored = StoredEntry::read(&key, value)?;
        if !(stored.seq..stored.end).contains(&next) {
            return Err(missing());
        }
        match self.direction {
            Direction::Forward => self.range.start = stored.end,
            Direction::Backward => self.range.end = stored.seq,
        }
        Ok(stored)
    }
}

impl Iterator for Entries {
    type Item = Result<StoredEntry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.range.is_empty() {
            return None;
        }
        let item = self.step();
        if item.is_err() {
            // Nothing after this can be trusted.
            self.range = 0..0;
        }
        Some(item)
    }
}

/// All pairs of a table from a key on, read in chunks, so that nothing in the database is pinned meanwhile.
pub(crate) struct Pairs {
    store: Arc<dyn Store>,
    table: Table,
    direction: Direction,
    /// Where the next chunk begins; `None` at the end.
    from: Option<Vec<u8>>,
    chunk: std::vec::IntoIter<Pair>,
}

impl Pairs {
    pub(crate) fn new(store: Arc<dyn Store>, table: Table, from: Vec<u8>, direction: Direction) -> Self {
        Self { store, table, direction, from: Some(from), chunk: Vec::new().into_iter() }
    }

    fn fill(&mut self) -> Result<(), StoreError> {
        let Some(from) = self.from.take() else { return Ok(()) };
        let chunk = self.store.scan(self.table, &from, self.direction, CHUNK_BYTES)?;
        self.from = chunk.last().and_then(|(last, _)| beyond(last, self.direction));
        self.chunk = chunk.into_iter();
        Ok(())
    }
}

impl Iterator for Pairs {
    type Item = Result<Pair, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.chunk.len() == 0
            && let Err(error) = self.fill()
        {
            return Some(Err(error));
        }
        self.chunk.next().map(Ok)
    }
}

/// The next possible key in a direction, of the same length or longer.
fn beyond(key: &[u8], direction: Direction) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    match direction {
        Direction::Forward => next.push(0),
        Direction::Backward => {
            // All keys of a table have one length: the key before is the number before.
            let at = next.iter().rposition(|byte| *byte != 0)?;
            for (place, byte) in next.iter_mut().enumerate().skip(at) {
                *byte = if place == at { byte.wrapping_sub(1) } else { 0xff };
            }
        }
    }
    Some(next)
}

/// All pairs of a table in order.
pub(crate) fn pairs(store: &Arc<dyn Store>, table: Table) -> Pairs {
    Pairs::new(store.clone(), table, Vec::new(), Direction::Forward)
}

/// The durable head.
pub(crate) fn head(store: &Arc<dyn Store>) -> Result<StoredHead, StoreError> {
    let damaged = || StoreError { kind: StoreErrorKind::Damaged, message: "the stored head can't be read".to_owned() };
    let value = store.get(Table::Meta, layout::HEAD_KEY)?.ok_or_else(damaged)?;
    layout::decode_head(&value).ok_or_else(damaged)
}

/// Chain value before sequence `size`, if an entry ends there.
pub(crate) fn chain_at(store: &Arc<dyn Store>, origin: &Origin, size: u64) -> Result<Option<ChainHash>, ReadError> {
    let Some(last) = size.checked_sub(1) else { return Ok(Some(chain::genesis(origin))) };
    let Some(stored) = containing(store.as_ref(), last)? else { return Ok(None) };
    let entry = stored.entry()?;
    Ok((entry.end() == size).then_some(entry.chain_hash))
}

/// The entry that holds a sequence.
pub(crate) fn containing(store: &dyn Store, seq: u64) -> Result<Option<StoredEntry>, ReadError> {
    let found = store.scan(Table::Tail, &layout::tail_key(seq), Direction::Backward, 1)?;
    let Some((key, value)) = found.into_iter().next() else { return Ok(None) };
    let stored = StoredEntry::read(&key, value)?;
    Ok((stored.end > seq).then_some(stored))
}

pub(crate) fn derived(seq: u64, what: &str) -> ReadError {
    ReadError::Altered(Finding { from: seq, to: seq, fault: Fault::Derived(what.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_step_both_ways() {
        assert_eq!(beyond(&[1, 0], Direction::Backward), Some(vec![0, 0xff]));
        assert_eq!(beyond(&[0, 1], Direction::Backward), Some(vec![0, 0]));
        assert_eq!(beyond(&[0, 0], Direction::Backward), None);
        assert_eq!(beyond(&[1, 2], Direction::Forward), Some(vec![1, 2, 0]));
    }
}
