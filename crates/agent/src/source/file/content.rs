//! What a file holds, plain or compressed with gzip.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, BufReader, Read, Seek},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
    time::UNIX_EPOCH,
};

use flate2::read::MultiGzDecoder;
use rustix::{
    fs::{OFlags, SeekFrom, seek},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::print::{HEAD_BYTES, TAIL_BYTES};
use crate::source::renames::is_absent;

/// Bytes of two files that are compared at once.
const COMPARED_BYTES: usize = 64 << 10;

/// By what the file system knows a file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct FileId {
    dev: u64,
    inode: u64,
    /// When it was created, nanoseconds; 0 where that is unknown. Another file may get the same inode.
    #[serde(default)]
    born: u64,
}

impl FileId {
    pub(super) fn new(dev: u64, inode: u64) -> Self {
        Self { dev, inode, born: 0 }
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { dev: metadata.dev(), inode: metadata.ino(), born: born(metadata) }
    }

    /// Whether it is the same file, as far as its name in the file system tells. Device numbers may change with a restart of the machine,
    /// so they count only where the time of birth is unknown.
    pub(super) fn is(&self, other: &Self) -> bool {
        let both_born = self.born != 0 && other.born != 0;
        self.inode == other.inode && if both_born { self.born == other.born } else { self.dev == other.dev }
    }
}

/// When a file was created, in nanoseconds; 0 where that is unknown.
pub(super) fn born(metadata: &Metadata) -> u64 {
    let since = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or_default()
}

/// When a file was last written to, in nanoseconds.
pub(super) fn written(metadata: &Metadata) -> u64 {
    let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    u64::try_from(seconds).unwrap_or_default() * 1_000_000_000 + u64::try_from(nanos).unwrap_or_default()
}

/// Whether a name is that of a file compressed with gzip.
pub(super) fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// Opens a regular file; `None` if there is none of that name, or what has it is none. Never waits, also not at a pipe.
pub(super) fn open(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata)))
}

/// What is read.
#[derive(Debug)]
pub(super) enum Content {
    Plain(File),
    Gzip(Box<Unpacker>),
}

impl Content {
    pub(super) fn new(file: File, path: &Path) -> io::Result<Self> {
        if is_gzip(path) {
            Unpacker::new(file).map(|unpacker| Self::Gzip(unpacker.into()))
        } else {
            Ok(Self::Plain(file))
        }
    }

    /// Fills the buffer from `offset`, with less at the end only.
    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Plain(file) => read_plain(file, buffer, offset),
            Self::Gzip(unpacker) => unpacker.read_at(buffer, offset),
        }
    }

    /// Whether it begins with these bytes, if they are any.
    pub(super) fn begins_with(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut found = vec![0; bytes.len()];
        let count = self.read_at(&mut found, 0)?;
        Ok(!bytes.is_empty() && found.get(..count) == Some(bytes))
    }

    /// The first bytes.
    pub(super) fn head<'a>(&self, buffer: &'a mut [u8; HEAD_BYTES]) -> io::Result<&'a [u8]> {
        let count = match self {
            Self::Plain(file) => read_plain(file, buffer, 0)?,
            Self::Gzip(unpacker) => {
                let start = buffer.get_mut(..unpacker.first.len()).unwrap_or_default();
                start.copy_from_slice(unpacker.first.get(..start.len()).unwrap_or_default());
                unpacker.first.len()
            }
        };
        Ok(buffer.get(..count).unwrap_or_default())
    }

    pub(super) fn plain(&self) -> Option<&File> {
        match self {
            Self::Plain(file) => Some(file),
            Self::Gzip(_) => None,
        }
    }

    /// Whether these are the bytes before a place, at most `TAIL_BYTES`.
    pub(super) fn still_holds(&self, bytes: &[u8], place: u64) -> io::Result<bool> {
        let Self::Plain(file) = self else { return Ok(true) };
        let mut now = [0; TAIL_BYTES];
        let now = now.get_mut(..bytes.len()).unwrap_or_default();
        Ok(read_plain(file, now, place.saturating_sub(bytes.len() as u64))? == bytes.len() && now == bytes)
    }

    /// Why the rest of a compressed file can't be had, once it was tried.
    pub(super) fn damage(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Plain(_) => None,
            Self::Gzip(unpacker) => unpacker.damage,
        }
    }

    /// Where the bytes begin that were really written: a writer that keeps its place after its file was truncated leaves a hole.
    pub(super) fn end_of_hole(&self) -> io::Result<u64> {
        let Self::Plain(file) = self else { return Ok(0) };
        let data = match seek(file, SeekFrom::Data(0)) {
            Ok(data) => data,
            // Nothing but a hole, or no such question on this file system.
            Err(Errno::NXIO | Errno::INVAL) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let mut page = [0; 4_096];
        let count = if data == 0 { 0 } else { read_plain(file, &mut page, data)? };
        let zeros = page.iter().take(count).take_while(|byte| **byte == 0).count();
        Ok(data + zeros as u64)
    }
}

