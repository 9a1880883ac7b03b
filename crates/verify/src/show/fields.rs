//! All that a record says and all that the server added, as one JSON object: the JSON output, and the source of the verbose
//! text.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{Timestamp, fmt::temporal::DateTimePrinter, tz::TimeZone};
use serde_json::{Map, Value, json};
use sigillo_model::{
    entry::Gone,
    envelope::{Envelope, Flags},
    record::{Part, RecordRef},
};
use sigillo_proto::{
    record::Fields,
    v1::{self, any_value::Value as Any},
};

use super::severity;

/// A record of an answer, read.
#[derive(Debug)]
pub struct Shown<'a> {
    /// As the answer or the file holds it.
    pub result: &'a v1::ResultRecord,
    /// What the server added.
    pub envelope: Envelope,
    /// Its parts, read.
    pub fields: Fields,
}

impl<'a> Shown<'a> {
    /// Reads an answer; `None` if its envelope is not one.
    pub fn read(result: &'a v1::ResultRecord) -> Option<Self> {
        let envelope = Envelope::from_bytes(&result.envelope).ok()?;
        let fields = Fields::decode(parts(result));
        Some(Self { result, envelope, fields })
    }

    /// Event time, else observed time, else receipt time; nanoseconds since the epoch.
    pub fn time(&self) -> u64 {
        self.fields.time().unwrap_or(self.envelope.receipt_time.get())
    }

    /// What was erased or purged of it, if anything was.
    pub fn gone(&self) -> Option<Gone> {
        let bits = u8::try_from(self.result.gone).ok()?;
        Gone::from_bits(bits).filter(|gone| *gone != Gone::NOTHING)
    }

    /// The object. Absent and empty fields are left out; 64-bit times are RFC 3339 in UTC, exact to the nanosecond; bytes are
    /// base64 beside a text for reading, in which what is not UTF-8 is replaced.
    pub fn to_json(&self) -> Value {
        let mut out = Object::default();
        self.put_envelope(&mut out);
        if let Some(core) = &self.fields.core {
            put_core(&mut out, core);
        }
        if let Some(personal) = &self.fields.personal {
            put_personal(&mut out, personal);
        }
        if let Some(content) = &self.fields.content {
            put_content(&mut out, content);
        }
        for part in &self.fields.unreadable {
            let name = match part {
                Part::Core => "unreadable_core",
                Part::Personal => "unreadable_personal",
                Part::Content => "unreadable_content",
            };
            out.bytes(name, parts(self.result).part(*part).unwrap_or_default());
        }
        Value::Object(out.0)
    }

    fn put_envelope(&self, out: &mut Object) {
        let Envelope { flags, class, retention, seq, receipt_time, source, epoch, source_seq, .. } = self.envelope;
        out.put("sequence", seq.get());
        out.time("receipt_time", receipt_time.get());
        out.put("class", if self.result.class.is_empty() { class.to_string() } else { self.result.class.clone() });
        out.text("source", &self.result.source);
        out.put("source_id", source.to_string());
        out.text("tenant", &self.result.tenant);
        out.put("tenant_id", self.envelope.tenant.to_string());
        out.put("retention", retention.get());
        out.put("epoch", epoch.get());
        out.put("source_sequence", source_seq.get());
        out.put("source_count", self.envelope.source_count.get());
        out.put("tenant_count", self.envelope.tenant_count.get());
        let named = [
            (Flags::COMMITTED_BY_LISTENER, "committed_by_listener"),
            (Flags::AT_MOST_ONCE, "at_most_once"),
            (Flags::TENANT_REFUSED, "tenant_refused"),
        ];
        let set: Vec<&str> =
            named.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| name).collect();
        if !set.is_empty() {
            out.put("flags", set);
        }
        if let Some(gone) = self.gone() {
            out.put("erased", gone.to_string());
        }
    }
}

fn parts(result: &v1::ResultRecord) -> RecordRef<'_> {
    RecordRef { core: result.core.as_deref(), personal: result.personal.as_deref(), content: result.content.as_deref() }
}

