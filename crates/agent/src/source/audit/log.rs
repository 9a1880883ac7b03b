//! The log's files: `audit.log`, and `audit.log.1` and so on, which auditd makes by renaming, the greatest number being the oldest. What
//! is read is one stream of bytes, whose places count on from file to file.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::source::{
    renames::{is_renamed, list_twice, renamed, steady},
    watch::Watch,
};

/// Bytes by which a file is known again: its number may have become another's.
const HEAD_BYTES: usize = 64;

/// A place in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    dev: u64,
    inode: u64,
    /// The file's first bytes, hexadecimal: of those before the place, as many as are compared.
    head: String,
    offset: u64,
}

/// A file of which something is still needed.
#[derive(Debug)]
struct Span {
    /// Place of its first byte in the stream.
    begin: u64,
    dev: u64,
    inode: u64,
    head: Vec<u8>,
}

/// What one read gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// That many bytes.
    Bytes(usize),
    /// The file has ended, and another one follows.
    EndOfFile,
    /// There is nothing now.
    Nothing,
}

/// The files, being read.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    /// Bytes read of it.
    read: u64,
    /// The last one is being read.
    spans: VecDeque<Span>,
    /// Whether the place at which reading was to begin is gone.
    pub(super) moved: bool,
    resume: Option<Place>,
    /// The file that was watched last, and the watch's number if the kernel watches it.
    watched: Option<((u64, u64), Option<i32>)>,
}

impl Log {
    pub(super) fn new(path: PathBuf, resume: Option<Place>) -> Self {
        Self { path, file: None, read: 0, spans: VecDeque::new(), moved: false, resume, watched: None }
    }

    /// The place in the stream up to which was read; the stream begins with the file in which reading began.
    pub(super) fn place(&self) -> u64 {
        self.spans.back().map_or(0, |span| span.begin) + self.read
    }

    /// How a place of the stream is remembered, and where its file begins. What comes before it is forgotten.
    pub(super) fn remember(&mut self, place: u64) -> (Place, u64) {
        while self.spans.get(1).is_some_and(|next| next.begin <= place) {
            self.spans.pop_front();
        }
        let Some(span) = self.spans.front() else { return <_>::default() };
        let offset = place.saturating_sub(span.begin);
        let length = usize::try_from(offset).unwrap_or(usize::MAX).min(span.head.len());
        let head = hex::encode(span.head.get(..length).unwrap_or_default());
        (Place { dev: span.dev, inode: span.inode, head, offset }, span.begin)
    }

