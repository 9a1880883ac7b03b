//! `sigillo sources`: who sends, and who has gone silent.

use std::{cmp::Reverse, fmt::Write, process::ExitCode};

use anstyle::{AnsiColor, Style as Paint};
use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use sigillo_proto::v1::{ListSourcesRequest, ListSourcesResponse, SourceStatus};

use crate::{
    failure::Failure,
    global::GlobalArgs,
    output::{Format, Sink, Style, escape::escape, fields::rfc3339, json_line},
};

const SECOND: u64 = 1_000_000_000;

/// Show who sends, how far behind each source is, and who has gone silent
#[derive(Debug, Args)]
#[command(after_long_help = "\
One line a source, those that are silent first:
  STATE    connected; away: not connected, and not missed; never: not heard yet;
           SILENT: not heard for longer than it may be. A source that stays connected, as an
           agent does, may be silent for 20 s; any other one for three times the longest of its own
           pauses, once more than a week of these is known; one that never came for a day after
           it was configured. Becoming silent and being heard again are records, too:
             sigillo query --action source.silent
  HEARD    how long ago its last message came
  ALLOWED  how long it may be silent; - as long as that is not known
  WAITING  records that had not been sent when it last told
  LAG      age of the oldest of these, by its own clock
  SKEW     its clock less the server's
  LOST     losses that it has declared, and how many lines these were:
             sigillo query --action agent.loss --source NAME
  REFUSED  batches and heads that did not fit: gaps, forks, ended epochs, broken rules
  AGENT    what it says that it is, and what it said when it stopped on purpose

Counts begin with the register, which the server keeps in sources.json of its data folder. -o json tells all fields.

Examples:
  sigillo sources
  sigillo sources --silent
  sigillo sources -o json | jq -r 'select(.waiting_records > 10000) | .name'")]
pub(crate) struct SourcesArgs {
    /// Only those that are silent
    #[arg(long)]
    silent: bool,
}

pub(crate) async fn run(args: SourcesArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let request = ListSourcesRequest { silent_only: args.silent };
    let mut answer = global.connect().await?.sources(request).await?;
    answer.sources.sort_by_cached_key(|source| {
        let since = if source.silent { source.last_seen_unix_nano } else { 0 };
        (Reverse(source.silent), since, source.name.clone())
    });
    let mut sink = Sink::paged(global);
    match global.output {
        Format::Json => answer.sources.iter().try_for_each(|source| sink.write(&json_line(&object(source))))?,
        Format::Text => sink.write(table(&answer, &Style::new(global, false)).as_bytes())?,
    }
    sink.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn object(source: &SourceStatus) -> Value {
    let time = |nanoseconds| (nanoseconds != 0).then(|| rfc3339(nanoseconds, &TimeZone::UTC));
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "name": source.name,
        "source_id": hex(&source.source),
        "class": source.class,
        "state": state(source).to_lowercase(),
        "silent": source.silent,
        "agent": text(&source.agent),
        "goodbye": text(&source.goodbye),
        "first_seen": time(source.first_seen_unix_nano),
        "last_seen": time(source.last_seen_unix_nano),
        "streams": source.streams,
        "sessions": source.sessions,
        "resident": source.resident,
        "allowed_silence_ns": (source.allowed_silence_nano != 0).then_some(source.allowed_silence_nano),
        "epoch": source.epoch,
        "next_sequence": source.next_sequence,
        "told": time(source.told_unix_nano),
        "waiting_records": source.waiting_records,
        "lag_ns": source.lag_nano,
        "skew_ns": source.skew_nano,
        "losses": source.losses,
        "lost_lines": source.lost_lines,
        "lost_bytes": source.lost_bytes,
        "last_loss": time(source.last_loss_unix_nano),
        "gaps": source.gaps,
        "forks": source.forks,
        "stale_epochs": source.stale_epochs,
        "invalid_batches": source.invalid_batches,
        "invalid_heads": source.invalid_heads,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn state(source: &SourceStatus) -> &'static str {
    match source {
        SourceStatus { silent: true, .. } => "SILENT",
        SourceStatus { streams: 1.., .. } => "connected",
        SourceStatus { last_seen_unix_nano: 0, .. } => "never",
        _ => "away",
    }
}

/// For people. What servers and senders say is escaped.
fn table(answer: &ListSourcesResponse, style: &Style) -> String {
    if answer.sources.is_empty() {
        return "none\n".into();
    }
    let heading =
        ["STATE", "SOURCE", "CLASS", "HEARD", "ALLOWED", "WAITING", "LAG", "SKEW", "LOST", "REFUSED", "AGENT"]
            .map(str::to_owned);
    let mut rows = vec![heading];
    rows.extend(answer.sources.iter().map(|source| row(source, answer.server_time_unix_nano)));
    let mut widths = [0; 11];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let silent = Paint::new().fg_color(Some(AnsiColor::Red.into())).bold();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let line = cells.join("  ");
        let line = line.trim_end();
        let marked = style.color && line.starts_with("SILENT");
        let _ = if marked { writeln!(out, "{silent}{line}{silent:#}") } else { writeln!(out, "{line}") };
    }
    out
}

