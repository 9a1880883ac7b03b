//! The spool's folder: its lock, its files, and the order in which they become durable.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    SpoolError,
    layout::{LOCK, RESERVE, UNFINISHED, segment_name, segment_number},
};

/// Files of a folder at most; beyond that, something else fills it.
const FILES_MAX: usize = 1 << 20;

/// Bytes of the reserve: more than the header of a segment with the marks of a thousand files.
const RESERVE_BYTES: usize = 256 << 10;

/// The folder, which nobody else uses as long as this lives.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// To be synced.
    dir: File,
    lock: File,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Not left to the closing of the file: a process that is being started at this moment has a copy of it.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

impl Folder {
    /// Makes the folder if it is missing, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, SpoolError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(SpoolError::io(path))?;
        let dir = File::open(path).map_err(SpoolError::io(path))?;
        // Without its own name all that is synced in the folder would be gone with the power.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match File::open(parent).and_then(|parent| parent.sync_all()) {
            // Somebody else made the folder there, for us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced.map_err(SpoolError::io(parent))?,
        }
        let name = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&name).map_err(SpoolError::io(&name))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), dir, lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(SpoolError::Locked(path.to_owned())),
            Err(error) => Err(SpoolError::io(&name)(error.into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(segment_name(number))
    }

    /// Numbers of the segments, ascending. What was being made when a process ended is removed.
    pub(crate) fn tidy(&self) -> Result<Vec<u64>, SpoolError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(SpoolError::io(&self.path))? {
            let entry = entry.map_err(SpoolError::io(&self.path))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let unfinished = name.strip_suffix(UNFINISHED).and_then(segment_number);
            if unfinished.is_some() {
                fs::remove_file(entry.path()).map_err(SpoolError::io(&entry.path()))?;
            }
            numbers.extend(segment_number(name));
            if numbers.len() > FILES_MAX {
                return Err(SpoolError::Options(
                    "there are more than a million segments: something else fills the folder",
                ));
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes the names in the folder durable.
    pub(crate) fn sync(&self) -> Result<(), SpoolError> {
        self.dir.sync_all().map_err(SpoolError::io(&self.path))
    }

    /// Makes a segment of what `content` writes, durable before it has its name. Whatever fails, there is
    /// no such segment.
    pub(crate) fn create(
        &self,
        number: u64,
        content: impl FnOnce(&mut File) -> Result<(), SpoolError>,
    ) -> Result<File, SpoolError> {
        let path = self.segment(number);
        let unfinished = self.path.join(format!("{}{UNFINISHED}", segment_name(number)));
        let made = self.create_as(&path, &unfinished, content);
        if made.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        made
    }

    fn create_as(
        &self,
        path: &Path,
        unfinished: &Path,
        content: impl FnOnce(&mut File) -> Result<(), SpoolError>,
    ) -> Result<File, SpoolError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(unfinished).map_err(SpoolError::io(unfinished))?;
        content(&mut file)?;
        file.sync_all().map_err(SpoolError::io(unfinished))?;
        fs::rename(unfinished, path).map_err(SpoolError::io(path))?;
        self.sync()?;
        Ok(file)
    }

    /// Takes room on the disk while there is some, for the segment that must be begun before a full one can be removed. Without room there is
    /// none, and a full disk waits for somebody to make some.
    pub(crate) fn keep_reserve(&self) -> Result<(), SpoolError> {
        let path = self.path.join(RESERVE);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == RESERVE_BYTES as u64) {
            return Ok(());
        }
        // Written, not only asked for: a file system may promise room that it does not have.
        let made = fs::write(&path, vec![0; RESERVE_BYTES]).and_then(|()| File::open(&path)?.sync_all());
        match made.map_err(SpoolError::io(&path)) {
            Err(error) if error.is_full() => self.use_reserve(),
            made => made,
        }
    }

    /// Gives that room back.
    pub(crate) fn use_reserve(&self) -> Result<(), SpoolError> {
        self.remove_file(&self.path.join(RESERVE))
    }

    /// Removes a segment, durably: the next one is removed only after that, so that no crash leaves a gap.
    pub(crate) fn remove(&self, number: u64) -> Result<(), SpoolError> {
        self.remove_file(&self.segment(number))
    }

    fn remove_file(&self, path: &Path) -> Result<(), SpoolError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SpoolError::io(path)(error)),
            _ => self.sync(),
        }
    }
}

/// Writes all of it.
pub(crate) fn write(file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), SpoolError> {
    file.write_all(bytes).map_err(SpoolError::io(path))
}
