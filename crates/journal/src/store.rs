//! What the journal asks of a database, and RocksDB behind it.
//!
//! The trait is the seam at which tests inject faults; `conformance.rs` holds what every store must keep.

mod forget;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    DEFAULT_COLUMN_FAMILY_NAME, InfoLogger, IteratorMode, LogLevel, WriteBatch, WriteOptions, checkpoint::Checkpoint,
};

use crate::layout::{FORMAT_1, FORMAT_KEY, Table};

/// Which way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the oldest to the newest.
    Forward,
    /// From the newest to the oldest.
    Backward,
}

/// The writes of one frame: all or none of them are kept.
#[derive(Debug, Default)]
pub(crate) struct WriteSet {
    pub(crate) puts: Vec<(Table, Vec<u8>, Vec<u8>)>,
    /// Keys that go; none of them is put too.
    pub(crate) deletes: Vec<(Table, Vec<u8>)>,
}

/// First and last key of a range.
pub(crate) type KeyRange = (Vec<u8>, Vec<u8>);

/// A key and its value.
pub(crate) type Pair = (Box<[u8]>, Box<[u8]>);

/// A store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What kind of failure.
    pub kind: StoreErrorKind,
    /// In the store's words.
    pub message: String,
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// What is stored is damaged.
    Damaged,
    /// The disk is full. The store must be opened anew before it takes writes again.
    NoSpace,
    /// The disk or the machine failed.
    Failed,
    /// Something stands in the way for now; nothing is damaged or lost.
    Busy,
}

/// What the journal asks of a database.
pub(crate) trait Store: Send + Sync + 'static {
    /// Writes all or nothing, and returns once it would survive a loss of power. After an error it is not known which.
    fn commit(&self, writes: WriteSet) -> Result<(), StoreError>;

    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Pairs from `from` (inclusive) on, in the direction, until they exceed `max_bytes` or one can't be read; at least one if
    /// there is one, or the error of the first.
    fn scan(&self, table: Table, from: &[u8], direction: Direction, max_bytes: usize) -> Result<Vec<Pair>, StoreError>;

    /// Returns once no file of the database holds a value that stood under a key of these ranges (first and last key) before the
    /// last commit: neither tables nor log. Gives false if it was told not to go on. Whatever stops it, it may be called again.
    fn forget(&self, table: Table, keys: &[KeyRange], goes_on: &dyn Fn() -> bool) -> Result<bool, StoreError>;

    /// Free bytes of the disk it writes to.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Closes the database and opens it for reading only, as it was left.
    fn reopen_read_only(&self) -> Result<(), StoreError>;

    /// Closes and opens the database again, so that it recovers from a full disk. If it can't be opened for writing, reads
    /// go on where that is possible.
    fn reopen(&self) -> Result<(), StoreError>;

    /// Writes what is in memory out and closes. Later calls fail.
    fn close(&self) -> Result<(), StoreError>;

    /// Makes a database in the new folder `to`, on the same disk, that holds all that was committed before the call, and some
    /// whole commits after it at most. Commits go on meanwhile. Files that never change again are shared by hard links.
    fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
        let message = format!("this store has no files to be copied to {}", to.display());
        Err(StoreError { kind: StoreErrorKind::Failed, message })
    }
}

/// The journal's database.
pub(crate) struct RocksStore {
    path: PathBuf,
    /// `None` while closed. Whoever reads or writes holds the lock for one call, so that reopening waits for them.
    db: RwLock<Option<DB>>,
}

/// Write buffer of the column family of the entries, bytes. Also how much log is replayed at most, roughly.
const TAIL_BUFFER_BYTES: usize = 32 << 20;
const SMALL_BUFFER_BYTES: usize = 8 << 20;
const BLOCK_CACHE_BYTES: usize = 32 << 20;

/// The default silently drops acknowledged records after a flipped byte in the middle of the log. A torn end is what a crash
/// leaves, and is caught by the head file if it was durable.
const LOG_RECOVERY: DBRecoveryMode = DBRecoveryMode::TolerateCorruptedTailRecords;

impl RocksStore {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let db = open_database(path)?;
        Ok(Self { path: path.to_owned(), db: RwLock::new(Some(db)) })
    }

    /// Opens without changing a byte of the database, as it was left.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let db = open_database_read_only(path, LOG_RECOVERY)?;
        Ok(Self { path: path.to_owned(), db: RwLock::new(Some(db)) })
    }

    /// As [`RocksStore::open_read_only`], but of a damaged log what stands before the damage is shown: to say where it is.
    pub(crate) fn open_before_damage(path: &Path) -> Result<Self, StoreError> {
        let db = open_database_read_only(path, DBRecoveryMode::PointInTime)?;
        Ok(Self { path: path.to_owned(), db: RwLock::new(Some(db)) })
    }

    fn lock(&self) -> RwLockReadGuard<'_, Option<DB>> {
        // The guarded value is only ever replaced whole: a panic elsewhere can't have left it half done.
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_database(path: &Path) -> Result<DB, StoreError> {
    let mut options = options();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    Ok(DB::open_cf_descriptors(&options, path, descriptors())?)
}

