//! One line of the socket: a JSON object. SOCKET.md documents the fields; the two change together.

use std::{borrow::Cow, net::IpAddr};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use sigillo_model::limits::FIELD_MAX_BYTES;
use sigillo_proto::{
    record::Fields,
    v1::{ActorKind, AnyValue, ArrayValue, ContentPart, KeyValue, KeyValueList, Outcome, any_value::Value as Any},
};

use crate::profile::facts::{Facts, Person};

/// Attributes that the agent adds begin with this; a sender may not use it.
const OURS: &str = "peer.";
/// The first second of year 10,000: later than any time that somebody means.
const TIME_END_NS: u64 = u64::MAX / 2;

/// What a line says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Act {
    time: Option<Time>,
    pub(super) program: String,
    event_name: String,
    action: String,
    target: Option<Target>,
    outcome: Option<Named>,
    actor: Option<Who>,
    impersonator: Option<Who>,
    #[serde(alias = "customer")]
    tenant: String,
    client_address: String,
    session: String,
    user_agent: String,
    severity: Option<Severity>,
    message: String,
    attributes: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Time {
    UnixNano(u64),
    Rfc3339(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Severity {
    Number(u32),
    Name(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    r#type: String,
    #[serde(default)]
    id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Who {
    id: String,
    name: String,
    kind: Kind,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Unspecified,
    Customer,
    Staff,
    Service,
    System,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Named {
    Success,
    Failure,
    Denied,
    Started,
}

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) process_id: Option<i32>,
    pub(super) user: u32,
    pub(super) group: u32,
}

impl Act {
    /// Reads a line; the error says what to change.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        if line.trim_ascii_start().starts_with(b"[") {
            return Err("the line is a list: send an object, with names".into());
        }
        let act: Self = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if act.action.is_empty() && act.event_name.is_empty() && act.message.is_empty() {
            return Err("the line says nothing: give `action`, `event_name` or `message`".into());
        }
        Ok(act)
    }

    /// What the record says. `tenant`: of messages that name none.
    pub(super) fn facts(&self, tenant: &str, peer: Peer) -> Result<Facts<'_>, String> {
        let (severity_number, severity_text) = self.severity()?;
        let target = self.target.as_ref().map_or(("", ""), |target| (target.r#type.as_str(), target.id.as_str()));
        let facts = Facts {
            event_name: text("event_name", &self.event_name)?,
            action: text("action", &self.action)?,
            target_type: text("target.type", target.0)?,
            target_id: text("target.id", target.1)?,
            outcome: match self.outcome {
                None => Outcome::Unspecified,
                Some(Named::Success) => Outcome::Success,
                Some(Named::Failure) => Outcome::Failure,
                Some(Named::Denied) => Outcome::Denied,
                Some(Named::Started) => Outcome::Started,
            },
            actor: self.actor.as_ref().map(Who::person).transpose()?,
            impersonator: self.impersonator.as_ref().map(Who::person).transpose()?,
            client_address: self.client_address()?,
            session: text("session", &self.session)?,
            user_agent: text("user_agent", &self.user_agent)?,
            event_time_unix_nano: self.time()?,
            severity_number,
            severity_text: severity_text.into(),
            tenant: text("tenant", if self.tenant.is_empty() { tenant } else { &self.tenant })?.into_owned().into(),
            message: self.message.as_str().into(),
            attributes: self.attributes(peer)?,
        };
        text("program", &self.program)?;
        Ok(facts)
    }

    fn time(&self) -> Result<u64, String> {
        let nanos = match &self.time {
            None => return Ok(0),
            Some(Time::UnixNano(nanos)) => Some(*nanos),
            Some(Time::Rfc3339(text)) => {
                let time = text.parse::<Timestamp>();
                let time = time.map_err(|error| format!("time: {error}: write it as 2026-11-23T12:00:00Z"))?;
                u64::try_from(time.as_nanosecond()).ok()
            }
        };
        nanos.filter(|nanos| *nanos < TIME_END_NS).ok_or_else(|| "time: it must lie between 1970 and 2262".into())
    }

    fn client_address(&self) -> Result<Cow<'_, str>, String> {
        if self.client_address.is_empty() || self.client_address.parse::<IpAddr>().is_ok() {
            return Ok(self.client_address.as_str().into());
        }
        Err("client_address: it must be an IP address, without port; put names into `attributes`".into())
    }

    /// OpenTelemetry's number, and the name that was given.
    fn severity(&self) -> Result<(u32, &str), String> {
        let name = match &self.severity {
            None => return Ok((0, "")),
            Some(Severity::Number(number)) if (1..=24).contains(number) => return Ok((*number, "")),
            Some(Severity::Number(_)) => return Err("severity: a number must be 1 to 24".into()),
            Some(Severity::Name(name)) => name,
        };
        let number = match name.as_str() {
            "trace" => 1,
            "debug" => 5,
            "info" => 9,
            "notice" => 10,
            "warn" | "warning" => 13,
            "error" | "err" => 17,
            "crit" | "critical" => 18,
            "fatal" | "emerg" => 21,
            _ => {
                return Err(
                    "severity: say trace, debug, info, notice, warn, error, crit or fatal, or a number from 1 to 24"
                        .into(),
                );
            }
        };
        Ok((number, name))
    }

    fn attributes(&self, peer: Peer) -> Result<Vec<KeyValue>, String> {
        if let Some((key, _)) = self.attributes.iter().find(|(key, _)| key.starts_with(OURS)) {
            return Err(format!("attributes: {key:?} would look like one of the agent's own: choose another name"));
        }
        let number = |name: &str, value: i64| pair(&format!("{OURS}{name}"), Some(Any::IntValue(value)));
        let process_id = peer.process_id.map(|id| number("pid", id.into()));
        let ours = process_id.into_iter().chain([number("uid", peer.user.into()), number("gid", peer.group.into())]);
        let theirs = self.attributes.iter().map(|(key, value)| KeyValue { key: key.clone(), value: converted(value) });
        let content = ContentPart { attributes: ours.chain(theirs).collect(), ..ContentPart::default() };
        let fields = Fields { content: Some(content), ..Fields::default() };
        fields.check_limits().map_err(|error| format!("attributes: {error}"))?;
        Ok(fields.content.unwrap_or_default().attributes)
    }
}

impl Who {
    fn person(&self) -> Result<Person<'_>, String> {
        let kind = match self.kind {
            Kind::Unspecified => ActorKind::Unspecified,
            Kind::Customer => ActorKind::Customer,
            Kind::Staff => ActorKind::Staff,
            Kind::Service => ActorKind::Service,
            Kind::System => ActorKind::System,
        };
        Ok(Person { id: text("actor.id", &self.id)?, name: text("actor.name", &self.name)?, kind })
    }
}

