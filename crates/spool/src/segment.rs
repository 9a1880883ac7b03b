//! The segment that is written to.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf};

use crate::{SpoolError, frame::Spot};

/// The last segment, open for writing.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) header_bytes: u64,
    /// Where the next frame begins.
    pub(crate) end: u64,
    /// Up to where all is durable.
    pub(crate) synced: u64,
}

impl Active {
    /// Where the next frame is written.
    pub(crate) fn spot(&self) -> Spot {
        Spot { segment: self.number, offset: self.end, synced: self.synced }
    }

    /// Bytes of frames.
    pub(crate) fn frames_bytes(&self) -> u64 {
        self.end - self.header_bytes
    }

    /// Writes a frame that was made for [`Active::spot`]. After [`SpoolError::Full`] the segment ends where it did; after any other
    /// error nobody knows.
    pub(crate) fn write(&mut self, frame: &[u8]) -> Result<(), SpoolError> {
        if let Err(error) = self.file.write_all_at(frame, self.end) {
            let error = SpoolError::io(&self.path)(error);
            // What was half written would be cut at the next opening; so it is now.
            return match self.file.set_len(self.end) {
                Ok(()) => Err(error),
                Err(_) => Err(SpoolError::Poisoned),
            };
        }
        self.end += frame.len() as u64;
        Ok(())
    }

    /// Makes everything durable. After an error nobody knows what is.
    pub(crate) fn sync(&mut self) -> Result<(), SpoolError> {
        if self.synced < self.end {
            self.file.sync_data().map_err(|error| SpoolError::Io { path: self.path.clone(), error })?;
            self.synced = self.end;
        }
        Ok(())
    }
}
