//! A backup: a copy of the journal as it stood at one head, written while the journal is in use, that verifies by itself.
//!
//! It is a folder as a journal's own (`journal/`, `head`, `signed`) with a manifest, the file `backup`, that is written when all
//! else has been verified. The whole is made under another name and renamed at the end: what has the right name is whole.

pub(crate) mod files;
mod manifest;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;

use self::files::Way;
pub use self::manifest::{BackupFile, Manifest};
use crate::{
    head_file::HeadFile,
    options, read,
    store::{RocksStore, Store, StoreError, StoreErrorKind},
    submit::Journal,
    verify::{self, Report, VerifyError},
};

/// Name of the manifest.
pub(crate) const MANIFEST: &str = "backup";

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It can't be written there; nothing was.
    #[error("{0}")]
    Refused(String),
    /// A file can't be written or read.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The database can't be copied.
    #[error("the database can't be copied: {0}")]
    Store(#[from] StoreError),
    /// The copy was verified and is not intact, so neither is the journal, or the disk does not keep what it is given.
    #[error("the copy does not verify: {0}")]
    Verify(#[from] VerifyError),
}

impl BackupError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}

/// How far a backup or a restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Files are copied and hashed.
    Copying {
        /// Bytes done.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The copy is verified.
    Verifying {
        /// Records done.
        records: u64,
        /// Records in all.
        total: u64,
    },
}

/// A backup that was written.
#[derive(Debug, Clone)]
pub struct Backup {
    /// What it holds.
    pub manifest: Manifest,
    /// What its verification found.
    pub report: Report,
    /// Bytes that are shared with the database by hard links; the others were copied.
    pub linked_bytes: u64,
    /// How long the database took to give a copy of itself.
    pub copied_in: Duration,
}

impl Journal {
    /// Writes a verified backup of what is durable into the folder `to`, which must be absent or empty, while the journal is in
    /// use. `time_ns`: the clock, nanoseconds since 1970 UTC. Blocks, for minutes when the journal is large.
    pub fn backup(&self, to: &Path, time_ns: u64, progress: impl FnMut(Progress)) -> Result<Backup, BackupError> {
        let busy = "another backup is being written: wait until it is done";
        let _one = self.shared.backup.try_lock().map_err(|_| BackupError::Refused(busy.to_owned()))?;
        let (dir, reserve_bytes) = (&self.shared.dir, self.shared.reserve_bytes);
        let partial = Partial::begin(to, &options::database_dir(dir))?;
        let copying = options::copying_dir(dir);
        let work = Work { journal: self, dir, reserve_bytes, copying: &copying, partial: &partial, time_ns, progress };
        let outcome = work.run();
        // Left behind it would only take room, and the next backup or start removes it.
        let cleaned = files::remove(&copying).map_err(BackupError::io(&copying));
        let backup = outcome.and_then(|backup| cleaned.map(|()| backup))?;
        partial.finish()?;
        Ok(backup)
    }
}

/// A backup that is being written: under another name, locked, and removed if it does not come to its end.
struct Partial {
    path: PathBuf,
    to: PathBuf,
    _lock: File,
    finished: bool,
}

impl Partial {
    fn begin(to: &Path, database: &Path) -> Result<Self, BackupError> {
        let refused = |problem: &str| Err(BackupError::Refused(format!("{}: {problem}", to.display())));
        let (Some(parent), Some(name), true) = (to.parent(), to.file_name(), to.is_absolute()) else {
            return refused("give the absolute path of a folder that does not exist yet");
        };
        match fs::read_dir(to) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return refused("there is something in it: give a folder that is empty or does not exist yet");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(BackupError::io(to)(error)),
        }
        let parent = match parent.canonicalize() {
            Ok(parent) => parent,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return refused("the folder above it does not exist");
            }
            Err(error) => return Err(BackupError::io(parent)(error)),
        };
        if database.canonicalize().is_ok_and(|database| parent.starts_with(database)) {
            return refused("this is within the database itself: give another folder");
        }
        let mut partial = name.to_owned();
        partial.push(".partial");
        let path = parent.join(partial);
        // Left by a backup that was cut off; or by one that is under way, which holds its lock.
        if let Ok(left) = File::open(&path) {
            if rustix::fs::flock(&left, FlockOperation::NonBlockingLockExclusive).is_err() {
                return refused("another process is writing a backup to it");
            }
            files::remove(&path).map_err(BackupError::io(&path))?;
        }
        files::make_private(&path).map_err(BackupError::io(&path))?;
        let lock = File::open(&path).map_err(BackupError::io(&path))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| BackupError::io(&path)(error.into()))?;
        Ok(Self { path, to: parent.join(name), _lock: lock, finished: false })
    }

    /// Gives the folder its name, durably.
    fn finish(mut self) -> Result<(), BackupError> {
        // Over an empty folder a folder can be renamed; over anything else it can't.
        fs::rename(&self.path, &self.to).map_err(BackupError::io(&self.to))?;
        self.finished = true;
        let parent = self.to.parent().unwrap_or(Path::new("/"));
        files::sync_dir(parent).map_err(BackupError::io(parent))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = files::remove(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "what was written of a backup can't be removed");
        }
    }
}

