//! From the wire's filter to the search's, with names resolved and bounds kept; and its account in the record of a read.

use prost::Message;
use serde_json::{Map, Value, json};
use sigillo_model::ids::{SourceId, TenantId};
use sigillo_proto::v1;
use sigillo_query::Filter;
use tonic::Status;

use crate::identity::Directory;

/// Longest filter, bytes on the wire.
const FILTER_MAX_BYTES: usize = 64 << 10;

/// Resolves and checks a filter.
pub(crate) fn filter(wire: &v1::Filter, directory: &Directory) -> Result<Filter, Status> {
    let bytes = wire.encoded_len();
    if bytes > FILTER_MAX_BYTES {
        return Err(invalid(format!(
            "the filter has {bytes} bytes, at most {FILTER_MAX_BYTES} are taken: ask in parts"
        )));
    }
    if wire.min_severity > 24 {
        return Err(invalid(format!("severities go from 1 to 24, min_severity is {}", wire.min_severity)));
    }
    for (name, since, until) in [
        ("event time", wire.since_unix_nano, wire.until_unix_nano),
        ("receipt time", wire.received_since_unix_nano, wire.received_until_unix_nano),
    ] {
        if since.zip(until).is_some_and(|(since, until)| since > until) {
            return Err(invalid(format!("the filter's {name} ends before it begins")));
        }
    }
    let class = |name: &String| directory.class(name).ok_or_else(|| invalid(format!("there is no class {name:?}")));
    Ok(Filter {
        since: wire.since_unix_nano,
        until: wire.until_unix_nano,
        received_since: wire.received_since_unix_nano,
        received_until: wire.received_until_unix_nano,
        classes: wire.classes.iter().map(class).collect::<Result<_, _>>()?,
        hosts: wire.hosts.clone(),
        tenants: wire.tenants.iter().map(|name| TenantId::from_name(name)).collect(),
        sources: wire.sources.iter().map(|name| SourceId::from_name(name)).collect(),
        actors: wire.actors.clone(),
        actions: wire.actions.clone(),
        targets: wire.targets.clone(),
        min_severity: wire.min_severity,
        contains: wire.contains.to_vec(),
    })
}

/// The filter as JSON, fields that let everything through left out.
pub(crate) fn account(wire: &v1::Filter) -> String {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::Array(values) => values.is_empty(),
            Value::Number(number) => number.as_u64() == Some(0),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        if !empty {
            fields.insert(name.to_owned(), value);
        }
    };
    // As text where they are given, so that 0 is not taken for absent.
    let time = |time: Option<u64>| time.map(|time| time.to_string());
    put("since_unix_nano", json!(time(wire.since_unix_nano)));
    put("until_unix_nano", json!(time(wire.until_unix_nano)));
    put("received_since_unix_nano", json!(time(wire.received_since_unix_nano)));
    put("received_until_unix_nano", json!(time(wire.received_until_unix_nano)));
    put("classes", json!(wire.classes));
    put("hosts", json!(wire.hosts));
    put("tenants", json!(wire.tenants));
    put("actors", json!(wire.actors));
    put("actions", json!(wire.actions));
    put("targets", json!(wire.targets));
    put("sources", json!(wire.sources));
    put("min_severity", json!(wire.min_severity));
    match std::str::from_utf8(&wire.contains) {
        Ok(text) => put("contains", json!(text)),
        Err(_) => put("contains_hex", json!(hex::encode(&wire.contains))),
    }
    Value::Object(fields).to_string()
}

fn invalid(problem: String) -> Status {
    Status::invalid_argument(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_names_what_was_asked_and_nothing_else() {
        assert_eq!(account(&v1::Filter::default()), "{}");
        let filter = v1::Filter {
            since_unix_nano: Some(0),
            hosts: vec!["web-1".into()],
            contains: b"a\"b".as_slice().into(),
            ..Default::default()
        };
        assert_eq!(account(&filter), r#"{"since_unix_nano":"0","hosts":["web-1"],"contains":"a\"b"}"#);
        let binary = v1::Filter { contains: vec![0xff].into(), ..Default::default() };
        assert_eq!(account(&binary), r#"{"contains_hex":"ff"}"#);
    }
}
