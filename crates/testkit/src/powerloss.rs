//! Power loss, simulated. A process runs under a preloaded library that records which part of what it writes below a
//! directory is durable ([`Shim`], [`begin`]); after kill -9, [`cut`] throws the rest away.
//!
//! What counts as durable, and the log's layout, stand at the head of `powerloss/powerloss.c`.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs,
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

const SOURCE: &str = include_str!("../powerloss/powerloss.c");

/// The compiled library.
#[derive(Debug, Clone)]
pub struct Shim {
    library: PathBuf,
}

impl Shim {
    /// Compiles the library with `cc` into `directory`.
    pub fn build(directory: &Path) -> Result<Self> {
        Ok(Self { library: compile(directory, "powerloss", SOURCE)? })
    }

    /// The compiled library.
    pub(crate) fn library(&self) -> &Path {
        &self.library
    }

    /// What a process must find in its environment to be recorded. With `lie`, syncing is switched off behind its back.
    pub fn environment(&self, directory: &Path, log: &Path, lie: bool) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.library.clone().into()),
            ("SIGILLO_POWERLOSS_DIR", directory.into()),
            ("SIGILLO_POWERLOSS_LOG", log.into()),
            ("SIGILLO_POWERLOSS_LIE", if lie { "1" } else { "0" }.into()),
        ]
    }
}

/// Compiles a library to be preloaded.
pub(crate) fn compile(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let source = directory.join(format!("{name}.c"));
    let library = directory.join(format!("{name}.so"));
    fs::write(&source, text)?;
    let compiler = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .context("cc can't be started: install a C compiler")?;
    ensure!(compiler.status.success(), "cc: {}", String::from_utf8_lossy(&compiler.stderr));
    Ok(library)
}

/// Begins a log: what is below `directory` now counts as durable. `log` lies outside of it, on the same file system. The
/// same log may then be continued by several processes, one after the other.
pub fn begin(directory: &Path, log: &Path) -> Result<()> {
    let graves = graves_of(log);
    if graves.exists() {
        fs::remove_dir_all(&graves)?;
    }
    fs::create_dir_all(&graves)?;
    let mut file = fs::File::create(log)?;
    for path in files_below(directory)? {
        let metadata = fs::metadata(&path)?;
        let numbers = [metadata.ino(), metadata.len(), 0];
        file.write_all(&kind::FILE_AT_START.to_ne_bytes())?;
        file.write_all(&0_u32.to_ne_bytes())?;
        numbers.iter().try_for_each(|number| file.write_all(&number.to_ne_bytes()))?;
    }
    Ok(())
}

/// What a loss of power took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// Files that lost bytes, or got old bytes back.
    pub files: usize,
    /// Bytes that were cut off the ends of files.
    pub bytes: u64,
    /// Directory entries that went back to what they were.
    pub entries: usize,
}

/// Rewinds `directory` to what the log says is durable, and ends the log. No process may use the directory.
pub fn cut(directory: &Path, log: &Path) -> Result<Cut> {
    let bytes = fs::read(log).with_context(|| format!("the log {} can't be read", log.display()))?;
    let mut recorded = Recorded::read(&bytes)?;
    let graves = graves_of(log);
    let mut cut = Cut::default();
    let mut rewound = HashSet::new();
    for path in files_below(directory)?.into_iter().chain(files_below(&graves)?) {
        let inode = fs::metadata(&path)?.ino();
        let just_created = recorded.just_created == Some(&path);
        let known = recorded.files.remove(&inode).filter(|_| !just_created);
        let Some(contents) = known.or_else(|| just_created.then(Contents::default)) else {
            ensure!(
                rewound.contains(&inode),
                "{} was created past the shim, which therefore proves nothing",
                path.display()
            );
            continue;
        };
        rewound.insert(inode);
        contents.rewind(&path, &mut cut).with_context(|| format!("{} can't be rewound", path.display()))?;
    }
    for entry in recorded.entries.iter().rev() {
        let synced = recorded.directories.get(&entry.directory).copied().unwrap_or(0);
        if entry.at >= synced {
            entry.undo(&graves).with_context(|| format!("{entry:?} can't be undone"))?;
            cut.entries += 1;
        }
    }
    fs::remove_dir_all(graves)?;
    fs::remove_file(log)?;
    Ok(cut)
}

fn graves_of(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".graves");
    name.into()
}

/// Every regular file below `directory`.
fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// The kinds of records, as in `powerloss.c`.
mod kind {
    pub(super) const FILE_AT_START: u32 = 1;
    pub(super) const NEW_FILE: u32 = 2;
    pub(super) const SYNCED: u32 = 3;
    pub(super) const OLD_BYTES: u32 = 4;
    pub(super) const DIR_SYNCED: u32 = 5;
    pub(super) const CREATED: u32 = 6;
    pub(super) const UNLINKED: u32 = 7;
    pub(super) const RENAMED: u32 = 8;
    pub(super) const LINKED: u32 = 9;
    pub(super) const MADE_DIR: u32 = 10;
    pub(super) const REMOVED_DIR: u32 = 11;
}

const HEADER_BYTES: usize = 32;

