//! The newest receipts, so that who waits for one finds it.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use sigillo_model::ids::{Epoch, SourceSeq};
use sigillo_proto::v1;

/// Receipts that are remembered: of more writers than that at once, some are not told their place in the journal.
const RECEIPTS: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct Receipts {
    newest: Mutex<VecDeque<v1::Receipt>>,
}

impl Receipts {
    pub(crate) fn keep(&self, receipt: &v1::Receipt) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.len() == RECEIPTS {
            newest.pop_front();
        }
        newest.push_back(receipt.clone());
    }

    /// Of the batch that begins here, if it is remembered.
    pub(crate) fn of(&self, (epoch, first): (Epoch, SourceSeq)) -> Option<v1::Receipt> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (epoch.get(), first.get());
        newest.iter().rev().find(|receipt| (receipt.epoch, receipt.first) == place).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_found_by_their_place_and_bounded() {
        let receipts = Receipts::default();
        for first in 0..=RECEIPTS as u64 {
            receipts.keep(&v1::Receipt { epoch: 7, first, sequence: 100 + first, ..v1::Receipt::default() });
        }
        let of = |epoch, first| receipts.of((Epoch::new(epoch), SourceSeq::new(first))).map(|found| found.sequence);
        assert_eq!((of(7, 1), of(7, 0), of(8, 1)), (Some(101), None, None));
    }
}
