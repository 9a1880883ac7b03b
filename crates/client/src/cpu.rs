//! A limit on the processor time of the whole process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// How far our CPU time may run ahead of the limit.
const BURST: Duration = Duration::from_millis(100);

/// A share of one core. Whoever has much to do asks it between two pieces of work; several may ask, each by one of its own.
#[derive(Debug)]
pub struct CpuPace {
    share: f64,
    since: Instant,
    used: Duration,
}

impl CpuPace {
    /// Percent of one core.
    pub fn new(percent: u32) -> Self {
        Self::at(percent, Instant::now(), cpu_time())
    }

    /// How long to pause, by all the CPU time that the process has used until now.
    pub fn wait(&mut self) -> Duration {
        self.wait_at(Instant::now(), cpu_time())
    }

    fn at(percent: u32, now: Instant, cpu: Duration) -> Self {
        Self { share: f64::from(percent.max(1)) / 100.0, since: now, used: cpu }
    }

    fn wait_at(&mut self, now: Instant, cpu: Duration) -> Duration {
        let deserved = cpu.saturating_sub(self.used).div_f64(self.share);
        let passed = now - self.since;
        if passed > deserved {
            // Time that was not used is not saved up.
            (self.since, self.used) = (now, cpu);
        }
        deserved.saturating_sub(passed + BURST)
    }
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_paused_to_keep_the_share() {
        let start = Instant::now();
        let (mut pace, mut now, mut cpu) = (CpuPace::at(20, start, Duration::ZERO), start, Duration::ZERO);
        for _ in 0..1_000 {
            // A core's whole time while it works.
            now += Duration::from_millis(5);
            cpu += Duration::from_millis(5);
            now += pace.wait_at(now, cpu);
        }
        let share = cpu.as_secs_f64() / (now - start).as_secs_f64();
        assert!((0.19..0.21).contains(&share), "{share}");
        // An idle hour buys no burst.
        now += Duration::from_secs(3_600);
        assert_eq!(pace.wait_at(now, cpu), Duration::ZERO);
        assert!(pace.wait_at(now + Duration::from_secs(1), cpu + Duration::from_secs(1)) > Duration::from_secs(3));
    }
}
