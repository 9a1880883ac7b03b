//! How fast a source can cause own records: it must not be able to fill the journal with what it does wrong.
//!
//! Each kind has turns of its own, so that much of one does not hide another. The newest that gets no turn waits for one: it becomes a
//! record also when nothing comes after it, and counts those before it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sigillo_model::ids::SourceId;

use crate::own::Event;

/// Attribute of own records: so many of this source and kind, before this one, were left out because they came too fast.
pub(crate) const LEFT_OUT: &str = "left_out_before";
/// Own records of a kind that a source can cause at once.
const BURST: u32 = 10;
/// After so long it can cause another one.
const REFILL: Duration = Duration::from_secs(1);

/// The pace of each source, by the name of the record. As many are kept as sources have caused own records lately; those are configured.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    buckets: Mutex<HashMap<(SourceId, String), Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Instant,
    left_out: u64,
    /// The newest of those that are left out so far.
    newest: Option<Event>,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST, refilled: now, left_out: 0, newest: None }
    }

    fn refill(&mut self, now: Instant) {
        while self.tokens < BURST && now.duration_since(self.refilled) >= REFILL {
            self.tokens += 1;
            self.refilled += REFILL;
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
    }

    /// Whether there is a turn; if so, how many before it got none.
    fn turn(&mut self, now: Instant) -> Option<u64> {
        self.refill(now);
        let Some(tokens) = self.tokens.checked_sub(1) else {
            self.left_out += 1;
            return None;
        };
        self.tokens = tokens;
        self.newest = None;
        Some(std::mem::take(&mut self.left_out))
    }

    /// What waits, as it is to be recorded.
    fn take_newest(&mut self) -> Option<Event> {
        let event = self.newest.take()?;
        Some(event.number(LEFT_OUT, std::mem::take(&mut self.left_out).saturating_sub(1)))
    }
}

impl Pace {
    /// Whether what `source` did gets a record of this name; if so, how many before it got none.
    pub(crate) fn turn(&self, source: SourceId, name: &str) -> Option<u64> {
        let now = Instant::now();
        self.buckets().entry((source, name.to_owned())).or_insert_with(|| Bucket::new(now)).turn(now)
    }

    /// Gives what `source` did back if it is to become a record now. If not, it waits for its turn, in place of one that did so before.
    pub(crate) fn pass(&self, source: SourceId, event: Event) -> Option<Event> {
        self.pass_at(source, event, Instant::now())
    }

    fn pass_at(&self, source: SourceId, event: Event, now: Instant) -> Option<Event> {
        let mut buckets = self.buckets();
        let bucket = buckets.entry((source, event.name().to_owned())).or_insert_with(|| Bucket::new(now));
        if let Some(left_out) = bucket.turn(now) {
            return Some(event.number(LEFT_OUT, left_out));
        }
        bucket.newest = Some(event);
        None
    }

    /// What has waited and has its turn now.
    pub(crate) fn due(&self) -> Vec<Event> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Vec<Event> {
        let mut due = Vec::new();
        self.buckets().retain(|_, bucket| {
            bucket.refill(now);
            if let Some(tokens) = bucket.tokens.checked_sub(1)
                && let Some(event) = bucket.take_newest()
            {
                bucket.tokens = tokens;
                due.push(event);
            }
            bucket.tokens < BURST || bucket.left_out > 0
        });
        due
    }

    /// All that waits, at the end.
    pub(crate) fn rest(&self) -> Vec<Event> {
        self.buckets().values_mut().filter_map(Bucket::take_newest).collect()
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<(SourceId, String), Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_a_second_and_the_rest_are_counted() {
        let (pace, source, start) = (Pace::default(), SourceId::from_name("a"), Instant::now());
        let pass = |name, now| pace.pass_at(source, Event::new(name), now).map(|event| event.attribute(LEFT_OUT));
        let turns: Vec<_> = (0..BURST + 3).map(|_| pass("invalid", start)).collect();
        assert_eq!(turns.iter().flatten().count(), BURST as usize);
        // Neither another source nor another kind has fewer turns for it.
        assert!(pace.pass_at(SourceId::from_name("b"), Event::new("invalid"), start).is_some());
        assert_eq!(pass("fork", start), Some(0));
        assert_eq!(pass("invalid", start + REFILL), Some(3));
        assert_eq!(pass("invalid", start + REFILL), None);
        assert_eq!(pass("invalid", start + 2 * REFILL), Some(1));
    }

    #[test]
    fn the_newest_that_is_left_out_has_its_turn_when_nothing_comes_after_it() {
        let (pace, source, start) = (Pace::default(), SourceId::from_name("a"), Instant::now());
        let pass = |number: u32| pace.pass_at(source, Event::new("fork").number("n", number), start).is_some();
        assert_eq!((0..BURST + 3).filter(|number| pass(*number)).count(), BURST as usize);
        assert!(pace.due_at(start).is_empty());
        let due = pace.due_at(start + REFILL);
        let said: Vec<_> = due.iter().map(|event| (event.attribute("n"), event.attribute(LEFT_OUT))).collect();
        assert_eq!(said, [(i64::from(BURST) + 2, 2)]);
        // It took the turn, and is not said again.
        assert!(!pass(99));
        assert_eq!(pace.rest().iter().map(|event| event.attribute("n")).collect::<Vec<_>>(), [99]);
        assert!(pace.rest().is_empty() && pace.due_at(start + 2 * REFILL).is_empty());
        // Who has done nothing for long is forgotten.
        pace.due_at(start + (BURST + 2) * REFILL);
        assert!(pace.buckets().is_empty());
    }
}
