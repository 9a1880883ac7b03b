//! A record as a line for people: `TIME HOST PROGRAM[PID]: MESSAGE`, and who did what to what, when it says so.

use std::fmt::Write;

use anstyle::{AnsiColor, Style as Paint};
use serde_json::Value;
use sigillo_model::entry::Gone;
use sigillo_proto::v1::{self, any_value::Value as Any};

use super::{
    Style,
    escape::{escape, escape_into},
    fields::{self, Shown},
    json_line,
};

/// The record's line; all its fields below it when the style is verbose.
pub(super) fn record(shown: &Shown<'_>, style: &Style) -> String {
    let core = shown.fields.core.clone().unwrap_or_default();
    let mut line = String::new();
    let dim = Paint::new().dimmed();
    paint(&mut line, style, dim, &time(shown, style));
    line.push(' ');
    let host = if core.host.is_empty() { &shown.result.source } else { &core.host };
    escape_into(&mut line, host.as_bytes());
    if !core.program.is_empty() {
        line.push(' ');
        escape_into(&mut line, core.program.as_bytes());
        if core.process_id != 0 {
            let _ = write!(line, "[{}]", core.process_id);
        }
    }
    line.push(':');
    let facts_paint = Paint::new().fg_color(Some(AnsiColor::Cyan.into()));
    let pieces =
        [(severity_paint(core.severity_number), message(shown, &core)), (facts_paint, facts(shown, &core).join(" "))];
    let erased = shown.gone().map(|gone| match gone {
        Gone::PURGED => "[purged]".to_owned(),
        parts => format!("[erased: {parts}]"),
    });
    let pieces = pieces.into_iter().chain([(Paint::new().dimmed(), erased.unwrap_or_default())]);
    for (piece_paint, text) in pieces.filter(|(_, text)| !text.is_empty()) {
        line.push(' ');
        paint(&mut line, style, piece_paint, &text);
    }
    line.push('\n');
    if style.verbose {
        verbose(&mut line, &shown.to_json(), style);
    }
    line
}

fn time(shown: &Shown<'_>, style: &Style) -> String {
    // To the millisecond: what is finer is in the verbose and the JSON output.
    fields::rfc3339_to(shown.time(), &style.zone, Some(3))
}

fn severity_paint(severity: u32) -> Paint {
    let color = |color: AnsiColor| Paint::new().fg_color(Some(color.into()));
    match severity {
        1..=8 => Paint::new().dimmed(),
        10..=12 => Paint::new().bold(),
        13..=16 => color(AnsiColor::Yellow),
        17..=20 => color(AnsiColor::Red),
        21.. => color(AnsiColor::Red).bold(),
        _ => Paint::new(),
    }
}

/// Appends `text`, which is escaped already.
fn paint(out: &mut String, style: &Style, paint: Paint, text: &str) {
    if style.color && !text.is_empty() {
        let _ = write!(out, "{paint}{text}{paint:#}");
    } else {
        out.push_str(text);
    }
}

/// The body; the line as it was read where there is none; else the name of the event.
fn message(shown: &Shown<'_>, core: &v1::CorePart) -> String {
    let Some(content) = &shown.fields.content else { return escape(&core.event_name) };
    let mut out = String::new();
    match content.body.as_ref().and_then(|body| body.value.as_ref().map(|value| (body, value))) {
        Some((_, Any::StringValue(text))) => escape_into(&mut out, text.as_bytes()),
        Some((_, Any::BytesValue(bytes))) => escape_into(&mut out, bytes),
        Some((body, _)) => out.push_str(&compact(&fields::any(body))),
        None if !content.original.is_empty() => escape_into(&mut out, &content.original),
        None => escape_into(&mut out, core.event_name.as_bytes()),
    }
    if let Some(fragment) = &content.fragment {
        let _ = write!(out, " [part {}{}]", fragment.index, if fragment.last { ", last" } else { "" });
    }
    out
}

