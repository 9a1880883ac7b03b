//! Receipts that no checkpoint has covered yet.

use std::collections::VecDeque;

use sigillo_model::{ids::Epoch, receipt::SignedReceipt};

/// Receipts kept at most. Of more, every second one goes: each covers by the chain all that came before it.
const PENDING_MAX: usize = 1_024;
/// Receipts that are checked against one checkpoint at most.
const DUE_MAX: usize = 16;

/// In the order in which they came. The newest of each epoch is always among them.
#[derive(Debug, Default)]
pub(super) struct Pending {
    receipts: VecDeque<SignedReceipt>,
}

impl Pending {
    pub(super) fn push(&mut self, receipt: SignedReceipt) {
        self.receipts.push_back(receipt);
        if self.receipts.len() <= PENDING_MAX {
            return;
        }
        let newest = self.newest_epochs();
        let mut index = 0;
        self.receipts.retain(|receipt| {
            index += 1;
            index % 2 == 0 || newest.contains(&place(receipt))
        });
        if self.receipts.len() > PENDING_MAX {
            self.receipts.pop_front();
        }
    }

    /// The newest of each epoch that a checkpoint of this size covers.
    pub(super) fn due(&self, size: u64) -> Vec<SignedReceipt> {
        let mut due: Vec<SignedReceipt> = Vec::new();
        let covered = |receipt: &&SignedReceipt| receipt.receipt.last().is_some_and(|last| last.get() < size);
        for receipt in self.receipts.iter().filter(covered) {
            match due.iter().position(|other| other.receipt.epoch == receipt.receipt.epoch) {
                Some(at) => due.get_mut(at).into_iter().for_each(|older| older.clone_from(receipt)),
                None if due.len() < DUE_MAX => due.push(receipt.clone()),
                None => {}
            }
        }
        due
    }

    /// A checkpoint that meets the policy holds this receipt, and with it those before it.
    pub(super) fn proved(&mut self, proved: &SignedReceipt) {
        let (epoch, last) = place(proved);
        self.receipts.retain(|receipt| place(receipt).0 != epoch || place(receipt).1 > last);
    }

    /// The newest of each epoch.
    pub(super) fn newest(&self) -> Vec<SignedReceipt> {
        let newest = self.newest_epochs();
        self.receipts.iter().filter(|receipt| newest.contains(&place(receipt))).cloned().collect()
    }

    fn newest_epochs(&self) -> Vec<(Epoch, u64)> {
        let mut newest: Vec<(Epoch, u64)> = Vec::new();
        for (epoch, last) in self.receipts.iter().map(place) {
            match newest.iter_mut().find(|(other, _)| *other == epoch) {
                Some((_, newest)) => *newest = last.max(*newest),
                None => newest.push((epoch, last)),
            }
        }
        newest
    }
}

/// Epoch, and sequence of the last record.
fn place(receipt: &SignedReceipt) -> (Epoch, u64) {
    (receipt.receipt.epoch, receipt.receipt.last().map_or(0, sigillo_model::ids::Seq::get))
}

#[cfg(test)]
mod tests {
    use sigillo_model::{
        ids::{BatchHash, ChainHash, Origin, ReceiptTime, Seq, SourceId, SourceSeq},
        receipt::Receipt,
    };

    use super::*;

    fn receipt(epoch: u64, seq: u64) -> SignedReceipt {
        let receipt = Receipt {
            source: SourceId::from_name("web-1"),
            epoch: Epoch::new(epoch),
            first: SourceSeq::new(seq),
            count: 1,
            seq: Seq::new(seq),
            chain: ChainHash::new([1; 32]),
            batch: BatchHash::new([2; 32]),
            time: ReceiptTime::new(3),
        };
        let origin = Origin::new("a").unwrap();
        SignedReceipt { origin, receipt, index: 0, path: Vec::new(), note: String::new() }
    }

    fn places(receipts: &[SignedReceipt]) -> Vec<(u64, u64)> {
        receipts.iter().map(place).map(|(epoch, last)| (epoch.get(), last)).collect()
    }

    #[test]
    fn the_newest_of_each_epoch_stays_until_it_is_proved() {
        let mut pending = Pending::default();
        pending.push(receipt(1, 5));
        for seq in 10..10_000 {
            pending.push(receipt(2, seq));
        }
        assert_eq!(places(&pending.newest()), [(1, 5), (2, 9_999)]);
        assert!(pending.receipts.len() <= PENDING_MAX);
        let due = pending.due(9_990);
        assert!(matches!(places(&due)[..], [(1, 5), (2, 9_900..=9_989)]), "{:?}", places(&due));
        pending.proved(&due[1]);
        assert_eq!(places(&pending.newest()), [(1, 5), (2, 9_999)]);
        assert_eq!(places(&pending.due(9_990)), [(1, 5)]);
        pending.proved(&receipt(2, 9_999));
        pending.proved(&receipt(1, 5));
        assert!(pending.newest().is_empty());
    }
}
