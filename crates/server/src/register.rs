//! Numbers of classes stand in envelopes for ever. The journal itself remembers which were given to which name: each start writes
//! down all that ever were, and is held to what the one before wrote.

use prost::Message;
use sigillo_journal::Reader;
use sigillo_model::{block::Inflater, class::FIRST_CONFIGURED};
use sigillo_proto::v1::{self, KeyValue, KeyValueList, any_value::Value};

use crate::{
    config::{ClassNames, Settings},
    error::ServerError,
    own::{self, Event},
};

/// Name of the own record that holds the register.
const LOADED: &str = "config.loaded";
/// Its attribute.
const CLASSES: &str = "classes";

/// The classes of the configuration and all that ever had a number, or what contradicts.
pub(crate) fn merge(configured: &ClassNames, mut known: ClassNames) -> Result<ClassNames, ServerError> {
    for (number, name) in configured {
        if let Some(before) = known.insert(*number, name.clone())
            && before != *name
        {
            return Err(ServerError::ClassNumber { number: *number, name: name.clone(), before });
        }
    }
    Ok(known)
}

/// What the newest register in the journal says. Blocks.
pub(crate) fn read(reader: &Reader) -> Result<ClassNames, ServerError> {
    let mut inflater = Inflater::default();
    for stored in reader.source_entries_newest_first(own::source()) {
        let stored = stored?;
        let entry = stored.entry()?;
        // The chain was checked by whoever opened the journal; an own block that can't be read is one this version doesn't know.
        let Ok(block) = entry.block(&mut inflater) else { continue };
        let newest = block
            .records()
            .filter(|record| {
                let core = record.core.and_then(|core| v1::CorePart::decode(core).ok());
                core.is_some_and(|core| core.event_name == LOADED)
            })
            .filter_map(|record| v1::ContentPart::decode(record.content?).ok())
            .last();
        if let Some(content) = newest {
            return Ok(names(&content));
        }
    }
    Ok(ClassNames::new())
}

/// The own record that a configuration is in effect.
pub(crate) fn loaded(settings: &Settings, known: &ClassNames) -> Event {
    let configured = known.iter().filter(|(number, _)| **number >= FIRST_CONFIGURED);
    let pair = |(number, name): (&u16, &String)| KeyValue {
        key: number.to_string(),
        value: Some(v1::AnyValue { value: Some(Value::StringValue(name.clone())) }),
    };
    let classes = KeyValueList { values: configured.map(pair).collect() };
    Event::new(LOADED)
        .body("the server works by this configuration")
        .text("config_sha256", hex::encode(settings.hash))
        .text("version", env!("CARGO_PKG_VERSION"))
        .number("sources", settings.sources.len())
        .number("readers", settings.readers.len())
        .number("tenants", settings.tenants.len())
        .with("open_tenants", Value::BoolValue(settings.open_tenants))
        .with(CLASSES, Value::KvlistValue(classes))
}

fn names(content: &v1::ContentPart) -> ClassNames {
    let classes = content.attributes.iter().find(|attribute| attribute.key == CLASSES);
    let Some(Value::KvlistValue(list)) = classes.and_then(|classes| classes.value.as_ref()?.value.as_ref()) else {
        return ClassNames::new();
    };
    let name = |pair: &KeyValue| match &pair.value.as_ref()?.value {
        Some(Value::StringValue(name)) => Some((pair.key.parse().ok()?, name.clone())),
        _ => None,
    };
    list.values.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(pairs: &[(u16, &str)]) -> ClassNames {
        pairs.iter().map(|(number, name)| (*number, (*name).to_owned())).collect()
    }

    #[test]
    fn a_number_is_never_given_to_another_name() {
        let known = classes(&[(300, "vpn"), (301, "doors")]);
        let merged = merge(&classes(&[(300, "vpn"), (302, "switches")]), known.clone()).unwrap();
        assert_eq!(merged, classes(&[(300, "vpn"), (301, "doors"), (302, "switches")]));
        let error = merge(&classes(&[(301, "gates")]), known).unwrap_err().to_string();
        assert!(error.contains("\"gates\" has number 301, which the journal knows as \"doors\""), "{error}");
    }
}
