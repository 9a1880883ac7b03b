//! Records of the agent itself, in its own chain: what no line says.

use sigillo_model::record::Record;
use sigillo_proto::v1::Outcome;

use crate::{
    profile::facts::{
        Facts,
        severity::{INFO, WARN},
    },
    record::Maker,
};

const PROGRAM: &str = "sigillo-agent";

/// What was lost of a stream.
#[derive(Debug, Default, Clone)]
pub(crate) struct Loss<'a> {
    /// Path, unit or channel.
    pub(crate) stream: &'a str,
    /// Why, in words.
    pub(crate) reason: &'a str,
    /// Where it begins and ends, as the source counts: offsets, cursors, serials, sequences. May be empty.
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    /// How much it is, where that is known.
    pub(crate) lines: Option<u64>,
    pub(crate) bytes: Option<u64>,
}

/// Makes the agent's own records.
#[derive(Debug, Clone)]
pub(crate) struct Declarer {
    maker: Maker,
}

impl Declarer {
    pub(crate) fn new(maker: &Maker) -> Self {
        Self { maker: maker.of("agent") }
    }

    /// The agent begins to read its sources.
    pub(crate) fn started(&self, observed_unix_nano: u64) -> Record {
        let facts = Facts::new("agent.started", "agent.started", Outcome::Success).severity(INFO);
        let facts = facts.with("version", env!("CARGO_PKG_VERSION"));
        self.record(facts, observed_unix_nano)
    }

    /// The agent stops reading, on purpose.
    pub(crate) fn stopped(&self, reason: &str, observed_unix_nano: u64) -> Record {
        let facts = Facts::new("agent.stopped", "agent.stopped", Outcome::Success).severity(INFO);
        self.record(facts.with("reason", reason), observed_unix_nano)
    }

    /// Something was seen to be gone that can't be read again.
    pub(crate) fn loss(&self, loss: &Loss<'_>, observed_unix_nano: u64) -> Record {
        let number = |count: Option<u64>| count.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        let facts = Facts::new("agent.loss", "agent.loss", Outcome::Failure)
            .on("stream", loss.stream)
            .severity(WARN)
            .with("reason", loss.reason)
            .with("from", loss.from)
            .with("to", loss.to)
            .with_number("lines", number(loss.lines))
            .with_number("bytes", number(loss.bytes));
        self.record(facts, observed_unix_nano)
    }

    fn record(&self, facts: Facts<'_>, observed_unix_nano: u64) -> Record {
        self.maker.own(PROGRAM, facts, observed_unix_nano)
    }
}
