//! What a file was rotated to: names beside its own.

use std::{
    cmp::Reverse,
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    content::{self, Content, FileId, begins_with, is_gzip},
    mark::{CERTAIN_BYTES, Mark},
    print::{Fit, HEAD_BYTES, TAIL_BYTES, tail},
};
use crate::source::renames::{is_renamed, list_twice, renamed};

/// Names that are looked at for one file at most.
const SIBLINGS_MAX: usize = 4_096;
/// Endings of compressed files.
pub(super) const COMPRESSED: [&str; 6] = ["gz", "xz", "zst", "bz2", "lz4", "zip"];

/// What rotation put behind a file's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Suffix {
    /// `.1` is newer than `.2`.
    Number(Reverse<u32>),
    /// `-20261123`, as text.
    Date(String),
    Other,
}

/// A file that may be a generation of another.
#[derive(Debug)]
pub(super) struct Sibling {
    pub(super) path: PathBuf,
    suffix: Suffix,
    pub(super) id: FileId,
    born: u64,
    written: u64,
}

impl Sibling {
    /// The newest time that speaks of its contents: compressing makes a new file and keeps the time of the last writing.
    fn newest(&self) -> u64 {
        if is_gzip(&self.path) { self.written } else { self.born.max(self.written) }
    }

    /// Whether it is called like a generation.
    pub(super) fn is_generation(&self) -> bool {
        self.suffix != Suffix::Other
    }

    /// Whether it was made after a time.
    pub(super) fn is_after(&self, began: u64) -> bool {
        let is_packed = is_gzip(&self.path) || self.born == 0;
        began < if is_packed { self.written } else { self.born }
    }

    /// Whether it is a file that we have open and that has lost its last name, compressed.
    pub(super) fn is_packed_form_of(&self, file: &Content) -> io::Result<bool> {
        let Some(file) = file.plain().filter(|_| is_gzip(&self.path)) else { return Ok(false) };
        let metadata = file.metadata()?;
        if metadata.nlink() > 0 {
            return Ok(false);
        }
        // Of short files there may be several with the same bytes. Compressing keeps the time of the last writing.
        let is_certain = metadata.len() >= CERTAIN_BYTES || self.written <= content::written(&metadata);
        // One that can't be read is not the one.
        let Some((mut packed, _)) = readable(self.open())?.filter(|_| is_certain) else { return Ok(false) };
        Ok(begins_with(file, &mut packed).unwrap_or_default())
    }

    /// Whether it is a copy of what an open file held before its last writing, of which nothing was read. What was made later than that is
    /// no copy, but what had its name next; that may be made within the same tick of the clock, but is written to later.
    pub(super) fn is_earlier_than(&self, file: &Content) -> io::Result<bool> {
        let Some(file) = file.plain() else { return Ok(false) };
        let metadata = file.metadata()?;
        let made = if is_gzip(&self.path) || self.born == 0 { self.written } else { self.born };
        let is_other = !self.id.is(&FileId::of(&metadata));
        Ok(is_other && made.max(self.written) <= content::written(&metadata))
    }

    /// Whether it is a copy of an open file that was not truncated, or not yet. `is_held`: that has its name, so there is none after it, and
    /// what is made now and has no bytes yet will be a copy.
    pub(super) fn is_copy_of(&self, file: &Content, is_held: bool) -> io::Result<bool> {
        let (Some(file), (mut copy, id)) = (file.plain(), self.open()?) else { return Ok(false) };
        let metadata = file.metadata()?;
        // What had the name before was made before.
        let is_later = !is_held || self.is_after(content::born(&metadata));
        let is_begun = is_held && copy.plain().map(fs::File::metadata).transpose()?.is_some_and(|copy| copy.len() == 0);
        // Of short files there may be several with the same bytes.
        let is_certain = metadata.len() >= CERTAIN_BYTES || is_held && content::written(&metadata) < self.born;
        let is_other = !id.is(&FileId::of(&metadata));
        Ok(is_other && is_later && (is_begun || is_certain && begins_with(file, &mut copy)?))
    }

    /// Opens it. An error as `is_renamed` knows it when another file has its name by now, or none.
    pub(super) fn open(&self) -> io::Result<(Content, FileId)> {
        let (file, metadata) = content::open(&self.path)?.ok_or_else(renamed)?;
        let id = FileId::of(&metadata);
        if !id.is(&self.id) {
            return Err(renamed());
        }
        Ok((Content::new(file, &self.path)?, id))
    }
}

