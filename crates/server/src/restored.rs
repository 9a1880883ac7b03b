//! A restoration is on record: whoever restores leaves a note beside the journal, and the server that starts next records it.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};
use sigillo_proto::v1::{self, any_value::Value};

use crate::{
    error::ServerError,
    own::{Event, Own},
};

/// Name of the note in the data folder.
pub(crate) const NOTE: &str = "restored";

/// What is known of a restoration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    /// Who did it.
    pub(crate) account: String,
    /// Where the backup lay.
    pub(crate) from: String,
    /// When the backup was made, nanoseconds since 1970 UTC; a text, as TOML has no such numbers.
    pub(crate) backup_unix_nano: String,
    /// Its records.
    pub(crate) size: u64,
    /// Records that were given up; `None`: no journal was there to tell, or it held no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    /// Whether there was a journal.
    pub(crate) replaced: bool,
}

impl Note {
    /// As it is written.
    pub(crate) fn to_text(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    fn event(&self) -> Event {
        let event = Event::new("journal.restored")
            .warning()
            .actor(&self.account, v1::ActorKind::System, "", "")
            .body(format!("the journal was restored from a backup of {} records", self.size))
            .text("from", &self.from)
            .text("backup_unix_nano", &self.backup_unix_nano)
            .number("size", self.size)
            .with("replaced_a_journal", Value::BoolValue(self.replaced));
        match self.lost {
            Some(lost) => event.number("records_given_up", lost),
            None => event,
        }
    }
}

/// Records the restoration that a note tells of, if there is one, and removes the note.
pub(crate) async fn record(own: &Own, data_dir: &Path) -> Result<(), ServerError> {
    let path = data_dir.join(NOTE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(ServerError::file(&path))?,
    };
    // A note that can't be read still says that there was a restoration.
    let event = match toml::from_str::<Note>(&text) {
        Ok(note) => note.event(),
        Err(error) => Event::new("journal.restored")
            .warning()
            .body(format!("the journal was restored from a backup; the note about it can't be read: {error}")),
    };
    own.record(event).await?;
    fs::remove_file(&path).map_err(ServerError::file(&path))
}
