//! What may happen to a site in the middle of its load.

use std::{fmt, time::Duration};

use rand::Rng;
use rand_chacha::ChaCha12Rng;

use crate::wire::Flow;

/// One of the two machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Agent,
    Server,
}

/// What happens. What it breaks stays broken until a later act, or the end of the trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Act {
    /// kill -9; with `power`, what was not synced is gone too.
    Kill {
        side: Side,
        power: bool,
    },
    /// Both at once.
    KillBoth {
        power: bool,
    },
    /// Asked to stop, in good order.
    Stop(Side),
    /// Started, if it does not run.
    Start(Side),
    /// Started and killed after so long, if it does not run.
    StartAndKill(Side, Duration),
    Link(Flow),
    /// So many bytes may be written to its disk from now on.
    Room(Side, Option<u32>),
    /// Its wall clock steps, milliseconds.
    Clock(Side, i64),
}

/// Latest kill after a start began.
const KILL_AT_START_MAX: Duration = Duration::from_millis(120);
/// Most room that a full disk still has.
const ROOM_MAX: u32 = 1 << 20;
/// Most that a clock steps, milliseconds.
const STEP_MAX_MS: i64 = 3_600_000;

impl Act {
    /// Any.
    pub(super) fn any(random: &mut ChaCha12Rng) -> Self {
        let side = if random.random_bool(0.5) { Side::Agent } else { Side::Server };
        match random.random_range(0..20) {
            0..4 => Self::Kill { side, power: false },
            4..6 => Self::Kill { side, power: true },
            6 => Self::KillBoth { power: random.random_bool(0.5) },
            7 => Self::Stop(side),
            8..11 => Self::Start(side),
            11 => Self::StartAndKill(side, random.random_range(Duration::ZERO..KILL_AT_START_MAX)),
            12..15 => Self::Link([Flow::Open, Flow::Stalled, Flow::StalledBack, Flow::Cut][random.random_range(0..4)]),
            15..18 => Self::Room(side, random.random_bool(0.6).then(|| random.random_range(0..ROOM_MAX))),
            _ => Self::Clock(side, random.random_range(-STEP_MAX_MS..STEP_MAX_MS)),
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |side: &Side| if *side == Side::Agent { "agent" } else { "server" };
        match self {
            Self::Kill { side, power: false } => write!(f, "kill {}", name(side)),
            Self::Kill { side, power: true } => write!(f, "power cut of {}", name(side)),
            Self::KillBoth { power: false } => f.write_str("kill both"),
            Self::KillBoth { power: true } => f.write_str("power cut of both"),
            Self::Stop(side) => write!(f, "stop {}", name(side)),
            Self::Start(side) => write!(f, "start {}", name(side)),
            Self::StartAndKill(side, after) => write!(f, "start and kill {} after {after:?}", name(side)),
            Self::Link(flow) => write!(f, "link {flow:?}"),
            Self::Room(side, Some(bytes)) => write!(f, "{bytes} bytes left for {}", name(side)),
            Self::Room(side, None) => write!(f, "room for {}", name(side)),
            Self::Clock(side, ms) => write!(f, "clock of {} steps by {ms} ms", name(side)),
        }
    }
}
