//! Which paths the configuration names.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

use super::{
    followed::is_symlink,
    mark::key,
    siblings::{COMPRESSED, base_names},
};
use crate::source::file::settings::FileSettings;

/// Files that are followed at once: half as many as the spool has marks, which other sources need as well.
pub(super) const FILES_MAX: usize = 4_096;

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// One `[[file]]`.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) path: Option<PathBuf>,
    glob: Option<Pattern>,
    exclude: Vec<Pattern>,
}

impl Names {
    /// Patterns that are none, which the configuration does not let through, match nothing.
    pub(super) fn new(settings: &FileSettings) -> Self {
        let pattern = |text: &String| Pattern::new(text).ok();
        Self {
            path: settings.path.clone(),
            glob: settings.glob.as_ref().and_then(pattern),
            exclude: settings.exclude.iter().filter_map(pattern).collect(),
        }
    }

    /// Whether a path is meant, if it exists or not.
    pub(super) fn covers(&self, path: &Path) -> bool {
        let matches = |pattern: &Pattern| pattern.matches_path_with(path, OPTIONS);
        self.path.as_deref() == Some(path)
            || self.glob.as_ref().is_some_and(matches) && !self.exclude.iter().any(matches)
    }

    /// What there is now; with `path` also if there is nothing.
    pub(super) fn expand(&self) -> Vec<PathBuf> {
        let found = self.glob.as_ref().and_then(|pattern| glob::glob_with(pattern.as_str(), OPTIONS).ok());
        // One more than may be, so that it is noticed. A folder that can't be read has no files for us.
        let found = found.into_iter().flatten().filter_map(Result::ok);
        let found = found.filter(|path| self.covers(path) && path.is_file() && !is_compressed(path));
        self.path.iter().cloned().chain(found.take(FILES_MAX + 1)).collect()
    }

    /// Folders in which a change may mean a new file.
    pub(super) fn dir(&self) -> Option<PathBuf> {
        let text = self.glob.as_ref().map_or_else(String::new, |pattern| pattern.as_str().to_owned());
        let path = self.path.as_deref().unwrap_or(Path::new(&text));
        let is_plain = |path: &&Path| self.path.is_some() || !path.to_string_lossy().contains(['*', '?', '[']);
        path.ancestors().skip(1).find(is_plain).map(Path::to_owned)
    }
}

/// All paths of all tables, each with the first table that names it. Left out is what a named file was rotated to. Files come before
/// symbolic links, since they may lead to these files.
pub(super) fn expand(tables: &[Names], is_followed: impl Fn(&Path) -> bool) -> (Vec<(PathBuf, usize)>, bool) {
    let mut found: BTreeMap<PathBuf, (usize, bool)> = BTreeMap::new();
    let mut is_full = false;
    for (index, table) in tables.iter().enumerate() {
        for path in table.expand() {
            is_full |= found.len() >= FILES_MAX;
            if found.len() < FILES_MAX {
                found.entry(path).or_insert((index, table.path.is_some()));
            }
        }
    }
    let names: BTreeSet<&Path> = found.keys().map(PathBuf::as_path).collect();
    let is_generation = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        base_names(name).map(|base| path.with_file_name(base)).any(|base| names.contains(&*base) || is_followed(&base))
    };
    let kept = found.iter().filter(|(path, (_, is_named))| *is_named || !is_generation(path));
    let mut kept: Vec<_> = kept.map(|(path, (table, _))| (path.clone(), *table)).collect();
    kept.sort_by_cached_key(|(path, _)| is_symlink(path));
    (kept, is_full)
}

/// The key under which it is remembered that a table is not new.
pub(super) fn table_key(settings: &FileSettings) -> String {
    format!("files {}", key(Path::new(&settings.name())))
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| COMPRESSED.iter().any(|end| extension == *end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_once_without_what_they_were_rotated_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        for name in
            ["a.log", "a.log.1", "a-20261123.log", "a.log.2.gz", "b.log", "c.txt", "d/e.log", "x.log", "z-20261123.log"]
        {
            std::fs::write(path(name), "").unwrap();
        }
        std::os::unix::fs::symlink(path("b.log"), path("aa.log")).unwrap();
        let table = |glob: Option<&str>, one: Option<&str>| {
            let mut settings = FileSettings {
                glob: glob.map(str::to_owned),
                path: one.map(PathBuf::from),
                exclude: glob.map(|_| "x*".to_owned()).into_iter().collect(),
                ..FileSettings::default()
            };
            settings.resolve(dir.path());
            Names::new(&settings)
        };
        let tables = [table(Some("*.log*"), None), table(Some("*/*.log"), None), table(None, Some("b.log"))];
        let (found, is_full) = expand(&tables, |_| false);
        let expected = [("a.log", 0), ("b.log", 0), ("d/e.log", 1), ("z-20261123.log", 0), ("aa.log", 0)];
        assert_eq!(found, expected.map(|(name, table)| (path(name), table)));
        assert!(!is_full);
        assert!(
            tables[0].covers(&path("later.log"))
                && !tables[0].covers(&path("x.log"))
                && !tables[0].covers(&path("d/e.log"))
        );
        assert_eq!(tables[1].dir().unwrap(), dir.path());
    }
}
