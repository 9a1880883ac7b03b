//! How far a long command is, on standard error, if that is a terminal.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use sigillo_journal::backup::Progress;

const EVERY: Duration = Duration::from_millis(200);

/// One line that is written over. Gone when dropped.
pub(super) struct Meter {
    shown: bool,
    last: Option<Instant>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { shown: io::stderr().is_terminal(), last: None }
    }

    /// Shows how far a verification or a copy is.
    pub(super) fn show_progress(&mut self, progress: Progress) {
        match progress {
            Progress::Copying { bytes, total } => self.show("bytes", bytes, total),
            Progress::Verifying { records, total } => self.show("records", records, total),
        }
    }

    /// Shows `done` of `total` of what is done now.
    pub(super) fn show(&mut self, what: &str, done: u64, total: u64) {
        if !self.shown || self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
        // A terminal that has gone away needs no meter.
        let _ = write!(io::stderr(), "\r\x1b[K{what}: {percent} % ({done} of {total})");
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.last.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
