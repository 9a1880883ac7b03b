//! The journal that is there when a backup is restored: what of it the backup does not hold.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use sigillo_model::ids::{ChainHash, Origin};

use super::{
    Loss, RestoreError, Verified,
    replay::{LostOrder, LostOrders},
};
use crate::{
    head_file::HeadFile,
    layout::{self, StoredHead, Table},
    options,
    read::{self, StoredEntry},
    signed::Signed,
    store::{Direction, RocksStore, Store},
    tree::TreeReader,
};

/// Whether a folder is missing or holds no journal.
pub(super) fn is_empty(dir: &Path) -> bool {
    let parts = [options::database_dir(dir), options::head_path(dir), options::signed_path(dir)];
    parts.iter().all(|part| fs::symlink_metadata(part).is_err())
}

/// What is there, as far as it can be read.
pub(super) struct Present {
    origin: Origin,
    head_file: Option<HeadFile>,
    database: Option<(Arc<dyn Store>, StoredHead)>,
    signed: Option<Signed>,
    remarks: Vec<String>,
}

impl Present {
    /// Reads what is there. A file `signed` that can't be read is an error: it can't be known then what was signed.
    pub(super) fn read(dir: &Path, origin: &Origin) -> Result<Self, RestoreError> {
        let path = options::signed_path(dir);
        let signed = Signed::read(&path).map_err(|error| {
            RestoreError::Fork(format!(
                "{}: {error}. What was signed last is not known, so restoring a backup could make two histories of one \
                 journal: put that file back, or begin a successor with `sigillod succeed`",
                path.display()
            ))
        })?;
        let mut remarks = Vec::new();
        let head_file = HeadFile::read(&options::head_path(dir)).unwrap_or_else(|error| {
            remarks.push(format!("the file head that is there can't be read: {error}"));
            None
        });
        let opened = RocksStore::open_read_only(&options::database_dir(dir)).and_then(|store| {
            let store: Arc<dyn Store> = Arc::new(store);
            let head = read::head(&store)?;
            Ok((store, head))
        });
        let database = opened
            .map_err(|error| {
                remarks.push(format!(
                    "the database that is there can't be read, so sources and times can't be told: {error}"
                ));
            })
            .ok();
        if head_file.is_none() && database.is_none() {
            let what = "neither the head nor the database of the journal that is there can be read";
            return Err(RestoreError::Unreadable(format!(
                "{}: {what}: what would be lost can't be told. Move the folder away to restore all the same",
                dir.display()
            )));
        }
        Ok(Self { origin: origin.clone(), head_file, database, signed, remarks })
    }

    /// A backup that does not hold what was signed can only be continued to another history.
    pub(super) fn check_signed(&self, backup: &Verified) -> Result<(), RestoreError> {
        let held = backup.manifest.size;
        let signed = self.signed.as_ref().map(|signed| signed.size);
        if let Some(signed) = signed.max(self.newest_kept()).filter(|signed| *signed > held) {
            return Err(
                self.fork(backup, &format!("a checkpoint of {signed} records was signed, the backup holds {held}"))
            );
        }
        let Some(signed) = &self.signed else { return Ok(()) };
        let store = RocksStore::open_read_only(&options::database_dir(&backup.dir));
        let unreadable = |error: &dyn std::fmt::Display| RestoreError::Unreadable(format!("the backup: {error}"));
        let store = Arc::new(store.map_err(|error| unreadable(&error))?);
        let root = TreeReader::new(store, backup.report.origin.clone(), signed.size)
            .root()
            .map_err(|error| unreadable(&error))?;
        if root == signed.root && signed.origin.as_str() == self.origin.as_str() {
            return Ok(());
        }
        let size = signed.size;
        Err(self.fork(
            backup,
            &format!("the checkpoint of {size} records that was signed has another root than the backup"),
        ))
    }

    /// Size of the newest checkpoint in the database.
    fn newest_kept(&self) -> Option<u64> {
        let (store, _) = self.database.as_ref()?;
        let newest = store.scan(Table::Checkpoints, &layout::tail_key(u64::MAX), Direction::Backward, 1).ok()?;
        newest.first().and_then(|(key, _)| layout::read_u64(key))
    }

