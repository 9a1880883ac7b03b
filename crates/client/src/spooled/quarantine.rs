//! Batches that the server will never take.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use sigillo_model::batch::Batch;

use crate::{ClientError, files::replace};

/// Keeps a batch as a zstd file, and why it is there as a text beside it; where.
pub(super) fn keep(dir: &Path, batch: &Batch, why: &str) -> Result<PathBuf, ClientError> {
    let path = dir.join(format!("{}-{}.zst", batch.epoch, batch.first));
    let write = || -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        replace(&path, &batch.compressed)?;
        replace(&path.with_extension("txt"), why.as_bytes())
    };
    match write() {
        Ok(()) => Ok(path),
        Err(error) => Err(ClientError::File {
            setting: "quarantine",
            path: dir.to_owned(),
            what: format!(
                "refused records can't be set aside ({error}): free space, or correct the directory's rights"
            ),
        }),
    }
}
