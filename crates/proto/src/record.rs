//! Records between their encoded parts and the messages of `record.proto`.

use bytes::Bytes;
use prost::Message;
use sigillo_model::{
    limits::{ATTRIBUTES_MAX, FIELD_MAX_BYTES, NESTING_MAX},
    record::{Part, Record, RecordRef},
};

use crate::v1::{self, any_value::Value};

/// A record as its parts say, each absent if the part is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fields {
    /// When, what, on what, with what outcome, where.
    pub core: Option<v1::CorePart>,
    /// Who.
    pub personal: Option<v1::PersonalPart>,
    /// The words themselves.
    pub content: Option<v1::ContentPart>,
    /// Parts whose bytes are not the message they should be. They are kept, hashed and found by their bytes all the same.
    pub unreadable: Vec<Part>,
}

/// A record breaks one of the limits that the Welcome message states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// A short field is too long.
    #[error("field {field} has {bytes} bytes, at most {FIELD_MAX_BYTES} are taken: move long text to the body")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its bytes.
        bytes: usize,
    },
    /// There are too many attributes.
    #[error("the record has more than {ATTRIBUTES_MAX} attributes, nested ones included: send fewer")]
    Attributes,
    /// Values are nested too deeply.
    #[error("values are nested more than {NESTING_MAX} levels deep: flatten them")]
    Nesting,
}

impl Fields {
    /// Encodes the parts. Done once, by whoever first saw the line; the result is what is hashed and stored.
    pub fn encode(&self) -> Record {
        fn part<M: Message>(message: Option<&M>) -> Option<Bytes> {
            message.map(|message| message.encode_to_vec().into())
        }
        Record {
            core: part(self.core.as_ref()),
            personal: part(self.personal.as_ref()),
            content: part(self.content.as_ref()),
        }
    }

    /// Reads the parts. A part that can't be read is named in `unreadable` and is no error: the bytes count.
    pub fn decode(record: RecordRef<'_>) -> Self {
        let mut unreadable = Vec::new();
        let core = decode_part(record, Part::Core, &mut unreadable);
        let personal = decode_part(record, Part::Personal, &mut unreadable);
        let content = decode_part(record, Part::Content, &mut unreadable);
        Self { core, personal, content, unreadable }
    }

    /// Event time, or observed time where the source gave no event time; nanoseconds since the epoch.
    pub fn time(&self) -> Option<u64> {
        let core = self.core.as_ref()?;
        [core.event_time_unix_nano, core.observed_time_unix_nano].into_iter().find(|time| *time != 0)
    }

    /// Checks the limits of fields, attributes and nesting.
    pub fn check_limits(&self) -> Result<(), LimitError> {
        if let Some(core) = &self.core {
            let target = core.target.iter().flat_map(|t| [("target.type", &t.r#type), ("target.id", &t.id)]);
            let texts = [
                ("severity_text", &core.severity_text),
                ("event_name", &core.event_name),
                ("action", &core.action),
                ("host", &core.host),
                ("tenant", &core.tenant),
                ("stream", &core.stream),
                ("program", &core.program),
            ];
            target.chain(texts).try_for_each(|(field, text)| check_field(field, text.len()))?;
            check_field("trace_id", core.trace_id.len())?;
            check_field("span_id", core.span_id.len())?;
        }
        if let Some(personal) = &self.personal {
            let actors = personal.actor.iter().chain(&personal.impersonator);
            actors
                .flat_map(|a| [("actor.id", &a.id), ("actor.name", &a.name)])
                .chain([
                    ("client_address", &personal.client_address),
                    ("session", &personal.session),
                    ("user_agent", &personal.user_agent),
                ])
                .try_for_each(|(field, text)| check_field(field, text.len()))?;
        }
        if let Some(content) = &self.content {
            let mut left = ATTRIBUTES_MAX;
            check_pairs(&content.attributes, 1, &mut left)?;
            if let Some(body) = &content.body {
                check_value(body, 1, &mut left)?;
            }
        }
        Ok(())
    }
}

fn decode_part<M: Message + Default>(record: RecordRef<'_>, part: Part, unreadable: &mut Vec<Part>) -> Option<M> {
    let message = M::decode(record.part(part)?);
    if message.is_err() {
        unreadable.push(part);
    }
    message.ok()
}

fn check_field(field: &'static str, bytes: usize) -> Result<(), LimitError> {
    if bytes > FIELD_MAX_BYTES { Err(LimitError::Field { field, bytes }) } else { Ok(()) }
}

fn check_pairs(pairs: &[v1::KeyValue], depth: usize, left: &mut usize) -> Result<(), LimitError> {
    for pair in pairs {
        check_field("attribute key", pair.key.len())?;
        *left = left.checked_sub(1).ok_or(LimitError::Attributes)?;
        if let Some(value) = &pair.value {
            check_value(value, depth, left)?;
        }
    }
    Ok(())
}

fn check_value(value: &v1::AnyValue, depth: usize, left: &mut usize) -> Result<(), LimitError> {
    if depth > NESTING_MAX {
        return Err(LimitError::Nesting);
    }
    match &value.value {
        Some(Value::ArrayValue(array)) => array.values.iter().try_for_each(|value| {
            *left = left.checked_sub(1).ok_or(LimitError::Attributes)?;
            check_value(value, depth + 1, left)
        }),
        Some(Value::KvlistValue(list)) => check_pairs(&list.values, depth + 1, left),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> v1::AnyValue {
        (1..levels).fold(v1::AnyValue { value: Some(Value::IntValue(1)) }, |inner, _| v1::AnyValue {
            value: Some(Value::ArrayValue(v1::ArrayValue { values: vec![inner] })),
        })
    }

    fn with_body(body: v1::AnyValue) -> Fields {
        Fields { content: Some(v1::ContentPart { body: Some(body), ..Default::default() }), ..Fields::default() }
    }

    #[test]
    fn limits_are_named() {
        let long = v1::CorePart { host: "x".repeat(FIELD_MAX_BYTES + 1), ..Default::default() };
        let fields = Fields { core: Some(long), ..Fields::default() };
        assert!(matches!(fields.check_limits(), Err(LimitError::Field { field: "host", .. })));
        assert_eq!(with_body(nested(NESTING_MAX)).check_limits(), Ok(()));
        assert_eq!(with_body(nested(NESTING_MAX + 1)).check_limits(), Err(LimitError::Nesting));
        let pair = v1::KeyValue { key: "k".into(), value: None };
        let content = v1::ContentPart { attributes: vec![pair; ATTRIBUTES_MAX + 1], ..Default::default() };
        let fields = Fields { content: Some(content), ..Fields::default() };
        assert_eq!(fields.check_limits(), Err(LimitError::Attributes));
    }

    #[test]
    fn an_unreadable_part_is_named_and_hides_no_other() {
        let core = v1::CorePart { host: "web-1".into(), ..Default::default() };
        let mut record = Fields { core: Some(core.clone()), ..Fields::default() }.encode();
        // Field 1, length 1, not UTF-8.
        record.personal = Some(Bytes::from_static(&[0x1a, 1, 0xff]));
        let fields = Fields::decode(record.as_ref());
        assert_eq!((fields.core, fields.unreadable), (Some(core), vec![Part::Personal]));
    }
}