fn read_plain(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut count = 0;
    while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Whether there are bytes in `part`, and `whole` begins with all of them. What can't be unpacked counts as far as it can.
pub(super) fn begins_with(whole: &File, part: &mut Content) -> io::Result<bool> {
    let (mut ours, mut its) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    let mut offset = 0;
    loop {
        let count = match part.read_at(&mut its, offset) {
            Ok(count) => count,
            Err(error) if part.damage().is_none() => return Err(error),
            Err(_) => 0,
        };
        let Some(its) = its.get(..count).filter(|its| !its.is_empty()) else { return Ok(offset > 0) };
        let ours = ours.get_mut(..count).unwrap_or_default();
        if read_plain(whole, ours, offset)? < count || ours != its {
            return Ok(false);
        }
        offset += count as u64;
    }
}

/// A compressed file, unpacked from front to back.
#[derive(Debug)]
pub(super) struct Unpacker {
    file: File,
    decoder: MultiGzDecoder<BufReader<File>>,
    /// Unpacked bytes from `start`.
    window: Vec<u8>,
    start: u64,
    first: Vec<u8>,
    /// What is behind the window can't be unpacked.
    damage: Option<io::ErrorKind>,
}

impl Unpacker {
    fn new(file: File) -> io::Result<Self> {
        let decoder = decoder(&file)?;
        let mut unpacker = Self { file, decoder, window: Vec::new(), start: 0, first: Vec::new(), damage: None };
        match unpacker.fill(HEAD_BYTES) {
            // Whoever reads it will learn of that.
            Err(_) if unpacker.damage.is_some() => {}
            filled => filled?,
        }
        unpacker.first = unpacker.window.clone();
        Ok(unpacker)
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset < self.start {
            self.decoder = decoder(&self.file)?;
            self.window.clear();
            (self.start, self.damage) = (0, None);
        }
        loop {
            let skip = usize::try_from(offset - self.start).unwrap_or(usize::MAX).min(self.window.len());
            self.window.drain(..skip);
            self.start += skip as u64;
            self.fill(buffer.len())?;
            if self.start == offset || self.window.is_empty() {
                break;
            }
        }
        let count = self.window.len().min(buffer.len());
        if let (Some(target), Some(source)) = (buffer.get_mut(..count), self.window.get(..count)) {
            target.copy_from_slice(source);
        }
        Ok(count)
    }

    /// Unpacks until there are `size` bytes, or all that there are. An error when there are none because of damage.
    fn fill(&mut self, size: usize) -> io::Result<()> {
        let missing = size.saturating_sub(self.window.len()) as u64;
        if self.damage.is_none() {
            match self.decoder.by_ref().take(missing).read_to_end(&mut self.window) {
                Err(error) if is_damage(&error) => self.damage = Some(error.kind()),
                filled => drop(filled?),
            }
        }
        self.damage.filter(|_| self.window.is_empty()).map_or(Ok(()), |kind| Err(kind.into()))
    }
}

/// Whether it is the bytes' fault, and not the disk's.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn decoder(file: &File) -> io::Result<MultiGzDecoder<BufReader<File>>> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    Ok(MultiGzDecoder::new(BufReader::new(file)))
}
