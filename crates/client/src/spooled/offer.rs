//! A chunk that its sender may take back until it is taken. Then it is a batch of its own, or refused as a whole: its sender learns
//! which, and nothing of it is kept in memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sigillo_model::ids::{Epoch, SourceSeq};

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It waits.
    Open,
    /// Its sender has taken it back.
    Withdrawn,
    /// The thread has it in its hands.
    Taken,
    /// It was appended here.
    Kept(Epoch, SourceSeq),
    /// The spool is full, for this reason.
    Full(&'static str),
}

#[derive(Debug)]
pub(super) struct Offer {
    fate: Mutex<Fate>,
}

impl Offer {
    pub(super) fn new() -> Self {
        Self { fate: Mutex::new(Fate::Open) }
    }

    fn lock(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fate(&self) -> Fate {
        *self.lock()
    }

    pub(super) fn settle(&self, fate: Fate) {
        *self.lock() = fate;
    }

    /// Leaves the queue, for one side only.
    fn leave(&self, fate: Fate) -> bool {
        let mut now = self.lock();
        let open = *now == Fate::Open;
        if open {
            *now = fate;
        }
        open
    }

    /// Takes it back; `false` when it was taken before.
    pub(super) fn withdraw(&self) -> bool {
        self.leave(Fate::Withdrawn)
    }

    /// Takes it; `false` when its sender does not want it any more.
    pub(super) fn take(&self) -> bool {
        self.leave(Fate::Taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leaves_the_queue_to_one_side() {
        let offer = Offer::new();
        assert!(offer.withdraw() && !offer.take() && !offer.withdraw());
        let offer = Offer::new();
        assert!(offer.take() && !offer.withdraw());
        offer.settle(Fate::Full("x"));
        assert!(!offer.withdraw() && offer.fate() == Fate::Full("x"));
    }
}
