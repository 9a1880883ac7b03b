//! What a walk finds gone, and what explains it.
//!
//! A part that is gone is explained by a statement further on in the same journal: an officers' order that names it, or, of a
//! record that was purged, a purge that was due by the record's envelope and by a retention statement before the purge. Until it
//! is met, what is gone waits here, in ranges.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::{
    entry::Gone,
    ids::{Origin, ReceiptTime, RetentionId},
    note::VerifierKey,
    statement::{self, Act, Erasure, Order, Purge, Retention, Statement},
};

/// Runs of purged records that wait at once, for each class. Beyond, neighbours are joined over what lies between them, which is
/// as good as long as each purge goes on where the one before it ended.
const PURGED_RUNS_MAX: usize = 1 << 18;
/// Runs of erased records that wait at once. So many can't come from lawful orders.
const ERASED_RUNS_MAX: usize = 1 << 22;
/// Removals that are listed one by one.
const LISTED_MAX: usize = 16;

/// What is gone from the records that were walked, all of it explained.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Records erased whole.
    pub erased: u64,
    /// Records of which parts were erased.
    pub partly: u64,
    /// Records purged.
    pub purged: u64,
    /// Lawful erasure orders met.
    pub orders: u64,
    /// Lawful purges met.
    pub purges: u64,
    /// The first erased records, with what is gone of each.
    pub first: Vec<(u64, Gone)>,
    /// True if the officers' signatures were checked. Otherwise removals are lawful by the provider's word alone.
    pub by_officers: bool,
}

impl Removed {
    /// True if nothing is gone.
    pub fn is_nothing(&self) -> bool {
        self.erased + self.partly + self.purged == 0
    }
}

/// The newest retention statement of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// Its sequence.
    pub seq: u64,
    /// Seconds to keep.
    pub keep_s: u64,
}

/// Collects what is gone.
#[derive(Debug, Default)]
pub(super) struct Removals {
    officers: Vec<VerifierKey>,
    /// Where the walk began: retention statements before it are not known.
    start: u64,
    /// First sequence -> the sequence after the last, and what of it is not explained yet.
    erased: BTreeMap<u64, (u64, Gone)>,
    /// Ranges of purged records, ascending.
    purged: HashMap<RetentionId, Vec<(u64, u64)>>,
    /// First purged record of each minute of receipt, as far back as any waits.
    minutes: VecDeque<(u64, ReceiptTime)>,
    retentions: HashMap<RetentionId, InForce>,
    purged_to: HashMap<RetentionId, u64>,
    removed: Removed,
    overflow: Option<u64>,
}

impl Removals {
    pub(super) fn new(start: u64) -> Self {
        Self { start, ..Self::default() }
    }

    pub(super) fn trust(&mut self, officers: Vec<VerifierKey>) {
        self.removed.by_officers = !officers.is_empty();
        self.officers = officers;
    }

    /// What is in force of each class, by the statements walked.
    pub(super) fn retentions(&self) -> &HashMap<RetentionId, InForce> {
        &self.retentions
    }

    /// Up to where each class was purged, by the statements walked.
    pub(super) fn purged_to(&self) -> &HashMap<RetentionId, u64> {
        &self.purged_to
    }

    /// A record of which something is gone. Records come in order.
    pub(super) fn gone(&mut self, seq: u64, gone: Gone, class: RetentionId, received: ReceiptTime) {
        let end = seq.saturating_add(1);
        if gone == Gone::PURGED {
            self.removed.purged += 1;
            let minute = statement::minute(received);
            if self.minutes.back().is_none_or(|(_, last)| *last != minute) {
                self.minutes.push_back((seq, minute));
            }
            let runs = self.purged.entry(class).or_default();
            match runs.last_mut() {
                Some((_, last)) if *last == seq => *last = end,
                _ => runs.push((seq, end)),
            }
            if runs.len() > PURGED_RUNS_MAX {
                join_neighbours(runs);
            }
            return;
        }
        if gone == Gone::RECORD {
            self.removed.erased += 1;
        } else {
            self.removed.partly += 1;
        }
        if self.removed.first.len() < LISTED_MAX {
            self.removed.first.push((seq, gone));
        }
        match self.erased.last_entry() {
            Some(mut last) if *last.get() == (seq, gone) => last.get_mut().0 = end,
            _ => {
                self.erased.insert(seq, (end, gone));
            }
        }
        if self.erased.len() > ERASED_RUNS_MAX {
            self.overflow.get_or_insert(seq);
            self.erased.pop_last();
        }
    }

