//! Counts what was pushed on its way to the ack, over new numbers and refused batches.

use std::collections::VecDeque;

/// Batches that are counted one by one; of more, neighbours are counted together.
const BATCHES_MAX: usize = 65_536;

/// A batch, or several, that is not acknowledged.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    records: u64,
    /// Records that were pushed up to its end.
    pushed: u64,
    /// When its oldest record was pushed, nanoseconds since 1970 UTC.
    since_ns: u64,
}

/// All that is in the spool and not acknowledged, oldest first.
#[derive(Debug, Default)]
pub(super) struct Tally {
    waiting: VecDeque<Waiting>,
    /// Records of all of them.
    records: u64,
    /// Records that were pushed and are acknowledged, or refused for ever.
    settled: u64,
}

impl Tally {
    /// Records that are not acknowledged.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Records that were pushed and are acknowledged, or refused for ever.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Records that were pushed up to the end of the oldest batch that waits.
    pub(super) fn first_pushed(&self) -> Option<u64> {
        self.waiting.front().map(|first| first.pushed)
    }

    /// When the oldest of them was pushed; 0 when none waits.
    pub(super) fn oldest_ns(&self) -> u64 {
        self.waiting.front().map_or(0, |first| first.since_ns)
    }

    /// A batch was appended, with which so many were pushed.
    pub(super) fn append(&mut self, records: u64, pushed: u64, since_ns: u64) {
        self.records += records;
        let many = self.waiting.len() >= BATCHES_MAX;
        match self.waiting.back_mut() {
            Some(last) if many => {
                last.records += records;
                last.pushed = pushed;
            }
            _ => self.waiting.push_back(Waiting { records, pushed, since_ns }),
        }
    }

    /// The oldest so many records are settled.
    pub(super) fn settle(&mut self, mut records: u64) {
        self.records = self.records.saturating_sub(records);
        while let Some(first) = self.waiting.front_mut() {
            if first.records > records {
                first.records -= records;
                return;
            }
            records -= first.records;
            self.settled = self.settled.max(first.pushed);
            self.waiting.pop_front();
        }
    }

    /// So many, the newest, wait: the journal has the others, or has forgotten some that it had.
    pub(super) fn waits(&mut self, records: u64) {
        if let Some(more) = records.checked_sub(self.records).filter(|more| *more > 0) {
            self.records = records;
            self.waiting.push_front(Waiting { records: more, pushed: self.settled, since_ns: self.oldest_ns() });
        }
        self.settle(self.records - records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_settled_when_its_whole_batch_is() {
        let mut tally = Tally::default();
        // Two that a spool held at the start, then three, and two with a declared loss among them.
        tally.append(2, 0, 1);
        tally.append(3, 3, 2);
        tally.append(3, 5, 3);
        assert_eq!((tally.records(), tally.oldest_ns()), (8, 1));
        tally.settle(4);
        assert_eq!((tally.records(), tally.settled(), tally.oldest_ns()), (4, 0, 2));
        tally.settle(1);
        assert_eq!((tally.records(), tally.settled()), (3, 3));
        tally.waits(3);
        assert_eq!(tally.settled(), 3);
        tally.waits(0);
        assert_eq!((tally.records(), tally.settled(), tally.oldest_ns()), (0, 5, 0));
    }

    #[test]
    fn a_long_wait_takes_bounded_memory() {
        let mut tally = Tally::default();
        (1..=200_000).for_each(|pushed| tally.append(1, pushed, pushed));
        assert!(tally.waiting.len() <= BATCHES_MAX);
        tally.settle(199_999);
        assert_eq!((tally.records(), tally.settled()), (1, BATCHES_MAX as u64 - 1));
        tally.settle(1);
        assert_eq!(tally.settled(), 200_000);
    }
}
