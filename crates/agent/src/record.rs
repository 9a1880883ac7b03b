//! Lines into records: a line is scrubbed, its header read, its profile applied, and the result encoded once.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use jiff::tz::TimeZone;
use memchr::memmem::Finder;
use sigillo_model::{limits::FIELD_MAX_BYTES, record::Record};
use sigillo_proto::{
    record::Fields,
    v1::{Actor, AnyValue, ContentPart, CorePart, KeyValue, KeyValueList, PersonalPart, Target, any_value::Value},
};

use crate::{
    line::Piece,
    profile::{
        Context, Profile, audit,
        facts::{Facts, Person},
    },
    scrub::{self, Found, Scrubber},
    stamp::{self, Stamp},
    when::Clock,
};

/// A word that is in every record of the kernel's audit log.
static AUDIT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("audit"));

/// Makes the records of one stream. A clone costs one count.
#[derive(Debug, Clone)]
pub(crate) struct Maker(Arc<Settings>);

/// What all records of one stream have in common.
#[derive(Debug, Clone)]
struct Settings {
    host: String,
    tenant: String,
    /// Path, unit or channel.
    stream: String,
    profile: Profile,
    /// What the stream's name makes us expect of lines that don't say what wrote them.
    expected: Profile,
    scrubber: Arc<Scrubber>,
    zone: TimeZone,
}

impl Maker {
    /// For a machine and a tenant (empty: the source's home). The name of the stream is given by [`Maker::of`].
    pub(crate) fn new(host: &str, tenant: &str, scrubber: Arc<Scrubber>) -> Self {
        Self(Arc::new(Settings {
            host: host.to_owned(),
            tenant: tenant.to_owned(),
            stream: String::new(),
            profile: Profile::Auto,
            expected: Profile::Plain,
            scrubber,
            zone: TimeZone::system(),
        }))
    }

    /// The same for a stream: a path, a unit or a channel.
    pub(crate) fn of(&self, stream: &str) -> Self {
        let expected = Profile::of_stream(stream);
        Self(Arc::new(Settings { stream: short(stream), expected, ..(*self.0).clone() }))
    }

    /// The same, with lines understood by other words.
    pub(crate) fn with_profile(&self, profile: Profile) -> Self {
        Self(Arc::new(Settings { profile, ..(*self.0).clone() }))
    }

    /// The same for another tenant.
    pub(crate) fn with_tenant(&self, tenant: &str) -> Self {
        Self(Arc::new(Settings { tenant: tenant.to_owned(), ..(*self.0).clone() }))
    }

    /// A record of a line that says itself when and what it is, or doesn't. Only a line's first piece has a header.
    pub(crate) fn line(&self, piece: Piece, observed_unix_nano: u64) -> Record {
        let (original, found) = self.scrub(piece.bytes);
        if is_later(piece.fragment.as_ref()) {
            return self.make(
                original.clone(),
                piece.fragment,
                &found,
                Stamp::default(),
                Facts::default(),
                observed_unix_nano,
            );
        }
        let (stamp, message_at) = stamp::read(&original, &self.0.host, self.clock(observed_unix_nano));
        let facts = self.read(original.get(message_at..).unwrap_or_default(), &stamp, observed_unix_nano);
        self.make(original.clone(), piece.fragment, &found, stamp, facts, observed_unix_nano)
    }

    /// A record of a message whose header's facts are known apart.
    pub(crate) fn message(&self, piece: Piece, stamp: Stamp<'_>, observed_unix_nano: u64) -> Record {
        let (original, mut found) = match stamp.program {
            "audit" | "auditd" | "audispd" | "audisp-syslog" => self.scrub_as(piece.bytes, true),
            _ => self.scrub(piece.bytes),
        };
        let facts = if is_later(piece.fragment.as_ref()) {
            Facts::default()
        } else {
            self.read(&original, &stamp, observed_unix_nano)
        };
        // Whoever sends a message chooses what it calls itself.
        let program = self.0.scrubber.scrub(stamp.program.as_bytes()).map(|(program, more)| {
            scrub::note(&mut found, more);
            String::from_utf8_lossy(&program).into_owned()
        });
        let stamp = Stamp { program: program.as_deref().unwrap_or(stamp.program), ..stamp };
        self.make(original.clone(), piece.fragment, &found, stamp, facts, observed_unix_nano)
    }

    /// A record of what somebody else read from bytes that [`Maker::scrub`] returned, and from nothing else.
    pub(crate) fn event(
        &self,
        (original, found): (Bytes, Found),
        stamp: Stamp<'_>,
        facts: Facts<'_>,
        observed_unix_nano: u64,
    ) -> Record {
        self.make(original, None, &found, stamp, facts, observed_unix_nano)
    }

    /// A record of the agent's own, without a line.
    pub(crate) fn own(&self, program: &str, facts: Facts<'_>, now_unix_nano: u64) -> Record {
        let stamp =
            Stamp { event_time_unix_nano: now_unix_nano, program, process_id: std::process::id(), ..Stamp::default() };
        self.make(Bytes::new(), None, &Found::new(), stamp, facts, now_unix_nano)
    }