    fn fork(&self, backup: &Verified, what: &str) -> RestoreError {
        let (origin, backup) = (&self.origin, backup.dir.display());
        RestoreError::Fork(format!(
            "{what}: to go on from it would make two histories of one journal, which every witness would see. The journal \
             {origin} ends here; begin its successor: `sigillod succeed --from {backup} --config FILE`, with a new origin \
             and data_dir in FILE"
        ))
    }

    /// What is there and not in the backup.
    pub(super) fn loss(mut self, backup: &Verified) -> Option<(Loss, Vec<LostOrder>)> {
        let heads = [
            self.head_file.as_ref().map(|file| (file.size, file.chain)),
            self.database.as_ref().map(|(_, head)| (head.size, head.chain)),
        ];
        let size = heads.iter().flatten().map(|(size, _)| *size).max().unwrap_or_default();
        let held = backup.manifest.size;
        let from = if self.continues(backup, &heads) {
            held
        } else {
            self.remarks.push(
                "the journal that is there does not continue the backup: their chain values differ where both have records, \
                 so all of its records count as lost"
                    .to_owned(),
            );
            0
        };
        let records = size.checked_sub(from).filter(|records| *records > 0)?;
        let mut loss = Loss {
            records,
            from,
            to: size,
            received: None,
            sources: Vec::new(),
            replayed_orders: 0,
            remarks: self.remarks,
        };
        let mut orders = LostOrders::default();
        if let Some((store, _)) = &self.database {
            count(store, &mut loss, |stored| {
                orders.look(stored, &backup.report.origin, held);
            });
        }
        loss.replayed_orders = orders.replayed.len();
        for seq in orders.to_be_signed_anew {
            loss.remarks.push(format!(
                "the order in record {seq} names records of which some are lost: it is not given anew, officers must sign another"
            ));
        }
        Some((loss, orders.replayed))
    }

    /// Whether both have the same chain value after as many records as the shorter one holds.
    fn continues(&self, backup: &Verified, heads: &[Option<(u64, ChainHash)>]) -> bool {
        let end = (backup.manifest.size, backup.manifest.chain);
        let in_backup = |size| {
            let store = RocksStore::open_read_only(&options::database_dir(&backup.dir)).ok()?;
            read::chain_at(&(Arc::new(store) as Arc<dyn Store>), &backup.report.origin, size).ok()?
        };
        heads.iter().flatten().all(|(size, chain)| match (&self.database, *size) {
            (_, size) if size == end.0 => *chain == end.1,
            (_, size) if size < end.0 => in_backup(size) == Some(*chain),
            (Some((store, head)), _) if head.size >= end.0 => {
                read::chain_at(store, &backup.report.origin, end.0).ok().flatten() == Some(end.1)
            }
            // Its records can't be read: nothing speaks against it.
            _ => true,
        })
    }
}

/// Counts what the database holds of the range that would be lost.
fn count(store: &Arc<dyn Store>, loss: &mut Loss, mut look: impl FnMut(&StoredEntry)) {
    let mut sources = HashMap::new();
    let size = read::head(store).map_or(0, |head| head.size).min(loss.to);
    for stored in read::Entries::new(store, loss.from..size, Direction::Forward) {
        let entry = stored.and_then(|stored| {
            look(&stored);
            let entry = stored.entry()?;
            Ok((entry.source, entry.receipt_time, u64::from(entry.count)))
        });
        match entry {
            Ok((source, received, records)) => {
                *sources.entry(source).or_default() += records;
                loss.received = Some((loss.received.map_or(received, |(first, _)| first), received));
            }
            Err(error) => {
                loss.remarks.push(format!("the records that would be lost can't all be read: {error}"));
                break;
            }
        }
    }
    loss.sources = sources.into_iter().collect();
    loss.sources.sort_by_key(|(source, records)| (std::cmp::Reverse(*records), *source));
}
