//! What is said in `[[socket]]`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// A Unix socket to which programs of this machine write what they do. SOCKET.md says how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketSettings {
    /// Where it is made; its folder is made, too, if it is missing. Default `/run/sigillo-agent/socket`.
    #[serde(default = "path")]
    pub path: PathBuf,
    /// Who may connect, as the file's mode says: whoever may write. Default `0o660`.
    #[serde(default = "mode")]
    pub mode: u32,
    /// Account that owns the file, by name or number. Default: the agent's own.
    #[serde(default)]
    pub user: Option<String>,
    /// Group that owns the file, by name or number. Default: the agent's own.
    #[serde(default)]
    pub group: Option<String>,
    /// Tenant that records concern which name none. Default: the agent's.
    #[serde(default)]
    pub tenant: String,
}

impl SocketSettings {
    /// Makes paths relative to the configuration's folder.
    pub(crate) fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
    }

    /// Says what can't be.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.mode > 0o777 {
            return Err(format!(
                "socket.mode is {:#o}, it must be 0o777 at most: write it in octal, as 0o660",
                self.mode
            ));
        }
        self.owner().map(drop)
    }

    /// Numbers of the account and the group, where they are not the agent's own.
    pub(super) fn owner(&self) -> Result<(Option<u32>, Option<u32>), String> {
        let user = self.user.as_deref().map(|name| number(name, "/etc/passwd", "user")).transpose()?;
        let group = self.group.as_deref().map(|name| number(name, "/etc/group", "group")).transpose()?;
        Ok((user, group))
    }
}

/// The number of an account or a group. Both files have it as the third field of a line that begins with the name.
fn number(name: &str, file: &str, what: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = fs::read_to_string(file).map_err(|error| format!("socket.{what}: {file} can't be read: {error}"))?;
    let mut lines = text.lines().map(|line| line.split(':'));
    let number = lines.find_map(|mut fields| (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten());
    number.ok_or_else(|| format!("socket.{what}: {name:?} is not in {file}: create it, or give a number"))
}

fn path() -> PathBuf {
    "/run/sigillo-agent/socket".into()
}

fn mode() -> u32 {
    0o660
}
