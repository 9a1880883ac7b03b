//! How often a source is heard that does not stay connected, and how long a silence is longer than that allows.
//!
//! Such a source may be a nightly backup, a panel that writes in bursts, or a person who appends by hand once a month. So what counts is
//! the longest pause of each day on which it was heard, of the last 28 such days: a burst of a thousand sessions is forgotten no sooner
//! than one. Nothing is expected before it was watched for longer than a week, as a week holds both workdays and days off.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Days that are remembered.
const DAYS_MAX: usize = 28;
/// Pauses after which a rhythm can be known,
const PAUSES_MIN: u64 = 3;
/// and the time that must lie between the first session and the last.
const WATCHED_MIN: Duration = Duration::from_secs(8 * DAY.as_secs());
/// A silence may last so many times the longest pause.
const FACTOR: u32 = 3;

/// The rhythm of one source. All times are listened ones, see [`super::listening`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rhythm {
    /// When the first session began.
    first: Option<Duration>,
    /// Pauses so far.
    pauses: u64,
    /// Whether enough was seen. Decided when a pause ends: the one that lasts may be the longest so far.
    known: bool,
    /// Days on which sessions began, each with the longest pause that ended on it.
    days: VecDeque<(u64, Duration)>,
}

impl Rhythm {
    /// A session begins, after `pause` unless it is the first.
    pub(super) fn begins(&mut self, now: Duration, pause: Option<Duration>) {
        let first = *self.first.get_or_insert(now);
        let Some(pause) = pause else { return };
        self.pauses = self.pauses.saturating_add(1);
        let day = now.as_secs() / DAY.as_secs();
        match self.days.back_mut() {
            Some((last, longest)) if *last == day => *longest = pause.max(*longest),
            _ => self.days.push_back((day, pause)),
        }
        while self.days.len() > DAYS_MAX {
            self.days.pop_front();
        }
        self.known |= self.pauses >= PAUSES_MIN && now.saturating_sub(first) >= WATCHED_MIN;
    }

    /// The longest pause, once the rhythm is known.
    pub(super) fn longest(&self) -> Option<Duration> {
        let longest = self.days.iter().map(|(_, longest)| *longest).max()?;
        self.known.then_some(longest)
    }

    /// How long it may be silent, once the rhythm is known.
    pub(super) fn allowed(&self) -> Option<Duration> {
        Some(self.longest()?.saturating_mul(FACTOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(hours: u64) -> Duration {
        Duration::from_secs(hours * 3_600)
    }

    fn after(pauses: &[u64]) -> Rhythm {
        let mut rhythm = Rhythm::default();
        let mut now = Duration::ZERO;
        rhythm.begins(now, None);
        for pause in pauses {
            let pause = hours(*pause);
            now += pause;
            rhythm.begins(now, Some(pause));
        }
        rhythm
    }

    #[test]
    fn a_rhythm_takes_a_week_and_three_pauses_to_be_known() {
        assert_eq!(after(&[24; 7]).allowed(), None);
        assert_eq!(after(&[24; 8]).allowed(), Some(hours(72)));
        assert_eq!(after(&[30 * 24; 2]).allowed(), None);
        assert_eq!(after(&[30 * 24; 3]).allowed(), Some(hours(90 * 24)));
    }

    #[test]
    fn a_burst_does_not_hide_the_night_before_it() {
        let mut pauses = vec![64, 24, 24, 24, 24, 64];
        pauses.extend(std::iter::repeat_n(0, 10_000));
        assert_eq!(after(&pauses).allowed(), Some(hours(3 * 64)));
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let mut pauses = vec![100 * 24];
        pauses.extend([24; DAYS_MAX]);
        assert_eq!(after(&pauses[..DAYS_MAX]).allowed(), Some(hours(300 * 24)));
        assert_eq!(after(&pauses).allowed(), Some(hours(72)));
    }
}
