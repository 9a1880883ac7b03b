//! What `[[file]]` of the configuration says.

use std::path::{Path, PathBuf};

use glob::Pattern;
use regex::bytes::Regex;
use serde::Deserialize;
use sigillo_model::limits::FIELD_MAX_BYTES;

use crate::Profile;

/// Longest pattern, in bytes.
const PATTERN_MAX_BYTES: usize = 1_024;

/// A file to follow, or many of one kind. Relative names are relative to the folder of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// Its path. It need not exist yet. Either this or `glob`.
    pub path: Option<PathBuf>,
    /// Which files: `*` and `?` stand for anything but `/`, `[a-z]` for one of these, `**` for any folders. What appears later is
    /// followed, too. Compressed files are not, nor is what a followed file was rotated to: it belongs to that file.
    pub glob: Option<String>,
    /// Whole paths, as in `glob`, that are left out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Where reading begins in files that are there when this table is new. Later ones are read from their beginning.
    #[serde(default)]
    pub from: Begin,
    /// How lines are joined into messages. Default: each line is one.
    pub multiline: Option<Multiline>,
    /// By which words the lines are understood. Default: by the program that wrote them.
    #[serde(default)]
    pub profile: Profile,
    /// Tenant that the lines concern. Default: that of the agent.
    pub tenant: Option<String>,
}

/// Where reading of a file begins that was never read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begin {
    /// With its first line.
    #[default]
    Beginning,
    /// With what is written next.
    End,
}

/// How lines are joined. A message ends after 1 s in which nothing was written, with 1,024 lines, and with 256 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Multiline {
    /// A line that matches this regular expression begins a message, every other one continues it.
    Start(String),
    /// A line that begins with a blank or a tab continues the message, if true.
    Indented(bool),
}

impl FileSettings {
    /// One file.
    pub fn of_path(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }

    /// The path or the pattern.
    pub fn name(&self) -> String {
        let path = self.path.as_ref().map(|path| path.display().to_string());
        path.or_else(|| self.glob.clone()).unwrap_or_default()
    }

    /// Makes names absolute that are relative to `base`.
    pub(crate) fn resolve(&mut self, base: &Path) {
        if let Some(path) = &mut self.path {
            *path = base.join(&*path);
        }
        for pattern in self.glob.iter_mut().chain(&mut self.exclude) {
            let base = Pattern::escape(&base.to_string_lossy());
            *pattern = Path::new(&base).join(&*pattern).to_string_lossy().into_owned();
        }
    }

    /// Refuses contradictions; says what is wrong and where.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let name = self.name();
        if self.path.is_some() == self.glob.is_some() {
            return Err("[[file]]: give either `path` or `glob`".into());
        }
        if self.path.is_some() && !self.exclude.is_empty() {
            return Err(format!("[[file]] {name}: `exclude` goes with `glob` only; remove it"));
        }
        for pattern in self.glob.iter().chain(&self.exclude) {
            if pattern.len() > PATTERN_MAX_BYTES {
                return Err(format!("[[file]] {name}: a pattern has more than {PATTERN_MAX_BYTES} bytes"));
            }
            Pattern::new(pattern).map_err(|error| format!("[[file]] {pattern}: {error}"))?;
        }
        if let Some(Multiline::Start(start)) = &self.multiline {
            Regex::new(start).map_err(|error| format!("[[file]] {name}: multiline.start: {error}"))?;
        }
        if self.tenant.as_ref().is_some_and(|tenant| tenant.len() > FIELD_MAX_BYTES) {
            return Err(format!("[[file]] {name}: tenant has more than {FIELD_MAX_BYTES} bytes"));
        }
        Ok(())
    }
}
