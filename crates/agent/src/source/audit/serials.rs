//! The kernel's counter of events: consecutive from boot on. Events of several processors may be written in another order than their
//! numbers', so a number counts as missing only when events two seconds younger than those around it are there.

use serde::{Deserialize, Serialize};

use super::line::EventId;

/// How long, in the events' own time, a number may still come.
const LATE_MS: u64 = 2_000;
/// Ranges that may be missing at a time without being declared.
const HOLES_MAX: usize = 12;

/// What was read of the counter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Serials {
    /// Greatest number since boot; 0: nothing yet.
    highest: u64,
    /// Latest time of an event.
    newest_ms: u64,
    /// First and last number of what is missing, and since when.
    holes: Vec<(u64, u64, u64)>,
    /// Whether reading went on elsewhere than it stopped.
    moved: bool,
}

/// Events that are not there: first and last number. 0 for both: nobody can know how many.
pub(super) type Missing = (u64, u64);

impl Serials {
    /// The place at which reading stopped is gone.
    pub(super) fn moved(&mut self) {
        self.moved = self.highest > 0;
    }

    /// Notes an event; returns what is missing for certain.
    pub(super) fn note(&mut self, event: EventId) -> Vec<Missing> {
        let EventId { time_ms, serial } = event;
        let mut missing = Vec::new();
        if serial > self.highest {
            if self.highest > 0 && serial > self.highest + 1 {
                self.holes.push((self.highest + 1, serial - 1, self.newest_ms.max(time_ms)));
            }
            self.highest = serial;
        } else if !self.fill(serial) && time_ms > self.newest_ms {
            // The counter began anew: with a boot. What was missing before will not come.
            missing.extend(self.holes.drain(..).map(|(first, last, _)| (first, last)));
            if self.moved {
                missing.push((0, 0));
            }
            self.highest = serial;
        }
        self.moved = false;
        self.newest_ms = self.newest_ms.max(time_ms);
        let newest_ms = self.newest_ms;
        let surplus = self.holes.len().saturating_sub(HOLES_MAX);
        let mut place = 0;
        self.holes.retain(|(first, last, since)| {
            let is_certain = since.saturating_add(LATE_MS) < newest_ms || place < surplus;
            place += 1;
            if is_certain {
                missing.push((*first, *last));
            }
            !is_certain
        });
        missing
    }

    /// Takes a number out of what is missing; false if it was not.
    fn fill(&mut self, serial: u64) -> bool {
        let Some(place) = self.holes.iter().position(|(first, last, _)| (*first..=*last).contains(&serial)) else {
            return false;
        };
        let (first, last, since) = self.holes.remove(place);
        if serial < last {
            self.holes.insert(place, (serial + 1, last, since));
        }
        if first < serial {
            self.holes.insert(place, (first, serial - 1, since));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is missing after each event, with a last one far in the future.
    fn missing(events: &[(u64, u64)]) -> Vec<Missing> {
        let mut serials = Serials::default();
        let note = |&(time_ms, serial): &(u64, u64)| serials.note(EventId { time_ms, serial });
        events.iter().flat_map(note).collect()
    }

    #[test]
    fn gaps_are_certain_after_two_seconds_and_boots_are_none() {
        for (events, expected) in [
            (&[(1, 500), (2, 501), (9_000, 502)][..], vec![]),
            (&[(1, 500), (2, 503), (2_000, 504)], vec![]),
            (&[(1, 500), (2, 503), (2_003, 504)], vec![(501, 502)]),
            // Late, in the middle of what was missing.
            (&[(1, 500), (2, 505), (3, 502), (9_000, 506)], vec![(501, 501), (503, 504)]),
            (&[(1, 500), (2, 502), (3, 501), (9_000, 503)], vec![]),
            // A boot, after a gap, and to numbers near the old ones.
            (&[(1, 500), (60_000, 3), (60_001, 4), (99_000, 5)], vec![]),
            (&[(1, 500), (2, 502), (60_000, 499), (60_001, 500), (99_000, 501)], vec![(501, 501)]),
            // The rest of an event that was cut.
            (&[(1, 500), (2, 501), (1, 500), (9_000, 502)], vec![]),
            (&[(1, u64::MAX), (9_000, 1)], vec![]),
        ] {
            assert_eq!(missing(events), expected, "{events:?}");
        }
    }

    #[test]
    fn after_a_move_a_boot_hides_what_is_missing() {
        for (next, expected) in [((9, 501), vec![]), ((9, 3), vec![(0, 0)])] {
            let mut serials = Serials::default();
            serials.note(EventId { time_ms: 1, serial: 500 });
            serials.moved();
            assert_eq!(serials.note(EventId { time_ms: next.0, serial: next.1 }), expected);
        }
    }

    #[test]
    fn what_is_kept_is_small() {
        let mut serials = Serials::default();
        let mut lost = 0;
        for step in 1..1_000 {
            let event = EventId { time_ms: u64::MAX, serial: u64::MAX - 10_000 + step * 3 };
            lost += serials.note(event).iter().map(|(first, last)| last - first + 1).sum::<u64>();
        }
        assert!(serde_json::to_vec(&serials).unwrap().len() < 1_000);
        assert_eq!(lost, (998 - HOLES_MAX as u64) * 2);
    }

    proptest! {
        #[test]
        fn exactly_what_was_left_out_is_missing(present in proptest::collection::vec(any::<bool>(), 1..60), swaps in proptest::collection::vec(0_usize..60, 0..10)) {
            let mut events: Vec<_> = (0_u64..).zip(&present).filter(|(_, present)| **present).map(|(n, _)| (1, 100 + n)).collect();
            events.insert(0, (1, 99));
            for swap in swaps {
                // The first one stays first: before it nothing can be missing.
                if swap >= 1 && swap + 1 < events.len() {
                    events.swap(swap, swap + 1);
                }
            }
            let end = 100 + present.len() as u64;
            events.push((1, end));
            events.push((9_000, end + 1));
            let mut found: Vec<u64> = missing(&events).into_iter().flat_map(|(first, last)| first..=last).collect();
            found.sort_unstable();
            let expected: Vec<u64> = (100..end).filter(|serial| !events.contains(&(1, *serial))).collect();
            // With many holes at once the oldest are declared early, and may still be filled.
            if expected.len() < HOLES_MAX {
                prop_assert_eq!(found, expected);
            }
        }
    }
}