/// `None` if it is there and can't be read.
fn readable<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Err(error) if !is_renamed(&error) => Ok(None),
        opened => opened.map(Some),
    }
}

/// Siblings of a file, oldest first. An error as `is_renamed` knows it when they are being renamed.
pub(super) fn siblings(path: &Path) -> io::Result<Vec<Sibling>> {
    list_twice(|| list(path), |one, other| one.path == other.path && one.id == other.id)
}

fn list(path: &Path) -> io::Result<Vec<Sibling>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let mut found: Vec<Sibling> = Vec::new();
    for entry in fs::read_dir(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })? {
        let entry = entry?;
        let entry_name = entry.file_name();
        let Some(suffix) = suffix(name, &entry_name) else { continue };
        // Removed since it was listed, or no file.
        let Some(metadata) = entry.metadata().ok().filter(fs::Metadata::is_file) else { continue };
        if found.len() == SIBLINGS_MAX {
            break;
        }
        found.push(Sibling {
            path: dir.join(entry_name),
            suffix,
            id: FileId::of(&metadata),
            born: content::born(&metadata),
            written: content::written(&metadata),
        });
    }
    found.sort_by(|a, b| (&a.suffix, is_gzip(&a.path)).cmp(&(&b.suffix, is_gzip(&b.path))));
    // While one is compressed it is there twice: the plain one is whole.
    found.dedup_by(|second, first| second.suffix == first.suffix && first.suffix != Suffix::Other);
    let numbers = found.iter().all(|sibling| matches!(sibling.suffix, Suffix::Number(_)));
    let dates = found.iter().all(|sibling| matches!(sibling.suffix, Suffix::Date(_)));
    if !numbers && !dates {
        found.sort_by_key(|sibling| sibling.written);
    }
    Ok(found)
}

/// The time before which all siblings were there.
pub(super) fn newest<'a>(siblings: impl IntoIterator<Item = &'a Sibling>) -> u64 {
    siblings.into_iter().filter(|sibling| sibling.is_generation()).map(Sibling::newest).max().unwrap_or_default()
}

/// Where what was read of a file has gone.
#[derive(Debug)]
pub(super) enum Found {
    /// It is this sibling, and can be read on there.
    Whole(usize, Content, FileId),
    /// This sibling is a copy of less than was read.
    Less(usize),
    Nowhere,
}

/// Finds the file of a mark among siblings. `truncated`: it is still at its path with other contents, so these are copies.
pub(super) fn find(mark: &Mark, siblings: &[Sibling], truncated: bool) -> io::Result<Found> {
    for (index, sibling) in siblings.iter().enumerate().filter(|(_, sibling)| sibling.id.is(&mark.id)) {
        let (mut content, id) = sibling.open()?;
        if compare(&mut content, mark)? == Fit::Same {
            return Ok(Found::Whole(index, content, id));
        }
    }
    if mark.offset == 0 {
        return Ok(Found::Nowhere);
    }
    // Also when it was renamed afterwards.
    let truncated = truncated || siblings.iter().any(|sibling| sibling.id.is(&mark.id));
    let mut less = None;
    // The newest copy is the likeliest one.
    for (index, sibling) in siblings.iter().enumerate().rev() {
        // Of little that was read there may be a file with the same bytes by chance. It is taken for a copy: a line too few is better
        // than one that comes twice.
        let is_old = mark.began.is_some_and(|began| sibling.newest() <= began);
        if is_old && (truncated || !mark.is_certain()) {
            continue;
        }
        // One that can't be read is not the one.
        let Some((mut content, id)) = readable(sibling.open())? else { continue };
        match compare(&mut content, mark) {
            Ok(Fit::Same) => return Ok(Found::Whole(index, content, id)),
            Ok(Fit::Shorter) if truncated => less = less.or(Some(index)),
            _ => {}
        }
    }
    Ok(less.map_or(Found::Nowhere, Found::Less))
}

