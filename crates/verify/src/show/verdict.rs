//! A verdict in plain words, and as JSON. What a file says is its exporter's word at best, and never steers a terminal.

use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use sigillo_model::{
    evidence::{Completeness, HeadVerdict, Kind, Removed, Run, Signed},
    ids::SourceId,
    record::Part,
    statement::counters::CounterKey,
};

use super::escape::escape;
use crate::verdict::{Verdict, time};

/// How far a time of somebody else may be ahead of ours before it is remarked, in seconds.
const AHEAD_MAX_S: u64 = 300;

/// What this machine's clock says, in seconds since 1970.
pub fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The verdict in words. `now`: seconds since 1970, for times that lie ahead.
pub fn text(verdict: &Verdict, now: u64) -> String {
    let report = &verdict.report;
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        // Writing to a String can't fail.
        let _ = writeln!(out, "  {name:<13}{text}");
    };
    line("Journal", escape(report.about.origin.as_str()));
    line("Records", records(verdict));
    let checkpoint = &report.checkpoint;
    line("Checkpoint", format!("of {} records, signed by the log {}", checkpoint.size, escape(&checkpoint.log)));
    line("Witnesses", witnesses(verdict));
    line("Existed", existed(verdict));
    for run in &report.runs {
        line("Complete", completeness(&run.run, &run.completeness));
    }
    if report.runs.is_empty() {
        line("Complete", "not shown: the file does not claim to hold all records of a source or tenant".into());
    }
    for text in heads(verdict) {
        line("Signed", text);
    }
    for removed in report.removed.iter().take(20) {
        line("Removed", removal(removed));
    }
    if report.removed.len() > 20 {
        line("Removed", format!("and {} more stretches (all with -o json)", report.removed.len() - 20));
    }
    let signers = match report.exporters.as_slice() {
        [] => "by nobody whom the trust file knows".to_owned(),
        names => format!("by {}", escape(names.join(", "))),
    };
    line("Sealed", signers);
    let not_proved = not_proved(verdict, now);
    out.push_str("\nThe exporter's own words:\n");
    let about = &report.about;
    for (name, text) in [
        ("Who", escape(&about.who)),
        ("When", time(about.time / 1_000_000_000)),
        ("Why", escape(&about.why)),
        ("Asked for", escape(&about.query)),
    ] {
        let _ = writeln!(out, "  {name:<13}{text}");
    }
    if !not_proved.is_empty() {
        out.push_str("\nNot proved:\n");
        for text in not_proved {
            let _ = writeln!(out, "  - {text}");
        }
    }
    if !report.findings.is_empty() {
        out.push_str("\nWhat the file claims and what does not hold:\n");
        for finding in &report.findings {
            let _ = writeln!(out, "  - {}", escape(finding.to_string()));
        }
    }
    out
}

fn records(verdict: &Verdict) -> String {
    let report = &verdict.report;
    match report.span {
        None => "none".to_owned(),
        Some((first, last)) => {
            let stretches = if report.stretches == 1 { "stretch" } else { "stretches" };
            format!(
                "{}, from sequence {first} to {last} in {} {stretches}: each is in the journal as it was sealed, in this order",
                report.records, report.stretches
            )
        }
    }
}

