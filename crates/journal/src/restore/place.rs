//! Where a backup is restored to: copied beside it, then exchanged with it in one step.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use sigillo_model::ids::ReceiptTime;

use super::{
    RestoreError, Verified, altered,
    replay::{LostOrder, replay},
};
use crate::{
    backup::{Progress, files},
    options, submit,
};

/// A journal that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Records that it holds.
    pub size: u64,
    /// Where the folder lies that was there before.
    pub aside: Option<PathBuf>,
}

/// The folder of the journal, locked if it is there.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    parent: PathBuf,
    name: String,
    /// Held until the end: no server starts meanwhile.
    lock: Option<File>,
}

/// Orders to be given to the copy, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orders<'a> {
    pub(super) orders: &'a [LostOrder],
    pub(super) now: ReceiptTime,
}

impl Orders<'_> {
    /// Returns how many records the copy holds then.
    fn give(&self, copy: &Path, backup: &Verified) -> Result<u64, RestoreError> {
        if self.orders.is_empty() {
            return Ok(backup.manifest.size);
        }
        replay(copy, &backup.manifest.origin, self.orders, self.now).map(|head| head.size)
    }
}

/// What the folder holds besides the journal and must keep: the server's own keys.
const KEYS: &str = "keys";

impl Place {
    pub(super) fn find(dir: &Path, backup: &Path) -> Result<Self, RestoreError> {
        let refused = |what: &str| Err(RestoreError::Place(format!("{}: {what}", dir.display())));
        let exists = dir.exists();
        let dir = if exists { dir.canonicalize().map_err(RestoreError::io(dir))? } else { dir.to_owned() };
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Some(name) = dir.file_name().and_then(|name| name.to_str()) else {
            return refused("a journal's folder needs a name");
        };
        let mut lock = None;
        if exists {
            let device =
                |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).map_err(RestoreError::io(path));
            if device(&dir)? != device(parent)? {
                return refused(
                    "a disk is mounted here, so it can't be replaced in one step: let data_dir name a folder below, or \
                     mount the disk elsewhere",
                );
            }
            lock = Some(submit::lock(&dir)?);
        }
        let at = |path: &Path| path.canonicalize().map_err(RestoreError::io(path));
        if exists && at(backup)? == at(&dir)? {
            return refused("this is the backup itself");
        }
        Ok(Self { parent: parent.to_owned(), name: name.to_owned(), dir, lock })
    }

    /// Copies the backup beside, exchanges, renames what was there.
    pub(super) fn put(
        self,
        backup: &Verified,
        orders: Orders<'_>,
        stamp: &str,
        note: (&str, &[u8]),
        progress: impl FnMut(Progress),
    ) -> Result<Restored, RestoreError> {
        submit::create_dirs(&self.parent).map_err(RestoreError::io(&self.parent))?;
        let new = self.parent.join(format!("{}.restoring-{stamp}", self.name));
        files::make_private(&new).map_err(RestoreError::io(&new))?;
        let made = self.make(&new, backup, note, progress).and_then(|()| {
            let size = orders.give(&new, backup)?;
            self.exchange(&new, stamp).map(|aside| Restored { size, aside })
        });
        match made {
            Ok(restored) => Ok(restored),
            Err(error) => {
                // Before the exchange it is what was copied only; after it, the exchange reports no error.
                if let Err(error) = files::remove(&new) {
                    tracing::warn!(path = %new.display(), %error, "what was copied can't be removed");
                }
                Err(error)
            }
        }
    }

    /// The whole of the new folder, durable.
    fn make(
        &self,
        new: &Path,
        backup: &Verified,
        (name, text): (&str, &[u8]),
        mut progress: impl FnMut(Progress),
    ) -> Result<(), RestoreError> {
        let database = options::database_dir(new);
        files::make_private(&database).map_err(RestoreError::io(&database))?;
        let (mut bytes, total) = (0, backup.manifest.bytes());
        for file in &backup.manifest.files {
            let (from, to) = (backup.dir.join(&file.path), new.join(&file.path));
            let mut took = |read: u64| {
                bytes += read;
                progress(Progress::Copying { bytes, total });
            };
            let copied = files::copy(&from, &to, &mut took).map_err(RestoreError::io(&to))?;
            if copied != (file.sha256, file.bytes) {
                return Err(altered(format!("the file {:?} is not the one that was verified", file.path)));
            }
        }
        self.keep_signed(new)?;
        let keys = self.dir.join(KEYS);
        if keys.is_dir() {
            copy_keys(&keys, &new.join(KEYS))?;
        }
        files::write(&new.join(name), text).map_err(RestoreError::io(new))?;
        File::create(options::lock_path(new)).map_err(RestoreError::io(new))?;
        self.give_to_owner(new)?;
        for dir in [database.as_path(), new, &self.parent] {
            files::sync_dir(dir).map_err(RestoreError::io(dir))?;
        }
        Ok(())
    }

    /// What was signed since the backup stays known; it was checked not to be beyond the backup.
    fn keep_signed(&self, new: &Path) -> Result<(), RestoreError> {
        let (from, to) = (options::signed_path(&self.dir), options::signed_path(new));
        if !from.exists() {
            return Ok(());
        }
        if to.exists() {
            fs::remove_file(&to).map_err(RestoreError::io(&to))?;
        }
        files::copy(&from, &to, &mut |_| ()).map(drop).map_err(RestoreError::io(&to))
    }

    /// All of it belongs to whom the folder that is there belongs, when root restores.
    fn give_to_owner(&self, new: &Path) -> Result<(), RestoreError> {
        let Ok(owner) = fs::metadata(&self.dir) else { return Ok(()) };
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let mut dirs = vec![new.to_owned()];
        while let Some(dir) = dirs.pop() {
            chown(&dir, Some(owner.uid()), Some(owner.gid())).map_err(RestoreError::io(&dir))?;
            for (name, _) in files::list(&dir).map_err(RestoreError::io(&dir))? {
                let path = dir.join(name);
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    chown(&path, Some(owner.uid()), Some(owner.gid())).map_err(RestoreError::io(&path))?;
                }
            }
        }
        Ok(())
    }

    fn exchange(&self, new: &Path, stamp: &str) -> Result<Option<PathBuf>, RestoreError> {
        if self.lock.is_none() {
            renameat_with(CWD, new, CWD, &self.dir, RenameFlags::NOREPLACE)
                .map_err(|error| RestoreError::io(&self.dir)(error.into()))?;
            files::sync_dir(&self.parent).map_err(RestoreError::io(&self.parent))?;
            return Ok(None);
        }
        renameat_with(CWD, new, CWD, &self.dir, RenameFlags::EXCHANGE).map_err(|error| {
            let error = io::Error::from(error);
            RestoreError::Place(format!(
                "{}: this file system does not exchange two folders in one step ({error}); give data_dir a place on one that does, \
                 such as ext4, XFS or Btrfs",
                self.dir.display()
            ))
        })?;
        // The restored journal is in its place from here on: what follows is a name, and no reason to say otherwise.
        let aside = self.parent.join(format!("{}.before-{stamp}", self.name));
        let aside = match fs::rename(new, &aside) {
            Ok(()) => aside,
            Err(error) => {
                tracing::warn!(%error, path = %new.display(), "what was there before keeps this name");
                new.to_owned()
            }
        };
        if let Err(error) = files::sync_dir(&self.parent) {
            tracing::warn!(%error, "the exchange of the folders may not survive a loss of power");
        }
        Ok(Some(aside))
    }
}

/// Copies the folder of the server's keys, with their rights.
fn copy_keys(from: &Path, to: &Path) -> Result<(), RestoreError> {
    files::make_private(to).map_err(RestoreError::io(to))?;
    for (name, _) in files::list(from).map_err(RestoreError::io(from))? {
        let (from, to) = (from.join(&name), to.join(&name));
        files::copy(&from, &to, &mut |_| ()).map_err(RestoreError::io(&to))?;
        let rights = fs::metadata(&from).map_err(RestoreError::io(&from))?.permissions();
        fs::set_permissions(&to, rights).map_err(RestoreError::io(&to))?;
    }
    files::sync_dir(to).map_err(RestoreError::io(to))
}
