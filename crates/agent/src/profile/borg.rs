//! Borg: results in words, with `--json` and with `--log-json`.

use std::borrow::Cow;

use serde::Deserialize;
use sigillo_proto::v1::Outcome;

use crate::profile::facts::{
    Facts,
    severity::{ERROR, INFO, WARN},
};

/// One line, or all lines of a JSON answer.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    if text.starts_with('{') {
        return json(text);
    }
    if let Some(rest) = text.strip_prefix("Creating archive at \"") {
        let archive = archive_of(rest.strip_suffix('"')?);
        return Some(result("backup.create", Outcome::Started).on("archive", archive));
    }
    if let Some(name) = text.strip_prefix("Archive name: ") {
        return Some(result("backup.create", Outcome::Success).on("archive", name));
    }
    if let Some(rest) = text.strip_prefix("Pruning archive").or_else(|| text.strip_prefix("Deleting archive")) {
        // `Pruning archive (1/3): web1-2026-11-01 Sun, 2026-11-01 …`
        let name = rest.split_once(": ")?.1.split(' ').next()?;
        return Some(result("backup.delete", Outcome::Success).on("archive", name));
    }
    words(text)
}

/// What Borg says at its end, and of its checks.
fn words(text: &str) -> Option<Facts<'_>> {
    if let Some(rest) = text.strip_prefix("terminating with ") {
        let (status, code) = rest.split_once(" status, rc ")?;
        let (outcome, severity) = match status {
            "success" => (Outcome::Success, INFO),
            "warning" => (Outcome::Success, WARN),
            _ => (Outcome::Failure, ERROR),
        };
        let facts = result("backup.run", outcome).severity(severity).with("status", status);
        return Some(facts.with_number("code", code.parse().ok()));
    }
    match text {
        "Archive consistency check complete, no problems found." => Some(result("backup.verify", Outcome::Success)),
        _ if text.starts_with("Archive consistency check complete, problems found") => {
            Some(result("backup.verify", Outcome::Failure).severity(ERROR))
        }
        _ => None,
    }
}

fn result(action: &'static str, outcome: Outcome) -> Facts<'static> {
    Facts::new("borg.result", action, outcome).severity(INFO)
}

/// What stands after the repository: `ssh://…/repo::web1-2026-11-23`
fn archive_of(location: &str) -> &str {
    location.rsplit_once("::").map_or(location, |(_, archive)| archive)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    levelname: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    msgid: Cow<'a, str>,
    #[serde(borrow)]
    archive: Option<Archive<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Archive<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    duration: Option<f64>,
    stats: Stats,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stats {
    nfiles: Option<i64>,
    original_size: Option<i64>,
    deduplicated_size: Option<i64>,
}

fn json(text: &str) -> Option<Facts<'_>> {
    let said: Answer<'_> = serde_json::from_str(text).ok()?;
    if let Some(Archive { name, id, duration, stats }) = said.archive {
        // Only what was just made has a duration and statistics.
        duration.filter(|_| !name.is_empty())?;
        let facts = result("backup.create", Outcome::Success)
            .with("id", &id)
            .with_number("files", stats.nfiles)
            .with_number("bytes", stats.original_size)
            .with_number("bytes_added", stats.deduplicated_size);
        return Some(Facts { target_type: "archive".into(), target_id: name, ..facts });
    }
    if said.kind != "log_message" {
        return None;
    }
    if let Some(facts) = words(&said.message) {
        return Some(facts.into_owned());
    }
    let severity = match &*said.levelname {
        "CRITICAL" | "ERROR" => ERROR,
        "WARNING" => WARN,
        _ => return None,
    };
    let outcome = if severity == ERROR { Outcome::Failure } else { Outcome::Unspecified };
    let facts = Facts::new("borg.message", "backup.message", outcome).severity(severity).with("reason", &said.message);
    Some(Facts { severity_text: said.levelname, ..facts.with("id", &said.msgid) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::testing::{Expected, check};

    #[test]
    fn lines_mean_what_they_say() {
        let result = |action, outcome| Expected::new("borg.result", action, outcome).severity(9);
        let made = |outcome| result("backup.create", outcome).target("archive", "web1-1");
        check(
            read,
            [
                (r#"Creating archive at "ssh://b@192.0.2.9/./repo::web1-1""#, made("started")),
                ("Archive name: web1-1", made("success")),
                (
                    "terminating with warning status, rc 1",
                    result("backup.run", "success").severity(13).with("status", "warning").with("code", "1"),
                ),
                (
                    "terminating with error status, rc 2",
                    result("backup.run", "failure").severity(17).with("status", "error").with("code", "2"),
                ),
                (
                    "Pruning archive (1/3): web1-1 Sun, 2026-11-01 12:00:00",
                    result("backup.delete", "success").target("archive", "web1-1"),
                ),
                (
                    r#"{"archive":{"name":"web1-1","id":"ab12","duration":1.5,"stats":{"nfiles":3,"original_size":100,"deduplicated_size":7}},"repository":{"id":"r"}}"#,
                    made("success").with("id", "ab12").with("files", "3").with("bytes", "100").with("bytes_added", "7"),
                ),
                (
                    r#"{"type":"log_message","time":1.0,"message":"terminating with success status, rc 0","levelname":"INFO","name":"borg"}"#,
                    result("backup.run", "success").with("status", "success").with("code", "0"),
                ),
                (
                    r#"{"type":"log_message","time":1.0,"message":"Repository r does not exist.","levelname":"ERROR","name":"borg","msgid":"Repository.DoesNotExist"}"#,
                    Expected::new("borg.message", "backup.message", "failure")
                        .severity(17)
                        .with("reason", "Repository r does not exist.")
                        .with("id", "Repository.DoesNotExist"),
                ),
            ],
        );
        for text in ["", "{", "{}", r#"{"type":"archive_progress"}"#, r#"{"archive":{"name":"x"}}"#, "terminating with"]
        {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
