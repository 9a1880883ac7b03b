//! Where to go on, by what the server says that it has.

use std::cmp::Ordering;

use sigillo_model::ids::{Epoch, SourceSeq};

use super::keeper::Stand;

/// How to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// In this epoch, from here.
    GoOn(SourceSeq),
    /// The journal has moved on without us. What it has of this epoch it acknowledges again, and refuses the first that it does not have;
    /// so nothing comes twice.
    Probe(SourceSeq),
    /// In a new epoch, with everything from here on. The journal misses so many records before, which are not here any more.
    Anew { from: SourceSeq, lost: u64 },
}

/// Decides. `acknowledged` is what this process has seen acknowledged of the epoch; `fits` whether our chain has the journal's
/// value at its place, or, if it knows none of the epoch, whether ours was opened on what it shows.
pub(super) fn course(stand: &Stand, acknowledged: SourceSeq, (epoch, next): (Epoch, SourceSeq), fits: bool) -> Course {
    let ours = acknowledged.clamp(stand.first, stand.next);
    let ask = || if ours < stand.next { Course::Probe(ours) } else { Course::Anew { from: ours, lost: 0 } };
    match epoch.cmp(&stand.epoch) {
        Ordering::Greater => ask(),
        Ordering::Equal if next > stand.next => ask(),
        Ordering::Equal if next < stand.first => {
            Course::Anew { from: stand.first, lost: stand.first.get() - next.get() }
        }
        Ordering::Equal if !fits => ask(),
        Ordering::Equal => Course::GoOn(next),
        Ordering::Less if stand.first.get() == 0 && fits => Course::GoOn(stand.first),
        Ordering::Less => Course::Anew { from: stand.first, lost: stand.first.get() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_or_sent_twice_that_can_be_helped() {
        let seq = SourceSeq::new;
        let stand = Stand { epoch: Epoch::new(7), first: seq(10), next: seq(30), ..Stand::default() };
        let at = |acknowledged, epoch, next| course(&stand, seq(acknowledged), (Epoch::new(epoch), seq(next)), true);
        assert_eq!(at(0, 7, 20), Course::GoOn(seq(20)));
        assert_eq!(at(25, 7, 20), Course::GoOn(seq(20)), "it has forgotten what we still have");
        assert_eq!(at(0, 7, 30), Course::GoOn(seq(30)));
        let other = course(&stand, seq(15), (Epoch::new(7), seq(20)), false);
        assert_eq!(other, Course::Probe(seq(15)), "what it has there is not ours");
        assert_eq!(at(10, 7, 4), Course::Anew { from: seq(10), lost: 6 });
        assert_eq!(at(15, 7, 31), Course::Probe(seq(15)), "our state is older than the journal's");
        assert_eq!(at(30, 7, 31), Course::Anew { from: seq(30), lost: 0 });
        assert_eq!(at(0, 8, 1), Course::Probe(seq(10)), "another sender, or an earlier life");
        assert_eq!(at(30, 8, 1), Course::Anew { from: seq(30), lost: 0 });
        assert_eq!(at(15, 6, 99), Course::Anew { from: seq(10), lost: 10 });
        let stand = Stand { first: seq(0), ..stand.clone() };
        assert_eq!(course(&stand, seq(0), (Epoch::new(6), seq(9)), true), Course::GoOn(seq(0)));
        assert_eq!(course(&stand, seq(0), (Epoch::new(6), seq(9)), false), Course::Anew { from: seq(0), lost: 0 });
    }
}
