//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
/// A server that has started gives senders that stay connected 30 s to come back, then it reports them as silent.
const LONGEST: Duration = Duration::from_secs(20);

/// Waits that double from 250 ms to 20 s, each shortened at random by up to a half so that many clients of a server that
/// comes back do not arrive together.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The next wait, between 125 ms and 20 s.
    pub fn next_wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        // Without randomness (which never fails on a running system) all would wait the whole time: slower, not wrong.
        let share = getrandom::u32().unwrap_or(u32::MAX);
        whole / 2 + (whole / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
    }

    /// Begins anew with the shortest wait. Called when something was achieved, not when a connection was merely made.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.next_wait()).collect();
        assert!((FIRST / 2..=FIRST).contains(&waits[0]), "{waits:?}");
        assert!(waits[6] >= FIRST * 32, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST), "{waits:?}");
        assert!(waits[11] >= LONGEST / 2, "{waits:?}");
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
