//! What is gone from the journal, and the statements that explain it.

use std::collections::BTreeMap;

use super::report::{Finding, Removed};
use crate::{
    envelope::Envelope,
    ids::{Origin, ReceiptTime, RetentionId},
    note::VerifierKey,
    record::PART_BITS,
    statement::{Act, Retention, Statement},
};

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
    newest: ReceiptTime,
}

/// A purge: payloads of a retention class that were due.
#[derive(Debug, Clone, Copy)]
struct Purged {
    from: u64,
    to: u64,
    retention: RetentionId,
    /// Records received before this were due.
    due: ReceiptTime,
}

/// Collects, and tells at the end what is explained.
#[derive(Debug, Default)]
pub(super) struct Gone {
    stretches: Vec<Stretch>,
    /// Parts that orders of two officers erase.
    erased: BTreeMap<u64, u8>,
    purged: Vec<Purged>,
    /// How long classes are kept, by the sequence of the statement that two officers have signed.
    kept: BTreeMap<u64, Retention>,
}

impl Gone {
    /// Notes that `parts` of a record are said to be gone.
    pub(super) fn note(&mut self, envelope: &Envelope, parts: u8) -> Result<(), Finding> {
        let (seq, retention, time) = (envelope.seq.get(), envelope.retention, envelope.receipt_time);
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

    /// Takes a statement. One that does not hold explains nothing.
    pub(super) fn statement(
        &mut self,
        text: &[u8],
        origin: &Origin,
        envelope: &Envelope,
        officers: &[VerifierKey],
    ) -> Result<(), Finding> {
        match Statement::parse(text, origin) {
            Some(Ok(Statement::Order(order))) if order.check(officers).is_ok() => match order.act {
                Act::Erase(erasure) => {
                    for (seq, gone) in erasure.targets {
                        *self.erased.entry(seq).or_default() |= gone.bits() & PART_BITS;
                    }
                }
                Act::Keep(retention) => {
                    self.kept.insert(envelope.seq.get(), retention);
                }
            },
            Some(Ok(Statement::Purge(purge))) => {
                let kept = self.kept.get(&purge.retention).filter(|kept| kept.class == purge.class);
                if let Some(due) = kept.and_then(|kept| kept.due_before(envelope.receipt_time)) {
                    self.purged.push(Purged { from: purge.from, to: purge.to, retention: purge.class, due });
                }
            }
            _ => (),
        }
        let targets = self.erased.len() + self.purged.len() + self.kept.len();
        if targets > TARGETS_MAX { Err(Finding::TooMuchGone) } else { Ok(()) }
    }

    /// What is gone, stretch by stretch, each with whether the file's statements explain it.
    pub(super) fn finish(self) -> Vec<Removed> {
        let mut removed: Vec<Removed> = Vec::new();
        for stretch in &self.stretches {
            let purged = self.purged.iter().any(|purge| {
                purge.retention == stretch.retention
                    && purge.from <= stretch.from
                    && stretch.to <= purge.to
                    && stretch.newest < purge.due
            });
            let erased = || {
                let mut orders = self.erased.range(stretch.from..stretch.to);
                (stretch.from..stretch.to)
                    .all(|seq| orders.next().is_some_and(|(at, parts)| *at == seq && stretch.parts & !parts == 0))
            };
            let explained = purged || erased();
            match removed.last_mut() {
                Some(last)
                    if (last.to, last.parts, last.explained, last.purged)
                        == (stretch.from, stretch.parts, explained, purged) =>
                {
                    last.to = stretch.to;
                }
                _ => {
                    let Stretch { from, to, parts, .. } = *stretch;
                    removed.push(Removed { from, to, parts, explained, purged });
                }
            }
        }
        removed
    }
}