/// A short text: who sends one that is too long is told, instead of having it cut.
fn text<'a>(field: &str, text: &'a str) -> Result<Cow<'a, str>, String> {
    if text.len() > FIELD_MAX_BYTES {
        return Err(format!(
            "{field} has {} bytes, at most {FIELD_MAX_BYTES} are taken: move long text to `message`",
            text.len()
        ));
    }
    Ok(text.into())
}

fn pair(key: &str, value: Option<Any>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.map(|value| AnyValue { value: Some(value) }) }
}

/// A JSON value; `None` for null.
fn converted(value: &Value) -> Option<AnyValue> {
    let value = match value {
        Value::Null => return None,
        Value::Bool(value) => Any::BoolValue(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Any::IntValue(integer),
            (None, Some(double)) if !number.is_u64() => Any::DoubleValue(double),
            // Greater than an integer of the record can be: its digits.
            _ => Any::StringValue(number.to_string()),
        },
        Value::String(text) => Any::StringValue(text.clone()),
        Value::Array(values) => {
            let values = values.iter().map(|value| converted(value).unwrap_or_default()).collect();
            Any::ArrayValue(ArrayValue { values })
        }
        Value::Object(pairs) => {
            let values =
                pairs.iter().map(|(key, value)| KeyValue { key: key.clone(), value: converted(value) }).collect();
            Any::KvlistValue(KeyValueList { values })
        }
    };
    Some(AnyValue { value: Some(value) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: Peer = Peer { process_id: Some(7), user: 33, group: 33 };

    fn refused(line: &str) -> String {
        let act = Act::parse(line.as_bytes());
        act.and_then(|act| act.facts("", PEER).map(|facts| panic!("{facts:?}"))).unwrap_err()
    }

    #[test]
    fn all_fields_arrive() {
        let line = r#"{"time":"2026-11-23T13:00:00+01:00","event_name":"panel.act","action":"server.reboot","program":"whmcs",
            "target":{"type":"server","id":"srv-17"},"outcome":"denied","actor":{"id":"c-1","name":"M. Rossi","kind":"customer"},
            "impersonator":{"name":"a.bianchi","kind":"staff"},"customer":"acme","client_address":"2001:db8::1","session":"s1",
            "user_agent":"Firefox","severity":"warn","message":"rebooted","attributes":{"b":1,"a":[true,null,1.5,{"x":18446744073709551615}]}}"#;
        let act = Act::parse(line.as_bytes()).unwrap();
        let facts = act.facts("other", PEER).unwrap();
        let person =
            |id: &'static str, name: &'static str, kind| Some(Person { id: id.into(), name: name.into(), kind });
        assert_eq!(facts.actor, person("c-1", "M. Rossi", ActorKind::Customer));
        assert_eq!(facts.impersonator, person("", "a.bianchi", ActorKind::Staff));
        assert_eq!((facts.event_time_unix_nano, facts.outcome), (1_795_435_200_000_000_000, Outcome::Denied));
        assert_eq!((&*facts.tenant, &*facts.severity_text, facts.severity_number), ("acme", "warn", 13));
        assert_eq!((&*facts.target_type, &*facts.target_id, &*facts.message), ("server", "srv-17", "rebooted"));
        let keys: Vec<_> = facts.attributes.iter().map(|pair| pair.key.as_str()).collect();
        assert_eq!(keys, ["peer.pid", "peer.uid", "peer.gid", "b", "a"]);
        let Some(Any::ArrayValue(array)) = facts.attributes[4].value.clone().unwrap().value else { panic!() };
        assert_eq!(array.values[1].value, None);
        let Some(Any::KvlistValue(list)) = &array.values[3].value else { panic!() };
        assert_eq!(list.values[0], pair("x", Some(Any::StringValue("18446744073709551615".into()))));
    }

    #[test]
    fn little_is_enough_and_the_sockets_tenant_stands_in() {
        let act = Act::parse(br#"{"action":"login","severity":24,"time":17}"#).unwrap();
        let facts = act.facts("acme", PEER).unwrap();
        assert_eq!((&*facts.tenant, facts.event_time_unix_nano, facts.severity_number), ("acme", 17, 24));
    }

    #[test]
    fn what_can_not_be_taken_is_said() {
        let long = format!(r#"{{"action":"{}"}}"#, "x".repeat(5_000));
        let many: Vec<_> = (0..1_100).map(|number| format!(r#""{number}":1"#)).collect();
        let many = format!(r#"{{"action":"a","attributes":{{{}}}}}"#, many.join(","));
        let deep = format!(r#"{{"action":"a","attributes":{{"a":{}{}}}}}"#, "[".repeat(20), "]".repeat(20));
        for (line, word) in [
            ("", "EOF"),
            ("hello", "expected"),
            ("{}", "says nothing"),
            (r#" ["17","p","e","a"]"#, "list"),
            (r#"{"action":"a"} x"#, "trailing"),
            (r#"{"action":"a","action":"b"}"#, "duplicate"),
            (r#"{"action":"a","akteur":"b"}"#, "unknown field"),
            (r#"{"action":"a","outcome":"maybe"}"#, "unknown variant"),
            (r#"{"action":"a","actor":{"kind":"god"}}"#, "unknown variant"),
            (r#"{"action":"a","time":"yesterday"}"#, "time"),
            (r#"{"action":"a","time":"1969-01-01T00:00:00Z"}"#, "time"),
            (r#"{"action":"a","time":18446744073709551615}"#, "time"),
            (r#"{"action":"a","severity":25}"#, "severity"),
            (r#"{"action":"a","severity":"loud"}"#, "severity"),
            (r#"{"action":"a","client_address":"web-1:80"}"#, "client_address"),
            (r#"{"action":"a","attributes":{"peer.uid":0}}"#, "peer.uid"),
            (&long, "5000"),
            (&many, "1024 attributes"),
            (&deep, "nested"),
        ] {
            let error = refused(line);
            assert!(error.contains(word), "{line:.80}: {error}");
        }
        assert!(Act::parse(b"{\"action\":\"\xff\"}").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Act::parse(&bytes);
        }

        #[test]
        fn any_attributes_are_taken_or_refused(text in r#"[\[\]{}:,"a1.\-e]{0,60}"#) {
            let line = format!(r#"{{"action":"a","attributes":{text}}}"#);
            if let Ok(act) = Act::parse(line.as_bytes()) {
                let _ = act.facts("", PEER);
            }
        }
    }
}