/// Whether the content is what was read up to the mark, as far as its first bytes and those before the mark tell.
pub(super) fn compare(content: &mut Content, mark: &Mark) -> io::Result<Fit> {
    let head = mark.head.fits(content.head(&mut [0; HEAD_BYTES])?);
    if head != Fit::Same {
        return Ok(head);
    }
    let length = TAIL_BYTES.min(usize::try_from(mark.offset).unwrap_or(TAIL_BYTES));
    let mut bytes = [0; TAIL_BYTES];
    let bytes = bytes.get_mut(..length).unwrap_or_default();
    Ok(match content.read_at(bytes, mark.offset - length as u64)? {
        count if count < length => Fit::Shorter,
        _ if mark.tail.is_empty() || mark.tail == tail(bytes) => Fit::Same,
        _ => Fit::Other,
    })
}

/// The name of the file that `name` is a rotated generation of, if it is called like one.
pub(super) fn base_names(name: &str) -> impl Iterator<Item = String> + '_ {
    let name = COMPRESSED.iter().find_map(|end| name.strip_suffix(end)?.strip_suffix('.')).unwrap_or(name);
    // The suffix begins at a dot or a hyphen; an ending may follow it.
    name.char_indices().filter(|(_, letter)| matches!(letter, '.' | '-')).flat_map(move |(at, _)| {
        let (stem, rest) = name.split_at(at);
        let whole = is_rotation(rest).then(|| stem.to_owned());
        let inner = rest.rsplit_once('.').filter(|(suffix, _)| is_rotation(suffix));
        whole.into_iter().chain(inner.map(|(_, end)| format!("{stem}.{end}")))
    })
}

fn is_rotation(suffix: &str) -> bool {
    !matches!(kind(suffix), None | Some(Suffix::Other))
}

/// What stands behind `name` in `candidate`, before its ending or after it: `log.1`, `app-20261123.log.gz`.
fn suffix(name: &OsStr, candidate: &OsStr) -> Option<Suffix> {
    let (name, candidate) = (name.to_str()?, candidate.to_str()?);
    let packed = COMPRESSED.iter().find_map(|end| candidate.strip_suffix(end)?.strip_suffix('.'));
    // Other compressions can't be read.
    if name == candidate || packed.is_some() && !is_gzip(Path::new(candidate)) {
        return None;
    }
    let plain = packed.unwrap_or(candidate);
    let inner = || {
        let (stem, end) = name.rsplit_once('.')?;
        let suffix = plain.strip_prefix(stem)?.strip_suffix(end)?.strip_suffix('.')?;
        kind(suffix).filter(|kind| *kind != Suffix::Other)
    };
    plain.strip_prefix(name).and_then(kind).or_else(inner)
}

fn kind(suffix: &str) -> Option<Suffix> {
    let (mark, rest) = suffix.split_at_checked(1)?;
    if !matches!(mark, "." | "-" | "_") {
        return Some(Suffix::Other);
    }
    let digits = rest.bytes().filter(u8::is_ascii_digit).count();
    let is_number = digits == rest.len() && (1..=5).contains(&digits);
    let is_date = digits >= 6 && rest.bytes().all(|byte| byte.is_ascii_digit() || b"-_.T:Z".contains(&byte));
    Some(match rest.parse() {
        Ok(number) if is_number => Suffix::Number(Reverse(number)),
        _ if is_date => Suffix::Date(rest.to_owned()),
        _ => Suffix::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_rotation_gives_are_known() {
        let number = |number| Some(Suffix::Number(Reverse(number)));
        let date = |text: &str| Some(Suffix::Date(text.into()));
        for (name, candidate, expected) in [
            ("log", "log.1", number(1)),
            ("log", "log.12.gz", number(12)),
            ("app.log", "app.1.log", number(1)),
            ("app.log", "app-20261123.log.gz", date("20261123")),
            ("log", "log-20261123-1700000000", date("20261123-1700000000")),
            ("log", "log.old", Some(Suffix::Other)),
            ("log", "logger", Some(Suffix::Other)),
            ("app.log", "app-x.log", None),
            ("log", "log", None),
            ("log", "log.1.xz", None),
            ("log", "x.log.1", None),
        ] {
            assert_eq!(suffix(OsStr::new(name), OsStr::new(candidate)), expected, "{candidate}");
        }
        let bases = |name| base_names(name).collect::<Vec<_>>();
        assert_eq!(bases("log.1"), ["log"]);
        assert!(bases("app-20261123.log.gz").contains(&"app.log".into()));
        assert_eq!(bases("app.log"), [""; 0]);
    }
}
