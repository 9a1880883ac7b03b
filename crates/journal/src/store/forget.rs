//! Ridding the database's files of values that were replaced.
//!
//! A value that was replaced still stands in the log, and in tables, until they are merged with the newer ones. So: everything is
//! flushed, which leaves the log behind; every table that may hold an old value is compacted, down to the last level; and then the
//! files that held them must be gone from the folder. Only that is believed: the database itself tells no failure of a compaction.

use std::{collections::BTreeSet, fs, path::Path, sync::RwLockReadGuard, thread, time::Duration};

use rocksdb::{BottommostLevelCompaction, CompactOptions, DB, FlushOptions, LiveFile};

use super::{KeyRange, StoreError, StoreErrorKind, handle, opened};
use crate::layout::Table;

/// How long files that nothing refers to any more may take to go: a reader may hold them for a moment.
const GONE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// See [`super::Store::forget`]. The lock is taken anew for each step, so that whoever must have the database for himself waits for
/// one step only.
pub(super) fn forget<'a>(
    lock: impl Fn() -> RwLockReadGuard<'a, Option<DB>>,
    path: &Path,
    table: Table,
    keys: &[KeyRange],
    goes_on: &dyn Fn() -> bool,
) -> Result<bool, StoreError> {
    let logs = names(path, |name, bytes| name.strip_suffix(".log").is_some() && bytes > 0)?;
    let (tables, steps) = {
        let guard = lock();
        let db = opened(&guard)?;
        flush(db)?;
        let old = old_tables(db, table, keys)?;
        (old.iter().map(name).collect::<BTreeSet<_>>(), ranges(&old, keys))
    };
    for (first, last) in steps {
        if !goes_on() {
            return Ok(false);
        }
        let guard = lock();
        let db = opened(&guard)?;
        let mut options = CompactOptions::default();
        // Waits for compactions that began before the new values were there: what they write would hold the old ones.
        options.set_exclusive_manual_compaction(true);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        db.compact_range_cf_opt(handle(db, table)?, Some(&first), Some(&last), &options);
    }
    let stay = {
        let guard = lock();
        old_tables(opened(&guard)?, table, keys)?.iter().map(name).any(|name| tables.contains(&name))
    };
    if stay {
        let message = "tables with values that were replaced could not be compacted".to_owned();
        return Err(StoreError { kind: StoreErrorKind::Busy, message });
    }
    let old: BTreeSet<String> = logs.union(&tables).cloned().collect();
    let mut waited = Duration::ZERO;
    loop {
        let there = names(path, |name, _| old.contains(name))?;
        let Some(first) = there.first() else { return Ok(true) };
        if !goes_on() {
            return Ok(false);
        }
        if waited >= GONE_WITHIN {
            let message = format!("the file {first}, which holds values that were replaced, does not go");
            return Err(StoreError { kind: StoreErrorKind::Busy, message });
        }
        thread::sleep(LOOK_EVERY);
        waited += LOOK_EVERY;
    }
}

/// Writes everything that is in memory into tables: the log so far is not needed any more.
fn flush(db: &DB) -> Result<(), StoreError> {
    let mut options = FlushOptions::default();
    options.set_wait(true);
    for table in Table::ALL {
        db.flush_cf_opt(handle(db, table)?, &options)?;
    }
    Ok(())
}

/// The tables that may hold values of these keys.
fn old_tables(db: &DB, table: Table, keys: &[KeyRange]) -> Result<Vec<LiveFile>, StoreError> {
    let mut files = db.live_files()?;
    files
        .retain(|file| file.column_family_name == table.name() && keys.iter().any(|keys| common(file, keys).is_some()));
    Ok(files)
}

/// What of a range lies within a table.
fn common(file: &LiveFile, (first, last): &KeyRange) -> Option<KeyRange> {
    let (start, end) = (file.start_key.as_ref()?, file.end_key.as_ref()?);
    (start <= last && first <= end).then(|| (first.max(start).clone(), last.min(end).clone()))
}

/// For each table the keys from the first to the last that are asked for, so that each is compacted once.
fn ranges(files: &[LiveFile], keys: &[KeyRange]) -> BTreeSet<KeyRange> {
    let span = |file: &LiveFile| {
        let parts: Vec<KeyRange> = keys.iter().filter_map(|keys| common(file, keys)).collect();
        let first = parts.iter().map(|(first, _)| first).min()?;
        let last = parts.iter().map(|(_, last)| last).max()?;
        Some((first.clone(), last.clone()))
    };
    files.iter().filter_map(span).collect()
}

/// The file's name within the folder.
fn name(file: &LiveFile) -> String {
    file.name.trim_start_matches('/').to_owned()
}

/// Names of the files in the database's folder that are wanted, by name and length.
fn names(path: &Path, wanted: impl Fn(&str, u64) -> bool) -> Result<BTreeSet<String>, StoreError> {
    let failed = |error: std::io::Error| StoreError {
        kind: StoreErrorKind::Busy,
        message: format!("{}: {error}", path.display()),
    };
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // One that has gone since is not there.
        let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
        if let Some(name) = entry.file_name().to_str().filter(|name| wanted(name, bytes)) {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}