fn put_core(out: &mut Object, core: &v1::CorePart) {
    out.time("event_time", core.event_time_unix_nano);
    out.time("observed_time", core.observed_time_unix_nano);
    out.number("severity_number", core.severity_number);
    out.text("severity", &severity::name(core.severity_number).unwrap_or_default());
    out.text("severity_text", &core.severity_text);
    out.text("event_name", &core.event_name);
    out.text("action", &core.action);
    if let Some(target) = &core.target {
        out.put("target", json!({ "type": target.r#type, "id": target.id }));
    }
    out.text("outcome", outcome(core));
    out.text("host", &core.host);
    out.text("tenant_claim", &core.tenant);
    out.text("program", &core.program);
    out.number("process_id", core.process_id);
    out.text("stream", &core.stream);
    out.text("trace_id", &hex::encode(&core.trace_id));
    out.text("span_id", &hex::encode(&core.span_id));
    out.number("trace_flags", core.trace_flags);
}

fn put_personal(out: &mut Object, personal: &v1::PersonalPart) {
    for (name, actor) in [("actor", &personal.actor), ("impersonator", &personal.impersonator)] {
        if let Some(actor) = actor {
            let mut object = Object::default();
            object.text("id", &actor.id);
            object.text("name", &actor.name);
            object.text("kind", kind(actor));
            out.put(name, object.0);
        }
    }
    out.text("client_address", &personal.client_address);
    out.text("session", &personal.session);
    out.text("user_agent", &personal.user_agent);
}

fn put_content(out: &mut Object, content: &v1::ContentPart) {
    if let Some(body) = &content.body {
        out.put("body", any(body));
    }
    if !content.attributes.is_empty() {
        out.put("attributes", pairs(&content.attributes));
    }
    if !content.original.is_empty() {
        out.bytes("original", &content.original);
    }
    out.number("dropped_attributes_count", content.dropped_attributes_count);
    if let Some(fragment) = &content.fragment {
        out.put("fragment", json!({ "index": fragment.index, "last": fragment.last }));
    }
}

/// Name of the outcome; empty if there is none.
pub fn outcome(core: &v1::CorePart) -> &'static str {
    match core.outcome() {
        v1::Outcome::Unspecified => "",
        v1::Outcome::Success => "success",
        v1::Outcome::Failure => "failure",
        v1::Outcome::Denied => "denied",
        v1::Outcome::Started => "started",
    }
}

fn kind(actor: &v1::Actor) -> &'static str {
    match actor.kind() {
        v1::ActorKind::Unspecified => "",
        v1::ActorKind::Customer => "customer",
        v1::ActorKind::Staff => "staff",
        v1::ActorKind::Service => "service",
        v1::ActorKind::System => "system",
    }
}

/// A value of a record as JSON. Lists of pairs stay lists, for a key may occur twice.
pub fn any(value: &v1::AnyValue) -> Value {
    match &value.value {
        None => Value::Null,
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(value)) => json!(value),
        Some(Any::IntValue(value)) => json!(value),
        // JSON has no infinities.
        Some(Any::DoubleValue(value)) if !value.is_finite() => json!(value.to_string()),
        Some(Any::DoubleValue(value)) => json!(value),
        Some(Any::ArrayValue(array)) => array.values.iter().map(any).collect(),
        Some(Any::KvlistValue(list)) => pairs(&list.values),
        Some(Any::BytesValue(bytes)) => {
            json!({ "text": String::from_utf8_lossy(bytes), "base64": BASE64_STANDARD.encode(bytes) })
        }
    }
}

fn pairs(pairs: &[v1::KeyValue]) -> Value {
    let pair = |pair: &v1::KeyValue| json!({ "key": pair.key, "value": pair.value.as_ref().map_or(Value::Null, any) });
    pairs.iter().map(pair).collect()
}

/// `nanoseconds` since the epoch as RFC 3339 in `zone`, with as many digits as it needs.
pub fn rfc3339(nanoseconds: u64, zone: &TimeZone) -> String {
    rfc3339_to(nanoseconds, zone, None)
}

/// As [`rfc3339`], cut to so many digits below the second.
pub fn rfc3339_to(nanoseconds: u64, zone: &TimeZone, digits: Option<u8>) -> String {
    // Nanoseconds in 64 bits end in 2554, which jiff can count to.
    let timestamp = Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    DateTimePrinter::new().precision(digits).timestamp_with_offset_to_string(&timestamp, zone.to_offset(timestamp))
}

#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.put(name, text);
        }
    }

    fn number(&mut self, name: &str, number: u32) {
        if number != 0 {
            self.put(name, number);
        }
    }

    fn time(&mut self, name: &str, nanoseconds: u64) {
        if nanoseconds != 0 {
            let timestamp = Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
            self.put(name, timestamp.to_string());
        }
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.put(name, String::from_utf8_lossy(bytes));
        self.put(&format!("{name}_base64"), BASE64_STANDARD.encode(bytes));
    }
}
