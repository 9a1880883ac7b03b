//! What a line says, in the words of the audit core.

use std::{borrow::Cow, net::IpAddr};

use sigillo_proto::v1::{ActorKind, AnyValue, KeyValue, Outcome, any_value::Value};

use crate::record::short;

/// Attributes of one record that a profile gives at most.
const ATTRIBUTES_MAX: usize = 64;

/// A person or thing that acts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Person<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) name: Cow<'a, str>,
    pub(crate) kind: ActorKind,
}

/// What a record says. Empty or 0 where the line says nothing. All texts are cut to what a short field may hold.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Facts<'a> {
    pub(crate) event_name: Cow<'a, str>,
    pub(crate) action: Cow<'a, str>,
    pub(crate) target_type: Cow<'a, str>,
    pub(crate) target_id: Cow<'a, str>,
    pub(crate) outcome: Outcome,
    pub(crate) actor: Option<Person<'a>>,
    /// Who acted in the actor's name.
    pub(crate) impersonator: Option<Person<'a>>,
    /// An IP address.
    pub(crate) client_address: Cow<'a, str>,
    pub(crate) session: Cow<'a, str>,
    pub(crate) user_agent: Cow<'a, str>,
    /// Nanoseconds since the epoch. 0: the header's time counts.
    pub(crate) event_time_unix_nano: u64,
    /// OpenTelemetry's number. 0: the header's severity counts.
    pub(crate) severity_number: u32,
    /// As the source wrote it.
    pub(crate) severity_text: Cow<'a, str>,
    /// Whom it concerns, as the source claims it. Empty: the stream's tenant.
    pub(crate) tenant: Cow<'a, str>,
    /// The words for people, of any length, where the line itself is not made for them.
    pub(crate) message: Cow<'a, str>,
    pub(crate) attributes: Vec<KeyValue>,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(event_name: &'static str, action: &'static str, outcome: Outcome) -> Self {
        Self { event_name: event_name.into(), action: action.into(), outcome, ..Self::default() }
    }

    /// The same, free of the text that it was read from.
    pub(crate) fn into_owned<'b>(self) -> Facts<'b> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let own_person = |person: Person<'_>| Person { id: own(person.id), name: own(person.name), kind: person.kind };
        Facts {
            event_name: own(self.event_name),
            action: own(self.action),
            target_type: own(self.target_type),
            target_id: own(self.target_id),
            outcome: self.outcome,
            actor: self.actor.map(own_person),
            impersonator: self.impersonator.map(own_person),
            client_address: own(self.client_address),
            session: own(self.session),
            user_agent: own(self.user_agent),
            event_time_unix_nano: self.event_time_unix_nano,
            severity_number: self.severity_number,
            severity_text: own(self.severity_text),
            tenant: own(self.tenant),
            message: own(self.message),
            attributes: self.attributes,
        }
    }

    pub(crate) fn on(mut self, target_type: &'a str, target_id: &'a str) -> Self {
        (self.target_type, self.target_id) = (target_type.into(), target_id.into());
        self
    }

    /// By an account of the operating system, or nobody if the name is empty.
    pub(crate) fn by_account(self, name: &'a str) -> Self {
        self.by(name, ActorKind::System)
    }

    pub(crate) fn by(mut self, name: impl Into<Cow<'a, str>>, kind: ActorKind) -> Self {
        let name = name.into();
        self.actor = (!name.is_empty()).then(|| Person { name, kind, ..Person::default() });
        self
    }

    /// From an address; a name of a host becomes the attribute `client_host`.
    pub(crate) fn from(mut self, address: &'a str) -> Self {
        let address = address.trim_start_matches('[').trim_end_matches(']');
        match address.parse::<IpAddr>() {
            Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
                // The same client by the same text, whatever socket it came through.
                let tail = address.rsplit(':').next().filter(|tail| tail.contains('.'));
                self.client_address = tail.map_or_else(|| v6.to_canonical().to_string().into(), Cow::Borrowed);
                self
            }
            Ok(_) => {
                self.client_address = address.into();
                self
            }
            Err(_) => self.with("client_host", address),
        }
    }

    pub(crate) fn in_session(mut self, session: &'a str) -> Self {
        self.session = session.into();
        self
    }

    pub(crate) fn at(mut self, unix_nano: u64) -> Self {
        self.event_time_unix_nano = unix_nano;
        self
    }

    /// With a severity that the line does not spell out.
    pub(crate) fn severity(mut self, number: u32) -> Self {
        self.severity_number = number;
        self
    }

    /// With an attribute, unless its value is empty.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.push(key, value);
        self
    }

    pub(crate) fn with_number(mut self, key: &str, value: Option<i64>) -> Self {
        if let Some(value) = value {
            self.push_value(key, Value::IntValue(value));
        }
        self
    }

    pub(crate) fn push(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.push_value(key, Value::StringValue(short(value)));
        }
    }

    fn push_value(&mut self, key: &str, value: Value) {
        if self.attributes.len() < ATTRIBUTES_MAX {
            self.attributes.push(KeyValue { key: short(key), value: Some(AnyValue { value: Some(value) }) });
        }
    }
}

/// OpenTelemetry's numbers of the severities that profiles give.
pub(crate) mod severity {
    pub(crate) const INFO: u32 = 9;
    pub(crate) const WARN: u32 = 13;
    pub(crate) const ERROR: u32 = 17;
    pub(crate) const FATAL: u32 = 21;
}
