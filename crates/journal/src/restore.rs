//! Restoring a backup: verified whole before anything is touched, compared with what is there now, and put in its place in one
//! step. Never over a checkpoint that was signed: that would be a second history of the same journal.

mod place;
mod present;
mod replay;

use std::{
    io,
    path::{Path, PathBuf},
};

use sigillo_model::{
    audit::{Fault, Finding},
    ids::{Origin, ReceiptTime, SourceId},
};

pub use self::place::Restored;
use self::{
    place::{Orders, Place},
    present::{Present, is_empty},
    replay::LostOrder,
};
use crate::{
    backup::{MANIFEST, Manifest, Progress, files},
    checkpoints::KeptCheckpoint,
    error::{OpenError, ReadError},
    layout::{self, Table},
    options,
    store::{Direction, RocksStore, Store},
    verify::{self, Report, VerifyError},
};

/// Why nothing was restored. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup is not what was written.
    #[error("the backup is altered: {0}")]
    Altered(Finding),
    /// The backup, or what is there now, can't be read.
    #[error("{0}")]
    Unreadable(String),
    /// It is of another journal.
    #[error(
        "the backup is of the journal {found:?}, the configuration names {expected:?}: restore it with the configuration of its own"
    )]
    Origin {
        /// By the backup.
        found: String,
        /// By the configuration.
        expected: String,
    },
    /// A checkpoint was signed that the backup can't be continued to.
    #[error("{0}")]
    Fork(String),
    /// Records would be lost that nobody has said may be lost.
    #[error("{} records would be lost; accepted: {}", .0.records, .1.map_or("none".to_owned(), |number| number.to_string()))]
    Loss(Box<Loss>, Option<u64>),
    /// Orders that came after the backup can't be given anew to the restored copy.
    #[error("an order of officers that came after the backup can't be given to the restored copy: {0}")]
    Replay(String),
    /// It can't be put in its place.
    #[error("{0}")]
    Place(String),
    /// Somebody uses the journal that is there, or it can't be locked.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file can't be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl RestoreError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}

/// What the journal that is there holds and the backup doesn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// How many records.
    pub records: u64,
    /// Sequence of the first.
    pub from: u64,
    /// Sequence after the last.
    pub to: u64,
    /// Receipt times of the first and the last, where the database that is there can be read.
    pub received: Option<(ReceiptTime, ReceiptTime)>,
    /// How many of each source, the most first, where the database that is there can be read.
    pub sources: Vec<(SourceId, u64)>,
    /// Orders of officers among them that are given anew to the restored copy, so that what was erased does not come back.
    pub replayed_orders: usize,
    /// What can't be told, and why; or that the journal there does not continue the backup.
    pub remarks: Vec<String>,
}

/// A backup that was verified whole.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Where it lies.
    pub dir: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
    /// What its verification found.
    pub report: Report,
}

/// Verifies the backup in `dir`: every record and link, everything beside them, and the hash of each file. Changes nothing. Blocks.
pub fn verify_backup(dir: &Path, mut progress: impl FnMut(Progress)) -> Result<Verified, RestoreError> {
    let path = dir.join(MANIFEST);
    let manifest = Manifest::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => RestoreError::Unreadable(format!(
            "{}: there is no backup here, or one that was never finished: its file {MANIFEST:?} is missing",
            dir.display()
        )),
        io::ErrorKind::InvalidData => altered(format!("{}: {error}", path.display())),
        _ => RestoreError::io(&path)(error),
    });
    if let Err(error @ (RestoreError::Unreadable(_) | RestoreError::Io { .. })) = manifest {
        return Err(error);
    }
    // First the records: of a backup that was altered, the first record that does not fit is what people need to know.
    let walked = verify::verify(dir, |at| progress(Progress::Verifying { records: at.records, total: at.total }));
    let report = walked.map_err(|error| match error {
        VerifyError::Altered(finding) => RestoreError::Altered(finding),
        VerifyError::Unreadable(what) => RestoreError::Unreadable(what),
    })?;
    let manifest = manifest?;
    let head = &report.head;
    let named = (manifest.origin.as_str(), manifest.size, manifest.chain, manifest.root);
    if named != (report.origin.as_str(), head.size, head.chain, head.root) {
        return Err(altered("the manifest names another journal or head than the one that is there".to_owned()));
    }
    check_files(dir, &manifest, &mut progress)?;
    Ok(Verified { dir: dir.to_owned(), manifest, report })
}

