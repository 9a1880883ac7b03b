//! Who writes the lines.

use std::{thread, time::Duration};

use anyhow::Result;
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha12Rng;

use crate::numbered::{NumberedLog, Rotation};

/// Lines written at once, at most.
const BURST_MAX: u64 = 120;
/// Longest pause between two bursts.
const PAUSE_MAX: Duration = Duration::from_millis(12);
/// How often a file is rotated after a burst.
const ROTATE: f64 = 0.03;
/// How many of the rotations may lose lines that nobody has read yet.
const LOSING: f64 = 0.1;

/// Writes about so many lines over about a second, rotating the files now and then.
pub(super) fn write(logs: &mut [NumberedLog], records: u64, random: &mut ChaCha12Rng) -> Result<()> {
    let mut left = records;
    while left > 0 {
        let log = random.random_range(0..logs.len());
        let Some(log) = logs.get_mut(log) else { break };
        let burst = random.random_range(1..=BURST_MAX).min(left);
        log.write(burst)?;
        left -= burst;
        if random.random_bool(ROTATE) {
            let kinds = if random.random_bool(LOSING) { &Rotation::LOSING[..] } else { &Rotation::KEEPING[..] };
            if let Some(kind) = kinds.choose(random) {
                log.rotate(*kind)?;
            }
        }
        thread::sleep(random.random_range(Duration::ZERO..PAUSE_MAX));
    }
    Ok(())
}

/// A last line in each file, after which a loss shows as a gap.
pub(super) fn close(logs: &mut [NumberedLog]) -> Result<()> {
    logs.iter_mut().try_for_each(|log| log.write(1))
}
