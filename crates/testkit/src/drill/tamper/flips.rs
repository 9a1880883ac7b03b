//! One byte of a file that holds data, changed on the disk, as rot or a hex editor does.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand_chacha::ChaCha12Rng;

use super::{
    image::{Images, key},
    verdict::Place,
};
use crate::database::{Database, FOLDER};

/// A file to be changed.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) kind: &'static str,
    pub(super) image: &'a Path,
    /// Relative to the image.
    pub(super) file: PathBuf,
    pub(super) place: Place,
}

const TABLE: &str = "table";
const LOG: &str = "write-ahead log";

/// Tables and the log, where nearly all bytes are, more often than the few others.
const KINDS: [&str; 8] = [TABLE, LOG, TABLE, "manifest", TABLE, "current", LOG, "head file"];

/// What counts as near a file's begin or end.
const EDGE_BYTES: usize = 1_024;

/// Picks a file for the flip of this number.
pub(super) fn pick<'a>(images: &'a Images, number: usize, random: &mut ChaCha12Rng) -> Result<Target<'a>> {
    let kind = KINDS[number % KINDS.len()];
    let image = if kind == LOG { &images.crashed } else { images.any(random) };
    let database = Path::new(FOLDER);
    let mut records = None;
    let file = match kind {
        TABLE => {
            let tables = Database::open_read_only(image)?.live_files()?;
            let table = tables.get(random.random_range(0..tables.len())).context("there are no tables")?;
            if let ("tail", Some(from), Some(last)) =
                (table.column_family_name.as_str(), key(table.start_key.as_ref()), key(table.end_key.as_ref()))
            {
                let to = images.entries.iter().find(|entry| entry.from == last).context("no entry has this key")?.to;
                records = Some((from, to));
            }
            database.join(table.name.trim_start_matches('/'))
        }
        LOG => {
            let logs: Vec<PathBuf> = fs::read_dir(image.join(FOLDER))?
                .map(|entry| Ok(entry?.path()))
                .filter(|path| path.as_ref().is_ok_and(|path| holds_log(path)))
                .collect::<Result<_>>()?;
            let log = logs.get(random.random_range(0..logs.len().max(1))).context("there is no log with records")?;
            records = Some((images.logged_from, images.size()));
            log.strip_prefix(image)?.to_owned()
        }
        "manifest" => {
            let current = fs::read_to_string(image.join(FOLDER).join("CURRENT"))?;
            database.join(current.trim())
        }
        "current" => database.join("CURRENT"),
        _ => "head".into(),
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Target { kind, image, file, place: Place::File { name, records } })
}

fn holds_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log") && fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Changes any one byte of a file by any pattern, and says which. Every other time near the file's begin or end, where the
/// structures are that a byte from anywhere rarely hits.
pub(super) fn flip(path: &Path, random: &mut ChaCha12Rng) -> Result<usize> {
    let mut bytes = fs::read(path)?;
    ensure!(!bytes.is_empty(), "{} is empty", path.display());
    let edge = bytes.len().min(EDGE_BYTES);
    let at = match random.random_range(0..4) {
        0 => random.random_range(0..edge),
        1 => random.random_range(bytes.len() - edge..bytes.len()),
        _ => random.random_range(0..bytes.len()),
    };
    bytes[at] ^= random.random_range(1..=u8::MAX);
    fs::write(path, bytes)?;
    Ok(at)
}