/// Each file is there as the manifest says, and no other.
fn check_files(dir: &Path, manifest: &Manifest, progress: &mut impl FnMut(Progress)) -> Result<(), RestoreError> {
    let mut found = Vec::new();
    for (name, _) in files::list(dir).map_err(RestoreError::io(dir))? {
        let path = dir.join(&name);
        if !path.is_dir() {
            found.push(name);
            continue;
        }
        let inside = files::list(&path).map_err(RestoreError::io(&path))?;
        found.extend(inside.into_iter().map(|(file, _)| format!("{name}/{file}")));
    }
    found.retain(|path| path != MANIFEST);
    found.sort_unstable();
    let expected = || manifest.files.iter().map(|file| file.path.as_str());
    if let Some(added) = found.iter().find(|path| !expected().any(|expected| expected == *path)) {
        return Err(altered(format!("the file {added:?} is not in the manifest")));
    }
    let (mut bytes, total) = (0, manifest.bytes());
    for file in &manifest.files {
        let path = dir.join(&file.path);
        let mut took = |read: u64| {
            bytes += read;
            progress(Progress::Copying { bytes, total });
        };
        let hashed = match files::hash(&path, &mut took) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(altered(format!("the file {:?} is missing", file.path)));
            }
            other => other.map_err(RestoreError::io(&path))?,
        };
        if hashed != (file.sha256, file.bytes) {
            return Err(altered(format!("the file {:?} is not the one that was written", file.path)));
        }
    }
    Ok(())
}

/// Whether a journal, or something of one, lies in the folder `dir`.
pub fn holds_journal(dir: &Path) -> bool {
    !is_empty(dir)
}

/// The newest checkpoint that is kept in the database of the backup, or of the journal that is not in use, in `dir`. Changes nothing.
pub fn newest_checkpoint(dir: &Path) -> Result<Option<KeptCheckpoint>, ReadError> {
    let store = RocksStore::open_read_only(&options::database_dir(dir))?;
    let newest = store.scan(Table::Checkpoints, &layout::tail_key(u64::MAX), Direction::Backward, 1)?;
    newest.into_iter().next().map(KeptCheckpoint::read).transpose()
}

/// A restore that was looked into: what would be lost is known, and the journal that is there is locked until this is dropped.
#[derive(Debug)]
pub struct Plan {
    verified: Verified,
    place: Place,
    /// `None`: nothing that is known of.
    loss: Option<Loss>,
    orders: Vec<LostOrder>,
    /// Whether there is a journal now.
    replaces: bool,
}

/// Looks into restoring a verified backup as the journal `origin` in the folder `dir`, whose server is stopped.
pub fn plan(verified: Verified, dir: &Path, origin: &Origin) -> Result<Plan, RestoreError> {
    let found = &verified.manifest.origin;
    if found.as_str() != origin.as_str() {
        return Err(RestoreError::Origin { found: found.to_string(), expected: origin.to_string() });
    }
    let place = Place::find(dir, &verified.dir)?;
    let present = if is_empty(dir) { None } else { Some(Present::read(dir, origin)?) };
    let replaces = present.is_some();
    let (loss, orders) = match present {
        Some(present) => {
            present.check_signed(&verified)?;
            present.loss(&verified).unzip()
        }
        None => (None, None),
    };
    Ok(Plan { verified, place, loss, orders: orders.unwrap_or_default(), replaces })
}

impl Plan {
    /// What would be lost; `None`: nothing that is known of.
    pub fn loss(&self) -> Option<&Loss> {
        self.loss.as_ref()
    }

    /// Whether a journal is replaced. If there is none, nothing tells what was lost with it.
    pub fn replaces(&self) -> bool {
        self.replaces
    }

    /// The backup.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Puts the backup in its place, if just what would be lost is accepted: `Some(0)` and `None` accept nothing. The folder that
    /// is there is renamed, never deleted. `now` is the clock, `stamp` part of that folder's new name, `note` a file, name and content,
    /// that is put beside the journal.
    pub fn restore(
        self,
        accepted: Option<u64>,
        now: ReceiptTime,
        stamp: &str,
        note: (&str, &[u8]),
        progress: impl FnMut(Progress),
    ) -> Result<Restored, RestoreError> {
        if let Some(loss) = self.loss.filter(|loss| accepted != Some(loss.records)) {
            return Err(RestoreError::Loss(Box::new(loss), accepted));
        }
        self.place.put(&self.verified, Orders { orders: &self.orders, now }, stamp, note, progress)
    }
}

fn altered(what: String) -> RestoreError {
    RestoreError::Altered(Finding { from: 0, to: 0, fault: Fault::Derived(what) })
}