fn row(source: &SourceStatus, now_ns: u64) -> [String; 11] {
    let none = || "-".to_owned();
    let heard = match source.last_seen_unix_nano {
        0 => none(),
        seen => format!("{} ago", span(now_ns.saturating_sub(seen))),
    };
    let may = if source.allowed_silence_nano == 0 { none() } else { span(source.allowed_silence_nano) };
    let told = source.told_unix_nano != 0;
    let skew = if source.skew_nano < 0 { '-' } else { '+' };
    let lost = match (source.losses, source.lost_lines) {
        (0, _) => none(),
        (losses, lines) => format!("{losses} ({lines} lines)"),
    };
    let refused = [source.gaps, source.forks, source.stale_epochs, source.invalid_batches, source.invalid_heads];
    let mut agent = if source.agent.is_empty() { none() } else { escape(&source.agent) };
    if !source.goodbye.is_empty() {
        let _ = write!(agent, " (stopped: {})", escape(&source.goodbye));
    }
    [
        state(source).to_owned(),
        escape(&source.name),
        escape(&source.class),
        heard,
        may,
        if told { source.waiting_records.to_string() } else { none() },
        if source.waiting_records > 0 { span(source.lag_nano) } else { none() },
        if source.skew_nano == 0 { none() } else { format!("{skew}{}", span(source.skew_nano.unsigned_abs())) },
        lost,
        match refused.into_iter().fold(0_u64, u64::saturating_add) {
            0 => none(),
            refused => refused.to_string(),
        },
        agent,
    ]
}

/// A length of time, as exact as one looks at it.
fn span(nanoseconds: u64) -> String {
    let seconds = nanoseconds / SECOND;
    match seconds {
        0 => format!("{} ms", nanoseconds / 1_000_000),
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000 * SECOND;

    fn style(color: bool) -> Style {
        Style { format: Format::Text, color, verbose: false, zone: TimeZone::UTC }
    }

    fn source(name: &str) -> SourceStatus {
        SourceStatus { name: name.into(), class: "service".into(), ..Default::default() }
    }

    #[test]
    fn a_table_says_how_each_stands() {
        let sources = vec![
            SourceStatus {
                silent: true,
                agent: "sigillo-agent 0.1.0".into(),
                goodbye: "SIGTERM".into(),
                last_seen_unix_nano: NOW - 300 * SECOND,
                allowed_silence_nano: 20 * SECOND,
                told_unix_nano: NOW - 300 * SECOND,
                waiting_records: 12,
                lag_nano: 5 * SECOND,
                skew_nano: -3_000_000,
                losses: 2,
                lost_lines: 40,
                gaps: 1,
                forks: 2,
                ..source("web-1")
            },
            source("x"),
        ];
        let answer = ListSourcesResponse { sources, server_time_unix_nano: NOW };
        let expected = "\
STATE   SOURCE  CLASS    HEARD      ALLOWED  WAITING  LAG  SKEW   LOST          REFUSED  AGENT
SILENT  web-1   service  5 min ago  20 s     12       5 s  -3 ms  2 (40 lines)  3        sigillo-agent 0.1.0 (stopped: SIGTERM)
never   x       service  -          -        -        -    -      -             -        -
";
        assert_eq!(table(&answer, &style(false)), expected);
        assert!(table(&answer, &style(true)).contains("\u{1b}[1m\u{1b}[31mSILENT"));
    }

    #[test]
    fn what_senders_say_steers_no_terminal() {
        let agent = "\u{1b}[2Jx\u{202e}\ny".to_owned();
        let evil = SourceStatus { agent: agent.clone(), goodbye: agent, ..source("a") };
        let json = String::from_utf8(json_line(&object(&evil))).unwrap();
        let answer = ListSourcesResponse { sources: vec![evil], server_time_unix_nano: NOW };
        for shown in [table(&answer, &style(false)), json] {
            let lines = shown.trim_end_matches('\n');
            assert!(!lines.replace('\n', "").chars().any(char::is_control), "{shown:?}");
            assert!(!lines.contains('\u{202e}'), "{shown:?}");
        }
        assert_eq!(table(&answer, &style(false)).lines().count(), 2);
    }

    #[test]
    fn spans_are_as_exact_as_one_looks_at_them() {
        let spans = [0, 999_999_999, SECOND, 119 * SECOND, 120 * SECOND, 7_200 * SECOND, 172_800 * SECOND].map(span);
        assert_eq!(spans, ["0 ms", "999 ms", "1 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
