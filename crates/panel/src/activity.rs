//! What is written, and the record that is made of it.

use std::{net::IpAddr, time::SystemTime};

use sigillo_client::unix_nanos;
use sigillo_proto::{
    record::Fields,
    v1::{self, any_value},
};

use crate::PanelError;

/// Shape of the records, by OpenTelemetry's word.
const EVENT_NAME: &str = "panel.activity";

/// What was done in a panel. Short texts have at most 4,096 bytes; the whole has at most 1 MiB.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Activity {
    /// What was done, a dotted verb: `server.reboot`. Must be there.
    pub action: String,
    /// Kind and id of what it was done to: `server`, `srv-17`.
    pub target: Option<(String, String)>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Who did it.
    pub actor: Option<Actor>,
    /// Who acted in the actor's name, when somebody did: support staff logged in as a customer.
    pub impersonator: Option<Actor>,
    /// The customer concerned: a tenant's name as the journal knows it. Empty: the panel's home tenant.
    pub customer: String,
    /// Session in which it was done.
    pub session: String,
    /// Address from which it was done.
    pub client_address: Option<IpAddr>,
    /// The client's own description of itself.
    pub user_agent: String,
    /// When it happened. `None`: now.
    pub time: Option<SystemTime>,
    /// How severe it is. `None`: [`Severity::Info`].
    pub severity: Option<Severity>,
    /// The words for people.
    pub message: String,
    /// Further facts, at most 1,024, in this order. An id of the panel's own makes an activity known again.
    pub attributes: Vec<(String, Value)>,
}

impl Activity {
    /// Nothing but what was done.
    pub fn new(action: impl Into<String>) -> Self {
        Self { action: action.into(), ..Self::default() }
    }

    /// The same, done to something.
    #[must_use]
    pub fn on(self, kind: impl Into<String>, id: impl Into<String>) -> Self {
        Self { target: Some((kind.into(), id.into())), ..self }
    }
}

/// A person or a thing that acts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actor {
    /// Stable id within the panel.
    pub id: String,
    /// Name for people to read.
    pub name: String,
    /// What it is.
    pub kind: ActorKind,
}

/// What an actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActorKind {
    /// Not known.
    #[default]
    Unspecified,
    /// A customer of the provider or one of the customer's users.
    Customer,
    /// A member of the provider's staff.
    Staff,
    /// A program acting on its own.
    Service,
    /// An account of an operating system.
    System,
}

/// How an act ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was tried and failed.
    Failure,
    /// Refused by a rule before it was tried.
    Denied,
    /// Begun; its end is another activity.
    Started,
}

/// How severe it is, by OpenTelemetry's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Of use to who follows each step.
    Debug = 5,
    /// The usual.
    Info = 9,
    /// Unusual and in order.
    Notice = 10,
    /// Somebody should look.
    Warn = 13,
    /// It went wrong.
    Error = 17,
    /// Much depends on it.
    Critical = 18,
}

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Any number.
    Double(f64),
    /// Yes or no.
    Bool(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl Activity {
    /// The record, within all limits.
    pub(crate) fn fields(self, host: &str, program: &str) -> Result<Fields, PanelError> {
        if self.action.is_empty() {
            return Err(PanelError::Activity("`action` is empty: say what was done, such as server.reboot".into()));
        }
        let now = unix_nanos();
        let time = match self.time.map(|time| time.duration_since(SystemTime::UNIX_EPOCH)) {
            None => now,
            Some(since) => since
                .ok()
                .and_then(|since| u64::try_from(since.as_nanos()).ok())
                .filter(|nanos| *nanos > 0)
                .ok_or_else(|| PanelError::Activity("`time` is before 1970, or after 2554".into()))?,
        };
        let core = v1::CorePart {
            event_time_unix_nano: time,
            observed_time_unix_nano: now,
            severity_number: self.severity.unwrap_or(Severity::Info) as u32,
            event_name: EVENT_NAME.into(),
            action: self.action,
            target: self.target.map(|(r#type, id)| v1::Target { r#type, id }),
            outcome: outcome(self.outcome).into(),
            host: host.into(),
            tenant: self.customer,
            program: program.into(),
            ..v1::CorePart::default()
        };
        let personal = v1::PersonalPart {
            actor: self.actor.map(actor),
            impersonator: self.impersonator.map(actor),
            client_address: self.client_address.map(|address| address.to_string()).unwrap_or_default(),
            session: self.session,
            user_agent: self.user_agent,
        };
        let content = v1::ContentPart {
            body: Some(self.message).filter(|text| !text.is_empty()).map(|text| value(Value::Text(text))),
            attributes: self.attributes.into_iter().map(pair).collect(),
            ..v1::ContentPart::default()
        };
        let fields = Fields {
            core: Some(core),
            personal: Some(personal).filter(|personal| *personal != v1::PersonalPart::default()),
            content: Some(content).filter(|content| *content != v1::ContentPart::default()),
            unreadable: Vec::new(),
        };
        fields.check_limits().map_err(|error| PanelError::Activity(error.to_string()))?;
        Ok(fields)
    }
}

fn outcome(outcome: Option<Outcome>) -> v1::Outcome {
    outcome.map_or(v1::Outcome::Unspecified, |outcome| match outcome {
        Outcome::Success => v1::Outcome::Success,
        Outcome::Failure => v1::Outcome::Failure,
        Outcome::Denied => v1::Outcome::Denied,
        Outcome::Started => v1::Outcome::Started,
    })
}

fn actor(actor: Actor) -> v1::Actor {
    let kind = match actor.kind {
        ActorKind::Unspecified => v1::ActorKind::Unspecified,
        ActorKind::Customer => v1::ActorKind::Customer,
        ActorKind::Staff => v1::ActorKind::Staff,
        ActorKind::Service => v1::ActorKind::Service,
        ActorKind::System => v1::ActorKind::System,
    };
    v1::Actor { id: actor.id, name: actor.name, kind: kind.into() }
}

pub(crate) fn pair((key, text): (String, Value)) -> v1::KeyValue {
    v1::KeyValue { key, value: Some(value(text)) }
}

fn value(value: Value) -> v1::AnyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Int(number) => any_value::Value::IntValue(number),
        Value::Double(number) => any_value::Value::DoubleValue(number),
        Value::Bool(yes) => any_value::Value::BoolValue(yes),
    };
    v1::AnyValue { value: Some(value) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_breaks_a_rule_is_refused_and_named() {
        let refused = |activity: Activity| activity.fields("h", "p").unwrap_err().to_string();
        assert!(refused(Activity::default()).contains("`action`"));
        let session = Activity { session: "x".repeat(4_097), ..Activity::new("a") };
        assert!(refused(session).contains("session"));
        let attributes = vec![("a".into(), Value::Int(1)); 1_025];
        assert!(refused(Activity { attributes, ..Activity::new("a") }).contains("attributes"));
        let time = SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(1));
        assert!(refused(Activity { time, ..Activity::new("a") }).contains("`time`"));
    }

    #[test]
    fn parts_without_content_are_absent() {
        let fields = Activity::new("server.reboot").fields("h", "p").unwrap();
        assert_eq!((fields.personal, fields.content), (None, None));
        let core = fields.core.unwrap();
        assert_eq!((core.severity_number, core.event_time_unix_nano), (9, core.observed_time_unix_nano));
    }
}
