//! What can go wrong, and what is to be done about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use sigillo_model::{
    batch::BatchError,
    head::HeadError,
    ids::{Epoch, SourceSeq},
};

/// Why the spool did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The options contradict their bounds.
    #[error("the spool's options: {0}")]
    Options(&'static str),
    /// Another process has it.
    #[error("the spool in {0} is in use: is another agent running?")]
    Locked(PathBuf),
    /// There is one already, or what is left of one.
    #[error("there is a spool in {0} already: open it, or move the folder away")]
    Exists(PathBuf),
    /// It has grown to its bound, or the disk is full. Nothing was written; try again when something was released or freed.
    #[error("the spool is full: {0}")]
    Full(&'static str),
    /// Something failed after which nobody knows what the disk holds. Drop it and open it anew.
    #[error("the spool can't go on after a failed write and must be opened anew")]
    Poisoned,
    /// It was damaged: [`crate::Spool::rechain`] first.
    #[error("the spool is damaged, and what is intact must be carried over into a new epoch first")]
    Damaged,
    /// Bytes that were durable are not what they were. Open the spool anew to learn all of it.
    #[error("the spool's segment {segment} is damaged at byte {offset}: open the spool anew")]
    Rotten {
        /// The segment's number.
        segment: u64,
        /// Where in it.
        offset: u64,
    },
    /// A place that is not in the spool, or not between two batches.
    #[error(
        "the spool holds epoch {epoch} from record {first} to {next}, not record {asked} of epoch {asked_epoch}: begin a new epoch"
    )]
    NotHere {
        /// The epoch that was asked for.
        asked_epoch: Epoch,
        /// The sequence that was asked for.
        asked: SourceSeq,
        /// The spool's epoch.
        epoch: Epoch,
        /// Its first record.
        first: SourceSeq,
        /// The sequence after its last durable record.
        next: SourceSeq,
    },
    /// The spool was carried over into a new epoch while it was read: seek anew.
    #[error("the spool has begun a new epoch since the reader was placed")]
    Moved,
    /// A mark that breaks the bounds.
    #[error("a mark breaks the bounds: {0}")]
    Mark(&'static str),
    /// The records make no batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The head can't be signed.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// Numbers past their end.
    #[error("{0} has come to the end of its numbers")]
    Overflow(&'static str),
    /// The system gives no random numbers.
    #[error("this machine gives no random numbers: {0}")]
    Random(String),
    /// A file can't be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl SpoolError {
    /// Of a file; a full disk and an exceeded quota are [`SpoolError::Full`].
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::StorageFull => Self::Full("no space is left on the disk"),
            io::ErrorKind::QuotaExceeded => Self::Full("the disk quota is used up"),
            io::ErrorKind::FileTooLarge => Self::Full("a file may not grow larger by this process's limits"),
            _ => Self::Io { path: path.to_owned(), error },
        }
    }

    /// Whether waiting for room helps.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

/// Records that were in the spool and can't be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Their epoch.
    pub epoch: Epoch,
    /// The first that is missing.
    pub from: SourceSeq,
    /// The one after the last that is missing; `None` if nobody knows how many there were.
    pub to: Option<SourceSeq>,
}

/// What does not fit in a spool, though it was durable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Damage {
    /// What was found, a sentence each; at most [`Damage::FINDINGS_MAX`].
    pub findings: Vec<String>,
    /// What is missing, ascending; at most [`Damage::FINDINGS_MAX`], of which the last then stands for all further ones.
    pub lost: Vec<Lost>,
}

impl Damage {
    /// Findings, and ranges, at most.
    pub const FINDINGS_MAX: usize = 64;

    pub(crate) fn find(&mut self, what: String) {
        if self.findings.len() < Self::FINDINGS_MAX {
            self.findings.push(what);
        }
    }

    pub(crate) fn lose(&mut self, range: Lost) {
        let full = self.lost.len() >= Self::FINDINGS_MAX;
        match self.lost.last_mut() {
            Some(before) if full || (before.epoch == range.epoch && before.to == Some(range.from)) => {
                before.to = range.to;
            }
            _ => self.lost.push(range),
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.findings.is_empty() && self.lost.is_empty()
    }
}
