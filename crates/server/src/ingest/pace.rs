//! How fast a source can cause own records: it must not be able to fill the journal with what it does wrong.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sigillo_model::ids::SourceId;

/// Attribute of own records: so many of this source, before this one, were left out because they came too fast.
pub(crate) const LEFT_OUT: &str = "left_out_before";
/// Own records that a source can cause at once.
const BURST: u32 = 10;
/// After so long it can cause another one.
const REFILL: Duration = Duration::from_secs(1);

/// The pace of each source. As many are kept as sources have caused own records; those are configured.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    sources: Mutex<HashMap<SourceId, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Instant,
    left_out: u64,
}

impl Pace {
    /// Whether what `source` did gets a record of its own; if so, how many before it got none.
    pub(crate) fn turn(&self, source: SourceId) -> Option<u64> {
        self.take(source, Instant::now())
    }

    fn take(&self, source: SourceId, now: Instant) -> Option<u64> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = sources.entry(source).or_insert(Bucket { tokens: BURST, refilled: now, left_out: 0 });
        while bucket.tokens < BURST && now.duration_since(bucket.refilled) >= REFILL {
            bucket.tokens += 1;
            bucket.refilled += REFILL;
        }
        if bucket.tokens == 0 {
            bucket.left_out += 1;
            return None;
        }
        if bucket.tokens == BURST {
            bucket.refilled = now;
        }
        bucket.tokens -= 1;
        Some(std::mem::take(&mut bucket.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_a_second_and_the_rest_are_counted() {
        let (pace, source, start) = (Pace::default(), SourceId::from_name("a"), Instant::now());
        let turns: Vec<_> = (0..BURST + 3).map(|_| pace.take(source, start)).collect();
        assert_eq!(turns.iter().flatten().count(), BURST as usize);
        assert_eq!(pace.take(SourceId::from_name("b"), start), Some(0));
        assert_eq!(pace.take(source, start + REFILL), Some(3));
        assert_eq!(pace.take(source, start + REFILL), None);
        assert_eq!(pace.take(source, start + 2 * REFILL), Some(1));
    }
}
