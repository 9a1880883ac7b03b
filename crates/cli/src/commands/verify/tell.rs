//! The verdict, for people and for programs.

use std::{fmt::Write, time::Duration};

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use sigillo_model::{
    audit::{Fault, Finding, Removed},
    verdict::{Outcome, Stale, Verdict},
};

use super::walk::Walked;
use crate::{
    failure::{EXIT_ALTERED, EXIT_STALE, EXIT_UNMET},
    output::{Format, escape::escape, fields::rfc3339, json_line},
};

/// The code to end with.
pub(super) fn code(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Intact => 0,
        Verdict::Altered(_) => EXIT_ALTERED,
        Verdict::Stale(_) => EXIT_STALE,
        Verdict::Unmet => EXIT_UNMET,
    }
}

/// One word.
pub(super) fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Intact => "intact",
        Verdict::Altered(_) => "altered",
        Verdict::Stale(_) => "stale",
        Verdict::Unmet => "unmet",
    }
}

/// A verdict over what was walked to its end.
pub(super) fn outcome(walked: &Walked, outcome: &Outcome, took: Duration, format: Format) -> Vec<u8> {
    if let Verdict::Altered(finding) = &outcome.verdict {
        return altered(finding, &outcome.remarks, format);
    }
    match format {
        Format::Json => as_json(walked, outcome, took),
        Format::Text => as_text(walked, outcome, took).into_bytes(),
    }
}

fn as_json(walked: &Walked, outcome: &Outcome, took: Duration) -> Vec<u8> {
    let Walked { origin, records, bytes, chain, root, .. } = walked;
    let seconds = (took.as_secs_f64() * 1_000.0).round() / 1_000.0;
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        object.insert(name.to_owned(), value);
    };
    put("verdict", word(&outcome.verdict).into());
    put("origin", origin.as_str().into());
    put("records", json!(records));
    put("bytes", json!(bytes));
    put("seconds", json!(seconds));
    put("chain_hash", chain.to_string().into());
    put("root", root.to_string().into());
    if let Some(accepted) = &outcome.accepted {
        put("checkpoint_size", json!(accepted.checkpoint.size));
        put("quorum_time_unix", json!(accepted.quorum_time));
    }
    if let Verdict::Stale(stale) = &outcome.verdict {
        let (have, known, by, age) = match stale {
            Stale::Shorter { have, known, by } => (have, known, Some(by.to_string()), None),
            Stale::Old { have, known, time, now } => (have, known, None, Some(now.saturating_sub(*time))),
        };
        put("size", json!(have));
        put("known_size", json!(known));
        put("by", json!(by));
        put("quorum_age_seconds", json!(age));
        put("reason", stale.to_string().into());
    }
    if !walked.removed.is_nothing() {
        let Removed { erased, partly, purged, by_officers, .. } = &walked.removed;
        put("removed", json!({ "erased": erased, "partly": partly, "purged": purged, "by_officers": by_officers }));
    }
    if walked.trust.is_some() {
        put("remarks", json!(outcome.remarks));
    }
    json_line(&Value::Object(object))
}

fn as_text(walked: &Walked, outcome: &Outcome, took: Duration) -> String {
    let Walked { origin, records, bytes, chain, root, trust, .. } = walked;
    let figures = format!("{records} records, {bytes} bytes, {:.2} s", took.as_secs_f64());
    let first = match &outcome.verdict {
        Verdict::Stale(stale) => format!("stale: {}\nwalked  {figures}, all in order", escape(stale.to_string())),
        Verdict::Unmet => {
            format!("intact: {figures}; but no checkpoint has the quorum of witnesses that the trust file asks for")
        }
        Verdict::Intact | Verdict::Altered(_) => format!("intact: {figures}"),
    };
    let mut text = format!("{first}\norigin  {}\nchain   {chain}\n", escape(origin.as_str()));
    if trust.is_some() {
        let _ = writeln!(text, "root    {root}");
    }
    if let Some(accepted) = &outcome.accepted {
        let time = accepted.quorum_time.map_or("by a trust file that asks for no witness".to_owned(), |time| {
            format!("cosigned by the quorum at {}", rfc3339(time.saturating_mul(1_000_000_000), &TimeZone::UTC))
        });
        let _ = writeln!(text, "checkpoint  {} records, {time}", accepted.checkpoint.size);
    }
    for remark in gone(&walked.removed).iter().chain(&outcome.remarks) {
        let _ = writeln!(text, "note: {}", escape(remark));
    }
    match &outcome.verdict {
        Verdict::Stale(Stale::Old { .. }) => {
            text += "What was walked is as it was signed. Is this a copy of an earlier day, say --now with its time; else find out why \
                     the witnesses no longer cosign.\n";
        }
        Verdict::Stale(Stale::Shorter { .. }) => {
            text += "What was walked is as it was signed; what came after is missing here. Ask for the newest database, and keep the \
                     checkpoint that shows the greater size: it is the proof.\n";
        }
        Verdict::Unmet => {
            text += "Until enough witnesses have cosigned, only the provider vouches that nobody was shown another journal.\n";
        }
        Verdict::Intact | Verdict::Altered(_) => {}
    }
    text
}

