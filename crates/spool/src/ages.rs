//! How old the oldest batch is that is not released: coarse, so that its memory is bounded however much waits.

use std::collections::VecDeque;

use sigillo_model::ids::SourceSeq;

/// Samples at most; when there are more, every other one goes.
const SAMPLES_MAX: usize = 1_024;
const SECOND_NS: u64 = 1_000_000_000;

/// When some of the batches were made. A batch between two samples is as old as the one before it.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    /// First record and time of a batch.
    samples: VecDeque<(SourceSeq, u64)>,
}

impl Ages {
    pub(crate) fn add(&mut self, first: SourceSeq, made_ns: u64) {
        // Younger than a second after the last one: stands for the same.
        if self.samples.back().is_some_and(|(_, last)| made_ns.abs_diff(*last) < SECOND_NS) {
            return;
        }
        if self.samples.len() >= SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.samples.push_back((first, made_ns));
    }

    /// Everything below `released` is gone, and records up to `next` exist.
    pub(crate) fn release(&mut self, released: SourceSeq, next: SourceSeq) {
        if released >= next {
            self.samples.clear();
            return;
        }
        while self.samples.get(1).is_some_and(|(first, _)| *first <= released) {
            self.samples.pop_front();
        }
    }

    /// When the oldest was made, nanoseconds since 1970 UTC; 0 if nothing waits.
    pub(crate) fn oldest_ns(&self) -> u64 {
        self.samples.front().map_or(0, |(_, made)| *made)
    }
}
