//! The time that the server has listened: the one by which silence is measured.
//!
//! It runs with the machine's monotonic clock, so no step of the wall clock counts, and only while this process does: a server that was
//! stopped, suspended or starved has heard nobody, and nobody is to blame. It is kept over restarts, so that a source heard once a day has
//! a rhythm even if the server starts anew each night.

use std::time::{Duration, Instant};

/// Most time between two looks that counts. The keeper looks each second; what is longer, the process did not run.
const STEP_MAX: Duration = Duration::from_secs(2);

/// The clock.
#[derive(Debug)]
pub(super) struct Listening {
    total: Duration,
    at: Instant,
}

impl Listening {
    /// Goes on from what was listened before.
    pub(super) fn new(total: Duration, at: Instant) -> Self {
        Self { total, at }
    }

    /// What was listened in all, up to `at`.
    pub(super) fn until(&mut self, at: Instant) -> Duration {
        let step = at.saturating_duration_since(self.at).min(STEP_MAX);
        self.at = self.at.max(at);
        self.total = self.total.saturating_add(step);
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_the_process_ran_counts() {
        let start = Instant::now();
        let mut listening = Listening::new(Duration::from_secs(100), start);
        assert_eq!(listening.until(start + Duration::from_secs(1)), Duration::from_secs(101));
        // Suspended for an hour.
        assert_eq!(listening.until(start + Duration::from_secs(3_601)), Duration::from_secs(103));
        // Looks that overtake each other.
        assert_eq!(listening.until(start + Duration::from_secs(3_600)), Duration::from_secs(103));
        assert_eq!(listening.until(start + Duration::from_secs(3_602)), Duration::from_secs(104));
    }
}