    /// A record that may be a statement: its content part, its place and time.
    pub(super) fn meet(&mut self, content: &[u8], origin: &Origin, seq: u64, received: ReceiptTime) {
        let Some(text) = statement::original(content) else { return };
        match Statement::parse(text, origin) {
            Some(Ok(Statement::Order(order))) if self.is_lawful(&order) => match order.act {
                Act::Erase(erasure) => self.erase(&erasure, seq),
                Act::Keep(Retention { class, keep_s }) => {
                    self.retentions.insert(class, InForce { seq, keep_s });
                }
            },
            Some(Ok(Statement::Purge(purge))) => self.purge(&purge, seq, received),
            // What is unlawful or can't be read explains nothing.
            _ => (),
        }
    }

    fn is_lawful(&self, order: &Order) -> bool {
        let checked =
            if self.officers.is_empty() { order.check_form() } else { order.check(&self.officers).map(|_| ()) };
        checked.is_ok()
    }

    fn erase(&mut self, erasure: &Erasure, seq: u64) {
        self.removed.orders += 1;
        // Nobody can order that what is not there yet shall go.
        for (target, parts) in erasure.targets.iter().filter(|(target, _)| *target < seq) {
            let Some((first, (end, gone))) =
                self.erased.range(..=target).next_back().map(|(first, run)| (*first, *run))
            else {
                continue;
            };
            if end <= *target {
                continue;
            }
            self.erased.remove(&first);
            if first < *target {
                self.erased.insert(first, (*target, gone));
            }
            let rest = gone.without(*parts);
            if rest != Gone::NOTHING {
                self.erased.insert(*target, (target + 1, rest));
            }
            if target + 1 < end {
                self.erased.insert(target + 1, (end, gone));
            }
        }
    }

    fn purge(&mut self, purge: &Purge, seq: u64, now: ReceiptTime) {
        let in_force = match self.retentions.get(&purge.class) {
            Some(in_force) if in_force.seq == purge.retention => Some(*in_force),
            // The walk began after it: that it said so is believed.
            None if purge.retention < self.start => None,
            _ => return,
        };
        if purge.to > seq {
            return;
        }
        self.removed.purges += 1;
        let purged_to = self.purged_to.entry(purge.class).or_default();
        *purged_to = purge.to.max(*purged_to);
        let due_to = match in_force {
            Some(InForce { keep_s, .. }) => {
                match (Retention { class: purge.class, keep_s }).due_before(now) {
                    // The first record of a minute that is not over long enough, and all after it, are not due.
                    Some(due) => {
                        self.minutes.iter().find(|(_, minute)| *minute >= due).map_or(u64::MAX, |(seq, _)| *seq)
                    }
                    None => 0,
                }
            }
            None => u64::MAX,
        };
        let (from, to) = (purge.from, purge.to.min(due_to));
        if let Some(runs) = self.purged.get_mut(&purge.class) {
            *runs = subtract(runs, from, to);
        }
        let waiting = self.purged.values().filter_map(|runs| runs.first()).map(|(first, _)| *first).min();
        match waiting {
            None => self.minutes.clear(),
            Some(first) => {
                while self.minutes.get(1).is_some_and(|(seq, _)| *seq <= first) {
                    self.minutes.pop_front();
                }
            }
        }
    }

    /// All that is gone, or the first place of which nothing explains what is gone.
    pub(super) fn explained(&self) -> Result<&Removed, (u64, u64, Gone)> {
        let erased = self.erased.first_key_value().map(|(first, (end, gone))| (*first, *end, *gone));
        let purged = self.purged.values().filter_map(|runs| runs.first());
        let purged = purged.min().map(|(first, end)| (*first, *end, Gone::PURGED));
        let overflow = self.overflow.map(|seq| (seq, seq + 1, Gone::RECORD));
        match [erased, purged, overflow].into_iter().flatten().min_by_key(|(first, ..)| *first) {
            Some(unexplained) => Err(unexplained),
            None => Ok(&self.removed),
        }
    }
}

/// Joins each second run with the one before it.
fn join_neighbours(runs: &mut Vec<(u64, u64)>) {
    *runs = runs
        .chunks(2)
        .filter_map(|pair| pair.first().zip(pair.last()).map(|((first, _), (_, end))| (*first, *end)))
        .collect();
}

/// What of the runs lies outside of a range.
fn subtract(runs: &[(u64, u64)], from: u64, to: u64) -> Vec<(u64, u64)> {
    if from >= to {
        return runs.to_vec();
    }
    runs.iter()
        .flat_map(|(first, end)| [(*first, from.min(*end)), (to.max(*first), *end)])
        .filter(|(first, end)| first < end)
        .collect()
}

#[cfg(test)]
mod tests;
