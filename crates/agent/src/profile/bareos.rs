//! Bareos: job reports (as one record, or line by line), messages of jobs, and orders at a console.

use sigillo_proto::v1::{ActorKind, Outcome};

use crate::profile::{
    facts::{
        Facts,
        severity::{ERROR, INFO, WARN},
    },
    scan::{between, count, word, word_after},
};

/// One line, or all lines of a report.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    if text.contains("Termination:") {
        return report(text);
    }
    if let Some((_, rest)) = text.split_once("Console [") {
        // `bareos-dir: Console [ops] from [192.0.2.7] cmdline list jobs`
        let (console, rest) = rest.split_once("] from [")?;
        let (address, rest) = rest.split_once(']')?;
        let command = rest.strip_prefix(" cmdline ")?;
        let facts = Facts::new("bareos.command", "bareos.command", Outcome::Started).on("service", "bareos");
        return Some(facts.by(console, ActorKind::Staff).from(address).with("command", command));
    }
    let (_, rest) = text.split_once(" JobId ")?;
    let (id, said) = rest.split_once(": ")?;
    count(id)?;
    if let Some((kind, rest)) = said.strip_prefix("Start ").and_then(|rest| rest.split_once(" JobId ")) {
        let job = word_after(rest, "Job=").unwrap_or_default();
        return Some(of_job(action(kind)?, Outcome::Started, name_of(job)).severity(INFO).in_session(id));
    }
    let severity = match word(said).0 {
        "Fatal" | "Error:" => ERROR,
        "Warning:" => WARN,
        _ => return None,
    };
    let facts = Facts::new("bareos.message", "backup.message", Outcome::Unspecified).severity(severity);
    Some(facts.in_session(id).with("reason", said))
}

/// Lines `  NAME:   VALUE`. Without the job's lines the outcome alone is known.
fn report(text: &str) -> Option<Facts<'_>> {
    let value = |name: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| key.trim_ascii() == name).map_or("", |(_, value)| value.trim_ascii())
    };
    let ended = value("Termination");
    let (kind, outcome) = termination(ended)?;
    let severity = match outcome {
        Outcome::Success if ended.contains("warning") => WARN,
        Outcome::Success => INFO,
        _ => ERROR,
    };
    let number = |name: &str| count(&word(value(name)).0.replace(',', ""));
    let bytes = number("SD Bytes Written").or_else(|| number("FD Bytes Written")).or_else(|| number("Bytes Restored"));
    let files = number("SD Files Written").or_else(|| number("FD Files Written")).or_else(|| number("Files Restored"));
    let quoted = |name: &str| between(value(name), "\"", "\"").unwrap_or_else(|| word(value(name)).0);
    let facts = of_job(action(kind)?, outcome, name_of(value("Job"))).severity(severity).in_session(value("JobId"));
    Some(
        facts
            .with("status", ended.trim_matches(['*', ' ']))
            .with("level", word(value("Backup Level")).0.trim_end_matches(','))
            .with("client", quoted("Client"))
            .with("fileset", quoted("FileSet"))
            .with_number("files", files)
            .with_number("bytes", bytes)
            .with("volumes", value("Volume name(s)")),
    )
}

/// Kind of job and how it ended: `Backup OK -- with warnings`, `*** Backup Error ***`, `Restore Canceled`.
fn termination(text: &str) -> Option<(&str, Outcome)> {
    let (kind, said) = word(text.trim_matches(['*', ' ']));
    let outcome = match word(said).0 {
        "OK" => Outcome::Success,
        "Error" | "Canceled" | "failed" | "Differences" | "FATAL" => Outcome::Failure,
        _ => return None,
    };
    Some((kind, outcome))
}

fn action(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Backup" => "backup.create",
        "Restore" => "backup.restore",
        "Verify" => "backup.verify",
        "Copying" | "Copy" => "backup.copy",
        "Migration" => "backup.migrate",
        "Admin" => "backup.admin",
        "Consolidate" | "Consolidation" => "backup.consolidate",
        "Archive" => "backup.archive",
        _ => return None,
    })
}

fn of_job<'a>(action: &'static str, outcome: Outcome, job: &'a str) -> Facts<'a> {
    Facts::new("bareos.job", action, outcome).on("job", job)
}

/// `backup-web1.2026-11-23_21.00.00_04` without its time.
fn name_of(job: &str) -> &str {
    job.rsplit_once('_')
        .and_then(|(rest, _)| rest.rsplit_once('_'))
        .and_then(|(rest, _)| rest.rsplit_once('.'))
        .map_or(job, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::testing::{Expected, check};

    #[test]
    fn lines_mean_what_they_say() {
        let job =
            |action, outcome| Expected::new("bareos.job", action, outcome).target("job", "backup-web1").session("123");
        let report = "23-Nov 12:00 bareos-dir JobId 123: Bareos bareos-dir 23.0.3 (21Mar24):
  JobId:                  123
  Job:                    backup-web1.2026-11-23_21.00.00_04
  Backup Level:           Incremental, since=2026-11-22 21:00:04
  Client:                 \"web1-fd\" 23.0.3
  FileSet:                \"LinuxAll\" 2026-01-01 00:00:00
  FD Files Written:       1,204
  SD Files Written:       1,204
  SD Bytes Written:       45,678,901 (45.67 MB)
  Volume name(s):         Incremental-0001
  Termination:            Backup OK -- with warnings";
        check(
            read,
            [
                (
                    report,
                    job("backup.create", "success")
                        .severity(13)
                        .with("status", "Backup OK -- with warnings")
                        .with("level", "Incremental")
                        .with("client", "web1-fd")
                        .with("fileset", "LinuxAll")
                        .with("files", "1204")
                        .with("bytes", "45678901")
                        .with("volumes", "Incremental-0001"),
                ),
                (
                    "  Termination:            *** Restore Error ***",
                    Expected::new("bareos.job", "backup.restore", "failure")
                        .target("job", "")
                        .severity(17)
                        .with("status", "Restore Error"),
                ),
                (
                    "23-Nov 12:00 bareos-dir JobId 123: Start Backup JobId 123, Job=backup-web1.2026-11-23_21.00.00_04",
                    job("backup.create", "started").severity(9),
                ),
                (
                    "23-Nov 12:00 bareos-fd JobId 123: Fatal error: no route to storage",
                    Expected::new("bareos.message", "backup.message", "")
                        .session("123")
                        .severity(17)
                        .with("reason", "Fatal error: no route to storage"),
                ),
                (
                    "23-Nov 12:00 bareos-dir: Console [ops] from [192.0.2.7] cmdline delete jobid=3",
                    Expected::new("bareos.command", "bareos.command", "started")
                        .target("service", "bareos")
                        .actor_of("ops", ActorKind::Staff)
                        .client("192.0.2.7")
                        .with("command", "delete jobid=3"),
                ),
            ],
        );
        for text in ["", "Termination:", "Termination: what", "a JobId x: y", "a JobId 1: Start x JobId 1", "Console ["]
        {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
