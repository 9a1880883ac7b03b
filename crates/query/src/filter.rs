//! Which records are asked for, and the exact answer to whether a record is one of them.

use std::ops::Range;

use memchr::memmem::Finder;
use prost::Message;
use sigillo_model::{
    ids::{ClassId, SourceId, TenantId},
    record::{Part, RecordRef},
};
use sigillo_proto::v1::{self, any_value::Value};

/// Which records. Fields are joined by AND, the values of one field by OR; an empty field lets everything through. Text is
/// compared by bytes. The same as `Filter` in `query.proto`, with names resolved to ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Least event time (or, where the source gave none, observed time), nanoseconds since the epoch. A record without either
    /// is left out when this or `until` is set.
    pub since: Option<u64>,
    /// The event time is before this.
    pub until: Option<u64>,
    /// Least receipt time, nanoseconds since the epoch.
    pub received_since: Option<u64>,
    /// The receipt time is before this.
    pub received_until: Option<u64>,
    /// Classes of the source.
    pub classes: Vec<ClassId>,
    /// Names of the machines on which it happened.
    pub hosts: Vec<String>,
    /// Tenants concerned, as the envelope says.
    pub tenants: Vec<TenantId>,
    /// Who sent it.
    pub sources: Vec<SourceId>,
    /// Id or name of the actor or of the impersonator.
    pub actors: Vec<String>,
    /// What was done.
    pub actions: Vec<String>,
    /// What it was done to: the target's id, or its type, a colon and its id.
    pub targets: Vec<String>,
    /// Least severity number, 1 to 24; 0 lets records without severity through too.
    pub min_severity: u32,
    /// Bytes within the body, the original line or the text of an attribute, nested ones included, keys not. Of a content part
    /// that can't be read, all bytes count.
    pub contains: Vec<u8>,
}

/// A filter made ready to be used many times.
#[derive(Debug)]
pub(crate) struct Matcher {
    filter: Filter,
    contains: Finder<'static>,
    coarse: Vec<Coarse>,
}

/// A necessary condition that the bytes of one part can be asked without decoding anything: one of the needles is there.
#[derive(Debug)]
pub(crate) struct Coarse {
    pub(crate) part: Part,
    pub(crate) needles: Vec<Finder<'static>>,
}

impl Matcher {
    pub(crate) fn new(filter: Filter) -> Self {
        // Why the coarse look misses nothing: in protobuf's encoding the value of a string or bytes field stands in one
        // piece and as it is; when a field occurs twice the last one counts, they are not joined. So whatever the decoded
        // record has in such a field is found in the bytes of its part. The reverse does not hold (the bytes may be a key,
        // a length, or run over the end of a value), which is why candidates are decoded and checked. An empty text is not
        // encoded at all, so a field that is asked for one gets no coarse look.
        let of_texts = |part, texts: &[String]| {
            let usable = !texts.is_empty() && texts.iter().all(|text| !text.is_empty());
            usable.then(|| Coarse { part, needles: texts.iter().map(|text| Finder::new(text).into_owned()).collect() })
        };
        let contains = Finder::new(&filter.contains).into_owned();
        let words =
            (!filter.contains.is_empty()).then(|| Coarse { part: Part::Content, needles: vec![contains.clone()] });
        // A target's type and id are two fields. What follows the last colon is the end of the id in every reading.
        let id = |target: &String| target.rsplit_once(':').map_or(target.as_str(), |(_, id)| id).to_owned();
        let targets: Vec<String> = filter.targets.iter().map(id).collect();
        let coarse = [
            words,
            of_texts(Part::Personal, &filter.actors),
            of_texts(Part::Core, &filter.actions),
            of_texts(Part::Core, &targets),
            of_texts(Part::Core, &filter.hosts),
        ];
        Self { contains, coarse: coarse.into_iter().flatten().collect(), filter }
    }

    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Conditions that each matching record meets, the most selective first.
    pub(crate) fn coarse(&self) -> &[Coarse] {
        &self.coarse
    }

    /// The receipt times asked for.
    pub(crate) fn received(&self) -> Range<u64> {
        self.filter.received_since.unwrap_or(0)..self.filter.received_until.unwrap_or(u64::MAX)
    }

    /// Decides by the record's own parts; what the envelope says is decided elsewhere.
    pub(crate) fn matches(&self, record: RecordRef<'_>) -> bool {
        self.core_matches(record) && self.personal_matches(record) && self.content_matches(record)
    }

    fn core_matches(&self, record: RecordRef<'_>) -> bool {
        let Filter { since, until, hosts, actions, targets, min_severity, .. } = &self.filter;
        let timed = since.is_some() || until.is_some();
        if !timed && hosts.is_empty() && actions.is_empty() && targets.is_empty() && *min_severity == 0 {
            return true;
        }
        let core: v1::CorePart = decode(record, Part::Core).unwrap_or_default();
        let time = [core.event_time_unix_nano, core.observed_time_unix_nano].into_iter().find(|time| *time != 0);
        let in_time = !timed
            || time
                .is_some_and(|time| since.is_none_or(|since| time >= since) && until.is_none_or(|until| time < until));
        in_time
            && core.severity_number >= *min_severity
            && (hosts.is_empty() || hosts.contains(&core.host))
            && (actions.is_empty() || actions.contains(&core.action))
            && (targets.is_empty()
                || core.target.is_some_and(|target| targets.iter().any(|text| is_target(text, &target))))
    }

    fn personal_matches(&self, record: RecordRef<'_>) -> bool {
        let actors = &self.filter.actors;
        if actors.is_empty() {
            return true;
        }
        let personal: v1::PersonalPart = decode(record, Part::Personal).unwrap_or_default();
        let mut persons = personal.actor.iter().chain(&personal.impersonator);
        persons.any(|person| actors.contains(&person.id) || actors.contains(&person.name))
    }

    fn content_matches(&self, record: RecordRef<'_>) -> bool {
        if self.filter.contains.is_empty() {
            return true;
        }
        let Some(bytes) = record.content else { return false };
        let Ok(content) = v1::ContentPart::decode(bytes) else { return self.found_in(bytes) };
        self.found_in(&content.original)
            || content.body.iter().any(|body| self.value_matches(body))
            || self.pairs_match(&content.attributes)
    }

    // Recursion is bounded by prost, which refuses to decode messages nested more than 100 levels deep.
    fn value_matches(&self, value: &v1::AnyValue) -> bool {
        match &value.value {
            Some(Value::StringValue(text)) => self.found_in(text.as_bytes()),
            Some(Value::BytesValue(bytes)) => self.found_in(bytes),
            Some(Value::ArrayValue(array)) => array.values.iter().any(|value| self.value_matches(value)),
            Some(Value::KvlistValue(list)) => self.pairs_match(&list.values),
            Some(Value::BoolValue(_) | Value::IntValue(_) | Value::DoubleValue(_)) | None => false,
        }
    }

    fn pairs_match(&self, pairs: &[v1::KeyValue]) -> bool {
        pairs.iter().filter_map(|pair| pair.value.as_ref()).any(|value| self.value_matches(value))
    }

    fn found_in(&self, bytes: &[u8]) -> bool {
        self.contains.find(bytes).is_some()
    }
}

/// True if the text is the target's id, or its type, a colon and its id.
fn is_target(text: &str, target: &v1::Target) -> bool {
    text == target.id || text.strip_prefix(&target.r#type).and_then(|rest| rest.strip_prefix(':')) == Some(&target.id)
}

fn decode<M: Message + Default>(record: RecordRef<'_>, part: Part) -> Option<M> {
    M::decode(record.part(part)?).ok()
}
