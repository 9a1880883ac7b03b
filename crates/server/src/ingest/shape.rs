//! A look at a record's parts without decoding them: are the limits kept, and which tenant does it claim?
//!
//! Every record passes here, so nothing is allocated and no text is copied or checked; `Fields::decode` and
//! `Fields::check_limits`, which say the same of what they can decode, cost several times as much. Bytes that are no protobuf
//! message at all are no fault: the record is kept as it is.

use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use sigillo_model::{
    limits::{ATTRIBUTES_MAX, FIELD_MAX_BYTES, NESTING_MAX},
    record::RecordRef,
};
use sigillo_proto::record::LimitError;

/// What a record says on its outside; empty = nothing that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Outside<'a> {
    /// The name of the tenant that it claims.
    pub(crate) tenant: &'a [u8],
    /// What kind of event it is.
    pub(crate) event_name: &'a [u8],
}

/// Checks the limits of a record, and returns what it says on its outside.
pub(crate) fn check(record: RecordRef<'_>) -> Result<Outside<'_>, LimitError> {
    let mut outside = Outside::default();
    if let Some(core) = record.core {
        each_field(core, |tag, bytes| {
            let field = match tag {
                4 => "severity_text",
                5 => {
                    outside.event_name = bytes;
                    "event_name"
                }
                6 => "action",
                7 => return check_texts(bytes, ["target.type", "target.id"]),
                9 => "host",
                10 => {
                    outside.tenant = bytes;
                    "tenant"
                }
                11 => "trace_id",
                12 => "span_id",
                14 => "stream",
                15 => "program",
                _ => return Ok(()),
            };
            check_length(field, bytes)
        })?;
    }
    if let Some(personal) = record.personal {
        each_field(personal, |tag, bytes| match tag {
            1 | 2 => check_texts(bytes, ["actor.id", "actor.name"]),
            3 => check_length("client_address", bytes),
            4 => check_length("session", bytes),
            5 => check_length("user_agent", bytes),
            _ => Ok(()),
        })?;
    }
    if let Some(content) = record.content {
        let mut left = ATTRIBUTES_MAX;
        each_field(content, |tag, bytes| match tag {
            1 => check_value(bytes, 1, &mut left),
            2 => check_pair(bytes, 1, &mut left),
            _ => Ok(()),
        })?;
    }
    Ok(outside)
}

/// A message whose fields 1 and 2 are short texts.
fn check_texts(message: &[u8], names: [&'static str; 2]) -> Result<(), LimitError> {
    let [first, second] = names;
    each_field(message, |tag, bytes| match tag {
        1 => check_length(first, bytes),
        2 => check_length(second, bytes),
        _ => Ok(()),
    })
}

/// A `KeyValue`.
fn check_pair(message: &[u8], depth: usize, left: &mut usize) -> Result<(), LimitError> {
    *left = left.checked_sub(1).ok_or(LimitError::Attributes)?;
    each_field(message, |tag, bytes| match tag {
        1 => check_length("attribute key", bytes),
        2 => check_value(bytes, depth, left),
        _ => Ok(()),
    })
}

/// An `AnyValue`. Goes no deeper than the limit, whatever the bytes say.
fn check_value(message: &[u8], depth: usize, left: &mut usize) -> Result<(), LimitError> {
    if depth > NESTING_MAX {
        return Err(LimitError::Nesting);
    }
    each_field(message, |tag, bytes| match tag {
        5 => each_field(bytes, |tag, bytes| match tag {
            1 => {
                *left = left.checked_sub(1).ok_or(LimitError::Attributes)?;
                check_value(bytes, depth + 1, left)
            }
            _ => Ok(()),
        }),
        6 => each_field(bytes, |tag, bytes| match tag {
            1 => check_pair(bytes, depth + 1, left),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })
}

fn check_length(field: &'static str, bytes: &[u8]) -> Result<(), LimitError> {
    if bytes.len() > FIELD_MAX_BYTES { Err(LimitError::Field { field, bytes: bytes.len() }) } else { Ok(()) }
}

/// Shows each length-delimited field of a message, up to the first byte that is not protobuf.
fn each_field<'a>(
    mut message: &'a [u8],
    mut field: impl FnMut(u32, &'a [u8]) -> Result<(), LimitError>,
) -> Result<(), LimitError> {
    while !message.is_empty() {
        match next_field(&mut message) {
            Ok(Some((tag, bytes))) => field(tag, bytes)?,
            Ok(None) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

/// Steps over one field; returns it if it is length-delimited.
fn next_field<'a>(message: &mut &'a [u8]) -> Result<Option<(u32, &'a [u8])>, DecodeError> {
    let (tag, wire_type) = decode_key(message)?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, tag, message, DecodeContext::default())?;
        return Ok(None);
    }
    let length = usize::try_from(decode_varint(message)?).unwrap_or(usize::MAX);
    let Some((bytes, rest)) = message.split_at_checked(length) else {
        // The length runs past the end: whoever decodes finds the same.
        *message = &[];
        return Ok(None);
    };
    *message = rest;
    Ok(Some((tag, bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sigillo_model::record::Record;
    use sigillo_proto::{
        record::Fields,
        v1::{self, any_value::Value},
    };

    use super::*;

    fn value() -> impl Strategy<Value = v1::AnyValue> {
        let leaf = prop_oneof![
            "[a-z]{0,20}".prop_map(Value::StringValue),
            any::<i64>().prop_map(Value::IntValue),
            any::<bool>().prop_map(Value::BoolValue),
        ]
        .prop_map(|value| v1::AnyValue { value: Some(value) });
        leaf.prop_recursive(24, 64, 4, |inner| {
            let array = proptest::collection::vec(inner.clone(), 0..3)
                .prop_map(|values| Value::ArrayValue(v1::ArrayValue { values }));
            let pairs = proptest::collection::vec(inner, 0..3).prop_map(|values| {
                let pair = |value| v1::KeyValue { key: "k".into(), value: Some(value) };
                Value::KvlistValue(v1::KeyValueList { values: values.into_iter().map(pair).collect() })
            });
            prop_oneof![array, pairs].prop_map(|value| v1::AnyValue { value: Some(value) })
        })
    }

    /// Mostly short, sometimes beside the limit.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![20 => 0..30_usize, 1 => FIELD_MAX_BYTES - 1..FIELD_MAX_BYTES + 3]
            .prop_map(|length| "x".repeat(length))
    }

    prop_compose! {
        fn fields()(
            host in text(), tenant in text(), target in text(), actor in text(), key in text(),
            body in value(), attributes in 0..ATTRIBUTES_MAX + 3, few in any::<bool>(),
        ) -> Fields {
            let pair = v1::KeyValue { key, value: Some(body.clone()) };
            let attributes = vec![pair; if few { attributes % 3 } else { attributes }];
            Fields {
                core: Some(v1::CorePart {
                    event_time_unix_nano: 7,
                    event_name: host.chars().skip(1).collect(),
                    host,
                    tenant,
                    target: Some(v1::Target { r#type: "t".into(), id: target }),
                    ..Default::default()
                }),
                personal: Some(v1::PersonalPart {
                    impersonator: Some(v1::Actor { id: "i".into(), name: actor, kind: 2 }),
                    ..Default::default()
                }),
                content: Some(v1::ContentPart { body: Some(body), attributes, ..Default::default() }),
                unreadable: vec![],
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn says_what_decoding_says(fields in fields()) {
            let record = fields.encode();
            // The order of complaints may differ, not whether there is one.
            prop_assert_eq!(check(record.as_ref()).is_ok(), fields.check_limits().is_ok());
            if let Ok(outside) = check(record.as_ref()) {
                let core = fields.core.unwrap();
                let said = Outside { tenant: core.tenant.as_bytes(), event_name: core.event_name.as_bytes() };
                prop_assert_eq!(outside, said);
            }
        }

        #[test]
        fn any_bytes_are_survived(core: Vec<u8>, content: Vec<u8>) {
            let record = Record { core: Some(core.clone().into()), personal: Some(core.into()), content: Some(content.into()) };
            let _ = check(record.as_ref());
        }
    }

    #[test]
    fn nesting_beyond_what_can_be_decoded_is_a_nesting_fault() {
        let mut bytes = vec![];
        for _ in 0..10_000 {
            let mut outer = vec![];
            // AnyValue.array_value { values }
            for tag in [1, 5] {
                outer.clear();
                prost::encoding::encode_key(tag, WireType::LengthDelimited, &mut outer);
                prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
                outer.extend_from_slice(&bytes);
                bytes.clone_from(&outer);
            }
        }
        let mut content = vec![];
        prost::encoding::encode_key(1, WireType::LengthDelimited, &mut content);
        prost::encoding::encode_varint(bytes.len() as u64, &mut content);
        content.extend(bytes);
        let record = Record { content: Some(content.into()), ..Record::default() };
        assert_eq!(check(record.as_ref()), Err(LimitError::Nesting));
    }

    #[test]
    fn invalid_utf8_is_no_fault_and_hides_no_claim() {
        let mut core = v1::CorePart { tenant: "acme".into(), ..Default::default() };
        core.host = "h".into();
        let mut bytes = prost::Message::encode_to_vec(&core);
        let host = bytes.iter().position(|byte| *byte == b'h').unwrap();
        bytes[host] = 0xff;
        let record = Record { core: Some(bytes.into()), ..Record::default() };
        assert_eq!(check(record.as_ref()), Ok(Outside { tenant: b"acme", event_name: b"" }));
    }
}
