//! The record that declares a loss, in the words of the agent's.

use sigillo_client::{spooled::Loss, unix_nanos};
use sigillo_model::record::Record;
use sigillo_proto::{record::Fields, v1};

use crate::{
    Value,
    activity::{Severity, pair},
};

const EVENT_NAME: &str = "agent.loss";

pub(crate) fn record(loss: &Loss, host: &str, program: &str) -> Record {
    let now = unix_nanos();
    let core = v1::CorePart {
        event_time_unix_nano: now,
        observed_time_unix_nano: now,
        severity_number: Severity::Warn as u32,
        event_name: EVENT_NAME.into(),
        action: EVENT_NAME.into(),
        target: Some(v1::Target { r#type: "stream".into(), id: loss.stream.clone() }),
        outcome: v1::Outcome::Failure.into(),
        host: host.into(),
        program: program.into(),
        ..v1::CorePart::default()
    };
    let texts = [("reason", &loss.reason), ("from", &loss.from), ("to", &loss.to)];
    let numbers = [("lines", loss.records), ("bytes", loss.bytes)];
    let texts = texts.into_iter().map(|(key, text)| (key.to_owned(), Value::Text(text.clone())));
    let numbers = numbers
        .into_iter()
        .filter_map(|(key, number)| Some((key.to_owned(), Value::Int(i64::try_from(number?).unwrap_or(i64::MAX)))));
    let content =
        v1::ContentPart { attributes: texts.chain(numbers).map(pair).collect(), ..v1::ContentPart::default() };
    Fields { core: Some(core), personal: None, content: Some(content), unreadable: Vec::new() }.encode()
}
