//! What records say about their own sender: that something was lost before it became a record, that the sender stops.
//!
//! Every record of every source passes here, so its name alone is looked at; the few that bear one of these names are decoded.

use serde::{Deserialize, Serialize};
use sigillo_model::record::RecordRef;
use sigillo_proto::{
    record::Fields,
    v1::{KeyValue, any_value::Value},
};

/// Event name of a record with which a sender declares a loss.
const LOSS: &str = "agent.loss";
/// Event name of a sender's first record since it was started,
const STARTED: &str = "agent.started";
/// and of its last.
pub(super) const STOPPED: &str = "agent.stopped";

/// What the records of a batch declare, taken together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Declared {
    /// Records that declare a loss.
    pub(super) losses: u64,
    /// Lines that they count together.
    pub(super) lines: u64,
    /// Bytes, likewise.
    pub(super) bytes: u64,
    /// The newest record about it says that the sender stops.
    #[serde(skip)]
    pub(super) stopped: bool,
}

impl Declared {
    /// Takes in a record, which has this event name.
    pub(crate) fn note(&mut self, event_name: &[u8], record: RecordRef<'_>) {
        if event_name == LOSS.as_bytes() {
            let content = Fields::decode(record).content.unwrap_or_default();
            self.losses += 1;
            self.lines = self.lines.saturating_add(number(&content.attributes, "lines"));
            self.bytes = self.bytes.saturating_add(number(&content.attributes, "bytes"));
        } else if event_name == STOPPED.as_bytes() {
            self.stopped = true;
        } else if event_name == STARTED.as_bytes() {
            self.stopped = false;
        }
    }

    /// Whether nothing is declared, as in nearly every batch.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

fn number(attributes: &[KeyValue], key: &str) -> u64 {
    let attribute = attributes.iter().find(|attribute| attribute.key == key);
    match attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::IntValue(number)) => u64::try_from(*number).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use sigillo_proto::v1;

    use super::*;

    #[test]
    fn losses_are_counted_with_what_they_say() {
        let attribute = |key: &str, number| KeyValue {
            key: key.into(),
            value: Some(v1::AnyValue { value: Some(Value::IntValue(number)) }),
        };
        let loss = |attributes| {
            let content = v1::ContentPart { attributes, ..Default::default() };
            Fields { content: Some(content), ..Fields::default() }.encode()
        };
        let mut declared = Declared::default();
        declared.note(b"agent.loss", loss(vec![attribute("lines", 7), attribute("bytes", 700)]).as_ref());
        declared.note(b"agent.loss", loss(vec![attribute("lines", i64::MAX)]).as_ref());
        declared.note(b"agent.loss", loss(vec![attribute("lines", -1), attribute("bytes", 1)]).as_ref());
        declared.note(b"agent.losses", loss(vec![attribute("lines", 7)]).as_ref());
        let lines = i64::MAX.unsigned_abs() + 7;
        assert_eq!(declared, Declared { losses: 3, lines, bytes: 701, stopped: false });
    }

    #[test]
    fn the_last_word_about_stopping_counts() {
        let record = sigillo_model::record::Record::default();
        let mut declared = Declared::default();
        declared.note(b"agent.stopped", record.as_ref());
        assert!(declared.stopped && !declared.is_nothing());
        declared.note(b"agent.started", record.as_ref());
        assert!(declared.is_nothing());
    }
}