fn open_database_read_only(path: &Path, log_recovery: DBRecoveryMode) -> Result<DB, StoreError> {
    let mut options = options();
    options.set_wal_recovery_mode(log_recovery);
    options.create_if_missing(false);
    options.create_missing_column_families(false);
    let manifest = manifest(path)?;
    let names = DB::list_cf(&options, path)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    let other = || {
        let expected = Table::ALL.map(Table::name);
        let message = format!("{manifest} lists the column families {names:?} where {expected:?} are expected");
        StoreError { kind: StoreErrorKind::Damaged, message }
    };
    let known = |name: &str| Table::ALL.iter().any(|table| table.name() == name) || name == DEFAULT_COLUMN_FAMILY_NAME;
    if !Table::FORMAT_1.map(Table::name).into_iter().all(has) || !names.iter().all(|name| known(name)) {
        return Err(other());
    }
    let descriptors = descriptors().into_iter().filter(|descriptor| has(descriptor.name()));
    let db = DB::open_cf_descriptors_read_only(&options, path, descriptors, false)?;
    // Only a journal of the first format may have fewer, and some of the others if its upgrade was cut short: a missing one must
    // not be taken for an empty one.
    let complete = Table::ALL.map(Table::name).into_iter().all(has);
    if !complete && db.get_cf(handle(&db, Table::Meta)?, FORMAT_KEY)?.as_deref() != Some(FORMAT_1.as_bytes()) {
        return Err(other());
    }
    if db.iterator(IteratorMode::Start).next().transpose()?.is_some() {
        let message = "the default column family holds keys; the journal writes none there".to_owned();
        return Err(StoreError { kind: StoreErrorKind::Damaged, message });
    }
    Ok(db)
}

/// The manifest that the file `CURRENT` names, which must be there. RocksDB would only say that a file of some name is missing.
fn manifest(path: &Path) -> Result<String, StoreError> {
    let file = path.join("CURRENT");
    let text = fs::read(&file).map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let kind = if missing { StoreErrorKind::Damaged } else { StoreErrorKind::Failed };
        StoreError { kind, message: format!("{}: {error}", file.display()) }
    })?;
    let name = String::from_utf8_lossy(&text);
    let named = name.strip_suffix('\n').filter(|name| name.starts_with("MANIFEST-") && path.join(name).is_file());
    if let Some(name) = named {
        return Ok(name.to_owned());
    }
    let message = format!("{} names {name:?}, which is no manifest that is there", file.display());
    Err(StoreError { kind: StoreErrorKind::Damaged, message })
}

fn options() -> rocksdb::Options {
    let mut options = rocksdb::Options::default();
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(LOG_RECOVERY);
    options.set_max_total_wal_size(128 << 20);
    options.set_recycle_log_file_num(0);
    options.set_track_and_verify_wals_in_manifest(true);
    // The database's own log goes where the program's goes: no file of it lies in a folder that may be evidence, or full.
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, |level, line| match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "rocksdb", "{line}"),
        LogLevel::Warn => tracing::warn!(target: "rocksdb", "{line}"),
        // It also gets what RocksDB calls headers: a thousand lines of settings at every start.
        _ => (),
    }));
    options.set_max_open_files(256);
    options
}

fn descriptors() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let family = |name: &str, buffer: usize, compression| {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        // From version 6 on the footer has a checksum too. No Bloom filters: their blocks would not be read by a walk, and a
        // flipped byte in one would go unnoticed.
        blocks.set_format_version(6);
        let mut options = rocksdb::Options::default();
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_size(buffer);
        options.set_max_write_buffer_number(3);
        options.set_compression_type(compression);
        ColumnFamilyDescriptor::new(name, options)
    };
    let mut families: Vec<_> = Table::ALL
        .into_iter()
        .map(|table| match table {
            // Entries hold compressed blocks already.
            Table::Tail => family(table.name(), TAIL_BUFFER_BYTES, DBCompressionType::None),
            // Hashes don't compress.
            Table::Tree => family(table.name(), SMALL_BUFFER_BYTES, DBCompressionType::None),
            _ => family(table.name(), SMALL_BUFFER_BYTES, DBCompressionType::Lz4),
        })
        .collect();
    families.push(family(DEFAULT_COLUMN_FAMILY_NAME, SMALL_BUFFER_BYTES, DBCompressionType::Lz4));
    families
}

