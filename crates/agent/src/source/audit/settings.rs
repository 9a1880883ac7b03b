//! What is said in `[[audit]]`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The kernel's audit log, as auditd writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSettings {
    /// The file to which auditd writes; those that it has put aside, `audit.log.1` and so on, belong to it. Default
    /// `/var/log/audit/audit.log`. The agent's account needs to be root or in the group that `log_group` of auditd.conf names.
    #[serde(default = "path")]
    pub path: PathBuf,
}

impl AuditSettings {
    /// Makes paths relative to the configuration's folder.
    pub(crate) fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
    }

    /// Its name among all sources.
    pub(crate) fn name(&self) -> String {
        format!("audit {}", self.path.display())
    }
}

fn path() -> PathBuf {
    "/var/log/audit/audit.log".into()
}
