//! What own records say of the keys of heads: read at a start, newest first, down to the newest whole snapshot.

use std::collections::HashMap;

use prost::Message;
use sigillo_journal::{ReadError, Reader};
use sigillo_model::{
    block::Inflater,
    head::{
        SignedHead,
        statement::{KEYS_MAX, KeyLine, SourceKey, SourceKeys},
    },
    ids::{Origin, SourceId},
    record::RecordRef,
};
use sigillo_proto::v1::{self, any_value::Value};

use super::Known;
use crate::own::{self, Event};

/// Names of the own records that are read.
pub(super) const HEAD: &str = "source.head";
pub(super) const KEY: &str = "source.key";
pub(super) const KEYS: &str = "source.keys";
/// Attributes of a snapshot's records: which one of how many, from 1, and the count of own records when it was begun.
const PART: &str = "part";
const PARTS: &str = "parts";
const SNAPSHOT: &str = "snapshot";

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(super) known: HashMap<SourceId, Known>,
    /// Own records that were looked at.
    pub(super) records: u64,
}

/// One record of a snapshot: which one of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    snapshot: i64,
    number: i64,
    of: i64,
}

/// What a record told.
enum Learnt {
    /// Of one source.
    One,
    /// Of many.
    Many(Part),
}

/// Reads the own records. Blocks.
pub(crate) fn read(reader: &Reader) -> Result<History, ReadError> {
    let mut history = History::default();
    let mut inflater = Inflater::default();
    // The part of a snapshot that was met last, if all after it were met too.
    let mut met: Option<Part> = None;
    for stored in reader.source_entries_newest_first(own::source()) {
        let stored = stored?;
        let entry = stored.entry()?;
        // The chain was checked by whoever opened the journal; an own block that can't be read is one this version doesn't know.
        let Ok(block) = entry.block(&mut inflater) else { continue };
        let records: Vec<_> = block.records().collect();
        for record in records.iter().rev() {
            history.records += 1;
            let Some(part) = history.learn(reader.origin(), record) else { continue };
            let follows = match met {
                Some(after) if (after.snapshot, after.of) == (part.snapshot, part.of) => after.number - 1,
                _ => part.of,
            };
            met = (part.number == follows).then_some(part);
            if met.is_some_and(|part| part.number == 1) {
                return Ok(history);
            }
        }
    }
    Ok(history)
}

impl History {
    /// Takes what a record says of sources of which no newer one has said anything. Returns which part of a snapshot it is, if it is one.
    fn learn(&mut self, origin: &Origin, record: &RecordRef<'_>) -> Option<Part> {
        let core = v1::CorePart::decode(record.core?).ok()?;
        if ![HEAD, KEY, KEYS].contains(&core.event_name.as_str()) {
            return None;
        }
        let content = v1::ContentPart::decode(record.content?).ok()?;
        match self.statement(origin, &core.event_name, &content) {
            Some(Learnt::Many(part)) => Some(part),
            Some(Learnt::One) => None,
            None => {
                tracing::warn!(event = core.event_name, "an own record about keys of signed heads can't be read");
                None
            }
        }
    }

    fn statement(&mut self, origin: &Origin, name: &str, content: &v1::ContentPart) -> Option<Learnt> {
        let bytes = &content.original;
        match name {
            HEAD => {
                let (head, _) = SignedHead::parse(bytes).ok()?;
                let covered = Some((head.epoch, head.next));
                let known = Known { key: head.next_key, time_ns: head.time_ns, covered };
                self.known.entry(head.source).or_insert(known);
                Some(Learnt::One)
            }
            KEY => {
                let SourceKey { source, key } = SourceKey::parse(str::from_utf8(bytes).ok()?, origin).ok()?;
                self.known.entry(source).or_insert(Known { key, time_ns: 0, covered: None });
                Some(Learnt::One)
            }
            _ => {
                let keys = SourceKeys::parse(str::from_utf8(bytes).ok()?, origin).ok()?;
                for KeyLine { source, key, time_ns } in keys.lines().iter().copied() {
                    self.known.entry(source).or_insert(Known { key, time_ns, covered: None });
                }
                let number = |key| number(content, key);
                Some(Learnt::Many(Part { snapshot: number(SNAPSHOT)?, number: number(PART)?, of: number(PARTS)? }))
            }
        }
    }
}

fn number(content: &v1::ContentPart, key: &str) -> Option<i64> {
    let attribute = content.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value {
        Some(Value::IntValue(number)) => Some(number),
        _ => None,
    }
}

/// The records of a snapshot, to be written in this order; at least one. `number` tells it from others.
pub(super) fn snapshot(origin: &Origin, number: u64, known: Vec<(SourceId, Known)>) -> Vec<Event> {
    let line = |(source, known): (SourceId, Known)| KeyLine { source, key: known.key, time_ns: known.time_ns };
    let mut lines: Vec<_> = known.into_iter().map(line).collect();
    lines.sort_unstable_by_key(|line| line.source);
    let mut texts: Vec<String> =
        lines.chunks(KEYS_MAX).filter_map(|lines| Some(SourceKeys::new(lines.to_vec())?.text(origin))).collect();
    if texts.is_empty() {
        texts.extend(SourceKeys::new(Vec::new()).map(|none| none.text(origin)));
    }
    let parts = texts.len();
    let event = |(part, text): (usize, String)| {
        Event::new(KEYS)
            .body(format!("the keys of the sources' signed heads, part {part} of {parts}"))
            .original(text)
            .number(SNAPSHOT, number)
            .number(PART, part)
            .number(PARTS, parts)
    };
    (1..).zip(texts).map(event).collect()
}
