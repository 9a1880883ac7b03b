//! Where a spool lies and how large it may grow.

use std::path::PathBuf;

use crate::SpoolError;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Where a spool lies and how large it may grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Its folder, made if it is missing; nothing else may lie in it.
    pub dir: PathBuf,
    /// Bytes of frames after which a segment is closed and the next begun: 64 KiB to 1 GiB, at most half of `max_bytes`. Disk is
    /// given back by whole segments.
    pub segment_bytes: u64,
    /// Bytes of all segments at most: 16 MiB to 1 TiB. A spool that is full takes nothing until something is released. Opening
    /// reads everything that is there.
    pub max_bytes: u64,
    /// Bytes of batches after which a head is owed, at the latest: as much as a slow link sends before the journal misses one.
    pub head_bytes: u64,
}

impl Options {
    /// Segments of 8 MiB, 1 GiB in all, a head after 2 MiB.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), segment_bytes: 8 * MIB, max_bytes: 1024 * MIB, head_bytes: 2 * MIB }
    }

    /// Whether the bounds are kept.
    pub fn check(&self) -> Result<(), SpoolError> {
        if !(16 * MIB..=1024 * 1024 * MIB).contains(&self.max_bytes) {
            return Err(SpoolError::Options("max_bytes must be 16 MiB to 1 TiB"));
        }
        if !(64 * KIB..=1024 * MIB).contains(&self.segment_bytes) || self.segment_bytes > self.max_bytes / 2 {
            return Err(SpoolError::Options("segment_bytes must be 64 KiB to 1 GiB, and at most half of max_bytes"));
        }
        Ok(())
    }
}