/// A log, read.
#[derive(Debug, Default)]
struct Recorded<'a> {
    /// By inode.
    files: HashMap<u64, Contents<'a>>,
    /// Where in the log the last sync of a directory began, by its inode.
    directories: HashMap<u64, usize>,
    entries: Vec<Entry<'a>>,
    /// The file that was being created when the log ends: its inode was not recorded any more.
    just_created: Option<&'a Path>,
}

/// What of a file is durable.
#[derive(Debug, Default)]
struct Contents<'a> {
    length: u64,
    /// Where in the log the last sync began.
    synced_at: usize,
    /// Where in the log; offset in the file; the bytes that were there.
    old: Vec<(usize, u64, &'a [u8])>,
}

/// A change of a directory.
#[derive(Debug)]
struct Entry<'a> {
    kind: u32,
    /// Where in the log.
    at: usize,
    directory: u64,
    /// Number of the grave that holds what was removed; 0 = none.
    grave: u64,
    path: &'a Path,
    /// Of a rename, the new path.
    to: Option<&'a Path>,
}

impl<'a> Recorded<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut recorded = Self::default();
        let mut at = 0;
        while let Some((header, rest)) = bytes.get(at..).and_then(|rest| rest.split_at_checked(HEADER_BYTES)) {
            let number = |from: usize| -> Result<u64> { Ok(u64::from_ne_bytes(header[from..from + 8].try_into()?)) };
            let kind = u32::from_ne_bytes(header[..4].try_into()?);
            let length = u32::from_ne_bytes(header[4..8].try_into()?) as usize;
            let (inode, value, start) = (number(8)?, number(16)?, usize::try_from(number(24)?)?);
            // A torn last record is that of an action which never happened.
            let Some(payload) = rest.get(..length) else { break };
            recorded.add(at, kind, inode, value, start, payload)?;
            let created = recorded.entries.last().filter(|entry| entry.at == at && kind == kind::CREATED);
            recorded.just_created = created.map(|entry| entry.path);
            at += HEADER_BYTES + length;
        }
        Ok(recorded)
    }

    fn add(&mut self, at: usize, kind: u32, inode: u64, value: u64, start: usize, payload: &'a [u8]) -> Result<()> {
        match kind {
            kind::FILE_AT_START | kind::NEW_FILE => {
                self.files.insert(inode, Contents { length: value, synced_at: at, old: Vec::new() });
            }
            kind::SYNCED => {
                let file = self.files.get_mut(&inode).context("a sync of an unknown file")?;
                // Of two syncs at once, the one that began later tells more.
                if start >= file.synced_at {
                    (file.length, file.synced_at) = (value, start);
                    file.old.retain(|(at, ..)| *at >= start);
                }
            }
            kind::OLD_BYTES => {
                self.files.get_mut(&inode).context("bytes of an unknown file")?.old.push((at, value, payload));
            }
            kind::DIR_SYNCED => {
                let synced = self.directories.entry(inode).or_default();
                *synced = start.max(*synced);
            }
            kind::CREATED | kind::UNLINKED | kind::RENAMED | kind::LINKED | kind::MADE_DIR | kind::REMOVED_DIR => {
                let mut paths = payload.split(|byte| *byte == 0).map(|path| Path::new(OsStr::from_bytes(path)));
                let path = paths.next().context("an entry without a path")?;
                let to = if kind == kind::RENAMED { paths.next() } else { None };
                self.entries.push(Entry { kind, at, directory: inode, grave: value, path, to });
            }
            other => bail!("the log has a record of unknown kind {other}"),
        }
        Ok(())
    }
}

impl Contents<'_> {
    fn rewind(&self, path: &Path, cut: &mut Cut) -> Result<()> {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        for (_, offset, bytes) in self.old.iter().rev() {
            file.write_all_at(bytes, *offset)?;
        }
        let length = file.metadata()?.len();
        ensure!(length >= self.length, "it has {length} bytes, of which {} are durable", self.length);
        if length > self.length || !self.old.is_empty() {
            cut.files += 1;
            cut.bytes += length - self.length;
            file.set_len(self.length)?;
        }
        Ok(())
    }
}

impl Entry<'_> {
    /// The process may have been killed before it came to do what the record says.
    fn undo(&self, graves: &Path) -> Result<()> {
        let grave = graves.join(self.grave.to_string());
        match self.kind {
            kind::CREATED | kind::LINKED => ignore_missing(fs::remove_file(self.path)),
            kind::UNLINKED => ignore_missing(fs::rename(grave, self.path)),
            kind::MADE_DIR => ignore_missing(fs::remove_dir_all(self.path)),
            kind::REMOVED_DIR if self.path.exists() => Ok(()),
            kind::REMOVED_DIR => Ok(fs::create_dir(self.path)?),
            _ => {
                let to = self.to.context("a rename without its second path")?;
                if !self.path.exists() && to.exists() {
                    fs::rename(to, self.path)?;
                }
                if self.grave != 0 && grave.exists() && !to.exists() {
                    fs::rename(grave, to)?;
                }
                Ok(())
            }
        }
    }
}

fn ignore_missing(result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Ok(other?),
    }
}