/// What is gone, in words; on whose word it is lawful.
fn gone(removed: &Removed) -> Option<String> {
    if removed.is_nothing() {
        return None;
    }
    let Removed { erased, partly, purged, by_officers, .. } = removed;
    let word = if *by_officers {
        "two officers of the trust file have signed each order"
    } else {
        "that officers ordered it is the provider's word: the trust file names none"
    };
    Some(format!("{erased} records were erased whole, {partly} in part, and {purged} purged when due; {word}"))
}

/// The first place that does not fit.
pub(super) fn altered(finding: &Finding, remarks: &[String], format: Format) -> Vec<u8> {
    let Finding { from, to, fault } = finding;
    let missed = match fault {
        Fault::Checkpoint(missed) => Some(missed),
        _ => None,
    };
    match format {
        Format::Json => {
            let mut object = json!({ "verdict": "altered", "from": from, "to": to, "fault": fault.to_string() });
            if let (Some(missed), Some(object)) = (missed, object.as_object_mut()) {
                object.insert("known_size".into(), json!(missed.size));
                object.insert("by".into(), missed.by.to_string().into());
                object.insert("misconduct".into(), missed.twice.is_some().into());
            }
            json_line(&object)
        }
        Format::Text => {
            let mut text = format!("altered: {}\n", escape(finding.to_string()));
            if missed.is_some() {
                if *from == 0 {
                    text += "Any record below may be touched: no signed checkpoint that somebody else vouches for was met \
                             before.\n";
                } else {
                    // Writing to a string does not fail.
                    let _ =
                        writeln!(text, "Every record below {from} is proved unaltered by a checkpoint that was met.");
                }
                text += "Keep this database and the checkpoint as they are: together they are the evidence.\n";
            }
            for remark in remarks {
                let _ = writeln!(text, "note: {}", escape(remark));
            }
            text.into_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use sigillo_model::{
        audit::{Holder, Missed},
        ids::{ChainHash, NodeHash, Origin},
    };

    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn walked() -> Walked {
        Walked {
            origin: Origin::new("log.example/1").unwrap(),
            records: 12,
            bytes: 3_400,
            chain: ChainHash::new([0xab; 32]),
            root: NodeHash::new([0xcd; 32]),
            trust: None,
            removed: Removed::default(),
        }
    }

    fn told(verdict: Verdict, format: Format) -> String {
        let judged = Outcome { verdict, accepted: None, remarks: vec!["a remark".into()] };
        text(outcome(&walked(), &judged, Duration::from_millis(1_500), format))
    }

    #[test]
    fn verdicts_are_told() {
        let (chain, root) = ("ab".repeat(32), "cd".repeat(32));
        assert_eq!(
            told(Verdict::Intact, Format::Text),
            format!("intact: 12 records, 3400 bytes, 1.50 s\norigin  log.example/1\nchain   {chain}\nnote: a remark\n")
        );
        assert_eq!(
            told(Verdict::Intact, Format::Json),
            format!(
                "{{\"verdict\":\"intact\",\"origin\":\"log.example/1\",\"records\":12,\"bytes\":3400,\"seconds\":1.5,\
                 \"chain_hash\":\"{chain}\",\"root\":\"{root}\"}}\n"
            )
        );
        assert!(told(Verdict::Unmet, Format::Text).starts_with("intact: 12 records"));
        let stale = || Verdict::Stale(Stale::Shorter { have: 12, known: 20, by: Holder::Witness("w".into()) });
        assert!(
            told(stale(), Format::Text)
                .starts_with("stale: the journal has 12 records, but the view of witness w shows")
        );
        let json: Value = serde_json::from_str(&told(stale(), Format::Json)).unwrap();
        assert_eq!((&json["size"], &json["known_size"]), (&json!(12), &json!(20)), "{json}");
        let less = Walked { removed: Removed { erased: 2, purged: 5, ..Removed::default() }, ..walked() };
        let plain = Outcome { verdict: Verdict::Intact, accepted: None, remarks: Vec::new() };
        let said = text(outcome(&less, &plain, Duration::ZERO, Format::Text));
        assert!(
            said.contains("2 records were erased whole, 0 in part, and 5 purged") && said.contains("provider's word"),
            "{said}"
        );
        let old = told(Verdict::Stale(Stale::Old { have: 12, known: 9, time: 100, now: 1_000 }), Format::Text);
        assert!(old.contains("for 9 records, is 900 s old") && old.contains("--now"), "{old}");
    }

    #[test]
    fn an_alteration_is_told_with_its_place() {
        let finding = Finding { from: 5, to: 10, fault: Fault::ChainHash };
        let told = text(altered(&finding, &[], Format::Text));
        assert!(told.starts_with("altered: records 5 to 9: the records or their envelopes"), "{told}");
        let told = text(altered(&finding, &[], Format::Json));
        assert!(told.starts_with("{\"verdict\":\"altered\",\"from\":5,\"to\":10,"), "{told}");
        let missed = Missed {
            size: 10,
            signed: NodeHash::new([1; 32]),
            by: Holder::Remembered("old".into()),
            found: NodeHash::new([2; 32]),
            twice: Some(Holder::Server),
        };
        let finding = Finding { fault: Fault::Checkpoint(Box::new(missed)), ..finding };
        let told = text(altered(&finding, &[], Format::Text));
        assert!(told.contains("misconduct") && told.contains("below 5 is proved unaltered"), "{told}");
    }
}