/// The column family of a table, and an error rather than a panic if it is not there.
fn handle(db: &DB, table: Table) -> Result<&ColumnFamily, StoreError> {
    db.cf_handle(table.name()).ok_or_else(|| StoreError {
        kind: StoreErrorKind::Damaged,
        message: format!("column family {} is missing", table.name()),
    })
}

fn opened<'a>(guard: &'a RwLockReadGuard<'_, Option<DB>>) -> Result<&'a DB, StoreError> {
    guard
        .as_ref()
        .ok_or_else(|| StoreError { kind: StoreErrorKind::Busy, message: "the database is closed".to_owned() })
}

impl Store for RocksStore {
    fn commit(&self, writes: WriteSet) -> Result<(), StoreError> {
        let guard = self.lock();
        let db = opened(&guard)?;
        let mut batch = WriteBatch::default();
        for (table, key, value) in &writes.puts {
            batch.put_cf(handle(db, *table)?, key, value);
        }
        for (table, key) in &writes.deletes {
            batch.delete_cf(handle(db, *table)?, key);
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(db.write_opt(batch, &options)?)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let guard = self.lock();
        let db = opened(&guard)?;
        let mut options = rocksdb::ReadOptions::default();
        // Records stay in no cache: what is erased is to be nowhere. Nobody reads one twice anyway.
        options.fill_cache(table != Table::Tail);
        Ok(db.get_cf_opt(handle(db, table)?, key, &options)?)
    }

    fn scan(&self, table: Table, from: &[u8], direction: Direction, max_bytes: usize) -> Result<Vec<Pair>, StoreError> {
        let guard = self.lock();
        let db = opened(&guard)?;
        let direction = match direction {
            Direction::Forward => rocksdb::Direction::Forward,
            Direction::Backward => rocksdb::Direction::Reverse,
        };
        let mut options = rocksdb::ReadOptions::default();
        // A walk of everything must not push out what others use.
        options.fill_cache(false);
        options.set_verify_checksums(true);
        let iterator = db.iterator_cf_opt(handle(db, table)?, options, IteratorMode::From(from, direction));
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        for pair in iterator {
            let (key, value) = match pair {
                Ok(pair) => pair,
                // What stands before the damage is given first, so that who walks can say where it begins; the next scan
                // begins with the error.
                Err(_) if !pairs.is_empty() => break,
                Err(error) => return Err(error.into()),
            };
            bytes += key.len() + value.len();
            pairs.push((key, value));
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(pairs)
    }

    fn forget(&self, table: Table, keys: &[KeyRange], goes_on: &dyn Fn() -> bool) -> Result<bool, StoreError> {
        forget::forget(|| self.lock(), &self.path, table, keys, goes_on)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn reopen_read_only(&self) -> Result<(), StoreError> {
        let mut slot = self.db.write().unwrap_or_else(PoisonError::into_inner);
        *slot = None;
        *slot = Some(open_database_read_only(&self.path, LOG_RECOVERY)?);
        Ok(())
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // Closed before it is opened again: the database locks its folder.
        *slot = None;
        let opened = open_database(&self.path);
        let error = match opened {
            Ok(db) => {
                *slot = Some(db);
                return Ok(());
            }
            Err(error) => error,
        };
        // Opening for writing takes room that is not there: reading takes none, and goes on.
        *slot = open_database_read_only(&self.path, LOG_RECOVERY).ok();
        Err(error)
    }

    fn close(&self) -> Result<(), StoreError> {
        let mut slot = self.db.write().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = slot.take() else { return Ok(()) };
        for table in Table::ALL {
            db.flush_cf(handle(&db, table)?)?;
        }
        db.cancel_all_background_work(true);
        Ok(())
    }

    fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
        let guard = self.lock();
        Ok(Checkpoint::new(opened(&guard)?)?.create_checkpoint(to)?)
    }
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        use rocksdb::ErrorKind::{Corruption, IOError, InvalidArgument, NotFound, NotSupported};
        let message = error.to_string();
        // The binding keeps no sub-code: a full disk and a missing file are told from other failures of the disk by the
        // operating system's own words only.
        let kind = match error.kind() {
            IOError if message.contains("No space left") || message.contains("quota exceeded") => {
                StoreErrorKind::NoSpace
            }
            IOError if message.contains("No such file") => StoreErrorKind::Damaged,
            // Open for reading only, while it is checked after the disk was full.
            NotSupported => StoreErrorKind::Busy,
            Corruption | NotFound | InvalidArgument => StoreErrorKind::Damaged,
            _ => StoreErrorKind::Failed,
        };
        Self { kind, message }
    }
}
