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

/// The stretches of one retention class.
#[derive(Default)]
struct OfClass<'a> {
    /// Each with its place among all.
    stretches: Vec<(usize, &'a Stretch)>,
    /// How many more purges begin than end at each.
    steps: Vec<i64>,
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
                    // Nobody can order that what is not there yet shall go.
                    for (seq, gone) in erasure.targets.into_iter().filter(|(seq, _)| *seq < envelope.seq.get()) {
                        *self.erased.entry(seq).or_default() |= gone.bits() & PART_BITS;
                    }
                }
                Act::Keep(retention) => {
                    self.kept.insert(envelope.seq.get(), retention);
                }
            },
            Some(Ok(Statement::Purge(purge))) if purge.to <= envelope.seq.get() => {
                // The newest policy holds: an older one may have kept shorter.
                let newest = self.kept.iter().rev().find(|(_, kept)| kept.class == purge.class);
                let kept = newest.filter(|(at, _)| **at == purge.retention).map(|(_, kept)| kept);
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
        for (stretch, purged) in self.stretches.iter().zip(self.purged()) {
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

    /// Which stretches a purge explains, each in its place. Sequences and receipt times of a class's stretches ascend, so those
    /// of one purge follow one another: a file with many of both can't make this slow.
    fn purged(&self) -> Vec<bool> {
        let mut classes: BTreeMap<RetentionId, OfClass<'_>> = BTreeMap::new();
        for (place, stretch) in self.stretches.iter().enumerate() {
            classes.entry(stretch.retention).or_default().stretches.push((place, stretch));
        }
        for OfClass { stretches, steps } in classes.values_mut() {
            steps.resize(stretches.len() + 1, 0);
        }
        for purge in &self.purged {
            let Some(OfClass { stretches, steps }) = classes.get_mut(&purge.retention) else { continue };
            let begin = stretches.partition_point(|(_, stretch)| stretch.from < purge.from);
            let end = stretches.partition_point(|(_, stretch)| stretch.to <= purge.to && stretch.newest < purge.due);
            if let (true, Ok([begin, end])) = (begin < end, steps.get_disjoint_mut([begin, end])) {
                (*begin, *end) = (*begin + 1, *end - 1);
            }
        }
        let mut explained = vec![false; self.stretches.len()];
        for OfClass { stretches, steps } in classes.into_values() {
            let mut open = 0;
            for ((place, _), step) in stretches.into_iter().zip(steps) {
                open += step;
                if let Some(explained) = explained.get_mut(place) {
                    *explained = open > 0;
                }
            }
        }
        explained
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_purge_explains_what_it_covers(
            stretches in proptest::collection::vec((1_u64..3, 1_u64..4, 0_u16..3, 0_u64..3), 0..40),
            purges in proptest::collection::vec((0_u64..100, 0_u64..100, 0_u16..3, 0_u64..60), 0..12),
        ) {
            let (mut at, mut time) = (0, 0);
            let mut gone = Gone::default();
            for (gap, length, class, later) in stretches {
                let from = at + gap;
                (at, time) = (from + length, time + later);
                let (retention, newest) = (RetentionId::new(class), ReceiptTime::new(time));
                gone.stretches.push(Stretch { from, to: at, parts: PART_BITS, retention, newest });
            }
            for (from, to, class, due) in purges {
                let (retention, due) = (RetentionId::new(class), ReceiptTime::new(due));
                gone.purged.push(Purged { from, to, retention, due });
            }
            let covers = |purge: &Purged, stretch: &Stretch| {
                purge.retention == stretch.retention
                    && purge.from <= stretch.from
                    && stretch.to <= purge.to
                    && stretch.newest < purge.due
            };
            let each = gone.stretches.iter().map(|stretch| gone.purged.iter().any(|purge| covers(purge, stretch)));
            let each: Vec<bool> = each.collect();
            prop_assert_eq!(gone.purged(), each);
        }
    }

    #[test]
    fn many_stretches_and_many_purges_are_judged_at_once() {
        let retention = RetentionId::new(3);
        let stretch =
            |at: u64| Stretch { from: 2 * at, to: 2 * at + 1, parts: 1, retention, newest: ReceiptTime::new(at) };
        let purge = |to: u64| Purged { from: 1, to, retention, due: ReceiptTime::new(u64::MAX) };
        let many = 1 << 19;
        let stretches = (0..many).map(stretch).collect();
        let gone = Gone { stretches, purged: (0..many).map(purge).collect(), ..Gone::default() };
        // One by one these are 2^38 pairs.
        let begun = std::time::Instant::now();
        let explained = gone.finish().iter().filter(|removed| removed.explained).count() as u64;
        assert_eq!(explained, many / 2 - 1);
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }
}
