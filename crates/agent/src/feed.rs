//! From the sources' queue into the engine, no faster than the limit on our own CPU time allows.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sigillo_client::{
    ClientError,
    spooled::{Chunk as Spooled, Pusher},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracing::error;

use crate::source::Chunk;

/// How far our CPU time may run ahead of the limit.
const BURST: Duration = Duration::from_millis(100);

/// Moves chunks.
pub(crate) struct Feeder {
    pusher: Pusher,
    pace: Option<Pace>,
}

impl Feeder {
    /// `cpu_percent`: of one core; `None`: no limit.
    pub(crate) fn new(pusher: Pusher, cpu_percent: Option<u32>) -> Self {
        Self { pusher, pace: cpu_percent.map(|percent| Pace::new(percent, Instant::now(), cpu_time())) }
    }

    /// Until the sources have ended, or the engine has.
    pub(crate) async fn run(mut self, first: Spooled, mut chunks: mpsc::Receiver<Chunk>) {
        if self.pusher.push(first).await.is_err() {
            return;
        }
        while let Some(Chunk { key, records, mark, urgent, synced }) = chunks.recv().await {
            let mark = mark.map(|mark| (key.clone(), mark));
            match self.pusher.push(Spooled { records, mark, urgent }).await {
                Ok(mut ticket) => {
                    if let Some(synced) = synced {
                        tokio::spawn(async move {
                            if ticket.synced().await.is_ok() {
                                let _ = synced.send(());
                            }
                        });
                    }
                }
                Err(ClientError::Record(error)) => {
                    error!(source = %key, %error, "what was read can't be made into records; it stays in its source");
                }
                Err(_) => return,
            }
            if let Some(pace) = &mut self.pace {
                sleep(pace.wait(Instant::now(), cpu_time())).await;
            }
        }
    }
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A share of one core.
#[derive(Debug)]
struct Pace {
    share: f64,
    since: Instant,
    used: Duration,
}

impl Pace {
    fn new(percent: u32, now: Instant, cpu: Duration) -> Self {
        Self { share: f64::from(percent.max(1)) / 100.0, since: now, used: cpu }
    }

    /// How long to pause, by all the CPU time that was used until now.
    fn wait(&mut self, now: Instant, cpu: Duration) -> Duration {
        let deserved = cpu.saturating_sub(self.used).div_f64(self.share);
        let passed = now - self.since;
        if passed > deserved {
            // Time that was not used is not saved up.
            (self.since, self.used) = (now, cpu);
        }
        deserved.saturating_sub(passed + BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_paused_to_keep_the_share() {
        let start = Instant::now();
        let (mut pace, mut now, mut cpu) = (Pace::new(20, start, Duration::ZERO), start, Duration::ZERO);
        for _ in 0..1_000 {
            // A core's whole time while it works.
            now += Duration::from_millis(5);
            cpu += Duration::from_millis(5);
            now += pace.wait(now, cpu);
        }
        let share = cpu.as_secs_f64() / (now - start).as_secs_f64();
        assert!((0.19..0.21).contains(&share), "{share}");
        // An idle hour buys no burst.
        now += Duration::from_secs(3_600);
        assert_eq!(pace.wait(now, cpu), Duration::ZERO);
        assert!(pace.wait(now + Duration::from_secs(1), cpu + Duration::from_secs(1)) > Duration::from_secs(3));
    }
}
