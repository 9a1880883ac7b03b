//! What is said in `[[journald]]`.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::units::Units;
use crate::Profile;

/// A reading of the systemd journal, by `journalctl` (systemd 236 or later). The agent's account needs to be in the group
/// `systemd-journal`: of entries that it may not see it would believe that they are missing, and say so.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournaldSettings {
    /// Units whose entries are shipped, and entries about them: names or patterns, as `journalctl --unit` takes them. Default: all. Read
    /// is everything in any case, since the journal's own counter shows gaps only to who reads all.
    #[serde(default)]
    pub units: Vec<String>,
    /// Folder that holds the journal's files, for a container's journal or a copy. Default: this machine's journal.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// By which words the messages are understood. Default: by the program that wrote each.
    #[serde(default)]
    pub profile: Profile,
}

impl JournaldSettings {
    /// Makes paths relative to the configuration's folder.
    pub(crate) fn resolve(&mut self, base: &Path) {
        self.directory = self.directory.as_ref().map(|directory| base.join(directory));
    }

    /// What tells journalctl which journal is meant.
    pub(crate) fn place(&self) -> Vec<OsString> {
        match (&self.directory, fs::read_to_string("/etc/machine-id")) {
            (Some(directory), _) => vec!["--directory".into(), directory.into()],
            // Of what is merged, this machine's: journals received from others may lie beside it.
            (None, Ok(id)) if !id.trim().is_empty() => vec![format!("_MACHINE_ID={}", id.trim()).into()],
            (None, _) => Vec::new(),
        }
    }

    /// Refuses what can't be units.
    pub(crate) fn validate(&self) -> Result<(), String> {
        Units::new(&self.units).map(drop)
    }

    /// Its name among all sources.
    pub(crate) fn name(&self) -> String {
        self.key().trim_end().replace("journald  in", "journald in")
    }

    /// Name under which is remembered how far was read.
    pub(crate) fn key(&self) -> String {
        let units = self.units.join(",");
        match &self.directory {
            None => format!("journald {units}"),
            Some(directory) => format!("journald {units} in {}", directory.display()),
        }
    }
}