/// Who did what to what, and how it ended.
fn facts(shown: &Shown<'_>, core: &v1::CorePart) -> Vec<String> {
    let personal = shown.fields.personal.clone().unwrap_or_default();
    let actor = |actor: Option<v1::Actor>| {
        actor.map(|actor| match (actor.name.as_str(), actor.id.as_str()) {
            (name, "") => name.to_owned(),
            ("", id) => id.to_owned(),
            (name, id) => format!("{name} ({id})"),
        })
    };
    let target = core.target.as_ref().map(|target| format!("{}:{}", target.r#type, target.id));
    let facts = [
        ("action", Some(core.action.clone())),
        ("actor", actor(personal.actor)),
        ("impersonator", actor(personal.impersonator)),
        ("from", Some(personal.client_address)),
        ("target", target),
        ("outcome", Some(fields::outcome(core).to_owned())),
    ];
    let present = facts.into_iter().filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    present.map(|(name, value)| format!("{name}={}", quoted(&value))).collect()
}

/// In quotation marks when it would be read as more than one word.
fn quoted(text: &str) -> String {
    if text.contains([' ', '"', '=']) { format!("\"{}\"", escape(text.replace('"', "\\\""))) } else { escape(text) }
}

fn verbose(out: &mut String, object: &Value, style: &Style) {
    for (name, value) in object.as_object().into_iter().flatten() {
        out.push_str("    ");
        paint(out, style, Paint::new().dimmed(), name);
        out.push_str(": ");
        match value {
            Value::String(text) => escape_into(out, text.as_bytes()),
            other => out.push_str(&compact(other)),
        }
        out.push('\n');
    }
}

fn compact(value: &Value) -> String {
    String::from_utf8_lossy(json_line(value).trim_ascii_end()).into_owned()
}

#[cfg(test)]
mod tests {
    use jiff::tz::{Offset, TimeZone};
    use proptest::prelude::*;
    use sigillo_model::{
        class::Class,
        envelope::{Envelope, Flags},
        ids::{Count, Epoch, ReceiptTime, Seq, SourceId, SourceSeq, TenantId},
        record::Record,
    };
    use sigillo_proto::record::Fields;

    use super::*;
    use crate::output::Format;

    fn result(record: Record) -> v1::ResultRecord {
        let envelope = Envelope {
            flags: Flags::TENANT_REFUSED,
            class: Class::Panel.id(),
            retention: Class::Panel.retention(),
            seq: Seq::new(41),
            receipt_time: ReceiptTime::new(1_700_000_001_000_000_007),
            source: SourceId::new([1; 16]),
            epoch: Epoch::new(3),
            source_seq: SourceSeq::new(4),
            source_count: Count::new(5),
            tenant: TenantId::new([2; 16]),
            tenant_count: Count::new(6),
        };
        v1::ResultRecord {
            envelope: envelope.to_bytes().to_vec().into(),
            core: record.core,
            personal: record.personal,
            content: record.content,
            class: "panel".into(),
            source: "panel-1".into(),
            tenant: "acme".into(),
            gone: 0,
        }
    }

    #[test]
    fn what_is_erased_is_said() {
        let rest = Record { personal: None, ..act().encode() };
        let print = |record| String::from_utf8(style().record(&record).unwrap()).unwrap();
        let shown = print(v1::ResultRecord { gone: 2, ..result(rest) });
        assert!(shown.ends_with(" [erased: personal]\n"), "{shown}");
        let shown = print(v1::ResultRecord { gone: 7, ..result(Record::default()) });
        assert!(shown.ends_with(" panel-1: [erased: record]\n"), "{shown}");
    }

    fn text(text: &str) -> v1::AnyValue {
        v1::AnyValue { value: Some(Any::StringValue(text.to_owned())) }
    }

    fn act() -> Fields {
        let actor = |id: &str, name: &str, kind: v1::ActorKind| {
            Some(v1::Actor { id: id.into(), name: name.into(), kind: kind.into() })
        };
        Fields {
            core: Some(v1::CorePart {
                event_time_unix_nano: 1_700_000_000_123_456_789,
                severity_number: 17,
                action: "server.delete".into(),
                target: Some(v1::Target { r#type: "server".into(), id: "web-1".into() }),
                outcome: v1::Outcome::Denied.into(),
                host: "panel-a".into(),
                program: "panel".into(),
                process_id: 812,
                ..Default::default()
            }),
            personal: Some(v1::PersonalPart {
                actor: actor("u-17", "Mario Rossi", v1::ActorKind::Customer),
                impersonator: actor("staff-7", "", v1::ActorKind::Staff),
                client_address: "203.0.113.9".into(),
                ..Default::default()
            }),
            content: Some(v1::ContentPart {
                body: Some(text("refused\nby \u{1b}[31mpolicy")),
                attributes: vec![v1::KeyValue { key: "rule".into(), value: Some(text("two\u{202e}men")) }],
                ..Default::default()
            }),
            unreadable: Vec::new(),
        }
    }

    fn line(original: &[u8]) -> Fields {
        let content = v1::ContentPart { original: original.to_vec().into(), ..Default::default() };
        Fields { content: Some(content), ..Fields::default() }
    }

    fn style() -> Style {
        let zone = TimeZone::fixed(Offset::constant(1));
        Style { format: Format::Text, color: false, verbose: false, zone }
    }

    fn show(fields: &Fields, style: &Style) -> String {
        String::from_utf8(style.record(&result(fields.encode())).unwrap()).unwrap()
    }

    #[test]
    fn an_act_is_one_line() {
        assert_eq!(
            show(&act(), &style()),
            "2023-11-14T23:13:20.123+01:00 panel-a panel[812]: refused\\nby \\x1b[31mpolicy action=server.delete \
             actor=\"Mario Rossi (u-17)\" impersonator=staff-7 from=203.0.113.9 target=server:web-1 outcome=denied\n"
        );
    }

    #[test]
    fn a_line_is_shown_as_read_under_its_source_and_receipt_time() {
        assert_eq!(show(&line(b"caf\xe9 \xc3\xa8"), &style()), "2023-11-14T23:13:21.000+01:00 panel-1: caf\\xe9 è\n");
    }

    #[test]
    fn an_act_without_words_is_told_by_its_facts() {
        let core = v1::CorePart { action: "login".into(), host: "a".into(), ..Default::default() };
        let fields = Fields { core: Some(core), ..Fields::default() };
        assert_eq!(show(&fields, &style()), "2023-11-14T23:13:21.000+01:00 a: action=login\n");
    }

    #[test]
    fn severity_gives_the_colour() {
        let colored = show(&act(), &Style { color: true, ..style() });
        assert!(colored.contains("\u{1b}[31mrefused\\nby \\x1b[31mpolicy\u{1b}[0m"), "{colored:?}");
        assert!(!show(&line(b"x"), &Style { color: true, ..style() }).contains("\u{1b}[31m"));
    }

    #[test]
    fn verbose_shows_every_field() {
        let shown = show(&act(), &Style { verbose: true, ..style() });
        for expected in [
            "\n    sequence: 41\n",
            "\n    receipt_time: 2023-11-14T22:13:21.000000007Z\n",
            "\n    flags: [\"tenant_refused\"]\n",
            "\n    event_time: 2023-11-14T22:13:20.123456789Z\n",
            "\n    body: refused\\nby \\x1b[31mpolicy\n",
            "\n    attributes: [{\"key\":\"rule\",\"value\":\"two\\u202emen\"}]\n",
        ] {
            assert!(shown.contains(expected), "{expected:?} in {shown}");
        }
    }

    #[test]
    fn json_is_one_object_with_everything() {
        let mut fields = act();
        fields.content.as_mut().unwrap().original = b"raw \xff".to_vec().into();
        let shown = show(&fields, &Style { format: Format::Json, ..style() });
        let expected = concat!(
            r#"{"sequence":41,"receipt_time":"2023-11-14T22:13:21.000000007Z","class":"panel","source":"panel-1","#,
            r#""source_id":"01010101010101010101010101010101","tenant":"acme","#,
            r#""tenant_id":"02020202020202020202020202020202","retention":4,"epoch":3,"source_sequence":4,"#,
            r#""source_count":5,"tenant_count":6,"flags":["tenant_refused"],"#,
            r#""event_time":"2023-11-14T22:13:20.123456789Z","severity_number":17,"severity":"ERROR","#,
            r#""action":"server.delete","target":{"type":"server","id":"web-1"},"outcome":"denied","host":"panel-a","#,
            r#""program":"panel","process_id":812,"actor":{"id":"u-17","name":"Mario Rossi","kind":"customer"},"#,
            r#""impersonator":{"id":"staff-7","kind":"staff"},"client_address":"203.0.113.9","#,
            r#""body":"refused\nby \u001b[31mpolicy","attributes":[{"key":"rule","value":"two\u202emen"}],"#,
            "\"original\":\"raw \u{fffd}\",\"original_base64\":\"cmF3IP8=\"}\n",
        );
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_part_that_can_not_be_read_is_given_as_bytes() {
        let mut record = line(b"x").encode();
        record.core = Some(vec![0xff, 0xff].into());
        let shown =
            String::from_utf8(Style { format: Format::Json, ..style() }.record(&result(record)).unwrap()).unwrap();
        assert!(shown.contains(r#""unreadable_core_base64":"//8=""#), "{shown}");
    }

    #[test]
    fn an_envelope_that_is_none_is_an_error() {
        let record = v1::ResultRecord { envelope: vec![1; 88].into(), ..result(Record::default()) };
        assert!(style().record(&record).is_err());
    }

    proptest! {
        /// Whatever a record or a server says, one line comes of it, and nothing that a terminal obeys.
        #[test]
        fn nothing_escapes(words: [String; 8], raw: Vec<u8>, parts: [Option<Vec<u8>>; 3], verbose: bool, json: bool) {
            let [host, program, action, id, kind, actor, body, source] = words;
            let mut fields = act();
            let core = fields.core.as_mut().unwrap();
            (core.host, core.program, core.action) = (host, program, action);
            core.target = Some(v1::Target { r#type: kind, id });
            fields.personal.as_mut().unwrap().actor = Some(v1::Actor { id: actor.clone(), name: actor, kind: 0 });
            let content = fields.content.as_mut().unwrap();
            content.body = Some(text(&body));
            content.original = raw.into();
            let [core, personal, content] = parts.map(|part| part.map(Into::into));
            let format = if json { Format::Json } else { Format::Text };
            let style = Style { format, verbose, ..style() };
            for record in [fields.encode(), Record { core, personal, content }] {
                let result = v1::ResultRecord { source: source.clone(), ..result(record) };
                let shown = String::from_utf8(style.record(&result).unwrap()).unwrap();
                let lines = shown.strip_suffix('\n').unwrap();
                prop_assert!(!lines.chars().any(|c| c.is_control() && !(verbose && c == '\n')), "{shown:?}");
                let reorders = lines.contains(['\u{202e}', '\u{2066}', '\u{2028}']);
                prop_assert!(!reorders, "{shown:?}");
            }
        }
    }
}
