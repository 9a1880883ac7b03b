//! The file `head-key`: the seed of the key that signs the next head.
//!
//! Two places, at 0 and 4,096, that are written in turn: `u64 number || seed[32] || u64 checksum`. The next seed is durable in one
//! before that in the other is overwritten with zeros. Nothing is allocated, so that a full disk does not stop the key; and the old
//! seed is gone from where it stood.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
};

use bytes::Buf;
use sigillo_model::{entry::checksum, head::HeadKey};
use zeroize::Zeroizing;

use crate::{
    SpoolError,
    folder::Folder,
    layout::{CHECKSUM_BYTES, HEAD_KEY, array},
};

const SLOT_BYTES: usize = 48;
/// Of their own sectors and pages, so that writing one never touches the other.
const PLACES: [u64; 2] = [0, 4_096];
const FILE_BYTES: usize = 4_096 + SLOT_BYTES;

/// The key of the next head, in memory and on the disk.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    file: File,
    number: u64,
    key: HeadKey,
    /// Whether the disk still has an older one; its place in [`PLACES`] is that of the number before.
    stale: bool,
}

impl KeyFile {
    /// Begins with a new random key. An older file is overwritten.
    pub(crate) fn create(folder: &Folder) -> Result<Self, SpoolError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| SpoolError::Random(error.to_string()))?;
        let path = folder.path().join(HEAD_KEY);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(SpoolError::io(&path))?;
        file.write_all_at(&[0; FILE_BYTES], 0).map_err(SpoolError::io(&path))?;
        let mut this = Self { path, file, number: 0, key: HeadKey::from_seed(*seed), stale: false };
        this.write(0).and_then(|()| this.file.sync_all()).map_err(SpoolError::io(&this.path))?;
        folder.sync()?;
        this.stale = false;
        Ok(this)
    }

    /// Opens the file; `None` if it is missing or holds no key.
    pub(crate) fn open(folder: &Folder) -> Result<Option<Self>, SpoolError> {
        let path = folder.path().join(HEAD_KEY);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SpoolError::io(&path)(error)),
        };
        let mut slots = Vec::new();
        for place in PLACES {
            let mut slot = Zeroizing::new([0; SLOT_BYTES]);
            match file.read_exact_at(slot.as_mut(), place) {
                Ok(()) => slots.extend(decode(&slot)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(SpoolError::io(&path)(error)),
            }
        }
        let stale = slots.len() > 1;
        let newest = slots.into_iter().max_by_key(|(number, _)| *number);
        Ok(newest.map(|(number, key)| Self { path, file, number, key, stale }))
    }

    pub(crate) fn key(&self) -> &HeadKey {
        &self.key
    }

    /// Moves on behind so many heads. When this returns, the old seed is overwritten. After an error the key has moved on in memory:
    /// [`KeyFile::settle`] must succeed before it signs anything.
    pub(crate) fn advance(&mut self, heads: u32) -> Result<(), SpoolError> {
        self.number = self.number.checked_add(1).ok_or(SpoolError::Overflow("the head key"))?;
        self.key = (0..heads).fold(self.key.clone(), |key, _| key.ratchet());
        self.write(self.number).and_then(|()| self.file.sync_data()).map_err(SpoolError::io(&self.path))?;
        self.settle()
    }

    /// Overwrites what is left of an older key.
    pub(crate) fn settle(&mut self) -> Result<(), SpoolError> {
        if self.stale {
            let wiped = self.file.write_all_at(&[0; SLOT_BYTES], place(self.number ^ 1));
            wiped.and_then(|()| self.file.sync_data()).map_err(SpoolError::io(&self.path))?;
            self.stale = false;
        }
        Ok(())
    }

    fn write(&mut self, number: u64) -> io::Result<()> {
        self.stale = true;
        let mut slot = Zeroizing::new([0; SLOT_BYTES]);
        let (body, sum) = slot.split_at_mut(SLOT_BYTES - CHECKSUM_BYTES);
        body.iter_mut().zip(number.to_be_bytes().iter().chain(self.key.expose())).for_each(|(to, from)| *to = *from);
        sum.copy_from_slice(&checksum(body));
        self.file.write_all_at(slot.as_ref(), place(number))
    }
}

fn place(number: u64) -> u64 {
    let [even, odd] = PLACES;
    if number.is_multiple_of(2) { even } else { odd }
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(u64, HeadKey)> {
    let (mut body, sum) = slot.split_last_chunk::<CHECKSUM_BYTES>()?;
    if checksum(body) != *sum {
        return None;
    }
    let number = body.try_get_u64().ok()?;
    Some((number, HeadKey::from_seed(array(&mut body)?)))
}
