//! How each witness does, told once per change: the metrics always, the journal when it begins to fail and when it is well again.

use crate::{log::witnesses::Failure, own::Event};

use super::state::unix_now;

/// So many answers in a row and a failing witness is well again: one that comes and goes does not fill the journal.
const WELL_AFTER: u32 = 3;
/// So many times in a row a witness may not be there before it is told: a restart of it is no event.
const ABSENT_AFTER: u32 = 2;

/// One witness.
#[derive(Debug)]
pub(crate) struct WitnessHealth {
    name: String,
    /// It has cosigned since the start: what it says from now on is its own affair.
    pub(crate) greeted: bool,
    /// What it is failing with, as the journal knows it.
    failing: Option<&'static str>,
    good: u32,
    absent: u32,
}

impl WitnessHealth {
    /// One of which nothing is known.
    pub(crate) fn new(name: String) -> Self {
        metrics::gauge!("sigillo_witness_last_success_seconds", "witness" => name.clone()).set(0);
        Self { name, greeted: false, failing: None, good: 0, absent: 0 }
    }

    /// Its name in the trust file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// It cosigned. What is to be recorded, if that is news.
    pub(crate) fn cosigned(&mut self) -> Option<Event> {
        metrics::gauge!("sigillo_witness_last_success_seconds", "witness" => self.name.clone()).set(seconds());
        self.greeted = true;
        self.absent = 0;
        self.good = self.good.saturating_add(1);
        if self.failing.is_none() || self.good < WELL_AFTER {
            return None;
        }
        self.failing = None;
        tracing::info!(witness = self.name, "the witness cosigns again");
        let body = format!("the witness {} cosigns again", self.name);
        Some(Event::new("witness.recovered").target("witness", &self.name).body(body))
    }

    /// It did not. What is to be recorded, if that is news.
    pub(crate) fn failed(&mut self, failure: &Failure) -> Option<Event> {
        let kind = failure.kind();
        metrics::gauge!("sigillo_witness_last_failure_seconds", "witness" => self.name.clone()).set(seconds());
        metrics::counter!("sigillo_witness_failures_total", "witness" => self.name.clone(), "kind" => kind)
            .increment(1);
        self.good = 0;
        self.absent = if failure.is_absence() { self.absent.saturating_add(1) } else { 0 };
        let passing = failure.is_absence() && self.absent < ABSENT_AFTER;
        if passing || self.failing == Some(kind) {
            tracing::debug!(witness = self.name, %failure, "no cosignature");
            return None;
        }
        self.failing = Some(kind);
        tracing::warn!(witness = self.name, %failure, "the witness does not cosign");
        let body = format!("the witness {} does not cosign: {failure}", self.name);
        Some(
            Event::new("witness.failing")
                .warning()
                .target("witness", &self.name)
                .body(body)
                .text("failure", kind)
                .text("detail", failure.to_string()),
        )
    }
}

/// Seconds since 1970, as a gauge takes them.
#[expect(clippy::cast_precision_loss, reason = "exact for millions of years")]
fn seconds() -> f64 {
    unix_now() as f64
}

#[cfg(test)]
mod tests {
    use sigillo_http::HttpError;

    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let mut health = WitnessHealth::new("w".into());
        let absent = Failure::Http(HttpError::Timeout { host: "w".into(), ms: 1 });
        let lie = Failure::OtherHistory { size: 7 };
        assert!(health.failed(&absent).is_none(), "once is nothing");
        assert!(health.failed(&absent).is_some());
        assert!(health.failed(&absent).is_none());
        assert!(health.failed(&lie).is_some(), "a lie is told at once");
        assert!(health.failed(&lie).is_none());
        for _ in 1..WELL_AFTER {
            assert!(health.cosigned().is_none());
        }
        assert!(health.cosigned().is_some());
        assert!(health.cosigned().is_none());
        // Coming and going: no event each time.
        for _ in 0..10 {
            assert!(health.failed(&absent).is_none());
            assert!(health.cosigned().is_none());
        }
    }
}
