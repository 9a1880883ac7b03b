//! What can go wrong, told apart by who must act: the sender, the operator, or whoever guards the evidence.

use std::{io, path::PathBuf};

use sigillo_model::audit::Finding;

use crate::{frame::Refusal, store::StoreError};

/// Why a journal was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the journal in {0} is in use by another process: stop it first")]
    InUse(PathBuf),
    /// The folder or one of its files can't be used.
    #[error("{path}: {error}")]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The database is of a version that this program does not know.
    #[error("the journal has format {found:?}, this program reads {known:?}: use the version of Sigillo that wrote it")]
    Version {
        /// By the database.
        found: String,
        /// By this program.
        known: &'static str,
    },
    /// The folder holds a journal of another name.
    #[error("the journal's origin is {found:?}, not {expected:?}: an origin is fixed when the journal is created")]
    Origin {
        /// By the database.
        found: String,
        /// By the options.
        expected: String,
    },
    /// What is stored does not fit together.
    #[error(
        "the journal does not verify: {0}. Nothing was changed; run `sigillo verify --db` on a copy, or restore a backup"
    )]
    Altered(Finding),
    /// The database holds fewer records than were durable before.
    #[error(
        "records are missing: {durable} were durable, the database holds {found}. Acknowledged records were lost or the \
         database was replaced by an older one; restore a backup that holds them"
    )]
    Lost {
        /// By the head file.
        durable: u64,
        /// By the database.
        found: u64,
    },
    /// The database can't be read.
    #[error("the database can't be opened: {0}")]
    Store(#[from] StoreError),
}

/// Why a batch got no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The batch does not fit what the journal holds of its source; sending it again won't help.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk is nearly full. Send the same batch again later: ingest resumes by itself. It may have reached the disk all the
    /// same, so no other batch may take its numbers.
    #[error(
        "the disk has {free_bytes} bytes left, {reserve_bytes} are kept in reserve: free space, ingest resumes by itself"
    )]
    NoSpace {
        /// Bytes left.
        free_bytes: u64,
        /// Bytes kept.
        reserve_bytes: u64,
    },
    /// A write failed, and what reached the disk is not known. Nothing is taken until the journal is opened anew.
    #[error("a write to the journal failed ({0}); nothing is taken until the server is restarted and has verified it")]
    Poisoned(String),
    /// The batch was received before, but what the journal holds of it can't be read now, so that it is not known whether it is
    /// the same. Sending it again later may help; the operator must look at the disk.
    #[error("a batch was received under these numbers, but can't be read to compare: {0}")]
    Unreadable(String),
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// What is stored is not what was written.
    #[error("the journal does not verify: {0}")]
    Altered(Finding),
    /// The database can't be read.
    #[error("the database can't be read: {0}")]
    Store(String),
    /// More was asked for than there is.
    #[error("{wanted}, and {durable} records are durable: ask for what the newest head covers")]
    Beyond {
        /// What was asked for.
        wanted: String,
        /// Number of records.
        durable: u64,
    },
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}