fn signed(signers: &[Signed]) -> String {
    let one = |signer: &Signed| format!("{} at {}", escape(&signer.name), time(signer.time));
    signers.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn witnesses(verdict: &Verdict) -> String {
    let checkpoint = &verdict.report.checkpoint;
    match (checkpoint.witnesses.as_slice(), checkpoint.quorum) {
        ([], true) => "none, and the trust file asks for none: the log's own word".to_owned(),
        ([], false) => "none, and the trust file asks for some: the log's own word".to_owned(),
        (some, true) => format!("{}: as many as the trust file asks for", signed(some)),
        (some, false) => format!("{}: FEWER than the trust file asks for", signed(some)),
    }
}

fn existed(verdict: &Verdict) -> String {
    let Some((first, last)) = verdict.report.span else { return "nothing to say".to_owned() };
    match (verdict.existed_by(first), verdict.existed_by(last)) {
        (Some(a), Some(b)) if a == b => format!("all by {}", time(a)),
        (Some(a), Some(b)) => format!("the first by {}, the last by {}", time(a), time(b)),
        (Some(a), None) => format!("the first by {}; of the last it is not shown", time(a)),
        (None, _) => "not shown since when: neither enough witnesses nor a trusted time stamp".to_owned(),
    }
}

/// What the sources themselves have signed: of each, all of its heads together.
fn heads(verdict: &Verdict) -> Vec<String> {
    let mut by_source: BTreeMap<SourceId, Vec<&HeadVerdict>> = BTreeMap::new();
    for head in verdict.report.heads.iter().filter(|head| head.fault.is_none()) {
        by_source.entry(head.source).or_default().push(head);
    }
    let one = |(source, heads): (SourceId, Vec<&HeadVerdict>)| {
        let records: u64 = heads.iter().map(|head| head.records).sum();
        let last = heads.iter().map(|head| head.time_ns).max().unwrap_or_default();
        let named = heads.iter().map(|head| head.announced).min().unwrap_or_default();
        let since = match verdict.existed_by(named) {
            Some(since) => format!("which existed by {}", time(since)),
            None => "of which it is not shown since when it existed".to_owned(),
        };
        format!(
            "{records} records by the source {source} itself, the last at {} by its clock; its key is named in record {named}, {since}",
            time(last / 1_000_000_000)
        )
    };
    by_source.into_iter().map(one).collect()
}

fn completeness(run: &Run, completeness: &Completeness) -> String {
    let whose = match &run.key {
        CounterKey::Source(id) => ("source", id.to_string()),
        CounterKey::Tenant(id) => ("tenant", id.to_string()),
    };
    let name = run.name.as_ref().map_or(whose.1, escape);
    let end = if run.reaches_end { ", and no more until the checkpoint" } else { "; whether more follow is not shown" };
    let numbers = match run.to.checked_sub(1).filter(|_| run.to > run.from) {
        Some(last) => format!("numbers {} to {last} of {} {name}{end}", run.from, whose.0),
        None => format!("no records of {} {name}{end}", whose.0),
    };
    match completeness {
        Completeness::CompleteCheckedBy(auditors) => format!("{numbers}: checked by {}", signed(auditors)),
        Completeness::CompleteByProvidersWord => {
            format!("{numbers}: by the provider's word, for no auditor has walked this journal up to the checkpoint")
        }
        Completeness::NotShownComplete(reason) => format!("NOT SHOWN for {numbers}: {reason}"),
    }
}

fn removal(removed: &Removed) -> String {
    let names: Vec<&str> =
        Part::ALL.into_iter().filter(|part| removed.parts >> part.number() & 1 == 1).map(Part::name).collect();
    let what = if names.len() == 3 { "all".to_owned() } else { names.join(", ") };
    let why = match (removed.explained, removed.purged) {
        (true, false) => "by an order of two officers, which is in the file",
        (true, true) => "by a purge that was due by a retention statement of two officers, which is in the file",
        (false, _) => "by the exporter's word; no statement in the file explains it",
    };
    if removed.to == removed.from + 1 {
        format!("record {}: {what}, {why}", removed.from)
    } else {
        format!("records {} to {}: {what}, {why}", removed.from, removed.to.saturating_sub(1))
    }
}

/// What a reader might believe and may not.
fn not_proved(verdict: &Verdict, now: u64) -> Vec<String> {
    let report = &verdict.report;
    let mut out = Vec::new();
    if !report.checkpoint.quorum {
        out.push("that the log shows the same to everybody: too few witnesses".to_owned());
    }
    let hidden = &report.hidden;
    if hidden.records > 0 {
        out.push(format!("what {} records say, of which only commitments are given", hidden.records));
    }
    for (part, count) in Part::ALL.into_iter().zip(hidden.parts).filter(|(_, count)| *count > 0) {
        out.push(format!("what the {} part of {count} records says, of which only its hash is given", part.name()));
    }
    for token in &verdict.tokens {
        let name = escape(&token.name);
        match (&token.stamp, token.size) {
            (Ok(_), Some(_)) => (),
            (Ok(_), None) => out.push(format!("anything by the time stamp {name}: it is over something else")),
            (Err(error), _) => out.push(format!("anything by the time stamp {name}: {}", escape(error.to_string()))),
        }
    }
    for name in &report.strangers {
        out.push(format!(
            "anything by the signature of {} under the file: the trust file has no such exporter",
            escape(name)
        ));
    }
    for attachment in report.attachments.iter().filter(|attachment| attachment.kind != Kind::Token) {
        out.push(format!("what {} holds: this program does not read it", escape(&attachment.name)));
    }
    let signers = report.checkpoint.witnesses.iter().chain(&report.checkpoint.auditors);
    for signer in signers.filter(|signer| signer.time > now.saturating_add(AHEAD_MAX_S)) {
        out.push(format!("that {} was right about the time: it lies ahead of this machine's", escape(&signer.name)));
    }
    out.push("that what the sources wrote is true, and who the people in it are".to_owned());
    out
}

/// The verdict as JSON.
pub fn json(verdict: &Verdict, now: u64) -> Value {
    let report = &verdict.report;
    let signed = |signers: &[Signed]| -> Value {
        signers.iter().map(|signer| json!({ "name": signer.name, "time": time(signer.time) })).collect()
    };
    let runs: Vec<Value> = report
        .runs
        .iter()
        .map(|verdict| {
            let (kind, id) = match &verdict.run.key {
                CounterKey::Source(id) => ("source", id.to_string()),
                CounterKey::Tenant(id) => ("tenant", id.to_string()),
            };
            let (word, by, reason) = match &verdict.completeness {
                Completeness::CompleteCheckedBy(auditors) => {
                    ("complete, checked by an auditor", signed(auditors), None)
                }
                Completeness::CompleteByProvidersWord => ("complete by the provider's word", Value::Null, None),
                Completeness::NotShownComplete(reason) => ("not shown complete", Value::Null, Some(reason.to_string())),
            };
            json!({
                "of": kind, "id": id, "name": verdict.run.name, "from": verdict.run.from, "to": verdict.run.to,
                "reaches_end": verdict.run.reaches_end, "completeness": word, "auditors": by, "reason": reason,
            })
        })
        .collect();
    let removed: Vec<Value> = report
        .removed
        .iter()
        .map(|removed| {
            let parts = Part::ALL.into_iter().filter(|part| removed.parts >> part.number() & 1 == 1);
            let parts: Vec<&str> = parts.map(Part::name).collect();
            json!({ "from": removed.from, "to": removed.to, "parts": parts, "explained": removed.explained, "purged": removed.purged })
        })
        .collect();
    let tokens: Vec<Value> = verdict
        .tokens
        .iter()
        .map(|token| match &token.stamp {
            Ok(stamp) => json!({
                "name": token.name, "size": token.size, "time": time(stamp.time), "authority": stamp.authority,
            }),
            Err(error) => json!({ "name": token.name, "error": error.to_string() }),
        })
        .collect();
    let existed = |at: usize| report.span.and_then(|(a, b)| verdict.existed_by([a, b].into_iter().nth(at)?)).map(time);
    json!({
        "verdict": if report.findings.is_empty() { "proved" } else { "altered" },
        "origin": report.about.origin.as_str(),
        "records": report.records,
        "first": report.span.map(|span| span.0),
        "last": report.span.map(|span| span.1),
        "checkpoint": {
            "size": report.checkpoint.size,
            "root": report.checkpoint.root.to_string(),
            "log": report.checkpoint.log,
            "witnesses": signed(&report.checkpoint.witnesses),
            "quorum": report.checkpoint.quorum,
            "quorum_time": report.checkpoint.quorum_time.map(time),
            "auditors": signed(&report.checkpoint.auditors),
        },
        "first_existed_by": existed(0),
        "last_existed_by": existed(1),
        "runs": runs,
        "signed_by_sources": report.heads.iter().map(|head| json!({
            "source": head.source.to_string(), "epoch": head.epoch.get(), "from": head.from, "to": head.to,
            "records": head.records, "time": time(head.time_ns / 1_000_000_000), "key_named_in_record": head.announced,
            "registered": head.registered, "fault": head.fault.as_ref().map(ToString::to_string),
        })).collect::<Vec<_>>(),
        "removed": removed,
        "hidden_records": report.hidden.records,
        "hidden_parts": Part::ALL.into_iter().zip(report.hidden.parts)
            .map(|(part, count)| (part.name().to_owned(), count.into())).collect::<serde_json::Map<_, _>>(),
        "tokens": tokens,
        "sealed_by": report.exporters,
        "exported": {
            "by": report.about.who, "why": report.about.why, "query": report.about.query,
            "time": time(report.about.time / 1_000_000_000), "from": report.about.from, "to": report.about.to,
            "format_page_sha256": hex::encode(report.tools.format_page),
            "verifier_sha256": hex::encode(report.tools.verifier),
        },
        "not_proved": not_proved(verdict, now),
        "findings": report.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
