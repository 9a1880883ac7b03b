//! Tables of lines and what they mean.

use sigillo_proto::v1::{ActorKind, any_value::Value};

use crate::profile::facts::Facts;

/// What a line should say.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Expected {
    event_name: &'static str,
    action: &'static str,
    outcome: &'static str,
    target: (&'static str, &'static str),
    actor: &'static str,
    kind: ActorKind,
    client: &'static str,
    session: &'static str,
    user_agent: &'static str,
    time: u64,
    severity: u32,
    attributes: Vec<(&'static str, &'static str)>,
}

impl Expected {
    pub(crate) fn new(event_name: &'static str, action: &'static str, outcome: &'static str) -> Self {
        Self { event_name, action, outcome, ..Self::default() }
    }

    pub(crate) fn target(self, kind: &'static str, id: &'static str) -> Self {
        Self { target: (kind, id), ..self }
    }

    /// An account of the system.
    pub(crate) fn actor(self, name: &'static str) -> Self {
        self.actor_of(name, if name.is_empty() { ActorKind::Unspecified } else { ActorKind::System })
    }

    pub(crate) fn actor_of(self, actor: &'static str, kind: ActorKind) -> Self {
        Self { actor, kind, ..self }
    }

    pub(crate) fn client(self, client: &'static str) -> Self {
        Self { client, ..self }
    }

    pub(crate) fn session(self, session: &'static str) -> Self {
        Self { session, ..self }
    }

    pub(crate) fn agent(self, user_agent: &'static str) -> Self {
        Self { user_agent, ..self }
    }

    pub(crate) fn time(self, time: u64) -> Self {
        Self { time, ..self }
    }

    pub(crate) fn severity(self, severity: u32) -> Self {
        Self { severity, ..self }
    }

    pub(crate) fn with(mut self, key: &'static str, value: &'static str) -> Self {
        self.attributes.push((key, value));
        self
    }

    /// Puts the attributes that are named first, in this order.
    pub(crate) fn order(mut self, keys: &[&str]) -> Self {
        self.attributes.sort_by_key(|(key, _)| keys.iter().position(|known| known == key).unwrap_or(keys.len()));
        self
    }
}

/// Compares what each line says, all of it, with what it should say.
pub(crate) fn check<'a>(
    read: impl Fn(&'a str) -> Option<Facts<'a>>,
    table: impl IntoIterator<Item = (&'a str, Expected)>,
) {
    for (line, expected) in table {
        let facts = read(line).unwrap_or_else(|| panic!("not understood: {line}"));
        let values: Vec<_> =
            facts.attributes.iter().map(|pair| (pair.key.as_str(), shown(pair.value.as_ref()))).collect();
        let attributes: Vec<_> = expected.attributes.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        assert_eq!(values, attributes, "{line}");
        let outcome = facts.outcome.as_str_name().trim_start_matches("OUTCOME_").to_lowercase();
        let actor = facts.actor.unwrap_or_default();
        let found = (
            (&*facts.event_name, &*facts.action, outcome.trim_start_matches("unspecified")),
            (&*facts.target_type, &*facts.target_id),
            (&*actor.name, actor.kind),
            (&*facts.client_address, &*facts.session, &*facts.user_agent),
            (facts.event_time_unix_nano, facts.severity_number),
        );
        let wanted = (
            (expected.event_name, expected.action, expected.outcome),
            expected.target,
            (expected.actor, expected.kind),
            (expected.client, expected.session, expected.user_agent),
            (expected.time, expected.severity),
        );
        assert_eq!(found, wanted, "{line}");
    }
}

fn shown(value: Option<&sigillo_proto::v1::AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}
