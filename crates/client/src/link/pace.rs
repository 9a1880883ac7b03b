//! A limit on the bytes that are sent in a second.

use std::time::Duration;

use tokio::time::Instant;

/// How far sending may run ahead of the limit: so much time's bytes may go at once.
const BURST: Duration = Duration::from_millis(250);

/// Says when the next message may go.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_s: Option<u64>,
    /// When all that was sent would have been sent at exactly the limit.
    settled_at: Instant,
}

impl Pace {
    /// `None`: no limit.
    pub(crate) fn new(bytes_s: Option<u64>, now: Instant) -> Self {
        Self { bytes_s: bytes_s.map(|bytes| bytes.max(1)), settled_at: now }
    }

    /// Until when nothing may be sent; `None` if something may be sent now.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        self.bytes_s?;
        let until = self.settled_at.checked_sub(BURST)?;
        (until > now).then_some(until)
    }

    /// So many bytes were sent.
    pub(crate) fn sent(&mut self, now: Instant, bytes: u64) {
        let Some(bytes_s) = self.bytes_s else { return };
        let took = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / bytes_s);
        self.settled_at = self.settled_at.max(now) + took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_kept_on_average() {
        let start = Instant::now();
        let (mut pace, mut now, mut sent) = (Pace::new(Some(1_000_000), start), start, 0);
        while now < start + Duration::from_secs(10) {
            if let Some(until) = pace.until(now) {
                now = until;
                continue;
            }
            pace.sent(now, 70_000);
            sent += 70_000;
        }
        assert!((9_900_000..=10_400_000).contains(&sent), "{sent}");
        assert_eq!(Pace::new(None, start).until(start), None);
    }
}
