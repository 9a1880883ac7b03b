//! Keeps the signed receipts of what was appended, as files.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use sigillo_model::ids::{Origin, SourceId};
use sigillo_proto::{receipt::signed, v1};

use crate::failure::Failure;

/// A folder that gets a file for each receipt, or a file that gets one after the other.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    origin: Origin,
    source: SourceId,
}

impl Keeper {
    /// Keeps receipts of the journal that gave this welcome, if something can be written there.
    pub(crate) fn open(path: &Path, welcome: &v1::Welcome) -> Result<Self, Failure> {
        let broken = |what: &str| Failure::Unreadable(format!("the server's welcome names no {what}"));
        let origin = Origin::new(welcome.origin.as_str()).map_err(|_| broken("journal"))?;
        let source = SourceId::from_slice(&welcome.source).ok_or_else(|| broken("source"))?;
        let keeper = Self { path: path.to_owned(), origin, source };
        if !path.is_dir() {
            // Said before anything is sent.
            keeper.append().map_err(|error| keeper.unwritable(&error))?;
        }
        Ok(keeper)
    }

    /// Keeps one, durably.
    pub(crate) fn keep(&self, receipt: &v1::Receipt) -> Result<(), Failure> {
        let v1::Receipt { epoch, first, .. } = receipt;
        let signed = signed(receipt, &self.origin, self.source).map_err(|error| {
            Failure::Unreadable(format!("the records are durable, but their receipt is broken: {error}"))
        })?;
        let Some(signed) = signed else {
            return Err(Failure::Unreadable("the records are durable, but this server signs no receipts".into()));
        };
        let write = || {
            let mut file = if self.path.is_dir() {
                let name = self.path.join(format!("receipt-{epoch}-{first}.txt"));
                File::create_new(name)?
            } else {
                self.append()?
            };
            file.write_all(signed.to_text().as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| self.unwritable(&error))
    }

    fn append(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).open(&self.path)
    }

    fn unwritable(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        match fs::metadata(&self.path) {
            Ok(_) => Failure::Usage(format!("receipts can't be written to {path}: {error}")),
            Err(_) => Failure::Usage(format!(
                "receipts can't be written to {path}: {error}; name a file or a folder that is there"
            )),
        }
    }
}
