//! Files of a backup: linked or copied, hashed on the way, and made durable.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use sha2::{Digest, Sha256};

/// Bytes that are read and written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// How a file came into the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Linked,
    Copied,
}

/// Makes a folder for this account only.
pub(crate) fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(dir)
}

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Puts the file `from` to `to` by a hard link, or by copying where disks differ; then hashes and syncs it.
pub(super) fn link_or_copy(from: &Path, to: &Path, took: &mut dyn FnMut(u64)) -> io::Result<([u8; 32], u64, Way)> {
    if fs::hard_link(from, to).is_ok() {
        let mut file = File::open(to)?;
        let (hash, bytes) = hash_through(&mut file, None, took)?;
        file.sync_all()?;
        return Ok((hash, bytes, Way::Linked));
    }
    let (hash, bytes) = copy(from, to, took)?;
    Ok((hash, bytes, Way::Copied))
}

/// Copies a file, syncs the copy, and tells its hash and length.
pub(crate) fn copy(from: &Path, to: &Path, took: &mut dyn FnMut(u64)) -> io::Result<([u8; 32], u64)> {
    let mut copy = File::options().write(true).create_new(true).open(to)?;
    let hashed = hash_through(&mut File::open(from)?, Some(&mut copy), took)?;
    copy.sync_all()?;
    Ok(hashed)
}

/// Writes a new file durably.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Hash and length of a file.
pub(crate) fn hash(path: &Path, took: &mut dyn FnMut(u64)) -> io::Result<([u8; 32], u64)> {
    hash_through(&mut File::open(path)?, None, took)
}

fn hash_through(from: &mut File, mut to: Option<&mut File>, took: &mut dyn FnMut(u64)) -> io::Result<([u8; 32], u64)> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => return Ok((hasher.finalize().into(), bytes)),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = chunk.get(..length).unwrap_or_default();
        hasher.update(read);
        if let Some(to) = &mut to {
            to.write_all(read)?;
        }
        bytes += length as u64;
        took(length as u64);
    }
}

/// The plain files in a folder, by name, with their lengths.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: not a name of the journal", name.display()))
        })?;
        files.push((name, entry.metadata()?.len()));
    }
    files.sort_unstable();
    Ok(files)
}