    /// The bytes without secrets, and what was found.
    pub(crate) fn scrub(&self, bytes: Bytes) -> (Bytes, Found) {
        let is_audit = self.0.profile == Profile::Audit || AUDIT.find(&bytes).is_some();
        self.scrub_as(bytes, is_audit)
    }

    /// The kernel's audit log writes in hexadecimal what people typed.
    fn scrub_as(&self, bytes: Bytes, is_audit: bool) -> (Bytes, Found) {
        let scrub = |bytes: &[u8]| self.0.scrubber.scrub(bytes);
        let (mut clean, mut found) = (bytes, Found::new());
        if let Some((bytes, more)) = is_audit.then(|| audit::scrub_hex(&clean, scrub)).flatten() {
            (clean, found) = (bytes, more);
        }
        if let Some((bytes, more)) = scrub(&clean) {
            clean = bytes;
            scrub::note(&mut found, more);
        }
        (clean, found)
    }

    fn read<'a>(&self, message: &'a [u8], stamp: &Stamp<'_>, observed: u64) -> Facts<'a> {
        let context = Context { program: stamp.program, expected: self.0.expected, clock: self.clock(observed) };
        self.0.profile.read(message, &context).unwrap_or_default()
    }

    fn clock(&self, observed: u64) -> Clock<'_> {
        Clock { observed, zone: &self.0.zone }
    }

    fn make(
        &self,
        original: Bytes,
        fragment: Option<sigillo_proto::v1::Fragment>,
        found: &Found,
        stamp: Stamp<'_>,
        facts: Facts<'_>,
        observed: u64,
    ) -> Record {
        let settings = &*self.0;
        let (severity_number, severity_text) = match stamp.priority {
            Some(priority) => {
                let (number, text) = stamp::severity(priority);
                (number, text.to_owned())
            }
            None => (facts.severity_number, owned(facts.severity_text)),
        };
        let has_target = !(facts.target_type.is_empty() && facts.target_id.is_empty());
        let core = CorePart {
            event_time_unix_nano: first(facts.event_time_unix_nano, stamp.event_time_unix_nano),
            observed_time_unix_nano: observed,
            severity_number,
            severity_text,
            event_name: owned(facts.event_name),
            action: owned(facts.action),
            target: has_target.then(|| Target { r#type: owned(facts.target_type), id: owned(facts.target_id) }),
            outcome: facts.outcome.into(),
            host: if stamp.host.is_empty() { settings.host.clone() } else { short(stamp.host) },
            tenant: if facts.tenant.is_empty() { settings.tenant.clone() } else { owned(facts.tenant) },
            stream: if stamp.stream.is_empty() { settings.stream.clone() } else { short(stamp.stream) },
            program: short(stamp.program),
            process_id: stamp.process_id,
            ..CorePart::default()
        };
        // Asked before: comparing empty texts takes long on some processors.
        let names_someone = facts.actor.is_some()
            || facts.impersonator.is_some()
            || [&facts.client_address, &facts.session, &facts.user_agent].iter().any(|text| !text.is_empty());
        let personal = names_someone.then(|| PersonalPart {
            actor: facts.actor.map(actor),
            impersonator: facts.impersonator.map(actor),
            client_address: owned(facts.client_address),
            session: owned(facts.session),
            user_agent: owned(facts.user_agent),
        });
        let mut attributes = facts.attributes;
        attributes.extend(noted(found));
        let message = facts.message.into_owned();
        let body = (!message.is_empty()).then_some(AnyValue { value: Some(Value::StringValue(message)) });
        let content = ContentPart { body, original, fragment, attributes, ..ContentPart::default() };
        Fields { core: Some(core), personal, content: Some(content), unreadable: Vec::new() }.encode()
    }
}

/// Whether it is a piece of a line, and not its first.
fn is_later(fragment: Option<&sigillo_proto::v1::Fragment>) -> bool {
    fragment.is_some_and(|fragment| fragment.index > 0)
}

fn first(time: u64, otherwise: u64) -> u64 {
    if time == 0 { otherwise } else { time }
}

fn actor(person: Person<'_>) -> Actor {
    Actor { id: owned(person.id), name: owned(person.name), kind: person.kind.into() }
}

/// What was scrubbed, as an attribute: a list of names, each with how often.
fn noted(found: &Found) -> Option<KeyValue> {
    let pair = |(name, count): &(Arc<str>, u32)| KeyValue {
        key: name.to_string(),
        value: Some(AnyValue { value: Some(Value::IntValue(i64::from(*count))) }),
    };
    let list = KeyValueList { values: found.iter().map(pair).collect() };
    let value = AnyValue { value: Some(Value::KvlistValue(list)) };
    (!found.is_empty()).then(|| KeyValue { key: "scrubbed".into(), value: Some(value) })
}

fn owned(text: Cow<'_, str>) -> String {
    match text {
        Cow::Owned(text) if text.len() <= FIELD_MAX_BYTES => text,
        text => short(&text),
    }
}

/// Cut to what a short field may hold; the whole stands in the original.
pub(crate) fn short(text: &str) -> String {
    if text.len() <= FIELD_MAX_BYTES {
        return text.to_owned();
    }
    let end = (0..=FIELD_MAX_BYTES).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
