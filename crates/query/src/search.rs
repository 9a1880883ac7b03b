//! One search over a range of sequences, step by step.

use std::{collections::VecDeque, ops::Range};

use sigillo_journal::{Direction, Entries, ReadError, Reader};
use sigillo_model::{
    audit::{Fault, Finding},
    entry::Gone,
    envelope::Envelope,
    ids::ReceiptTime,
    record::Record,
};

use crate::{
    filter::{Filter, Matcher},
    scan::Scanner,
};

/// After so many records without a match, [`Step::Scanned`] is returned.
const SCANNED_EVERY_RECORDS: u64 = 65_536;
/// Likewise after so many bytes before compression, for journals of few and long records.
const SCANNED_EVERY_BYTES: u64 = 64 << 20;

/// From which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By rising sequence.
    OldestFirst,
    /// By falling sequence.
    NewestFirst,
}

/// A record that matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// What the server added.
    pub envelope: Envelope,
    /// The record as stored.
    pub record: Record,
    /// What was erased or purged of it.
    pub gone: Gone,
}

/// What one step of a search came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The next record that matches.
    Match(Hit),
    /// Nothing matched for a while; at least every 65,536 records or 64 MiB.
    Scanned {
        /// Records looked at since the search began.
        scanned: u64,
        /// Records that it will look at if it goes on to its end.
        total: u64,
    },
}

/// A search over a snapshot of the journal. Blocks while it reads: to be used on a thread that may.
pub struct Search {
    reader: Reader,
    scanner: Scanner,
    order: Order,
    /// Opened by the first step.
    entries: Option<Entries>,
    total: u64,
    /// What no step has told of yet.
    remaining: Range<u64>,
    /// What no entry has been read for yet; within `remaining`.
    unread: Range<u64>,
    /// Matches between the two, in the search's order.
    hits: VecDeque<Hit>,
}

impl Search {
    /// Prepares a search over the sequences of `range`, as far as they are durable now.
    pub fn new(reader: Reader, filter: Filter, order: Order, range: Range<u64>) -> Self {
        let end = range.end.min(reader.head().size);
        let range = range.start.min(end)..end;
        Self {
            reader,
            scanner: Scanner::new(Matcher::new(filter)),
            order,
            entries: None,
            total: range.end - range.start,
            remaining: range.clone(),
            unread: range,
            hits: VecDeque::new(),
        }
    }

    /// The next match or sign of life; `None` when all has been looked at. After an error the search is over.
    #[expect(clippy::should_implement_trait, reason = "an iterator's item would hide that errors end the search")]
    pub fn next(&mut self) -> Result<Option<Step>, ReadError> {
        let (mut records, mut bytes) = (0, 0);
        loop {
            if let Some(hit) = self.hits.pop_front() {
                let seq = hit.envelope.seq.get();
                match self.order {
                    Order::OldestFirst => self.remaining.start = seq + 1,
                    Order::NewestFirst => self.remaining.end = seq,
                }
                return Ok(Some(Step::Match(hit)));
            }
            self.remaining = self.unread.clone();
            if records >= SCANNED_EVERY_RECORDS || bytes >= SCANNED_EVERY_BYTES {
                return Ok(Some(Step::Scanned { scanned: self.scanned(), total: self.total }));
            }
            let Some(read) = self.read_entry()? else { return Ok(None) };
            records += u64::from(read.records);
            bytes += u64::from(read.bytes);
        }
    }

    /// Sequences still to be looked at after the last step returned. A search over just these goes on where this one
    /// stands, with the same filter and order, and neither skips nor repeats a record.
    pub fn remaining(&self) -> Range<u64> {
        self.remaining.clone()
    }

    /// Records looked at since the search began; those that lie outside of the receipt times asked for count as well.
    pub fn scanned(&self) -> u64 {
        self.total - (self.remaining.end - self.remaining.start)
    }

    /// Looks through the next entry, if anything is unread.
    fn read_entry(&mut self) -> Result<Option<Read>, ReadError> {
        let entries = match &mut self.entries {
            Some(entries) => entries,
            none => none.insert(open(&self.reader, self.scanner.matcher(), self.order, &mut self.unread)?),
        };
        if self.unread.is_empty() {
            self.remaining = self.unread.clone();
            return Ok(None);
        }
        let expected = match self.order {
            Order::OldestFirst => self.unread.start,
            Order::NewestFirst => self.unread.end - 1,
        };
        // An entry that is missing must not pass for one that does not match.
        let missing = |found| {
            let fault = Fault::Sequence { expected, found };
            ReadError::Altered(Finding { from: expected, to: expected, fault })
        };
        let stored = entries.next().ok_or_else(|| missing(self.unread.end))??;
        let entry = stored.entry()?;
        if !(entry.seq.get()..entry.end()).contains(&expected) {
            return Err(missing(entry.seq.get()));
        }
        self.hits = self.scanner.scan(&entry, &self.unread).map_err(ReadError::Altered)?.into();
        match self.order {
            Order::OldestFirst => self.unread.start = entry.end().min(self.unread.end),
            Order::NewestFirst => {
                self.hits.make_contiguous().reverse();
                self.unread.end = entry.seq.get().max(self.unread.start);
            }
        }
        Ok(Some(Read { records: entry.count, bytes: entry.block_bytes }))
    }
}

/// What one look at an entry has cost.
struct Read {
    records: u32,
    bytes: u32,
}

/// Narrows `range` to the receipt times asked for, and opens its entries.
fn open(reader: &Reader, matcher: &Matcher, order: Order, range: &mut Range<u64>) -> Result<Entries, ReadError> {
    let received = matcher.received();
    if received.start > 0 {
        range.start = range.start.max(reader.first_received_since(ReceiptTime::new(received.start))?);
    }
    if received.end < u64::MAX {
        range.end = range.end.min(reader.first_received_since(ReceiptTime::new(received.end))?);
    }
    range.start = range.start.min(range.end);
    let direction = match order {
        Order::OldestFirst => Direction::Forward,
        Order::NewestFirst => Direction::Backward,
    };
    Ok(reader.entries(range.clone(), direction))
}
