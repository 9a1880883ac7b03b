//! The time of receipt, from a clock that is checked: a step of the wall clock against the machine's uptime is noticed, and until
//! somebody confirms it no record is taken under the new time.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use sigillo_model::ids::ReceiptTime;

/// Steps up to this are a clock being disciplined; nanoseconds.
const STEP_MAX_NS: i128 = 5_000_000_000;
/// After so long the comparison starts anew, so that slow slewing never adds up to a step: at the 500 ppm that kernels slew at
/// most, this makes 1.8 s. Nanoseconds.
const COMPARED_FOR_NS: u64 = 3_600_000_000_000;

/// The two clocks read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since 1970-01-01T00:00:00Z, as the machine's clock has it.
    pub wall_ns: u64,
    /// Nanoseconds since the machine started, sleep included.
    pub uptime_ns: u64,
}

impl Moment {
    fn read() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Boot time, not monotonic time: a machine that slept has not had its clock stepped.
        let uptime = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(uptime.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(uptime.tv_nsec).unwrap_or(0);
        Self {
            wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
            uptime_ns: seconds.saturating_mul(1_000_000_000).saturating_add(nanos),
        }
    }
}

/// The wall clock stepped and nobody has confirmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server's clock was stepped by {} s; records are taken again once it is right and the step confirmed (SIGUSR1)",
    self.by_ns / 1_000_000_000
)]
pub struct Stepped {
    /// How far, forward or back, nanoseconds.
    pub by_ns: i64,
}

/// The checked clock.
pub struct Clock {
    read: Box<dyn Fn() -> Moment + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    anchor: Moment,
    stepped: Option<Stepped>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::reading(Moment::read)
    }
}

impl Clock {
    /// A clock that reads its time from `read`.
    pub fn reading(read: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State { anchor: read(), stepped: None });
        Self { read: Box::new(read), state }
    }

    /// The time for records that are taken now.
    pub fn now(&self) -> Result<ReceiptTime, Stepped> {
        let moment = (self.read)();
        let mut state = self.state();
        state.compare(moment).map_or(Ok(ReceiptTime::new(moment.wall_ns)), Err)
    }

    /// The time as it would be without a step: for the product's own records, which are written in any case.
    pub fn believed(&self) -> ReceiptTime {
        let moment = (self.read)();
        let mut state = self.state();
        let time = match state.compare(moment) {
            None => moment.wall_ns,
            Some(_) => state.anchor.wall_ns.saturating_add(moment.uptime_ns.saturating_sub(state.anchor.uptime_ns)),
        };
        ReceiptTime::new(time)
    }

    /// Takes the time of now as right. Returns the step that this confirms, if there was one.
    pub fn confirm(&self) -> Option<Stepped> {
        let moment = (self.read)();
        let mut state = self.state();
        let stepped = state.compare(moment);
        *state = State { anchor: moment, stepped: None };
        stepped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn compare(&mut self, moment: Moment) -> Option<Stepped> {
        if self.stepped.is_some() {
            return self.stepped;
        }
        let elapsed = moment.uptime_ns.saturating_sub(self.anchor.uptime_ns);
        let by = i128::from(moment.wall_ns) - i128::from(self.anchor.wall_ns) - i128::from(elapsed);
        if by.abs() > STEP_MAX_NS {
            let clamped = by.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
            self.stepped = Some(Stepped { by_ns: i64::try_from(clamped).unwrap_or(i64::MAX) });
        } else if elapsed > COMPARED_FOR_NS {
            self.anchor = moment;
        }
        self.stepped
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_800_000_000 * SECOND;

    /// A clock and its two hands, in nanoseconds since the start.
    fn clock() -> (Clock, impl Fn(u64, u64)) {
        let hands = Arc::new((AtomicU64::new(START), AtomicU64::new(0)));
        let read = Arc::clone(&hands);
        let clock = Clock::reading(move || Moment {
            wall_ns: read.0.load(Ordering::Relaxed),
            uptime_ns: read.1.load(Ordering::Relaxed),
        });
        (clock, move |wall, uptime| {
            hands.0.store(wall, Ordering::Relaxed);
            hands.1.store(uptime, Ordering::Relaxed);
        })
    }

    #[test]
    fn a_step_is_refused_until_confirmed() {
        let (clock, set) = clock();
        set(START + 15 * SECOND, 10 * SECOND);
        assert_eq!(clock.now(), Ok(ReceiptTime::new(START + 15 * SECOND)));
        set(START + 5 * SECOND - 1, 10 * SECOND);
        let stepped = Stepped { by_ns: -5_000_000_001 };
        assert_eq!(clock.now(), Err(stepped));
        // Also when it steps back, for records may have been seen by then.
        set(START + 20 * SECOND, 20 * SECOND);
        assert_eq!(clock.now(), Err(stepped));
        assert_eq!(clock.believed(), ReceiptTime::new(START + 20 * SECOND));
        assert_eq!(clock.confirm(), Some(stepped));
        assert_eq!(clock.now(), Ok(ReceiptTime::new(START + 20 * SECOND)));
        assert_eq!(clock.confirm(), None);
    }

    #[test]
    fn slewing_is_no_step_however_long_it_goes_on() {
        let (clock, set) = clock();
        for minute in 1..60 * 24 * 7_u64 {
            let elapsed = minute * 60 * SECOND;
            set(START + elapsed + elapsed / 2_000, elapsed);
            assert!(clock.now().is_ok(), "minute {minute}");
        }
    }

    #[test]
    fn steps_that_add_up_are_one() {
        let (clock, set) = clock();
        set(START + 4 * SECOND, 0);
        assert!(clock.now().is_ok());
        set(START + 8 * SECOND, 0);
        assert!(clock.now().is_err());
    }
}
