//! restic: results in words and with `--json`.

use std::borrow::Cow;

use serde::Deserialize;
use sigillo_proto::v1::Outcome;

use crate::profile::{
    facts::{
        Facts,
        severity::{ERROR, INFO},
    },
    scan::{count, word},
};

/// One line.
pub(super) fn read(text: &str) -> Option<Facts<'_>> {
    if text.starts_with('{') {
        return json(text);
    }
    if let Some(id) = text.strip_prefix("snapshot ").and_then(|rest| rest.strip_suffix(" saved")) {
        return Some(result("backup.create", Outcome::Success).on("snapshot", id));
    }
    if let Some(reason) = text.strip_prefix("Fatal: ") {
        return Some(result("backup.run", Outcome::Failure).severity(ERROR).with("reason", reason));
    }
    if let Some(rest) = text.strip_prefix("remove ") {
        // `remove 3 snapshots:`
        let number = count(rest.strip_suffix(" snapshots:")?)?;
        return Some(result("backup.delete", Outcome::Success).with_number("snapshots", Some(number)));
    }
    if let Some(rest) = text.strip_prefix("restoring <Snapshot ") {
        return Some(result("backup.restore", Outcome::Started).on("snapshot", word(rest).0));
    }
    match text {
        "no errors were found" => Some(result("backup.verify", Outcome::Success)),
        "The repository is damaged and must be repaired" => {
            Some(result("backup.verify", Outcome::Failure).severity(ERROR))
        }
        _ => None,
    }
}

fn result(action: &'static str, outcome: Outcome) -> Facts<'static> {
    Facts::new("restic.result", action, outcome).severity(INFO)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer<'a> {
    #[serde(borrow)]
    message_type: Cow<'a, str>,
    #[serde(borrow)]
    snapshot_id: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    during: Cow<'a, str>,
    #[serde(borrow)]
    item: Cow<'a, str>,
    #[serde(borrow)]
    error: ErrorText<'a>,
    code: Option<i64>,
    files_new: Option<i64>,
    files_changed: Option<i64>,
    total_files_processed: Option<i64>,
    total_bytes_processed: Option<i64>,
    data_added: Option<i64>,
    files_restored: Option<i64>,
    bytes_restored: Option<i64>,
    num_errors: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorText<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
}

fn json(text: &str) -> Option<Facts<'_>> {
    let said: Answer<'_> = serde_json::from_str(text).ok()?;
    let failure = |action, reason: &str| result(action, Outcome::Failure).severity(ERROR).with("reason", reason);
    let facts = match &*said.message_type {
        "summary" if said.num_errors.is_some() => {
            let failed = said.num_errors.is_some_and(|errors| errors > 0);
            let facts = result("backup.verify", if failed { Outcome::Failure } else { Outcome::Success });
            facts.with_number("errors", said.num_errors)
        }
        "summary" if said.files_restored.is_some() => result("backup.restore", Outcome::Success)
            .with_number("files", said.files_restored)
            .with_number("bytes", said.bytes_restored),
        "summary" if !said.snapshot_id.is_empty() => result("backup.create", Outcome::Success)
            .with_number("files", said.total_files_processed)
            .with_number("bytes", said.total_bytes_processed)
            .with_number("files_new", said.files_new)
            .with_number("files_changed", said.files_changed)
            .with_number("bytes_added", said.data_added),
        "error" => failure("backup.item", &said.error.message).with("during", &said.during).with("item", &said.item),
        "exit_error" => failure("backup.run", &said.message).with_number("code", said.code),
        _ => return None,
    };
    Some(if said.snapshot_id.is_empty() {
        facts
    } else {
        Facts { target_type: "snapshot".into(), target_id: said.snapshot_id, ..facts }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::testing::{Expected, check};

    #[test]
    fn lines_mean_what_they_say() {
        let result = |action, outcome| Expected::new("restic.result", action, outcome);
        check(
            read,
            [
                (
                    "snapshot 4bba301e saved",
                    result("backup.create", "success").target("snapshot", "4bba301e").severity(9),
                ),
                (
                    "Fatal: unable to open repository",
                    result("backup.run", "failure").severity(17).with("reason", "unable to open repository"),
                ),
                ("remove 3 snapshots:", result("backup.delete", "success").severity(9).with("snapshots", "3")),
                ("no errors were found", result("backup.verify", "success").severity(9)),
                (
                    r#"{"message_type":"summary","files_new":2,"files_changed":1,"total_files_processed":9,"total_bytes_processed":1000,"data_added":50,"snapshot_id":"4bba301e"}"#,
                    result("backup.create", "success")
                        .target("snapshot", "4bba301e")
                        .severity(9)
                        .with("files", "9")
                        .with("bytes", "1000")
                        .with("files_new", "2")
                        .with("files_changed", "1")
                        .with("bytes_added", "50"),
                ),
                (
                    r#"{"message_type":"error","error":{"message":"open: denied"},"during":"archival","item":"/x"}"#,
                    result("backup.item", "failure")
                        .severity(17)
                        .with("reason", "open: denied")
                        .with("during", "archival")
                        .with("item", "/x"),
                ),
                (
                    r#"{"message_type":"exit_error","code":10,"message":"Fatal: no repository"}"#,
                    result("backup.run", "failure")
                        .severity(17)
                        .with("reason", "Fatal: no repository")
                        .with("code", "10"),
                ),
            ],
        );
        for text in
            ["", "{", "{}", r#"{"message_type":"status","percent_done":1}"#, "snapshot x", "remove many snapshots:"]
        {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
