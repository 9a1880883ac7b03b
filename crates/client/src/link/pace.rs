//! Limits on the bytes that are sent in a second, and on the processor time that it takes.

use std::time::Duration;

use tokio::time::Instant;

use crate::CpuPace;

/// How far sending may run ahead of the limit: so much time's bytes may go at once.
const BURST: Duration = Duration::from_millis(250);

/// Says when the next message may go.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_s: Option<u64>,
    /// When all that was sent would have been sent at exactly the limit.
    settled_at: Instant,
    cpu: Option<CpuPace>,
    rests_until: Instant,
}

impl Pace {
    /// `None`: no limit. `cpu_percent`: of one core, that the whole process may use.
    pub(crate) fn new(bytes_s: Option<u64>, cpu_percent: Option<u32>, now: Instant) -> Self {
        let cpu = cpu_percent.map(CpuPace::new);
        Self { bytes_s: bytes_s.map(|bytes| bytes.max(1)), settled_at: now, cpu, rests_until: now }
    }

    /// Until when nothing may be sent; `None` if something may be sent now.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        let settled = self.bytes_s.and_then(|_| self.settled_at.checked_sub(BURST));
        Some(settled.map_or(self.rests_until, |settled| settled.max(self.rests_until))).filter(|until| *until > now)
    }

    /// So many bytes were sent.
    pub(crate) fn sent(&mut self, now: Instant, bytes: u64) {
        if let Some(cpu) = &mut self.cpu {
            self.rests_until = now + cpu.wait();
        }
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
        let (mut pace, mut now, mut sent) = (Pace::new(Some(1_000_000), None, start), start, 0);
        while now < start + Duration::from_secs(10) {
            if let Some(until) = pace.until(now) {
                now = until;
                continue;
            }
            pace.sent(now, 70_000);
            sent += 70_000;
        }
        assert!((9_900_000..=10_400_000).contains(&sent), "{sent}");
        assert_eq!(Pace::new(None, None, start).until(start), None);
    }

    #[test]
    fn the_processor_share_is_kept_while_sending() {
        let mut pace = Pace::new(None, Some(5), Instant::now());
        let begun = Instant::now();
        // Busy, as sending is: what was used is a twentieth of the time that is to pass.
        loop {
            let now = Instant::now();
            pace.sent(now, 1);
            if pace.until(now).is_some_and(|until| until > now + Duration::from_millis(300)) {
                break;
            }
            assert!(now < begun + Duration::from_secs(20));
        }
        assert!(Pace::new(None, None, Instant::now()).cpu.is_none());
    }
}