    /// Reads on.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        match steady(|| self.look(buffer)) {
            Err(error) if is_renamed(&error) || error.kind() == io::ErrorKind::NotFound => Ok(Read::Nothing),
            read => read,
        }
    }

    /// The same, unless files are renamed while they are looked at; then nothing has changed.
    fn look(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        if self.file.is_none() && !self.begin()? {
            return Ok(Read::Nothing);
        }
        // Twice: what is written between an end and the look for a successor belongs to this file.
        let mut successor = None;
        for _ in 0..2 {
            let (Some(file), Some(span)) = (&self.file, self.spans.back_mut()) else { return Ok(Read::Nothing) };
            let count = file.read_at(buffer, self.read)?;
            if count > 0 {
                if self.read == span.head.len() as u64 {
                    let room = HEAD_BYTES.saturating_sub(span.head.len());
                    span.head.extend(buffer.iter().take(count.min(room)));
                }
                self.read += count as u64;
                return Ok(Read::Bytes(count));
            }
            if file.metadata()?.len() < self.read {
                // Cut back: it begins anew.
                let file = file.try_clone()?;
                self.open(file, 0)?;
                return Ok(Read::EndOfFile);
            }
            if successor.is_some() {
                break;
            }
            let files = files(&self.path)?;
            let own = files.iter().position(|listed| listed.id == (span.dev, span.inode));
            let next = own.map_or(0, |own| own + 1);
            successor = files.into_iter().nth(next);
            if successor.is_none() {
                return Ok(Read::Nothing);
            }
        }
        let Some(successor) = successor else { return Ok(Read::Nothing) };
        self.open(successor.open()?, 0).map(|()| Read::EndOfFile)
    }

    /// Bytes that are there and were not read, as far as the files can be looked at.
    pub(super) fn lag(&self) -> u64 {
        let (Some(file), Some(span)) = (&self.file, self.spans.back()) else { return 0 };
        let own = file.metadata().map_or(0, |metadata| metadata.len()).saturating_sub(self.read);
        let files = files(&self.path).unwrap_or_default();
        let later = files.iter().rev().take_while(|listed| listed.id != (span.dev, span.inode));
        own + later.filter_map(|listed| fs::metadata(&listed.path).ok()).map(|metadata| metadata.len()).sum::<u64>()
    }

    /// Has the kernel tell when the file that is being read grows, or names come and go beside it; true if it is another one than
    /// before: it may have grown until now.
    pub(super) fn watch(&mut self, watch: &mut Watch) -> bool {
        watch.add_dir(folder(&self.path));
        let (Some(file), Some(span)) = (&self.file, self.spans.back()) else { return false };
        let id = (span.dev, span.inode);
        if self.watched.is_some_and(|(watched, _)| watched == id) {
            return false;
        }
        if let Some((_, Some(number))) = self.watched {
            watch.remove_file(number);
        }
        self.watched = Some((id, watch.add_file(file, &Arc::from("audit"))));
        true
    }

    /// Whether the kernel gives no notice of the file that is being read.
    pub(super) fn is_blind(&self) -> bool {
        matches!(self.watched, Some((_, None)))
    }

    /// Opens the file that holds the place, or else the oldest; false if there is none.
    fn begin(&mut self) -> io::Result<bool> {
        let files = files(&self.path)?;
        if let Some(place) = &self.resume {
            for listed in files.iter().filter(|listed| listed.id == (place.dev, place.inode)) {
                let file = listed.open()?;
                let mut head = vec![0; place.head.len() / 2];
                let is_same = file.metadata()?.len() >= place.offset && file.read_exact_at(&mut head, 0).is_ok();
                if is_same && hex::encode(&head) == place.head {
                    self.open(file, place.offset)?;
                    self.resume = None;
                    return Ok(true);
                }
            }
        }
        let Some(oldest) = files.first() else { return Ok(false) };
        self.open(oldest.open()?, 0)?;
        self.moved = self.resume.take().is_some();
        Ok(true)
    }

    fn open(&mut self, file: File, offset: u64) -> io::Result<()> {
        let begin = self.place();
        let metadata = file.metadata()?;
        let mut head = vec![0; usize::try_from(offset).unwrap_or(usize::MAX).min(HEAD_BYTES)];
        file.read_exact_at(&mut head, 0)?;
        self.spans.push_back(Span { begin, dev: metadata.dev(), inode: metadata.ino(), head });
        (self.file, self.read) = (Some(file), offset);
        Ok(())
    }
}

/// A file as it was listed.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    /// 0 is the one that auditd writes.
    number: u32,
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl Listed {
    /// Opens it. An error as `is_renamed` knows it when another file has its name by now, or none.
    fn open(&self) -> io::Result<File> {
        let file = File::open(&self.path)?;
        if id(&file.metadata()?) == self.id { Ok(file) } else { Err(renamed()) }
    }
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The log's files, oldest first. An error as `is_renamed` knows it when they are being renamed.
fn files(path: &Path) -> io::Result<Vec<Listed>> {
    list_twice(|| list(path), PartialEq::eq)
}

fn list(path: &Path) -> io::Result<Vec<Listed>> {
    let Some(name) = path.file_name() else { return Ok(Vec::new()) };
    let entries = match fs::read_dir(folder(path)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let number = match entry.file_name().as_encoded_bytes().strip_prefix(name.as_encoded_bytes()) {
            Some(b"") => 0,
            Some([b'.', digits @ ..]) => match std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()) {
                Some(number) => number,
                None => continue,
            },
            _ => continue,
        };
        files.push(Listed { number, path: entry.path(), id: id(&entry.metadata()?) });
    }
    files.sort_by_key(|listed| Reverse(listed.number));
    Ok(files)
}
