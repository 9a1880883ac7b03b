//! What is gone from the journal, and the statements that explain it.

use std::collections::BTreeMap;

use super::report::{Finding, Removed};
use crate::{envelope::Envelope, ids::RetentionId, record::PART_BITS};

/// Stretches of records with something gone that are kept while a file is read.
const STRETCHES_MAX: usize = 1 << 20;
/// Targets of orders and purges that are kept while a file is read.
const TARGETS_MAX: usize = 1 << 20;

/// Consecutive records of which the same is gone.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: u64,
    to: u64,
    /// One bit for each part; all of them for a record of which only the commitment is left.
    parts: u8,
    retention: RetentionId,
    /// Receipt time of the newest of them.
    newest: u64,
}

/// A purge: payloads of a retention class that were due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purge {
    /// First sequence.
    pub(super) from: u64,
    /// The sequence after the last.
    pub(super) to: u64,
    /// Which class.
    pub(super) retention: RetentionId,
    /// Receipt time of the newest record that was due.
    pub(super) due: u64,
}

/// Collects, and tells at the end what is explained.
#[derive(Debug, Default)]
pub(super) struct Gone {
    stretches: Vec<Stretch>,
    /// Parts that orders of two officers erase.
    erased: BTreeMap<u64, u8>,
    purged: Vec<Purge>,
}

impl Gone {
    /// Notes that `parts` of a record are said to be gone.
    pub(super) fn note(&mut self, envelope: &Envelope, parts: u8) -> Result<(), Finding> {
        let (seq, retention, time) = (envelope.seq.get(), envelope.retention, envelope.receipt_time.get());
        if let Some(last) = self.stretches.last_mut()
            && (last.to, last.parts, last.retention) == (seq, parts, retention)
        {
            last.to = seq.saturating_add(1);
            last.newest = last.newest.max(time);
            return Ok(());
        }
        if self.stretches.len() >= STRETCHES_MAX {
            return Err(Finding::TooMuchGone);
        }
        self.stretches.push(Stretch { from: seq, to: seq.saturating_add(1), parts, retention, newest: time });
        Ok(())
    }

    /// Takes an order that two officers have signed.
    pub(super) fn erase(&mut self, targets: impl IntoIterator<Item = (u64, u8)>) -> Result<(), Finding> {
        for (seq, parts) in targets {
            *self.erased.entry(seq).or_default() |= parts & PART_BITS;
        }
        if self.erased.len() > TARGETS_MAX { Err(Finding::TooMuchGone) } else { Ok(()) }
    }

    /// Takes a purge whose policy was signed by two officers.
    pub(super) fn purge(&mut self, purge: Purge) -> Result<(), Finding> {
        self.purged.push(purge);
        if self.purged.len() > TARGETS_MAX { Err(Finding::TooMuchGone) } else { Ok(()) }
    }

    /// What is gone, stretch by stretch, each with whether the file's statements explain it.
    pub(super) fn finish(self) -> Vec<Removed> {
        let mut removed: Vec<Removed> = Vec::new();
        for stretch in &self.stretches {
            let purged = self.purged.iter().any(|purge| {
                purge.retention == stretch.retention
                    && purge.from <= stretch.from
                    && stretch.to <= purge.to
                    && stretch.newest <= purge.due
            });
            let erased = || {
                let mut orders = self.erased.range(stretch.from..stretch.to);
                (stretch.from..stretch.to).all(|seq| {
                    orders.next().is_some_and(|(at, parts)| *at == seq && stretch.parts & !parts == 0)
                })
            };
            let explained = purged || erased();
            match removed.last_mut() {
                Some(last) if (last.to, last.parts, last.explained) == (stretch.from, stretch.parts, explained) => {
                    last.to = stretch.to;
                }
                _ => removed.push(Removed { from: stretch.from, to: stretch.to, parts: stretch.parts, explained }),
            }
        }
        removed
    }
}