struct Work<'a, P> {
    journal: &'a Journal,
    dir: &'a Path,
    reserve_bytes: u64,
    copying: &'a Path,
    partial: &'a Partial,
    time_ns: u64,
    progress: P,
}

impl<P: FnMut(Progress)> Work<'_, P> {
    fn run(mut self) -> Result<Backup, BackupError> {
        let to = &self.partial.path;
        let mut manifest_files = Vec::new();
        // Before the database: what was signed is never beyond what the copy then holds.
        self.copy_signed(&mut manifest_files)?;

        files::remove(self.copying).map_err(BackupError::io(self.copying))?;
        files::make_private(self.copying).map_err(BackupError::io(self.copying))?;
        let copied = self.copying.join("journal");
        let begun = Instant::now();
        self.journal.shared.store.copy_to(&copied)?;
        let copied_in = begun.elapsed();

        let linked_bytes = self.take_database(&copied, &mut manifest_files)?;
        self.write_head(&mut manifest_files)?;
        let progress = &mut self.progress;
        let report = verify::verify(to, |at| {
            progress(Progress::Verifying { records: at.records, total: at.total });
        })?;
        manifest_files.sort_by(|one, next| one.path.cmp(&next.path));
        let Report { origin, head, .. } = report.clone();
        let (time_ns, files) = (self.time_ns, manifest_files);
        let manifest = Manifest { origin, size: head.size, chain: head.chain, root: head.root, time_ns, files };
        files::write(&to.join(MANIFEST), manifest.to_text().as_bytes()).map_err(BackupError::io(to))?;
        files::sync_dir(to).map_err(BackupError::io(to))?;
        Ok(Backup { manifest, report, linked_bytes, copied_in })
    }

    fn copy_signed(&mut self, into: &mut Vec<BackupFile>) -> Result<(), BackupError> {
        let (from, to) = (options::signed_path(self.dir), options::signed_path(&self.partial.path));
        // Absent while nothing has been signed yet.
        if from.exists() {
            let (sha256, bytes) = files::copy(&from, &to, &mut |_| ()).map_err(BackupError::io(&from))?;
            into.push(BackupFile { path: "signed".to_owned(), bytes, sha256 });
        }
        Ok(())
    }

    /// Moves the copy of the database into the backup. Returns how many bytes are shared with the database itself.
    fn take_database(&mut self, copied: &Path, into: &mut Vec<BackupFile>) -> Result<u64, BackupError> {
        let to = options::database_dir(&self.partial.path);
        files::make_private(&to).map_err(BackupError::io(&to))?;
        let names = files::list(copied).map_err(BackupError::io(copied))?;
        let total = names.iter().map(|(_, bytes)| bytes).sum();
        self.check_room(&to, copied, total)?;
        let (mut done, mut linked_bytes) = (0, 0);
        for (name, _) in names {
            let progress = &mut self.progress;
            let mut took = |bytes: u64| {
                done += bytes;
                progress(Progress::Copying { bytes: done, total });
            };
            let from = copied.join(&name);
            // Of a file that the database itself still has there is another link.
            let shared = fs::metadata(&from).map_err(BackupError::io(&from))?.nlink() > 1;
            let (sha256, bytes, way) =
                files::link_or_copy(&from, &to.join(&name), &mut took).map_err(BackupError::io(&from))?;
            if shared && way == Way::Linked {
                linked_bytes += bytes;
            }
            into.push(BackupFile { path: format!("journal/{name}"), bytes, sha256 });
        }
        files::sync_dir(&to).map_err(BackupError::io(&to))?;
        Ok(linked_bytes)
    }

    /// Where links don't work there must be room for the whole copy; on the journal's own disk, without touching its reserve.
    fn check_room(&self, to: &Path, copied: &Path, bytes: u64) -> Result<(), BackupError> {
        let probe = (copied.join("CURRENT"), to.join("CURRENT.link"));
        if fs::hard_link(&probe.0, &probe.1).is_ok() {
            return fs::remove_file(&probe.1).map_err(BackupError::io(&probe.1));
        }
        let disk = rustix::fs::statvfs(to).map_err(|error| BackupError::io(to)(error.into()))?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).map_err(BackupError::io(path));
        let kept = if device(to)? == device(copied)? { self.reserve_bytes } else { 0 };
        if free_bytes >= bytes.saturating_add(kept) {
            return Ok(());
        }
        let message = format!(
            "no room for the backup: it takes {bytes} bytes, {free_bytes} are free on that disk, {kept} of these are the \
             journal's reserve"
        );
        Err(StoreError { kind: StoreErrorKind::NoSpace, message }.into())
    }

    /// The head file of just what the copy holds.
    fn write_head(&self, into: &mut Vec<BackupFile>) -> Result<(), BackupError> {
        let store: Arc<dyn Store> = Arc::new(RocksStore::open_read_only(&options::database_dir(&self.partial.path))?);
        let head = read::head(&store)?;
        let file = HeadFile { origin: self.journal.origin().clone(), size: head.size, chain: head.chain, clean: true };
        let path = options::head_path(&self.partial.path);
        file.write(&path).map_err(BackupError::io(&path))?;
        let (sha256, bytes) = files::hash(&path, &mut |_| ()).map_err(BackupError::io(&path))?;
        into.push(BackupFile { path: "head".to_owned(), bytes, sha256 });
        Ok(())
    }
}
